//! What `cron.update` changes of a job. Pure.

use creel_proto::scheduler::v1::{JobSpec, payload::Kind as PayloadKind};
use serde::Deserialize;

use super::spec::{self, DeliveryIn, PayloadIn, ScheduleIn};
use crate::ws::failure::Failure;

/// `patch` of `cron.update`.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Patch {
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    delete_after_run: Option<bool>,
    schedule: Option<ScheduleIn>,
    payload: Option<PayloadIn>,
    session_target: Option<String>,
    delivery: Option<DeliveryIn>,
}

impl Patch {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it whatever the job is.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if let Some(schedule) = &self.schedule {
            spec::schedule_of(schedule.clone())?;
        }
        match (&self.session_target, &self.payload) {
            (Some(target), Some(payload)) => spec::check_target(target, payload.target()),
            _ => Ok(()),
        }
    }

    /// Whether its changes depend on how the job is now.
    pub(super) const fn needs_job(&self) -> bool {
        self.payload.is_some() || self.session_target.is_some()
    }

    /// The fields it changes, and their names.
    pub(super) fn changes(self, before: Option<&JobSpec>) -> Result<(JobSpec, Vec<String>), Failure> {
        let payload = before.and_then(|spec| spec.payload.as_ref());
        let payload = payload.and_then(|payload| payload.kind.as_ref());
        if let (Some(target), None) = (&self.session_target, &self.payload) {
            let of_payload = match payload {
                Some(PayloadKind::SystemEvent(_)) => "main",
                _ => "isolated",
            };
            spec::check_target(target, of_payload)?;
        }
        let mut spec = JobSpec::default();
        let mut paths = Vec::new();
        let mut changes = |path: &str| paths.push(path.to_owned());
        if let Some(name) = self.name {
            spec.name = name;
            changes("name");
        }
        if let Some(description) = self.description {
            spec.description = description;
            changes("description");
        }
        if let Some(enabled) = self.enabled {
            spec.disabled = !enabled;
            changes("disabled");
        }
        if let Some(delete) = self.delete_after_run {
            spec.delete_after_run = delete;
            changes("delete_after_run");
        }
        if let Some(schedule) = self.schedule {
            spec.schedule = Some(spec::schedule_of(schedule)?);
            changes("schedule");
        }
        if let Some(silent) = self.delivery.and_then(|delivery| delivery.is_silent()) {
            spec.delivery = spec::delivery(silent);
            changes("delivery");
        }
        if let Some(wanted) = self.payload {
            spec.payload = Some(spec::payload_of(wanted, payload)?);
            changes("payload");
        }
        Ok((spec, paths))
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        scheduler::v1::{AgentTurnPayload, Payload},
        time::duration,
    };
    use serde_json::{Value, json};

    use super::*;

    fn turn(message: &str, seconds: i64) -> PayloadKind {
        PayloadKind::AgentTurn(AgentTurnPayload {
            message: message.to_owned(),
            backend: "mine".to_owned(),
            timeout: Some(duration(seconds * 1_000)),
        })
    }

    fn changed(patch: Value) -> Result<(JobSpec, Vec<String>), String> {
        let patch: Patch = serde_json::from_value(patch).map_err(|error| error.to_string())?;
        let before = JobSpec {
            payload: Some(Payload {
                kind: Some(turn("old", 60)),
            }),
            ..JobSpec::default()
        };
        patch
            .check()
            .and_then(|()| patch.changes(Some(&before)))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn a_patch_names_what_it_changes_and_nothing_else() {
        let (spec, paths) = changed(json!({"enabled": false, "name": "x", "agentId": null})).unwrap();
        assert_eq!(paths, ["name", "disabled"]);
        assert!(spec.disabled && spec.name == "x");
        let (spec, paths) = changed(json!({"delivery": {"mode": "none"}})).unwrap();
        assert!(paths == ["delivery"] && spec.delivery.is_some());
        let (spec, _) = changed(json!({"delivery": {"mode": "announce"}})).unwrap();
        assert_eq!(spec.delivery, None, "as by itself");
        assert!(serde_json::from_value::<Patch>(json!({})).unwrap().is_empty());
    }

    #[test]
    fn what_a_patch_leaves_open_of_a_payload_stays() {
        let payload =
            |patch: Value| changed(json!({ "payload": patch })).map(|(spec, _)| spec.payload.unwrap().kind);
        assert_eq!(
            payload(json!({"kind":"agentTurn","message":"new"})).unwrap(),
            Some(turn("new", 60))
        );
        assert_eq!(
            payload(json!({"kind":"agentTurn","timeoutSeconds":5})).unwrap(),
            Some(turn("old", 5))
        );
        assert_eq!(
            payload(json!({"kind":"systemEvent"})).unwrap_err(),
            "cron payload.kind=\"systemEvent\" requires text",
            "nothing of a turn becomes an event"
        );
    }

    #[test]
    fn a_target_that_does_not_go_with_the_payload_is_refused() {
        let wrong = "main cron jobs require payload.kind=\"systemEvent\"";
        assert_eq!(changed(json!({"sessionTarget": "main"})).unwrap_err(), wrong);
        assert_eq!(
            changed(json!({"sessionTarget": "isolated", "name": "x"}))
                .unwrap()
                .1,
            ["name"]
        );
        let both = json!({"sessionTarget": "main", "payload": {"kind":"agentTurn","message":"x"}});
        assert_eq!(changed(both).unwrap_err(), wrong);
    }
}
