//! Who may let a node offer what: one rule, whichever way the approver comes.

use creel_proto::identity::v1::{ApproveRequest, device_service_client::DeviceServiceClient};
use creel_tests::{
    bed::{Bed, runtime},
    door::Device,
    edge,
};
use creel_wire::Error;
use serde_json::json;

#[test]
fn what_runs_programs_is_let_in_by_administrators_alone_and_the_rest_by_those_who_may_write() {
    let bed = Bed::with("[identity]\nlegacy_devices_may_administer = true\n");
    runtime().block_on(async {
        let mut node = Device::new(30, "node", &[]);
        node.commands = vec!["canvas.present", "system.run"];
        let pairing = bed.asked(&node).await;
        // By gRPC.
        for (name, scopes, missing, command) in [
            ("porter", &["pairing"][..], "operator.write", "canvas.present"),
            ("writer", &["pairing", "write"], "operator.admin", "system.run"),
        ] {
            let dir = bed.certify(name, scopes);
            let mut devices = DeviceServiceClient::new(edge::channel(&bed.address, &dir));
            let request = ApproveRequest {
                request_id: name.to_owned(),
                pairing: pairing.clone(),
                ..ApproveRequest::default()
            };
            let error = Error::of_status(&devices.approve(request).await.unwrap_err());
            assert_eq!(error.reason, "scope_not_held", "{error}");
            assert!(
                error.message.contains(missing) && error.message.contains(command),
                "{error}"
            );
        }
        // By the command line.
        let invite = [
            "devices",
            "invite",
            "--name",
            "clerk",
            "--scope",
            "operator.pairing",
            "--scope",
            "operator.write",
            "--scope",
            "operator.read",
            "--json",
        ];
        let code = bed.cluster.creel(&invite).json()["code"]
            .as_str()
            .unwrap()
            .to_owned();
        let home = bed.cluster.home().parent().unwrap().join("clerk");
        std::fs::create_dir(&home).unwrap();
        let clerk = |arguments: &[&str]| {
            let mut command = bed.cluster.command("creel");
            bed.cluster.run(command.env("CREEL_HOME", &home).args(arguments))
        };
        clerk(&["join", &code, "--json"]).ok();
        let refused = clerk(&["devices", "approve", &pairing, "--yes"]);
        assert_eq!(refused.status, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains("operator.admin"), "{}", refused.stderr);
        // By WebSocket.
        let mut warden = Device::new(31, "operator", &["operator.pairing", "operator.write"]);
        let mut socket = bed.paired(&mut warden).await;
        let id = json!({ "requestId": pairing });
        for method in ["node.pair.approve", "device.pair.approve"] {
            let error = socket.call(method, id.clone()).await.unwrap_err();
            assert_eq!(error["code"], "FORBIDDEN", "{error}");
            assert_eq!(error["details"]["reason"], "scope_not_held", "{error}");
        }
        // Nothing was granted by any of them; a part can be by who holds enough for it.
        assert!(bed.open().await.prove(&node).await.is_err(), "still a stranger");
        clerk(&[
            "devices",
            "approve",
            &pairing,
            "--command",
            "canvas.present",
            "--yes",
        ])
        .ok();
        let mut link = bed.open().await;
        link.prove(&node).await.unwrap();
        let shown = bed.cluster.creel(&["nodes", "list", "--json"]).json();
        assert_eq!(shown[0]["commands"], json!(["canvas.present"]), "{shown}");
        // What it declares beyond that waits for somebody who holds more; the old surface stays meanwhile.
        let waiting = bed.waiting().await;
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        bed.approve(&waiting[0].pairing_id).await;
        let mut link = bed.open().await;
        link.prove(&node).await.unwrap();
        // Approved, and yet asked of no node: what starts programs goes through the approvals of `exec`.
        let run = ["nodes", "invoke", &node.id(), "system.run", "--params", "{}"];
        let refused = bed.cluster.creel(&run);
        assert_eq!(refused.status, 4, "{}", refused.stderr);
        assert!(
            refused.stderr.contains("offered on no node"),
            "{}",
            refused.stderr
        );
        assert!(link.events.is_empty(), "the node was not asked");
    });
}
