//! The WebSocket door against real processes: who gets in, what they can do, what ends them, and what
//! strangers can't do to it.

use std::sync::Arc;

use creel_tests::{
    bed::{Bed, runtime},
    cluster::PATIENCE,
    door::{Device, Socket, tls},
    processes::{signal, wait_until},
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

#[test]
fn an_operator_pairs_calls_reconnects_and_is_cut_off() {
    let bed = Bed::new();
    bed.cluster
        .creel(&["cron", "add", "briefing", "0 7 * * *", "hello"])
        .ok();
    runtime().block_on(async {
        let mut device = Device::new(1, "operator", &["operator.read", "operator.write"]);
        let mut socket = bed.paired(&mut device).await;
        // What the caller may do, it can; what it may not, is said in the original's words.
        let health = socket.call("health", json!({})).await.unwrap();
        assert_eq!(health["ok"], true, "{health}");
        let jobs = socket
            .call("cron.list", json!({"includeDisabled": true}))
            .await
            .unwrap();
        assert_eq!(jobs["jobs"][0]["name"], "briefing", "{jobs}");
        let error = socket.call("device.pair.list", json!({})).await.unwrap_err();
        assert_eq!(error["details"]["missingScope"], "operator.pairing", "{error}");
        let error = socket.call("config.set", json!({})).await.unwrap_err();
        assert_eq!(error["message"], "unknown method: config.set");
        // A job, both ways.
        let job = json!({
            "name": "note", "schedule": {"kind":"every","everyMs":3_600_000}, "sessionTarget": "main",
            "wakeMode": "now", "payload": {"kind":"systemEvent","text":"x"},
        });
        let added = socket.call("cron.add", job).await.unwrap();
        let id = json!({"id": added["id"]});
        socket
            .call(
                "cron.update",
                json!({"id": added["id"], "patch": {"enabled": false}}),
            )
            .await
            .unwrap();
        assert_eq!(
            socket.call("cron.get", id.clone()).await.unwrap()["enabled"],
            false
        );
        assert_eq!(
            socket.call("cron.remove", id.clone()).await.unwrap()["removed"],
            true
        );
        for method in ["cron.remove", "cron.get", "cron.run", "cron.runs"] {
            let error = socket.call(method, id.clone()).await.unwrap_err();
            assert_eq!(
                error["details"]["code"], "CRON_JOB_NOT_FOUND",
                "{method}: {error}"
            );
            assert_eq!(
                (&error["code"], &error["details"]["jobId"]),
                (&json!("INVALID_REQUEST"), &id["id"])
            );
        }
        // A conversation.
        let send = json!({"sessionKey": "main", "message": "hello door", "idempotencyKey": "k1"});
        let sent = socket.call("chat.send", send.clone()).await.unwrap();
        let answer = loop {
            let event = socket.event("chat").await;
            assert_eq!(event["runId"], sent["runId"]);
            if event["state"] != "delta" {
                break event;
            }
        };
        assert_eq!(answer["state"], "final", "{answer}");
        assert!(
            answer["message"]["content"][0]["text"]
                .as_str()
                .unwrap()
                .contains("hello door")
        );
        let again = socket.call("chat.send", send).await.unwrap();
        assert_eq!(again["runId"], sent["runId"], "the same key is the same message");
        let history = socket
            .call("chat.history", json!({"sessionKey": "main"}))
            .await
            .unwrap();
        assert_eq!(history["messages"][0]["role"], "user", "{history}");
        assert_eq!(history["messages"][0]["content"][0]["text"], "hello door");
        // With its token it comes back; with another's it doesn't.
        let mut second = bed.open().await;
        second.prove(&device).await.unwrap();
        let mut third = bed.open().await;
        third.prove(&device).await.unwrap();
        third.goodbye().await;
        assert_eq!(third.closed().await.code, 1000, "a goodbye is answered");
        let mut thief = device.clone();
        thief.token = Some("x".repeat(43));
        let error = bed.open().await.prove(&thief).await.unwrap_err();
        assert_eq!(error["details"]["code"], "AUTH_DEVICE_TOKEN_MISMATCH", "{error}");
        // Revoked: both connections end, and it never comes back.
        bed.cluster
            .creel(&["devices", "revoke", &device.id(), "--yes"])
            .ok();
        let ends = async { (socket.closed().await, second.closed().await) };
        let (first, second) = tokio::time::timeout(PATIENCE, ends).await.unwrap();
        assert_eq!((first.code, second.code), (1008, 1008), "{first:?} {second:?}");
        let error = bed.open().await.prove(&device).await.unwrap_err();
        assert_eq!(error["code"], "INVALID_REQUEST", "{error}");
        device.token = None;
        assert!(bed.open().await.prove(&device).await.is_err());
    });
}

#[test]
fn devices_are_let_in_and_sent_away_through_the_door_where_the_config_says_so() {
    let bed = Bed::with("[identity]\nlegacy_devices_may_administer = true\n");
    runtime().block_on(async {
        let mut warden = Device::new(
            6,
            "operator",
            &[
                "operator.read",
                "operator.write",
                "operator.admin",
                "operator.pairing",
            ],
        );
        let mut socket = bed.paired(&mut warden).await;
        // One that knocks is news to whoever may let it in.
        let mut node = Device::new(7, "node", &[]);
        node.commands = vec!["system.which"];
        assert!(bed.open().await.prove(&node).await.is_err());
        let news = socket.event("node.pair.requested").await;
        assert_eq!(news["nodeId"], node.id().as_str(), "{news}");
        let listed = socket.call("node.pair.list", json!({})).await.unwrap();
        assert_eq!(
            listed["pending"][0]["commands"],
            json!(["system.which"]),
            "{listed}"
        );
        let id = json!({"requestId": news["requestId"]});
        socket.call("node.pair.approve", id).await.unwrap();
        let news = socket.event("device.pair.resolved").await;
        assert_eq!(
            (&news["deviceId"], &news["decision"]),
            (&json!(node.id()), &json!("approved"))
        );
        let mut link = bed.open().await;
        let hello = link.prove(&node).await.unwrap();
        node.token = hello["auth"]["deviceToken"].as_str().map(str::to_owned);
        // Who is here, and what it can be asked for.
        let present = socket.call("system-presence", json!({})).await.unwrap();
        assert_eq!(present[0]["deviceId"], node.id().as_str(), "{present}");
        let described = socket
            .call("node.describe", json!({"nodeId": node.id()}))
            .await
            .unwrap();
        assert_eq!(described["commands"], json!(["system.which"]), "{described}");
        // A new token ends the old one, and is told to nobody but its device.
        let target = json!({"deviceId": node.id(), "role": "node"});
        let rotated = socket.call("device.token.rotate", target.clone()).await.unwrap();
        assert_eq!(
            (&rotated["role"], &rotated["token"]),
            (&json!("node"), &Value::Null),
            "{rotated}"
        );
        let wrong = socket
            .call(
                "device.token.revoke",
                json!({"deviceId": node.id(), "role": "operator"}),
            )
            .await;
        assert_eq!(wrong.unwrap_err()["message"], "unknown deviceId/role");
        // Ended, it is gone at once.
        let named = json!({"nodeId": node.id(), "displayName": "cellar"});
        let renamed = socket.call("node.rename", named).await.unwrap();
        assert_eq!(renamed["displayName"], "cellar", "{renamed}");
        // By its id alone, whatever else is called so.
        let by_name = json!({"deviceId": "cellar", "role": "node"});
        let error = socket.call("device.token.revoke", by_name).await.unwrap_err();
        assert_eq!(error["message"], "unknown deviceId");
        socket.call("device.token.revoke", target).await.unwrap();
        let closed = tokio::time::timeout(PATIENCE, link.closed()).await.unwrap();
        assert_eq!(closed.code, 1008, "{closed:?}");
        assert!(bed.open().await.prove(&node).await.is_err());
        // Another is sent away.
        let stranger = Device::new(8, "operator", &["operator.read"]);
        assert!(bed.open().await.prove(&stranger).await.is_err());
        let listed = socket.call("device.pair.list", json!({})).await.unwrap();
        let id = json!({"requestId": listed["pending"][0]["requestId"]});
        let rejected = socket.call("device.pair.reject", id).await.unwrap();
        assert_eq!(rejected["deviceId"], stranger.id().as_str(), "{rejected}");
        // Who asks for admin alone, as its command line does, has all that it was granted.
        let mut keeper = Device::new(9, "operator", &["operator.approvals", "operator.admin"]);
        let request = bed.asked(&keeper).await;
        bed.cluster.creel(&["devices", "approve", &request, "--yes"]).ok();
        keeper.scopes = vec!["operator.admin"];
        let hello = bed.open().await.prove(&keeper).await.unwrap();
        assert_eq!(
            hello["auth"]["scopes"].as_array().map(Vec::len),
            Some(5),
            "{hello}"
        );
    });
}

#[test]
fn a_client_of_creels_own_pairs_lets_others_in_and_comes_back_by_its_key() {
    let bed = Bed::new();
    runtime().block_on(async {
        let mut device = Device::new(20, "operator", &["operator.read", "operator.pairing"]).own();
        let mut socket = bed.paired(&mut device).await;
        // Not a legacy device: it may hold what lets others in.
        let node = Device::new(21, "node", &[]);
        let waiting = bed.asked(&node).await;
        socket
            .call("device.pair.approve", json!({ "requestId": waiting }))
            .await
            .unwrap();
        bed.open().await.prove(&node).await.unwrap();
        let mut again = bed.open().await;
        let hello = again.prove(&device).await.unwrap();
        assert_eq!(
            hello["auth"]["scopes"],
            json!(["operator.read", "operator.pairing"]),
            "{hello}"
        );
        // Signed for another connection: what a relay would have.
        let (mut one, other) = (bed.open().await, bed.open().await);
        let challenge = one.challenge().await;
        one.send(&device.connect_over(&challenge, &other.exporter()))
            .await;
        let error = one.next().await.unwrap()["error"].clone();
        assert_eq!(
            error["details"]["code"], "DEVICE_AUTH_SIGNATURE_INVALID",
            "{error}"
        );
        // The original's payload of this key opens nothing any more.
        let mut legacy = device.clone();
        legacy.own = false;
        let error = bed.open().await.prove(&legacy).await.unwrap_err();
        assert!(
            error["message"].as_str().unwrap().contains("own protocol"),
            "{error}"
        );
        bed.cluster
            .creel(&["devices", "revoke", &device.id(), "--yes"])
            .ok();
        let closed = tokio::time::timeout(PATIENCE, socket.closed()).await.unwrap();
        assert_eq!(closed.code, 1008, "{closed:?}");
        assert!(bed.open().await.prove(&device).await.is_err());
    });
}

#[test]
fn a_device_that_leaves_the_originals_protocol_keeps_its_token_for_what_it_was() {
    let bed = Bed::new();
    runtime().block_on(async {
        let mut device = Device::new(22, "operator", &["operator.read", "operator.write"]);
        drop(bed.paired(&mut device).await);
        let rotated = [
            "devices",
            "rotate",
            &device.id(),
            "--scope",
            "operator.read",
            "--json",
        ];
        let rotated = bed.cluster.creel(&rotated).json();
        device.token = rotated["token"].as_str().map(str::to_owned);
        let device = device.own();
        let hello = bed.open().await.prove(&device).await.unwrap();
        assert_eq!(hello["auth"]["scopes"], json!(["operator.read"]), "{hello}");
        let mut keyed = device.clone();
        keyed.token = None;
        let hello = bed.open().await.prove(&keyed).await.unwrap();
        assert_eq!(hello["auth"]["scopes"], json!(["operator.read"]), "{hello}");
        let mut thief = device;
        thief.token = Some("x".repeat(43));
        let error = bed.open().await.prove(&thief).await.unwrap_err();
        assert_eq!(error["details"]["code"], "AUTH_DEVICE_TOKEN_MISMATCH", "{error}");
    });
}

#[test]
fn a_node_answers_what_was_approved_and_nothing_else() {
    let bed = Arc::new(Bed::new());
    runtime().block_on(async {
        let mut node = Device::new(2, "node", &[]);
        node.commands = vec!["system.which", "camera.snap", "system.run"];
        let mut link = bed.paired(&mut node).await;
        let invoke = |command: &'static str, key: &'static str| {
            let (bed, id) = (Arc::clone(&bed), node.id());
            // On a thread of its own: the node has to answer meanwhile.
            let asking = tokio::task::spawn_blocking(move || {
                let params = "{\"bins\":[\"sh\"]}";
                let asked = ["nodes", "invoke", &id, command, "--params", params, "--json"];
                bed.cluster
                    .creel(&[&asked[..], &["--request-id", key, "--timeout", "20s"]].concat())
            });
            async { asking.await.unwrap() }
        };
        // The gates that refuse need no node.
        let refused = invoke("camera.snap", "a").await;
        assert_eq!(refused.status, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains("command_not_allowed"), "{}", refused.stderr);
        let refused = invoke("system.run", "b").await;
        assert!(refused.stderr.contains("command_not_allowed"), "{}", refused.stderr);
        let refused = invoke("system.notify", "c").await;
        assert!(refused.stderr.contains("command_not_declared"), "{}", refused.stderr);
        // One that passes is asked once, and answered.
        let answering = async {
            let request = link.event("node.invoke.request").await;
            assert_eq!(request["command"], "system.which");
            let params: Value = serde_json::from_str(request["paramsJSON"].as_str().unwrap()).unwrap();
            assert_eq!(params, json!({"bins":["sh"]}));
            let result = json!({"id": request["id"], "nodeId": request["nodeId"], "ok": true, "payloadJSON": "{\"bins\":{\"sh\":\"/bin/sh\"}}"});
            let answer = link.call("node.invoke.result", result.clone()).await.unwrap();
            assert_eq!(answer, json!({"ok": true}));
            let late = link.call("node.invoke.result", result).await.unwrap();
            assert_eq!(late["ignored"], true, "late");
        };
        let (answer, ()) = tokio::join!(invoke("system.which", "d"), answering);
        assert_eq!(answer.json()["payload"]["bins"]["sh"], "/bin/sh");
        // The same request id again: the node isn't asked, the answer is the same.
        assert_eq!(invoke("system.which", "d").await.json()["payload"]["bins"]["sh"], "/bin/sh");
        assert!(link.events.iter().all(|event| event["event"] != "node.invoke.request"));
        // A node can do nothing but what nodes do.
        let error = link.call("health", json!({})).await.unwrap_err();
        assert_eq!(error["message"], "unauthorized role: node");
        // It goes by a new name at once.
        bed.cluster.creel(&["devices", "rename", &node.id(), "loft"]).ok();
        wait_until("it has its new name", PATIENCE, || {
            let nodes = bed.cluster.creel(&["nodes", "list", "--json"]).json();
            nodes[0]["connected"] == true && nodes[0]["name"] == "loft"
        });
        // Gone while it is asked, and gone before.
        let leaving = async {
            link.event("node.invoke.request").await;
            drop(link);
        };
        let (gone, ()) = tokio::join!(invoke("system.which", "e"), leaving);
        assert_eq!(gone.status, 5, "{}", gone.stderr);
        wait_until("the node is away", PATIENCE, || {
            let nodes = bed.cluster.creel(&["nodes", "list", "--json"]).json();
            nodes[0]["connected"] == false
        });
        let gone = invoke("system.which", "f").await;
        assert_eq!(gone.status, 5, "{}", gone.stderr);
        assert!(gone.stderr.contains("node_not_connected"), "{}", gone.stderr);
    });
}

#[test]
fn pages_strangers_and_garbage_get_nowhere() {
    let bed = Bed::new();
    runtime().block_on(async {
        for headers in [
            vec![("origin", "https://localhost")],
            vec![("sec-fetch-site", "cross-site")],
            vec![("host", "evil.example")],
        ] {
            let refused = Socket::open_with(&bed.address, &bed.ca, &headers).await;
            assert!(refused.is_err(), "{headers:?}");
        }
        // Not a word of the protocol: no answer, no harm.
        let mut socket = bed.open().await;
        socket.challenge().await;
        socket.send_text("hello".to_owned()).await;
        assert_eq!(socket.closed().await.code, 1008);
        // Longer than a handshake may be.
        let mut socket = bed.open().await;
        socket.challenge().await;
        socket.send_text("x".repeat(64 * 1_024 + 1)).await;
        assert_eq!(socket.closed().await.code, 1009);
        // A proof for another connection's nonce.
        let device = Device::new(3, "operator", &["operator.read"]);
        let (mut one, mut other) = (bed.open().await, bed.open().await);
        let (nonce, _) = (one.challenge().await, other.challenge().await);
        other.send(&device.connect(&nonce)).await;
        let error = other.next().await.unwrap()["error"].clone();
        assert_eq!(error["details"]["code"], "DEVICE_AUTH_NONCE_MISMATCH", "{error}");
        // What is sent ahead of the verdict is not lost when the limits change.
        let mut device = Device::new(4, "operator", &["operator.read", "operator.write"]);
        drop(bed.paired(&mut device).await);
        let mut socket = bed.open().await;
        let challenge = socket.challenge().await;
        socket.send(&device.connect(&challenge)).await;
        socket
            .send(&json!({"type":"req","id":"ahead","method":"health"}))
            .await;
        assert_eq!(socket.next().await.unwrap()["ok"], true);
        assert_eq!(socket.next().await.unwrap()["id"], "ahead");
        // After it, frames may be long; a method that takes none of it says so.
        let long =
            json!({"type":"req","id":"long","method":"cron.add","params":{"name":"x".repeat(2 << 20)}});
        socket.send(&long).await;
        let answer = socket.next().await.unwrap();
        assert_eq!(
            answer["error"]["message"],
            "invalid cron.add params: at most 1 MiB"
        );
    });
}

#[test]
fn a_service_that_stops_says_so() {
    let bed = Bed::new();
    runtime().block_on(async {
        let mut device = Device::new(9, "operator", &["operator.read"]);
        let mut socket = bed.paired(&mut device).await;
        signal(bed.cluster.pid_of("gateway"), rustix::process::Signal::TERM);
        let goodbye = tokio::time::timeout(PATIENCE, socket.event("shutdown"))
            .await
            .unwrap();
        assert_eq!(goodbye["reason"], "service restart");
        assert_eq!(socket.closed().await.code, 1012);
    });
}

#[test]
fn a_handshake_that_says_nothing_is_ended() {
    let bed = Bed::new();
    runtime().block_on(async {
        // Not even HTTP.
        let mut silent = tls(&bed.address, &bed.ca).await.unwrap();
        let mut socket = bed.open().await;
        socket.challenge().await;
        let closed = tokio::time::timeout(PATIENCE, socket.closed()).await.unwrap();
        assert_eq!((closed.code, closed.reason.as_str()), (1008, "handshake timeout"));
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a connection without a word");
    });
}
