//! `creel logs`: the services' logs, from the gateway, or from their files when it is down.

use creel_proto::gateway::v1::{LogLine, TailLogsRequest};
use creel_wire::{Code, ServiceName};
use tonic::Streaming;

use crate::{
    args::Logs,
    client::Client,
    context::Context,
    failure::Failure,
    logfiles::{self, Line},
    stubs,
};

pub(super) async fn run(context: &mut Context, args: &Logs) -> Result<(), Failure> {
    let service = args.service.as_deref().map(known).transpose()?;
    match open(context, args).await {
        Ok((client, stream)) => copy(context, &client, stream).await,
        // Logs are wanted most when nothing else answers.
        Err(failure) if failure.code() == Some(Code::Unavailable) && context.global.endpoint.is_none() => {
            let lines = logfiles::tail(&context.profile()?, service, args.lines as usize)?;
            if lines.is_empty() {
                return Err(failure);
            }
            lines.iter().try_for_each(|line| show(context, line))?;
            if args.follow {
                return Err(failure);
            }
            context
                .out
                .note("(the stack does not answer: read from its files)");
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn known(text: &str) -> Result<ServiceName, Failure> {
    text.parse::<ServiceName>().map_err(|error| {
        let all: Vec<_> = ServiceName::ALL.iter().map(|name| name.as_str()).collect();
        Failure::usage_hint(error.to_string(), format!("one of {}", all.join(", ")))
    })
}

async fn open(context: &mut Context, args: &Logs) -> Result<(Client, Streaming<LogLine>), Failure> {
    let client = context.client().await?;
    let request = TailLogsRequest {
        service: args.service.clone().unwrap_or_default(),
        lines: i32::try_from(args.lines).unwrap_or(i32::MAX),
        follow: args.follow,
    };
    let stream = client
        .call(&request, |channel, request| async move {
            stubs::logs(channel).tail(request).await
        })
        .await?;
    Ok((client, stream))
}

async fn copy(context: &mut Context, client: &Client, mut stream: Streaming<LogLine>) -> Result<(), Failure> {
    loop {
        match stream.message().await {
            Ok(Some(LogLine { service, json })) => show(context, &Line { service, json })?,
            Ok(None) => return Ok(()),
            Err(status) => return Err(client.judge(&status)),
        }
    }
}

fn show(context: &mut Context, line: &Line) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json_line(&logfiles::object(line));
    }
    let local = context.local();
    context.out.line(&logfiles::text(line, &local))
}
