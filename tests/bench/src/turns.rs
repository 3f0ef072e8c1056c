//! Turns of the built-in backend: how soon the first event comes, and a hundred at once.

use std::time::Instant;

use creel_proto::{
    agent::v1::{TurnEvent, turn_event::Event},
    gateway::v1::{
        SendMessageRequest, SubscribeMessageRequest, message_service_client::MessageServiceClient,
    },
};
use futures_util::future::join_all;
use tonic::transport::Channel;

use crate::{Row, percentile, stack::Stack};

const TURNS: usize = 200;

pub(crate) async fn measure(stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let channel = stack.script()?;
    let mut first = Vec::new();
    for n in 0..TURNS {
        if let Some(ms) = first_event(channel.clone(), format!("s{}", n % 8)).await? {
            first.push(ms);
        }
    }
    let started = Instant::now();
    let all = join_all((0..100).map(|n| whole(channel.clone(), format!("many-{n}")))).await;
    let wall = started.elapsed().as_secs_f64();
    let failed = all.iter().filter(|one| !matches!(one, Ok(true))).count();
    Ok(vec![
        Row::new(
            "echo turn: durable accept → first event of its worker",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms",
                percentile(&mut first, 50.0),
                percentile(&mut first, 99.0)
            ),
            "goal p99 ≤ 10 ms",
        ),
        Row::new(
            "100 turns at once, to the last answer",
            format!("{wall:.2} s, {failed} failed"),
            "goal: none fails",
        ),
    ])
}

/// Milliseconds from the acknowledgement to the first event after `accepted`.
async fn first_event(channel: Channel, session: String) -> anyhow::Result<Option<f64>> {
    let mut client = MessageServiceClient::new(channel);
    let request = SendMessageRequest {
        session,
        text: "hello".into(),
        ..Default::default()
    };
    let message_id = client.send(request).await?.into_inner().message_id;
    let acknowledged = Instant::now();
    let mut events = client
        .subscribe(SubscribeMessageRequest {
            message_id,
            from_sequence: 1,
        })
        .await?
        .into_inner();
    while let Some(TurnEvent {
        event: Some(event), ..
    }) = events.message().await?
    {
        if !matches!(event, Event::Accepted(_)) {
            return Ok(Some(acknowledged.elapsed().as_secs_f64() * 1e3));
        }
    }
    Ok(None)
}

async fn whole(channel: Channel, session: String) -> anyhow::Result<bool> {
    let mut client = MessageServiceClient::new(channel);
    let request = SendMessageRequest {
        session,
        text: "hello".into(),
        ..Default::default()
    };
    let message_id = client.send(request).await?.into_inner().message_id;
    let mut events = client
        .subscribe(SubscribeMessageRequest {
            message_id,
            from_sequence: 1,
        })
        .await?
        .into_inner();
    while let Some(event) = events.message().await? {
        if let Some(Event::Final(_)) = event.event {
            return Ok(true);
        }
    }
    Ok(false)
}
