//! `cron.*`: the scheduler's jobs and runs in the original's JSON.

mod filter;
mod patch;
mod shape;
mod spec;

use std::sync::Arc;

use creel_proto::scheduler::v1::{
    CreateJobRequest, DeleteJobRequest, GetJobRequest, GetRunRequest, Job, JobSpec, ListJobsRequest,
    ListRunsRequest, Run, TriggerJobRequest, UpdateJobRequest, job_service_client::JobServiceClient,
    run_service_client::RunServiceClient,
};
use creel_wire::{Code, Error};
use serde::Deserialize;
use serde_json::{Value, json};

use self::{
    filter::{List, Runs},
    patch::Patch,
    shape::{job_json, run_json},
    spec::{Add, spec_of},
};
use super::{Page, limit, request_id};
use crate::{
    backend::AsCaller,
    ws::{failure::Failure, frame::Request, session::Session},
};

/// Jobs or runs on one page: the original's clients take no longer ones.
const MAX_PAGE: usize = 200;
/// Jobs looked at for one answer: five pages.
const MAX_JOBS: usize = 2_500;
/// Runs looked at for one answer: as many as the original keeps of a job.
const MAX_RUNS: usize = 2_000;

/// `id`, or `jobId` as older clients say.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ById {
    id: Option<String>,
    job_id: Option<String>,
}

