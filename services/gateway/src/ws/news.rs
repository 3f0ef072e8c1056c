//! Pairings as identity decides them, told to operators who may decide them, too; and what connected nodes are
//! called by now.

use std::time::Duration;

use creel_proto::identity::v1::{
    DeviceEvent, DeviceEventKind, PairingRequest, Role, WatchDevicesRequest,
    device_service_client::DeviceServiceClient,
};
use creel_wire::Scope;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::{
    Parts,
    calls::devices::{node_pending_json, pending_json},
    machine::{Audience, Event},
};

/// Between two tries of a watch that ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows identity's watch until the drain, over every loss of it.
pub(super) async fn follow(parts: &Parts, mut devices: DeviceServiceClient<Channel>) {
    loop {
        let watching = async {
            let Ok(events) = devices.watch(WatchDevicesRequest {}).await else {
                return;
            };
            let mut events = events.into_inner();
            // What waited before is in the lists; only what is new is news.
            let mut ready = false;
            while let Ok(Some(event)) = events.message().await {
                ready |= event.kind() == DeviceEventKind::Ready;
                if let Some(device) = &event.device
                    && let Ok(id) = device.device_id.parse()
                {
                    parts.nodes.rename(&id, &device.name);
                }
                if ready {
                    news(&event, parts.clock.now_ms())
                        .into_iter()
                        .for_each(|event| parts.hub.publish(event));
                }
            }
        };
        tokio::select! {
            () = parts.drain.cancelled() => return,
            () = watching => {}
        }
        tokio::select! {
            () = parts.drain.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn news(event: &DeviceEvent, now_unix_ms: i64) -> Vec<Event> {
    let Some(request) = &event.request else {
        return Vec::new();
    };
    let is_node = request
        .declared
        .as_ref()
        .is_some_and(|declared| declared.role() == Role::Node);
    let decision = match event.kind() {
        DeviceEventKind::Requested => {
            let mut events = vec![to_pairers("device.pair.requested", pending_json(request))];
            if is_node {
                events.push(to_pairers("node.pair.requested", node_pending_json(request)));
            }
            return events;
        }
        DeviceEventKind::Approved => "approved",
        DeviceEventKind::Rejected => "rejected",
        DeviceEventKind::Expired => "expired",
        DeviceEventKind::Ready | DeviceEventKind::Changed | DeviceEventKind::Unspecified => {
            return Vec::new();
        }
    };
    let resolved = |id: &str, request: &PairingRequest| json!({ "requestId": request.pairing_id, id: request.device_id, "decision": decision, "ts": now_unix_ms });
    let mut events = vec![to_pairers("device.pair.resolved", resolved("deviceId", request))];
    if is_node {
        events.push(to_pairers("node.pair.resolved", resolved("nodeId", request)));
    }
    events
}

fn to_pairers(name: &'static str, payload: Value) -> Event {
    Event {
        name,
        payload,
        audience: Audience::Operators(Scope::Pairing),
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::Declaration;

    use super::*;

    #[test]
    fn pairings_are_told_to_those_who_may_decide_them_and_nodes_twice() {
        let event = |kind: DeviceEventKind, role: Role| DeviceEvent {
            kind: kind.into(),
            request: Some(PairingRequest {
                pairing_id: "p".to_owned(),
                device_id: "d".to_owned(),
                declared: Some(Declaration {
                    role: role.into(),
                    ..Declaration::default()
                }),
                ..PairingRequest::default()
            }),
            ..DeviceEvent::default()
        };
        let names = |kind, role| -> Vec<_> {
            let events = news(&event(kind, role), 7);
            assert!(
                events
                    .iter()
                    .all(|event| event.audience == Audience::Operators(Scope::Pairing))
            );
            events.into_iter().map(|event| event.name).collect()
        };
        assert_eq!(
            names(DeviceEventKind::Requested, Role::Operator),
            ["device.pair.requested"]
        );
        assert_eq!(
            names(DeviceEventKind::Approved, Role::Node),
            ["device.pair.resolved", "node.pair.resolved"]
        );
        assert!(names(DeviceEventKind::Changed, Role::Node).is_empty());
        let resolved = &news(&event(DeviceEventKind::Rejected, Role::Node), 7)[1].payload;
        assert_eq!(
            *resolved,
            json!({"requestId":"p","nodeId":"d","decision":"rejected","ts":7})
        );
    }
}
