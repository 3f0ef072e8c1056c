//! `creel status`: what runs, how it is, and what to do about it.

use creel_kit::profile::StatusFile;
use creel_proto::gateway::v1::{GetStatusRequest, Status};
use creel_wire::Code;

use crate::{
    client::Client,
    context::Context,
    failure::Failure,
    reach, stubs, times,
    times::Local,
    views::status::{CliView, ServiceView, StatusView},
};

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    match ask(context).await {
        Ok((client, status)) => {
            let view = StatusView::of(&status, cli(&client), context.clock.now_ms());
            if context.out.is_json() {
                context.out.json(&view)
            } else {
                show(context, &view)
            }
        }
        Err(failure) => {
            // The edge is down: what the supervisor knows of its children is all the more wanted.
            let unreachable = failure.code() == Some(Code::Unavailable) && context.global.endpoint.is_none();
            if unreachable && let Some(known) = reach::supervisor(&context.profile()?) {
                show_children(context, &known)?;
            }
            Err(failure)
        }
    }
}

/// The status, and the client that got it.
pub(super) async fn ask(context: &mut Context) -> Result<(Client, Status), Failure> {
    let client = context.client().await?;
    let status = of(&client).await?;
    Ok((client, status))
}

/// The status, by a client that is there.
pub(super) async fn of(client: &Client) -> Result<Status, Failure> {
    client
        .call(&GetStatusRequest {}, |channel, request| async move {
            stubs::status(channel).get(request).await
        })
        .await
}

/// This machine's device.
pub(super) fn cli(client: &Client) -> CliView {
    CliView {
        device_id: client.device_id(),
        certificate_expires_at: times::rfc3339(client.device.until_ms),
        certificate_expires_at_ms: client.device.until_ms,
    }
}

fn show(context: &mut Context, view: &StatusView) -> Result<(), Failure> {
    let local = context.local();
    let ready = if view.ready { "ready" } else { "not ready" };
    context.out.line(&format!(
        "creel {} · profile {} · {ready}",
        view.version, view.profile
    ))?;
    let rows: Vec<Vec<String>> = view.services.iter().map(|service| row(service, &local)).collect();
    context
        .out
        .table(&["SERVICE", "STATE", "SINCE", "RESTARTS", "MEMORY", "PID"], &rows)?;
    context.out.line("")?;
    let until = view
        .edge
        .certificate_expires_at_ms
        .map_or_else(|| "-".to_owned(), |ms| local.show(ms));
    let facts = [
        (
            "edge",
            format!(
                "{} · {} connection{}",
                view.edge.address,
                view.connections,
                if view.connections == 1 { "" } else { "s" }
            ),
        ),
        (
            "certificate",
            format!("sha256 {} · until {until}", view.edge.certificate_sha256),
        ),
        ("names", view.edge.names.join(" ")),
        (
            "metrics",
            view.metrics_address
                .as_ref()
                .map_or_else(|| "-".to_owned(), |at| format!("http://{at}/metrics")),
        ),
        ("walls", walls(&view.walls)),
        (
            "this machine",
            format!(
                "certificate until {}",
                local.show(view.cli.certificate_expires_at_ms)
            ),
        ),
    ];
    let sandbox = view
        .sandbox
        .iter()
        .map(|sandbox| ("sandbox", format!("{sandbox}, for turns")));
    for (name, value) in facts.into_iter().chain(sandbox) {
        context.out.line(&format!("{name:<13}{value}"))?;
    }
    for action in &view.actions {
        context
            .out
            .line(&format!("! {}\n    next: {}", action.what, action.next))?;
    }
    Ok(())
}

/// Without an edge.
fn show_children(context: &mut Context, known: &StatusFile) -> Result<(), Failure> {
    if context.out.is_json() {
        return Ok(()); // the error is the answer
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = known
        .services
        .iter()
        .map(|child| {
            let (since, pid) = (local.distance(child.since_unix_ms), child.pid.to_string());
            vec![
                child.name.clone(),
                child.state.clone(),
                since,
                child.restarts.to_string(),
                pid,
                child.detail.clone(),
            ]
        })
        .collect();
    context
        .out
        .table(&["SERVICE", "STATE", "SINCE", "RESTARTS", "PID", "DETAIL"], &rows)
}

fn row(service: &ServiceView, local: &Local) -> Vec<String> {
    let or_dash = |there: bool, text: String| if there { text } else { "-".to_owned() };
    vec![
        service.name.clone(),
        service.state.clone(),
        service
            .since_ms
            .map_or_else(|| "-".to_owned(), |ms| local.distance(ms)),
        service.restarts.to_string(),
        or_dash(service.memory_bytes > 0, mib(service.memory_bytes)),
        or_dash(service.pid > 0, service.pid.to_string()),
    ]
}

/// `12.3 MiB`.
fn mib(bytes: u64) -> String {
    let tenths = bytes / (1 << 20) * 10 + bytes % (1 << 20) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn walls(walls: &str) -> String {
    match walls {
        "users" => "users: one uid per service".to_owned(),
        "locked" => "locked: one uid, each service holds itself to its own files and sockets".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!(
            (mib(0), mib(1 << 20), mib((3 << 20) + (1 << 19))),
            ("0.0 MiB".into(), "1.0 MiB".into(), "3.5 MiB".into())
        );
    }
}
