//! Checks that ask the stack.

use creel_proto::{gateway::v1::Status, time};
use creel_wire::Code;

use super::{super::status, Check};
use crate::{context::Context, failure::Failure, times::Local, views::status::ServiceView};

const DAY_MS: i64 = 86_400_000;

/// A certificate that ends sooner than this was not renewed in time.
const SOON_MS: i64 = 14 * DAY_MS;

/// Clocks that differ by more make fresh certificates and assertions look false.
const MAX_SKEW_MS: i64 = 60_000;

const RUNNING: (&str, &str) = ("stack", "nothing answers while it is down");
const SERVICES: (&str, &str) = ("services", "what is not ready does not do its part");
const CLI: (&str, &str) = ("this machine's certificate", "without it every call is refused");
const EDGE: (&str, &str) = ("edge certificate", "when it ends no client connects any more");
const SANDBOX: (&str, &str) = ("sandbox", "a wall that can't be raised refuses the run");
const SKEW: (&str, &str) = ("clock skew", "a certificate from the future is not valid yet");

pub(super) async fn checks(context: &mut Context) -> Vec<Check> {
    let local = context.local();
    match status::ask(context).await {
        Ok((client, answer)) => {
            let mut checks = vec![Check::ok(
                RUNNING.0,
                RUNNING.1,
                format!("{} answers", client.endpoint),
            )];
            checks.push(certificate(
                CLI,
                client.device.until_ms,
                "creel devices recover",
                &local,
            ));
            checks.extend(judge(&answer, &local));
            checks
        }
        Err(failure) => {
            let mut checks = vec![not_there(&failure)];
            for (name, why) in [CLI, SERVICES, EDGE, SANDBOX, SKEW] {
                checks.push(Check::skipped(name, why, "the stack could not be asked"));
            }
            checks
        }
    }
}

fn not_there(failure: &Failure) -> Check {
    let (message, hint) = failure.error().map_or_else(
        || ("it does not answer".to_owned(), None),
        |error| (error.message.clone(), error.hint.clone()),
    );
    let why = match failure.code() {
        Some(Code::Unauthenticated | Code::PermissionDenied) => CLI.1,
        _ => RUNNING.1,
    };
    Check::failed(
        RUNNING.0,
        why,
        message,
        hint.unwrap_or_else(|| "creel status".to_owned()),
    )
}

fn judge(answer: &Status, local: &Local) -> Vec<Check> {
    let edge_until = answer
        .edge_certificate_expires_at
        .as_ref()
        .map_or(0, time::unix_ms);
    vec![
        services(answer),
        certificate(EDGE, edge_until, "creel logs gateway", local),
        sandbox(answer),
        skew(answer, local),
    ]
}

fn services(answer: &Status) -> Check {
    let services: Vec<ServiceView> = answer.services.iter().map(ServiceView::from).collect();
    let not: Vec<&ServiceView> = services.iter().filter(|one| !one.is_ready()).collect();
    match not.first() {
        None if answer.ready => Check::ok(SERVICES.0, SERVICES.1, format!("{} ready", services.len())),
        None => Check::warning(
            SERVICES.0,
            SERVICES.1,
            "the gateway does not know all of them yet",
            "creel status",
        ),
        Some(first) => {
            let names: Vec<String> = not
                .iter()
                .map(|one| format!("{} is {}", one.name, one.state))
                .collect();
            Check::failed(
                SERVICES.0,
                SERVICES.1,
                names.join(", "),
                format!("creel logs {}", first.name),
            )
        }
    }
}

fn certificate((name, why): (&'static str, &'static str), until_ms: i64, next: &str, local: &Local) -> Check {
    let now_ms = local.now.as_millisecond();
    let what = format!("until {} ({})", local.show(until_ms), local.distance(until_ms));
    match until_ms - now_ms {
        ..=0 => Check::failed(name, why, what, next),
        1..SOON_MS => Check::warning(name, why, what, next),
        _ => Check::ok(name, why, what),
    }
}

fn sandbox(answer: &Status) -> Check {
    let next = "creel config get exec.floor, and a kernel with Landlock and user namespaces";
    match answer.sandbox.as_str() {
        "full" => Check::ok(SANDBOX.0, SANDBOX.1, "full"),
        "" => Check::skipped(SANDBOX.0, SANDBOX.1, "the gateway does not know"),
        "none" => Check::failed(
            SANDBOX.0,
            SANDBOX.1,
            "none: turns can't be held, so none runs",
            next,
        ),
        other => Check::warning(SANDBOX.0, SANDBOX.1, other, next),
    }
}

fn skew(answer: &Status, local: &Local) -> Check {
    let theirs = answer.now.as_ref().map_or(0, time::unix_ms);
    let skew = theirs.saturating_sub(local.now.as_millisecond());
    let what = format!(
        "{} between this machine and the stack",
        crate::times::took(skew.saturating_abs())
    );
    if skew.saturating_abs() > MAX_SKEW_MS {
        Check::failed(SKEW.0, SKEW.1, what, "timedatectl set-ntp true")
    } else {
        Check::ok(SKEW.0, SKEW.1, what)
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::gateway::v1::ServiceStatus;

    use super::{super::Verdict, *};
    use crate::times::tests::berlin;

    fn verdicts(status: &Status) -> Vec<Verdict> {
        judge(status, &berlin())
            .iter()
            .map(|check| check.status)
            .collect()
    }

    #[test]
    fn a_sound_stack_passes_and_each_fault_is_found() {
        let now_ms = berlin().now.as_millisecond();
        let service = |state: &str| ServiceStatus {
            name: "scheduler".into(),
            state: state.into(),
            ..Default::default()
        };
        let sound = Status {
            ready: true,
            services: vec![service("ready")],
            sandbox: "full".into(),
            now: Some(time::timestamp(now_ms + 5)),
            edge_certificate_expires_at: Some(time::timestamp(now_ms + 700 * DAY_MS)),
            ..Status::default()
        };
        assert_eq!(verdicts(&sound), [Verdict::Ok; 4]);
        let broken = Status {
            ready: false,
            services: vec![service("failed")],
            sandbox: "none".into(),
            now: Some(time::timestamp(now_ms - 120_000)),
            edge_certificate_expires_at: Some(time::timestamp(now_ms - 1)),
            ..Status::default()
        };
        assert_eq!(verdicts(&broken), [Verdict::Failed; 4]);
        assert!(judge(&broken, &berlin()).iter().all(|check| check.next.is_some()));
        let soon = certificate(CLI, now_ms + DAY_MS, "x", &berlin());
        assert_eq!((soon.status, soon.next.as_deref()), (Verdict::Warning, Some("x")));
    }

    #[test]
    fn a_stack_that_is_down_fails_with_the_way_to_start_it() {
        let dir = tempfile::tempdir().unwrap();
        let profile = creel_kit::Profile::at("default", dir.path()).unwrap();
        let check = not_there(&crate::reach::not_running(&profile));
        assert_eq!(check.status, Verdict::Failed);
        assert!(check.next.unwrap().contains("make up"));
    }
}
