//! `cron.*`: the scheduler's jobs and runs in the original's JSON.

mod shape;

use std::sync::Arc;

use creel_proto::scheduler::v1::{
    CreateJobRequest, DeleteJobRequest, GetJobRequest, Job, ListJobsRequest, ListRunsRequest,
    TriggerJobRequest, UpdateJobRequest, job_service_client::JobServiceClient,
    run_service_client::RunServiceClient,
};
use creel_wire::{Code, Error};
use serde::Deserialize;
use serde_json::{Value, json};

use self::shape::{Add, Patch, job_json, run_json, spec_of};
use super::{as_tree, request_id};
use crate::{
    backend::AsCaller,
    ws::{failure::Failure, frame::Request, session::Session},
};

/// Jobs on one page: the original's clients take no longer ones.
const MAX_PAGE: usize = 200;
/// Jobs looked at for one answer: five pages.
const MAX_JOBS: usize = 2_500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    #[serde(default)]
    include_disabled: bool,
    limit: Option<usize>,
    offset: Option<usize>,
}

/// `id`, or `jobId` as older clients say.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ById {
    id: Option<String>,
    job_id: Option<String>,
}

impl ById {
    fn job(self, method: &str) -> Result<String, Failure> {
        let id = self.id.or(self.job_id).filter(|id| !id.is_empty());
        id.ok_or_else(|| Failure::invalid(format!("invalid {method} params: missing id")))
    }
}

#[derive(Deserialize)]
struct Update {
    #[serde(flatten)]
    by: ById,
    patch: Patch,
}

#[derive(Deserialize)]
struct Run {
    #[serde(flatten)]
    by: ById,
    mode: Option<String>,
}

#[derive(Deserialize)]
struct Runs {
    #[serde(flatten)]
    by: ById,
    limit: Option<i32>,
}

async fn jobs(session: &Arc<Session>) -> Result<JobServiceClient<AsCaller>, Failure> {
    Ok(JobServiceClient::new(session.services().await?))
}

async fn all(session: &Arc<Session>) -> Result<Vec<Job>, Failure> {
    let mut jobs = jobs(session).await?;
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

pub(super) async fn list(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: List = request.params()?;
    let mut jobs = all(session).await?;
    jobs.retain(|job| params.include_disabled || shape::is_enabled(job));
    // As the original: the next one first, those without a next instant before all.
    jobs.sort_by_key(|job| job.next_run_at.as_ref().map_or(0, creel_proto::time::unix_ms));
    let total = jobs.len();
    let offset = params.offset.unwrap_or(0).min(total);
    let limit = params.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let page: Vec<Value> = jobs.iter().skip(offset).take(limit).map(job_json).collect();
    let next = offset + page.len();
    Ok(json!({
        "jobs": page,
        "snapshotRevision": shape::revision(&jobs),
        "total": total,
        "offset": offset,
        "limit": limit,
        "hasMore": next < total,
        "nextOffset": (next < total).then_some(next),
    }))
}

pub(super) async fn status(session: &Arc<Session>) -> Result<Value, Failure> {
    let jobs = all(session).await?;
    let next = jobs
        .iter()
        .filter_map(|job| job.next_run_at.as_ref().map(creel_proto::time::unix_ms))
        .min();
    Ok(json!({ "enabled": true, "jobs": jobs.len(), "nextWakeAtMs": next }))
}

pub(super) async fn get(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ById = request.params()?;
    let job = params.job("cron.get")?;
    Ok(job_json(
        &jobs(session)
            .await?
            .get(GetJobRequest { job })
            .await?
            .into_inner(),
    ))
}

pub(super) async fn add(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    as_tree(request)?;
    let params: Add = request.params()?;
    let create = CreateJobRequest {
        request_id: request_id(None),
        spec: Some(spec_of(params)?),
        ..CreateJobRequest::default()
    };
    let created = jobs(session).await?.create(create).await?.into_inner();
    Ok(job_json(&created.job.unwrap_or_default()))
}

pub(super) async fn update(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    as_tree(request)?;
    let params: Update = request.params()?;
    let job = params.by.job("cron.update")?;
    let (spec, paths) = shape::patch_of(params.patch)?;
    if paths.is_empty() {
        return Err(Failure::invalid(
            "invalid cron.update params: nothing in the patch can be changed here",
        ));
    }
    let update = UpdateJobRequest {
        request_id: request_id(None),
        job,
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..UpdateJobRequest::default()
    };
    let job = jobs(session).await?.update(update).await?.into_inner();
    Ok(job_json(&job))
}

pub(super) async fn remove(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ById = request.params()?;
    let delete = DeleteJobRequest {
        request_id: request_id(None),
        job: params.job("cron.remove")?,
        ..DeleteJobRequest::default()
    };
    match jobs(session).await?.delete(delete).await {
        Ok(_) => Ok(json!({ "ok": true, "removed": true })),
        Err(status) if Error::of_status(&status).code == Code::NotFound => {
            Ok(json!({ "ok": true, "removed": false }))
        }
        Err(status) => Err(status.into()),
    }
}

/// `force` runs the job now. `due` is the scheduler's own business here: it never forgets a due job, so there
/// is never one left to be run.
pub(super) async fn run(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: Run = request.params()?;
    let job = params.by.job("cron.run")?;
    match params.mode.as_deref() {
        None | Some("force" | "if-enabled") => {}
        Some("due") => return Ok(json!({ "ok": true, "ran": false, "reason": "not-due" })),
        Some(_) => return Err(Failure::invalid("invalid cron.run params: mode")),
    }
    let trigger = TriggerJobRequest {
        request_id: request_id(None),
        job,
        ..TriggerJobRequest::default()
    };
    let run = jobs(session).await?.trigger(trigger).await?.into_inner();
    Ok(json!({ "ok": true, "enqueued": true, "runId": run.run_id }))
}

pub(super) async fn runs(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: Runs = request.params()?;
    let list = ListRunsRequest {
        // Without a job: all of them.
        job: params.by.id.or(params.by.job_id).unwrap_or_default(),
        page_size: params.limit.unwrap_or(50).clamp(1, 500),
        ..ListRunsRequest::default()
    };
    let mut service = RunServiceClient::new(session.services().await?);
    let page = service.list(list).await?.into_inner();
    // Newest first here; the original's log is read from its end.
    let entries: Vec<Value> = page.runs.iter().rev().filter_map(run_json).collect();
    Ok(json!({ "entries": entries, "hasMore": !page.next_page_token.is_empty() }))
}
