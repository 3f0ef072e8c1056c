//! Making and changing jobs.

use creel_kit::idempotency::Begin;
use creel_proto::scheduler::v1::{
    CreateJobRequest, CreateJobResponse, Job, JobRecord, JobSpec, UpdateJobRequest,
};
use creel_store::Txn;
use creel_wire::{Caller, Code, Error, Scope, error::printable, names::parse_scopes};
use jiff::Timestamp;

use super::{
    Api,
    agents::{context_of, placed, within_limits},
    person, shown, target,
};
use crate::{
    id::JobId,
    ledger::{Changed, Creation, late_one_shot, name_taken},
    spec::{self, Origin, Spec, refused},
};

/// A changed job that somebody else changes at the same time is read again so often.
const TRIES: usize = 3;

impl Api {
    pub(super) async fn create_job(
        &self,
        caller: &Caller,
        message: CreateJobRequest,
    ) -> Result<CreateJobResponse, Error> {
        let owner = person(caller)?.to_owned();
        let _turn = self.busy.enter(caller, "Create", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Create", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let spec = message
            .spec
            .as_ref()
            .ok_or_else(|| Error::invalid("spec", "a job is needed"))?;
        let now_ms = self.now_ms().await?;
        let context = context_of(caller)?;
        let spec = match &context {
            Some(context) => &placed(spec, context),
            None => spec,
        };
        spec::written(spec, None)?;
        let zones = self.zones.get();
        let mut spec = Spec::check(
            spec,
            Origin {
                zones: &zones,
                anchor_ms: now_ms,
            },
        )?;
        if let Some(context) = &context {
            within_limits(&spec, context, now_ms)?;
        }
        let context = context.map(|context| context.to_string()).unwrap_or_default();
        if let Some(same) = self.same(caller, &spec.proto).await? {
            return Ok(CreateJobResponse {
                job: Some(same),
                unchanged: true,
                warnings: spec.warnings,
            });
        }
        spec.warnings.extend(self.check_backend(&spec.proto, None).await?);
        let cursor_ms = first_cursor(&spec, now_ms, message.late_ok)?;
        let record = JobRecord {
            job_id: JobId::new(now_ms, &(self.random)()).to_string(),
            incarnation: now_ms.max(1).unsigned_abs(),
            spec: Some(spec.proto.clone()),
            owner: owner.clone(),
            scopes: caller
                .scopes()
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            created_at_unix_ms: now_ms,
            updated_at_unix_ms: now_ms,
            anchor_unix_ms: now_ms,
            created_by: caller.principal().to_string(),
            context,
        };
        let id: JobId = record
            .job_id
            .parse()
            .map_err(|_| Error::internal("making an id"))?;
        let warnings = spec.warnings.clone();
        if message.validate_only {
            let (owner, name, context) = (owner, spec.proto.name.clone(), record.context.clone());
            self.engine
                .ask(move |ledger, _| ledger.may_create(&owner, &name, &context))
                .await??;
            let job = preview(&record, &spec, cursor_ms);
            return Ok(CreateJobResponse {
                job: Some(job),
                unchanged: false,
                warnings,
            });
        }
        let principal = caller.principal().to_string();
        let creation = Creation {
            id,
            record: record.clone(),
            spec,
            cursor_ms,
            principal,
        };
        self.engine
            .change(move |ledger, now| {
                ledger.create(creation, now)?;
                let view = ledger.find(&owner, &id.to_string(), now);
                let job = view.map(|view| shown(Some(&record), &view));
                let response = CreateJobResponse {
                    job,
                    unchanged: false,
                    warnings,
                };
                let mut answer = Txn::new();
                slot.record(&mut answer, &response);
                ledger.attach(id, answer);
                Ok(response)
            })
            .await
    }

    /// The job of that name, if it is there with this very spec.
    async fn same(&self, caller: &Caller, spec: &JobSpec) -> Result<Option<Job>, Error> {
        let (owner, name) = (person(caller)?.to_owned(), spec.name.clone());
        let find = move |ledger: &mut crate::ledger::Ledger, now| {
            ledger
                .resolve(&owner, &name)
                .and_then(|id| ledger.find(&owner, &id.to_string(), now))
        };
        let Some(view) = self.engine.ask(find).await? else {
            return Ok(None);
        };
        let record = self.record(&view).await?;
        if record.spec.as_ref() == Some(spec) {
            Ok(Some(shown(Some(&record), &view)))
        } else {
            Err(name_taken(&spec.name))
        }
    }

    pub(super) async fn update_job(&self, caller: &Caller, message: UpdateJobRequest) -> Result<Job, Error> {
        let _turn = self.busy.enter(caller, "Update", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Update", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let wanted = message
            .spec
            .as_ref()
            .ok_or_else(|| Error::invalid("spec", "the new values are needed"))?;
        let paths = message
            .update_mask
            .as_ref()
            .map(|mask| mask.paths.as_slice())
            .unwrap_or_default();
        let mut tries = 0;
        loop {
            let view = self.find(caller, &message.job).await?;
            let target = target(caller, &view, &message.if_match)?;
            let before = self.record(&view).await?;
            let (changed, refreeze) = merged(before.spec.clone().unwrap_or_default(), wanted, paths)?;
            spec::written(&changed, before.spec.as_ref())?;
            let now_ms = self.now_ms().await?;
            let zones = self.zones.get();
            let mut spec = Spec::check(
                &changed,
                Origin {
                    zones: &zones,
                    anchor_ms: before.anchor_unix_ms,
                },
            )?;
            if before.spec.as_ref().map(|spec| &spec.schedule) != Some(&changed.schedule) {
                first_cursor(&spec, now_ms, false)?;
            }
            let told = self.check_backend(&changed, before.spec.as_ref()).await?;
            spec.warnings.extend(told);
            let warnings = spec.warnings.clone();
            let scopes = if refreeze {
                narrowed(caller, &before.scopes)
            } else {
                before.scopes.clone()
            };
            let record = JobRecord {
                spec: Some(changed),
                updated_at_unix_ms: now_ms,
                scopes,
                ..before
            };
            if message.validate_only {
                let checked = target.clone();
                self.engine.ask(move |ledger, _| ledger.check(&checked)).await??;
                return Ok(Job {
                    etag: view.state.version.to_string(),
                    warnings,
                    ..preview(&record, &spec, view.state.cursor_ms)
                });
            }
            let change = Changed {
                record: record.clone(),
                spec,
                base: view.state.version,
            };
            let (owner, slot, id) = (person(caller)?.to_owned(), slot.clone(), view.id);
            let done = self.engine.change(move |ledger, now| {
                ledger.update(&target, change, now)?;
                let job = ledger
                    .find(&owner, &id.to_string(), now)
                    .map(|view| shown(Some(&record), &view));
                let job = Job {
                    warnings,
                    ..job.ok_or_else(|| Error::internal("reading the changed job"))?
                };
                let mut answer = Txn::new();
                slot.record(&mut answer, &job);
                ledger.attach(id, answer);
                Ok(job)
            });
            match done.await {
                // Nobody said which state it must be in, so the newest is as good.
                Err(error) if error.reason == "changed" && message.if_match.is_empty() && tries < TRIES => {
                    tries += 1
                }
                done => return done,
            }
        }
    }
}

/// Where the cursor of a new schedule starts: everything before it is none of its occurrences.
fn first_cursor(spec: &Spec, now_ms: i64, late_ok: bool) -> Result<i64, Error> {
    if let Some(at_ms) = late_one_shot(&spec.schedule, now_ms) {
        if late_ok {
            return Ok(at_ms.saturating_sub(1));
        }
        // As it was written, by the clocks that were meant.
        let told = spec.schedule.describe();
        let at = told.strip_prefix("once ").unwrap_or(&told);
        return Err(Error::new(
            Code::InvalidArgument,
            "in_the_past",
            format!("{at} is in the past"),
        )
        .field("spec.schedule.at")
        .hint("give a time to come, or --late ok to run it at once"));
    }
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let field = "spec.schedule";
    spec.schedule
        .first(now)
        .map_err(|error| refused(&error, field, field))?;
    Ok(now_ms)
}

/// What a job would look like.
fn preview(record: &JobRecord, spec: &Spec, cursor_ms: i64) -> Job {
    Job {
        job_id: record.job_id.clone(),
        spec: record.spec.clone(),
        owner: record.owner.clone(),
        scopes: record.scopes.clone(),
        next_run_at: crate::admission::next_ms(&spec.schedule, cursor_ms).map(creel_proto::time::timestamp),
        schedule_text: spec.schedule.describe(),
        ..Job::default()
    }
}

/// The fields of `wanted` that the mask names, over what is there; all for an empty mask. True: what it may do
/// changed, so its grant is frozen anew.
fn merged(mut spec: JobSpec, wanted: &JobSpec, paths: &[String]) -> Result<(JobSpec, bool), Error> {
    const ALL: [&str; 10] = [
        "name",
        "description",
        "schedule",
        "target",
        "payload",
        "policy",
        "delivery",
        "disabled",
        "delete_after_run",
        "delete_after",
    ];
    let before = spec.clone();
    let paths: Vec<&str> = if paths.is_empty() {
        ALL.to_vec()
    } else {
        paths.iter().map(String::as_str).collect()
    };
    for path in paths {
        match path {
            "name" => spec.name.clone_from(&wanted.name),
            "description" => spec.description.clone_from(&wanted.description),
            "schedule" => spec.schedule.clone_from(&wanted.schedule),
            "target" => spec.target.clone_from(&wanted.target),
            "payload" => spec.payload.clone_from(&wanted.payload),
            "policy" => spec.policy.clone_from(&wanted.policy),
            "delivery" => spec.delivery.clone_from(&wanted.delivery),
            "disabled" => spec.disabled = wanted.disabled,
            "delete_after_run" => spec.delete_after_run = wanted.delete_after_run,
            "delete_after" => spec.delete_after = wanted.delete_after,
            other => {
                return Err(Error::invalid(
                    "update_mask",
                    format!("`{}` is no field of a job", printable(other, 64)),
                )
                .hint(format!("one of {}", ALL.join(", "))));
            }
        }
    }
    let refreeze = spec.schedule != before.schedule
        || spec.target != before.target
        || spec.payload != before.payload
        || spec.delivery != before.delivery;
    Ok((spec, refreeze))
}

/// Whoever edits what a job does lends it no more than they have, and it gets no more than it had.
fn narrowed(caller: &Caller, frozen: &[String]) -> Vec<String> {
    let frozen = parse_scopes(frozen).unwrap_or_default();
    let both = frozen.intersection(caller.scopes()).copied();
    both.map(Scope::as_str).map(str::to_owned).collect()
}