impl ById {
    fn job(self, request: &Request) -> Result<String, Failure> {
        self.id
            .or(self.job_id)
            .ok_or_else(|| request.invalid("missing id"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    #[serde(flatten)]
    by: ById,
    patch: Patch,
    expected_config_revision: Option<String>,
}

#[derive(Deserialize)]
struct Trigger {
    #[serde(flatten)]
    by: ById,
    mode: Option<String>,
}

/// What can be asked about jobs.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    List(List),
    Status,
    Get(String),
    Add(Box<JobSpec>),
    Update {
        job: String,
        patch: Box<Patch>,
        if_match: Option<String>,
    },
    Remove(String),
    Run {
        job: String,
        when: When,
    },
    Runs {
        job: Option<String>,
        runs: Runs,
    },
}

/// When a job is run by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    IfEnabled,
    Due,
}

pub(super) fn read(request: &Request) -> Result<Asked, Failure> {
    let by_id = || request.params::<ById>()?.job(request);
    match request.method.as_str() {
        "cron.list" => request.params().map(Asked::List),
        "cron.status" => Ok(Asked::Status),
        "cron.get" => by_id().map(Asked::Get),
        "cron.add" => Ok(Asked::Add(Box::new(spec_of(request.params::<Add>()?)?))),
        "cron.update" => {
            let update: Update = request.params()?;
            if update.patch.is_empty() {
                return Err(request.invalid("nothing in the patch can be changed here"));
            }
            update.patch.check()?;
            Ok(Asked::Update {
                job: update.by.job(request)?,
                patch: Box::new(update.patch),
                if_match: update.expected_config_revision,
            })
        }
        "cron.remove" => by_id().map(Asked::Remove),
        "cron.run" => {
            let trigger: Trigger = request.params()?;
            let when = match trigger.mode.as_deref() {
                Some("due") => When::Due,
                Some("if-enabled") => When::IfEnabled,
                _ => When::Now,
            };
            let job = trigger.by.job(request)?;
            Ok(Asked::Run { job, when })
        }
        "cron.runs" => {
            let by: ById = request.params()?;
            let runs: Runs = request.params()?;
            let job = by.id.or(by.job_id);
            if job.is_none() && runs.is_of_a_job() {
                return Err(request.invalid("missing id"));
            }
            let job = job.filter(|_| !runs.is_of_all());
            Ok(Asked::Runs { job, runs })
        }
        other => Err(Failure::unknown_method(other)),
    }
}

pub(super) async fn run(session: &Arc<Session>, asked: Asked) -> Result<Value, Failure> {
    let services = session.services().await?;
    let mut jobs = JobServiceClient::new(services.clone());
    match asked {
        Asked::List(asked) => list(&mut jobs, &asked).await,
        Asked::Status => status(&mut jobs).await,
        Asked::Get(job) => Ok(job_json(&get(&mut jobs, &job).await?)),
        Asked::Add(spec) => add(&mut jobs, *spec).await,
        Asked::Update { job, patch, if_match } => update(&mut jobs, job, *patch, if_match).await,
        Asked::Remove(job) => remove(&mut jobs, job).await,
        Asked::Run { job, when } => trigger(&mut jobs, job, when).await,
        Asked::Runs { job, runs } => {
            let mut service = RunServiceClient::new(services);
            history(&mut jobs, &mut service, job, &runs).await
        }
    }
}

type Jobs = JobServiceClient<AsCaller>;

async fn all(jobs: &mut Jobs) -> Result<Vec<Job>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = ListJobsRequest {
            page_size: 500,
            page_token,
            ..ListJobsRequest::default()
        };
        let page = jobs.list(list).await?.into_inner();
        found.extend(page.jobs);
        if page.next_page_token.is_empty() || found.len() >= MAX_JOBS {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

async fn list(jobs: &mut Jobs, asked: &List) -> Result<Value, Failure> {
    let mut jobs = all(jobs).await?;
    jobs.retain(|job| asked.takes(job));
    asked.sort(&mut jobs);
    let page = Page::of(jobs.len(), asked.offset, limit(asked.limit, MAX_PAGE, MAX_PAGE));
    let shown: Vec<Value> = jobs
        .iter()
        .skip(page.offset)
        .take(page.limit)
        .map(job_json)
        .collect();
    let count = shown.len();
    let mut answer = json!({ "jobs": shown, "snapshotRevision": shape::revision(&jobs) });
    page.tell(&mut answer, count);
    Ok(answer)
}

async fn status(jobs: &mut Jobs) -> Result<Value, Failure> {
    let jobs = all(jobs).await?;
    let next = jobs
        .iter()
        .filter_map(|job| job.next_run_at.as_ref().map(creel_proto::time::unix_ms))
        .min();
    Ok(json!({ "enabled": true, "jobs": jobs.len(), "nextWakeAtMs": next }))
}

async fn get(jobs: &mut Jobs, job: &str) -> Result<Job, Failure> {
    let get = GetJobRequest { job: job.to_owned() };
    Ok(jobs
        .get(get)
        .await
        .map_err(|status| failed(&status, job))?
        .into_inner())
}

async fn add(jobs: &mut Jobs, spec: JobSpec) -> Result<Value, Failure> {
    let create = CreateJobRequest {
        request_id: request_id(),
        spec: Some(spec),
        ..CreateJobRequest::default()
    };
    let created = jobs.create(create).await?.into_inner();
    Ok(job_json(&created.job.unwrap_or_default()))
}

async fn update(
    jobs: &mut Jobs,
    job: String,
    patch: Patch,
    if_match: Option<String>,
) -> Result<Value, Failure> {
    let mut if_match = if_match.unwrap_or_default();
    let (spec, paths) = if patch.needs_job() {
        let before = get(jobs, &job).await?;
        let changes = patch.changes(before.spec.as_ref())?;
        if if_match.is_empty() {
            // What is kept of the payload is that of the job that was read.
            if_match = before.etag;
        }
        changes
    } else {
        patch.changes(None)?
    };
    let update = UpdateJobRequest {
        request_id: request_id(),
        job: job.clone(),
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask { paths }),
        if_match,
        ..UpdateJobRequest::default()
    };
    let changed = jobs
        .update(update)
        .await
        .map_err(|status| failed(&status, &job))?;
    Ok(job_json(&changed.into_inner()))
}

async fn remove(jobs: &mut Jobs, job: String) -> Result<Value, Failure> {
    let delete = DeleteJobRequest {
        request_id: request_id(),
        job: job.clone(),
        ..DeleteJobRequest::default()
    };
    jobs.delete(delete)
        .await
        .map_err(|status| failed(&status, &job))?;
    Ok(json!({ "ok": true, "removed": true }))
}

/// A due job is the scheduler's own business here: it never forgets one, so there is never one left to be run.
async fn trigger(jobs: &mut Jobs, job: String, when: When) -> Result<Value, Failure> {
    if when != When::Now {
        let found = get(jobs, &job).await?;
        let reason = match when {
            When::IfEnabled if shape::is_enabled(&found) => None,
            When::IfEnabled => Some("disabled"),
            When::Due | When::Now => Some("not-due"),
        };
        if let Some(reason) = reason {
            return Ok(json!({ "ok": true, "ran": false, "reason": reason }));
        }
    }
    let trigger = TriggerJobRequest {
        request_id: request_id(),
        job: job.clone(),
        ..TriggerJobRequest::default()
    };
    let run = jobs
        .trigger(trigger)
        .await
        .map_err(|status| failed(&status, &job))?;
    Ok(json!({ "ok": true, "enqueued": true, "runId": run.into_inner().run_id }))
}

async fn history(
    jobs: &mut Jobs,
    service: &mut RunServiceClient<AsCaller>,
    job: Option<String>,
    asked: &Runs,
) -> Result<Value, Failure> {
    let found = match &asked.run_id {
        Some(run) => one(service, run).await?,
        None => runs(service, job.as_deref()).await?,
    };
    if let (Some(job), true) = (&job, found.is_empty()) {
        // Nothing ran yet, or there is no such job.
        get(jobs, job).await?;
    }
    let entries = found
        .iter()
        .filter(|run| job.as_ref().is_none_or(|job| is_of(run, job)));
    let mut entries: Vec<Value> = entries
        .filter_map(run_json)
        .filter(|entry| asked.takes(entry))
        .collect();
    if asked.is_oldest_first() {
        entries.reverse();
    }
    let page = Page::of(entries.len(), asked.offset, limit(asked.limit, 50, MAX_PAGE));
    let shown: Vec<Value> = entries.into_iter().skip(page.offset).take(page.limit).collect();
    let count = shown.len();
    let mut answer = json!({ "entries": shown });
    page.tell(&mut answer, count);
    Ok(answer)
}

fn is_of(run: &Run, job: &str) -> bool {
    run.job_id == job || run.job_name == job
}

/// The last runs, newest first.
async fn runs(service: &mut RunServiceClient<AsCaller>, job: Option<&str>) -> Result<Vec<Run>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = ListRunsRequest {
            job: job.unwrap_or_default().to_owned(),
            page_size: 500,
            page_token,
            ..ListRunsRequest::default()
        };
        let page = service
            .list(list)
            .await
            .map_err(|status| failed(&status, job.unwrap_or_default()))?;
        let page = page.into_inner();
        found.extend(page.runs);
        if page.next_page_token.is_empty() || found.len() >= MAX_RUNS {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

/// The run of an id; none if there is no such run.
async fn one(service: &mut RunServiceClient<AsCaller>, run: &str) -> Result<Vec<Run>, Failure> {
    let get = GetRunRequest {
        run_id: run.to_owned(),
    };
    match service.get(get).await {
        Ok(run) => Ok(vec![run.into_inner()]),
        Err(status)
            if matches!(
                Error::of_status(&status).code,
                Code::NotFound | Code::InvalidArgument
            ) =>
        {
            Ok(Vec::new())
        }
        Err(status) => Err(status.into()),
    }
}

/// The original's clients know a missing job by these words and this code.
fn failed(status: &tonic::Status, job: &str) -> Failure {
    let error = Error::of_status(status);
    if error.code != Code::NotFound {
        return error.into();
    }
    let why = format!("cron job not found: {job}. List the jobs, and try again with the id of one.");
    Failure::invalid(why)
        .details(json!({ "code": "CRON_JOB_NOT_FOUND", "jobId": job, "reason": error.reason }))
}
