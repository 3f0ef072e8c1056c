//! `creel cron show`: one job, in words.

use creel_proto::scheduler::v1::GetJobRequest;

use crate::{
    context::Context,
    failure::Failure,
    stubs, times,
    times::Local,
    views::{
        job::{AlertStatusView, JobView},
        spec::{PayloadView, PolicyView},
    },
};

pub(super) async fn run(context: &mut Context, name: String) -> Result<(), Failure> {
    let client = context.client().await?;
    let request = GetJobRequest { job: name };
    let job = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).get(request).await
        })
        .await?;
    let view = JobView::from(&job);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let local = context.local();
    for (name, value) in facts(&view, &local) {
        context.out.line(&format!("{name:<12}{value}"))?;
    }
    Ok(())
}

fn facts(job: &JobView, local: &Local) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            facts.push((name, value));
        }
    };
    let spec = job.spec.as_ref();
    add("name", spec.map(|spec| spec.name.clone()));
    add("id", Some(job.id.clone()));
    add("description", spec.and_then(|spec| spec.description.clone()));
    add("schedule", Some(job.when(local)));
    let reason = job
        .phase_reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    add("phase", Some(format!("{}{reason}", job.phase)));
    add(
        "next",
        job.state
            .next_run_at_ms
            .map(|ms| format!("{} ({})", local.show(ms), local.distance(ms))),
    );
    add(
        "last",
        job.state.last_run_at_ms.map(|ms| {
            let status = job.state.last_status.as_deref().unwrap_or("running");
            let took = job
                .state
                .last_duration_ms
                .map_or_else(String::new, |ms| format!(" in {}", times::took(ms)));
            format!("{} ({}): {status}{took}", local.show(ms), local.distance(ms))
        }),
    );
    add("last error", job.state.last_error.clone());
    add(
        "failures",
        (job.consecutive_failures > 0).then(|| format!("{} in a row", job.consecutive_failures)),
    );
    add(
        "backing off",
        job.backoff_until_ms
            .filter(|until| *until > local.now.as_millisecond())
            .map(|until| format!("no scheduled run before {}", local.show_seconds(until))),
    );
    add(
        "probe",
        job.probe_at_ms
            .map(|at| format!("one run is tried {} ({})", local.show(at), local.distance(at))),
    );
    add("alert", job.alert.as_ref().map(|alert| alert_fact(alert, local)));
    add(
        "backfill",
        job.backfill.as_ref().map(|fill| {
            let (from, until) = (local.show_opt(fill.from_ms), local.show_opt(fill.until_ms));
            format!("{} of {} started, {from} to {until}", fill.admitted, fill.total)
        }),
    );
    add("slow after", job.slow_after_ms.map(times::took));
    add("does", spec.and_then(|spec| spec.payload.as_ref()).map(does));
    add("target", spec.and_then(|spec| spec.target.clone()));
    add(
        "rules",
        spec.map(|spec| rules(&spec.policy))
            .filter(|rules| !rules.is_empty()),
    );
    add(
        "once",
        spec.filter(|spec| spec.delete_after_run)
            .map(|_| "deleted after its first success".to_owned()),
    );
    add(
        "made by",
        job.created_by
            .clone()
            .filter(|by| job.context.is_some() || !by.starts_with("operator/")),
    );
    add("context", job.context.clone());
    add("owner", Some(format!("{} ({})", job.owner, job.scopes.join(" "))));
    add("etag", Some(job.etag.clone()));
    facts
}

/// The rules that were set, in words.
fn rules(policy: &PolicyView) -> String {
    let mut rules = Vec::new();
    if let Some(catch_up) = &policy.catch_up {
        let what = match (catch_up.mode.as_str(), catch_up.max) {
            ("skip", _) => "skipped".to_owned(),
            ("all", Some(max)) => format!("each run, at most {max}"),
            ("all", None) => "each run".to_owned(),
            _ => "run once".to_owned(),
        };
        let within = catch_up
            .window_ms
            .map_or_else(String::new, |ms| format!(" within {}", times::period(ms)));
        rules.push(format!("missed: {what}{within}"));
    }
    if let Some(overlap) = &policy.overlap {
        let max = overlap.max.map_or_else(String::new, |max| format!(" {max}"));
        rules.push(format!("overlap: {}{max}", overlap.mode));
    }
    let periods = [
        ("jitter", policy.jitter_ms),
        ("timeout", policy.timeout_ms),
        ("slow after", policy.expected_ms),
        ("runs kept for", policy.keep_for_ms),
    ];
    rules.extend(
        periods
            .into_iter()
            .filter_map(|(name, ms)| Some(format!("{name} {}", times::period(ms?)))),
    );
    if let Some(retry) = &policy.retry {
        let backoff = retry.backoff_ms.map_or_else(String::new, |ms| {
            format!(", first after up to {}", times::period(ms))
        });
        rules.push(format!("{} attempts{backoff}", retry.attempts));
    }
    if let Some(on_stuck) = &policy.on_stuck {
        rules.push(format!("when its worker is lost: {on_stuck}"));
    }
    let counts = [
        ("quarantined after", policy.quarantine_after, "failures"),
        ("keeps", policy.keep_runs, "runs"),
    ];
    rules.extend(
        counts
            .into_iter()
            .filter_map(|(name, count, what)| Some(format!("{name} {} {what}", count?))),
    );
    match &policy.alert {
        Some(alert) if alert.off => rules.push("no alerts".to_owned()),
        Some(alert) => {
            let after = alert
                .after
                .map_or_else(String::new, |after| format!(" after {after} failures"));
            let to = alert
                .session
                .as_ref()
                .map_or_else(String::new, |session| format!(" to {session}"));
            let every = alert
                .cool_down_ms
                .map_or_else(String::new, |ms| format!(", {} apart", times::period(ms)));
            rules.push(format!("alert{after}{to}{every}"));
        }
        None => {}
    }
    rules.join(" · ")
}

