//! Jobs as they change.

use creel_proto::scheduler::v1::{Job, JobChange, JobSpec, WatchJobsRequest};
use creel_wire::{Caller, Error};
use futures_util::{StreamExt as _, future::ready, stream::BoxStream};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::{Api, person, runs::lagged, shown, tail::until_error};
use crate::engine::JobNews;

impl Api {
    pub(super) fn watch_jobs(
        &self,
        caller: &Caller,
        message: WatchJobsRequest,
    ) -> Result<BoxStream<'static, Result<JobChange, Status>>, Error> {
        let (owner, prefix) = (person(caller)?.to_owned(), message.name_prefix);
        let wanted = move |news: &JobNews| *news.owner == *owner && news.name.starts_with(&prefix);
        let news = BroadcastStream::new(self.engine.watch_jobs()).filter_map(move |news| {
            ready(match news {
                Ok(news) => wanted(&news).then_some(Ok(news)),
                Err(BroadcastStreamRecvError::Lagged(lost)) => Some(Err(Status::from(lagged(lost)))),
            })
        });
        let api = self.clone();
        let changes = news.filter_map(move |news| {
            let api = api.clone();
            async move {
                match news {
                    Ok(news) => api.change_of(news).await.map_err(Status::from).transpose(),
                    Err(status) => Some(Err(status)),
                }
            }
        });
        let ended = self.drain.clone().cancelled_owned();
        Ok(until_error(changes).take_until(ended).boxed())
    }

    /// A job that changed, as it is now; `None` if it is gone by now, which is told by itself.
    async fn change_of(&self, news: JobNews) -> Result<Option<JobChange>, Error> {
        if news.deleted {
            let spec = JobSpec {
                name: news.name.to_string(),
                ..JobSpec::default()
            };
            let job = Job {
                job_id: news.id.to_string(),
                owner: news.owner.to_string(),
                spec: Some(spec),
                ..Job::default()
            };
            return Ok(Some(JobChange {
                job: Some(job),
                deleted: true,
            }));
        }
        let (owner, id) = (news.owner.to_string(), news.id.to_string());
        let view = self
            .engine
            .ask(move |ledger, now| ledger.find(&owner, &id, now))
            .await?;
        let Some(view) = view else { return Ok(None) };
        let record = self.store_record(&view).await?;
        Ok(Some(JobChange {
            job: Some(shown(record.as_ref(), &view)),
            deleted: false,
        }))
    }
}
