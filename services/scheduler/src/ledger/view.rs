//! What is shown of the ledger: the parts of jobs and runs that the store doesn't know yet.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use creel_proto::scheduler::v1::{Phase, RunRecord};

use super::Ledger;
use crate::{
    id::{JobId, RunId},
    job::{Job, State},
    run::Now,
};

/// How a job is.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) id: JobId,
    pub(crate) name: Arc<str>,
    pub(crate) owner: Arc<str>,
    pub(crate) state: State,
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) next_run_ms: Option<i64>,
    pub(crate) schedule_text: String,
}

/// A page of a person's jobs, by name.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) jobs: Vec<View>,
    /// The name to go on after.
    pub(crate) next: Option<Arc<str>>,
}

/// Which runs of a job are kept.
#[derive(Debug)]
pub(crate) struct Retention {
    pub(crate) keep_runs: u32,
    pub(crate) keep_ms: i64,
    /// Whatever their number and age.
    pub(crate) always: Vec<RunId>,
}

impl Ledger {
    /// Which runs of a job are kept; `None` for no job, and for one whose rules can't be read.
    pub(crate) fn retention(&self, id: JobId) -> Option<Retention> {
        let job = self.jobs.get(&id)?;
        let policy = &job.sound()?.policy;
        let state = &job.state;
        let ends = [state.last_success, state.last_failure];
        let open = job.open_skip.as_ref().and_then(|open| open.run_id.parse().ok());
        let always = state
            .active
            .iter()
            .copied()
            .chain(ends.into_iter().flatten())
            .map(|at| at.run);
        Some(Retention {
            keep_runs: policy.keep_runs,
            keep_ms: policy.keep_ms,
            always: always.chain(open).collect(),
        })
    }

    /// A job of a person, by name or id. Jobs whose record can't be read have no owner, so everyone sees them.
    pub(crate) fn find(&self, owner: &str, name_or_id: &str, now: Now) -> Option<View> {
        let by_name = self.resolve(owner, name_or_id);
        let id = by_name.or_else(|| name_or_id.parse().ok())?;
        let job = self
            .jobs
            .get(&id)
            .filter(|job| &*job.owner == owner || job.owner.is_empty())?;
        Some(view(id, job, now))
    }

    /// Names from `after`, those that start with `prefix`.
    pub(crate) fn page(&self, owner: &str, prefix: &str, after: Option<&str>, size: usize, now: Now) -> Page {
        let owner: Arc<str> = owner.into();
        let start = match after {
            Some(after) => Bound::Excluded((Arc::clone(&owner), Arc::from(after))),
            None => Bound::Included((Arc::clone(&owner), Arc::from(prefix))),
        };
        let unowned = after.is_none().then(|| {
            let nobody = (Arc::from(""), Arc::from(prefix));
            self.names
                .range(nobody..)
                .take_while(|((owner, _), _)| owner.is_empty())
                .take(size)
        });
        let mut names = self
            .names
            .range((start, Bound::Unbounded))
            .take_while(|((of, name), _)| *of == owner && name.starts_with(prefix));
        let mut jobs: Vec<_> = unowned
            .into_iter()
            .flatten()
            .filter(|((_, name), _)| name.starts_with(prefix))
            .filter_map(|(_, id)| self.jobs.get(id).map(|job| view(*id, job, now)))
            .collect();
        let mut last = None;
        for ((_, name), id) in names.by_ref().take(size.saturating_sub(jobs.len()).max(1)) {
            last = Some(Arc::clone(name));
            jobs.extend(self.jobs.get(id).map(|job| view(*id, job, now)));
        }
        let next = last.filter(|_| names.next().is_some());
        Page { jobs, next }
    }

    /// The runs of these ids that have not ended, as they are now. An end is shown when it is durable.
    pub(crate) fn live(&self, ids: &[RunId]) -> BTreeMap<RunId, RunRecord> {
        let runs = ids
            .iter()
            .filter_map(|id| self.runs.get(id))
            .filter(|run| run.end.is_none() && !run.new);
        runs.map(|run| (run.id(), run.record())).collect()
    }
}

fn view(id: JobId, job: &Job, now: Now) -> View {
    let (phase, reason) = job.phase();
    View {
        id,
        name: Arc::clone(&job.name),
        owner: Arc::clone(&job.owner),
        state: job.state.clone(),
        phase,
        reason,
        next_run_ms: job.next_run_ms(now.wall_ms),
        schedule_text: job
            .sound()
            .map(|sound| sound.schedule.describe())
            .unwrap_or_default(),
    }
}