fn alert_fact(alert: &AlertStatusView, local: &Local) -> String {
    let error = alert
        .error
        .as_ref()
        .map_or_else(String::new, |error| format!(": {error}"));
    let at = local.show_opt(alert.last_at_ms);
    format!("{} ({}), {}{error}", at, alert.reason, alert.state)
}

fn does(payload: &PayloadView) -> String {
    match payload {
        PayloadView::SystemEvent { text } => format!("event: {text}"),
        PayloadView::AgentTurn { message, backend, .. } => {
            let backend = backend
                .as_ref()
                .map_or_else(String::new, |backend| format!(" (backend {backend})"));
            format!("turn{backend}: {message}")
        }
        PayloadView::Command { argv, text, .. } => {
            format!("command: {}", text.clone().unwrap_or_else(|| argv.join(" ")))
        }
        PayloadView::Audit {} => "audit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::{scheduler::v1::Job, time};

    use super::*;
    use crate::{times::tests::berlin, views::job::tests::job};

    #[test]
    fn rules_are_told_in_words() {
        let policy: PolicyView = serde_json::from_value(serde_json::json!({
            "catchUp": { "mode": "all", "max": 7, "windowMs": 3_600_000 }, "overlap": { "mode": "allow", "max": 3 },
            "jitterMs": 10_000, "timeoutMs": 300_000, "retry": { "attempts": 3, "backoffMs": 5_000 },
            "onStuck": "retry", "quarantineAfter": 4, "alert": { "after": 2, "coolDownMs": 600_000, "session": "main" },
        }))
        .unwrap();
        assert_eq!(
            rules(&policy),
            "missed: each run, at most 7 within 1 h · overlap: allow 3 · jitter 10 s · timeout 5 min · 3 attempts, \
             first after up to 5 s · when its worker is lost: retry · quarantined after 4 failures · alert after 2 \
             failures to main, 10 min apart"
        );
        let off: PolicyView = serde_json::from_str(r#"{"alert":{"off":true}}"#).unwrap();
        assert_eq!(
            (rules(&off), rules(&PolicyView::default())),
            ("no alerts".into(), String::new())
        );
    }

    #[test]
    fn a_one_shot_is_told_by_the_clock_of_this_machine() {
        let once = Job {
            spec: Some(creel_proto::scheduler::v1::JobSpec {
                schedule: Some(creel_proto::scheduler::v1::Schedule {
                    kind: Some(creel_proto::scheduler::v1::schedule::Kind::At(
                        creel_proto::scheduler::v1::At {
                            when: Some(creel_proto::scheduler::v1::at::When::Time(time::timestamp(
                                1_795_341_600_000,
                            ))),
                        },
                    )),
                }),
                ..Default::default()
            }),
            schedule_text: "once 2026-11-22T10:00:00Z".into(),
            ..job()
        };
        assert_eq!(
            JobView::from(&once).when(&berlin()),
            "once, Sun 22 Nov 11:00:00 CET"
        );
        assert_eq!(JobView::from(&job()).when(&berlin()), "every minute");
    }

    #[test]
    fn a_job_is_a_list_of_facts() {
        let view = JobView::from(&job());
        let facts = facts(&view, &berlin());
        let get = |name: &str| {
            facts
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(get("does").as_deref(), Some("event: tick"));
        assert_eq!(
            get("last").as_deref(),
            Some("Tue 27 Jan 06:00 CET (299d ago): succeeded in 45.0s")
        );
        assert_eq!((get("rules"), get("last error"), get("once")), (None, None, None));
    }
}
