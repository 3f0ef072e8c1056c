//! `JobService`.

use creel_kit::{idempotency::Begin, page};
use creel_proto::scheduler::v1::{
    BackfillJobRequest, BackfillJobResponse, CreateJobRequest, CreateJobResponse, DeleteJobRequest,
    DeleteJobResponse, ExplainJobRequest, ExplainJobResponse, GetJobRequest, Job, JobChange, ListJobsRequest,
    ListJobsResponse, PauseJobRequest, Phase, PreviewRequest, PreviewResponse, ResumeJobRequest, Run,
    TriggerJobRequest, UpdateJobRequest, WatchJobsRequest, job_service_server::JobService,
};
use creel_store::Txn;
use creel_wire::{Caller, Error, authz};
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{Api, person, shown, target};
use crate::{
    job::DISABLED,
    ledger::{Ledger, Query, Target},
    run::{self, Now},
    store,
};

/// Longest reason of a pause, in bytes.
const MAX_REASON_BYTES: usize = 256;

#[tonic::async_trait]
impl JobService for Api {
    type WatchStream = BoxStream<'static, Result<JobChange, Status>>;

    async fn create(
        &self,
        request: Request<CreateJobRequest>,
    ) -> Result<Response<CreateJobResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.create_job(&caller, message).await?))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        let (caller, message) = authz::split(request)?;
        let view = self.find(&caller, &message.job).await?;
        let record = store::job(&self.store, view.id)
            .await
            .map_err(creel_kit::failure::store_error)?;
        Ok(Response::new(shown(record.as_ref(), &view)))
    }

    async fn list(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        let (owner, size) = (
            person(&caller)?.to_owned(),
            page::size("page_size", message.page_size, page::DEFAULT)?,
        );
        let query = Query::new(message)?;
        let page = move |ledger: &mut Ledger, now| ledger.page(&owner, &query, size, now);
        let page = self.engine.ask(page).await?;
        let mut jobs = Vec::with_capacity(page.jobs.len());
        for view in &page.jobs {
            let record = store::job(&self.store, view.id)
                .await
                .map_err(creel_kit::failure::store_error)?;
            jobs.push(shown(record.as_ref(), view));
        }
        let next_page_token = page.next.unwrap_or_default();
        Ok(Response::new(ListJobsResponse {
            jobs,
            next_page_token,
        }))
    }

    async fn update(&self, request: Request<UpdateJobRequest>) -> Result<Response<Job>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.update_job(&caller, message).await?))
    }

    async fn delete(
        &self,
        request: Request<DeleteJobRequest>,
    ) -> Result<Response<DeleteJobResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.delete_job(&caller, message).await?))
    }

    async fn pause(&self, request: Request<PauseJobRequest>) -> Result<Response<Job>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.pause_job(&caller, message).await?))
    }

    async fn resume(&self, request: Request<ResumeJobRequest>) -> Result<Response<Job>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.resume_job(&caller, message).await?))
    }

    async fn trigger(&self, request: Request<TriggerJobRequest>) -> Result<Response<Run>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.trigger_job(&caller, message).await?))
    }

    async fn preview(&self, request: Request<PreviewRequest>) -> Result<Response<PreviewResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.preview_times(&caller, message).await?))
    }

    async fn explain(
        &self,
        request: Request<ExplainJobRequest>,
    ) -> Result<Response<ExplainJobResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.explain_job(&caller, message).await?))
    }

    async fn backfill(
        &self,
        request: Request<BackfillJobRequest>,
    ) -> Result<Response<BackfillJobResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.backfill_job(&caller, message).await?))
    }

    async fn watch(&self, request: Request<WatchJobsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.watch_jobs(&caller, message)?))
    }
}

