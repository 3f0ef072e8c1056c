//! The last runs, then those that come.

use creel_kit::page;
use creel_proto::scheduler::v1::{ListRunsRequest, Run, RunState, TailRunsRequest};
use creel_wire::{Caller, Error};
use futures_util::{
    StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::{Api, person, runs::lagged};
use crate::run::shown;

const DEFAULT_LAST: usize = 10;

impl Api {
    pub(super) async fn tail_runs(
        &self,
        caller: &Caller,
        message: TailRunsRequest,
    ) -> Result<BoxStream<'static, Result<Run, Status>>, Error> {
        let last = page::size("last", message.last, DEFAULT_LAST)?;
        // Before the list is read: what changes meanwhile is told twice and never left out.
        let changes = BroadcastStream::new(self.engine.watch());
        let (mut before, mut page_token) = (Vec::new(), String::new());
        while before.len() < last {
            let request = ListRunsRequest {
                job: message.job.clone(),
                state: message.state,
                page_size: i32::try_from(last - before.len()).unwrap_or(i32::MAX),
                page_token,
            };
            let page = self.list_runs(caller, request).await?;
            before.extend(page.runs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let owner = person(caller)?.to_owned();
        let job = match message.job.as_str() {
            "" => None,
            job => Some(self.job_of_runs(caller, job).await?.to_string()),
        };
        let state = Some(message.state()).filter(|state| *state != RunState::Unspecified);
        let changes = changes.filter_map(move |change| {
            ready(match change {
                Ok(record) => {
                    let wanted = record.owner == owner
                        && job.as_ref().is_none_or(|job| *job == record.job_id)
                        && state.is_none_or(|state| record.state == i32::from(state));
                    wanted.then(|| Ok(shown(&record)))
                }
                Err(BroadcastStreamRecvError::Lagged(lost)) => Some(Err(lagged(lost).into())),
            })
        });
        let before = stream::iter(before.into_iter().rev().map(Ok));
        let ended = self.drain.clone().cancelled_owned();
        Ok(before.chain(until_error(changes)).take_until(ended).boxed())
    }
}

/// A stream that ends with its first error, and tells it.
pub(super) fn until_error<T: Send + 'static>(
    changes: impl futures_util::Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl futures_util::Stream<Item = Result<T, Status>> + Send + 'static {
    changes.scan(false, |over, change| {
        let go_on = !*over;
        *over = change.is_err();
        ready(go_on.then_some(change))
    })
}
