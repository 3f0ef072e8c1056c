//! `creel health`: one line, and an exit status for scripts.

use creel_proto::gateway::v1::Status;
use serde_json::json;

use crate::{context::Context, failure::Failure, views::status::ServiceView};

/// Exit status of a stack that is not ready.
const EXIT_NOT_READY: u8 = 5;

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    match super::status::ask(context).await {
        Ok((_, status)) => {
            let services: Vec<_> = status.services.iter().map(ServiceView::from).collect();
            let line = line(&status, &services);
            if context.out.is_json() {
                context
                    .out
                    .json(&json!({ "ready": status.ready, "message": line, "services": services }))?;
            } else {
                context.out.line(&line)?;
            }
            if status.ready {
                Ok(())
            } else {
                Err(Failure::Exit(EXIT_NOT_READY))
            }
        }
        // Not there is an answer, too; being refused is not.
        Err(Failure::Told(told)) if told.exit == EXIT_NOT_READY => {
            let line = format!("not ready: {}", told.error.message);
            if context.out.is_json() {
                context
                    .out
                    .json(&json!({ "ready": false, "message": line, "services": [] }))?;
            } else {
                context.out.line(&line)?;
            }
            Err(Failure::Exit(EXIT_NOT_READY))
        }
        Err(failure) => Err(failure),
    }
}

fn line(status: &Status, services: &[ServiceView]) -> String {
    let not: Vec<_> = services
        .iter()
        .filter(|one| !one.is_ready())
        .map(|one| format!("{} {}", one.name, one.state))
        .collect();
    match (status.ready, not.is_empty()) {
        (true, _) => format!("ready: {} services", services.len()),
        (false, false) => format!("not ready: {}", not.join(", ")),
        (false, true) => "not ready: the gateway does not know all services yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::gateway::v1::ServiceStatus;

    use super::*;

    #[test]
    fn whoever_is_not_ready_is_named() {
        let of = |name: &str, state: &str| ServiceStatus {
            name: name.into(),
            state: state.into(),
            ..Default::default()
        };
        let status = |ready, services: Vec<ServiceStatus>| Status {
            ready,
            services,
            ..Status::default()
        };
        let say = |status: &Status| {
            line(
                status,
                &status.services.iter().map(ServiceView::from).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            say(&status(true, vec![of("gateway", "ready")])),
            "ready: 1 services"
        );
        let some = status(false, vec![of("gateway", "ready"), of("scheduler", "failed")]);
        assert_eq!(say(&some), "not ready: scheduler failed");
    }
}