impl Api {
    async fn delete_job(
        &self,
        caller: &Caller,
        message: DeleteJobRequest,
    ) -> Result<DeleteJobResponse, Error> {
        let _turn = self.busy.enter(caller, "Delete", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Delete", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let view = self.find(caller, &message.job).await?;
        let target = target(caller, &view, &message.if_match)?;
        let response = DeleteJobResponse {
            job_id: view.id.to_string(),
        };
        if message.validate_only {
            self.engine.ask(move |ledger, _| ledger.check(&target)).await??;
            return Ok(response);
        }
        self.engine
            .change(move |ledger, now| {
                ledger.delete(&target, now)?;
                let mut answer = Txn::new();
                slot.record(&mut answer, &response);
                ledger.attach(target.job, answer);
                Ok(response)
            })
            .await
    }

    async fn pause_job(&self, caller: &Caller, message: PauseJobRequest) -> Result<Job, Error> {
        if message.reason.len() > MAX_REASON_BYTES {
            return Err(Error::invalid(
                "reason",
                format!("at most {MAX_REASON_BYTES} bytes"),
            ));
        }
        let reason = if message.reason.is_empty() {
            "by its owner".to_owned()
        } else {
            message.reason.clone()
        };
        let _turn = self.busy.enter(caller, "Pause", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Pause", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let pause = move |ledger: &mut Ledger, target: &Target, now| ledger.pause(target, &reason, now);
        self.change_job(
            caller,
            &message.job,
            &message.if_match,
            message.validate_only,
            slot,
            pause,
        )
        .await
    }

    async fn resume_job(&self, caller: &Caller, message: ResumeJobRequest) -> Result<Job, Error> {
        let _turn = self.busy.enter(caller, "Resume", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Resume", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let view = self.find(caller, &message.job).await?;
        let mut enabled = None;
        if view.phase == Phase::Paused && view.reason == DISABLED {
            let mut record = self.record(&view).await?;
            if let Some(spec) = &mut record.spec {
                spec.disabled = false;
            }
            record.updated_at_unix_ms = self.clock.now_ms();
            enabled = Some(record);
        }
        // What was read must still be so: someone may have changed the rest of it.
        let if_match = match &enabled {
            Some(_) if message.if_match.is_empty() => view.state.version.to_string(),
            _ => message.if_match.clone(),
        };
        let resume = move |ledger: &mut Ledger, target: &Target, now| ledger.resume(target, enabled, now);
        self.change_job(
            caller,
            &message.job,
            &if_match,
            message.validate_only,
            slot,
            resume,
        )
        .await
    }

    /// A change of a job's state; answers the job.
    async fn change_job(
        &self,
        caller: &Caller,
        job: &str,
        if_match: &str,
        validate_only: bool,
        slot: creel_kit::idempotency::Slot,
        change: impl FnOnce(&mut Ledger, &Target, Now) -> Result<(), Error> + Send + 'static,
    ) -> Result<Job, Error> {
        let view = self.find(caller, job).await?;
        let target = target(caller, &view, if_match)?;
        let record = self.record(&view).await?;
        if validate_only {
            self.engine.ask(move |ledger, _| ledger.check(&target)).await??;
            return Ok(shown(Some(&record), &view));
        }
        let owner = person(caller)?.to_owned();
        self.engine
            .change(move |ledger, now| {
                change(ledger, &target, now)?;
                let view = ledger.find(&owner, &target.job.to_string(), now);
                let view = view.ok_or_else(|| Error::internal("reading the changed job"))?;
                let mut job = shown(Some(&record), &view);
                if let Some(spec) = job.spec.as_mut().filter(|_| view.reason != DISABLED) {
                    spec.disabled = spec.disabled && view.state.pause.is_some();
                }
                let mut answer = Txn::new();
                slot.record(&mut answer, &job);
                ledger.attach(target.job, answer);
                Ok(job)
            })
            .await
    }

    async fn trigger_job(&self, caller: &Caller, message: TriggerJobRequest) -> Result<Run, Error> {
        let _turn = self.busy.enter(caller, "Trigger", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Trigger", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let view = self.find(caller, &message.job).await?;
        let target = target(caller, &view, "")?;
        if message.validate_only {
            self.engine
                .ask(move |ledger, _| ledger.may_trigger(&target))
                .await??;
            return Ok(Run {
                job_id: view.id.to_string(),
                job_name: view.name.to_string(),
                ..Run::default()
            });
        }
        self.engine
            .change(move |ledger, now| {
                let run = run::shown(&ledger.trigger(&target, &message.request_id, now)?);
                let mut answer = Txn::new();
                slot.record(&mut answer, &run);
                ledger.attach(target.job, answer);
                Ok(run)
            })
            .await
    }
}
