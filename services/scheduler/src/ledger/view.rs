//! What is shown of the ledger: the parts of jobs and runs that the store doesn't know yet.

use std::{collections::BTreeMap, sync::Arc};

use creel_proto::scheduler::v1::{ListJobsRequest, Phase, RunKind, RunRecord};
use creel_wire::{Error, error::printable};

use super::Ledger;
use crate::{
    id::{JobId, RunEnd, RunId},
    job::{Job, State},
    name::Name,
    run::{Now, Run},
    spec::MAX_NAME_CHARS,
};

/// Names that are looked at for the one that was meant.
const MAX_NEAR: usize = 5_000;

/// How a job is.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) id: JobId,
    pub(crate) name: Name,
    pub(crate) owner: Arc<str>,
    pub(crate) state: State,
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) next_run_ms: Option<i64>,
    pub(crate) schedule_text: String,
    /// A run that takes longer is slow.
    pub(crate) expected_ms: Option<i64>,
}

/// Which of a person's jobs are asked for, and in which order.
#[derive(Debug)]
pub(crate) struct Query {
    prefix: String,
    /// Empty: all.
    phases: Vec<Phase>,
    order: Order,
}

/// And where to go on.
#[derive(Debug)]
enum Order {
    /// After this name.
    Name(Option<String>),
    /// After this instant and name; jobs without an instant come last.
    NextRun(Option<(i64, String)>),
}

impl Query {
    /// # Errors
    /// An order or a token that makes no sense, with its field.
    pub(crate) fn new(message: ListJobsRequest) -> Result<Self, Error> {
        let token = Some(message.page_token).filter(|token| !token.is_empty());
        let order = match message.order_by.as_str() {
            "" | "name" => Order::Name(token),
            "next_run" => Order::NextRun(match token {
                Some(token) => {
                    let parsed = token
                        .split_once('.')
                        .and_then(|(at, name)| Some((at.parse().ok()?, name.to_owned())));
                    Some(parsed.ok_or_else(|| Error::invalid("page_token", "not a token of this list"))?)
                }
                None => None,
            }),
            other => {
                let shown = printable(other, 32);
                return Err(
                    Error::invalid("order_by", format!("`{shown}` is no order")).hint("`name` or `next_run`")
                );
            }
        };
        let phases = message
            .phases
            .iter()
            .map(|phase| Phase::try_from(*phase).map_err(|_| *phase))
            .collect::<Result<_, _>>()
            .map_err(|phase| Error::invalid("phases", format!("{phase} is no phase")))?;
        Ok(Self {
            prefix: message.name_prefix,
            phases,
            order,
        })
    }

    fn wants(&self, view: &View) -> bool {
        self.phases.is_empty() || self.phases.contains(&view.phase)
    }
}

/// A page of a person's jobs.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) jobs: Vec<View>,
    /// The token to go on with.
    pub(crate) next: Option<String>,
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
        let theirs = |id: JobId| {
            let job = self.jobs.get(&id)?;
            (&*job.owner == owner || job.owner.is_empty()).then_some((id, job))
        };
        // An id first: it is what every part of the system calls a job by, and a name may read like one.
        let by_id = name_or_id.parse().ok().and_then(theirs);
        let (id, job) = by_id.or_else(|| theirs(self.resolve(owner, name_or_id)?))?;
        Some(self.view(id, job, now))
    }

    /// The name that was probably meant: one that begins so, or is spelled nearly so.
    pub(crate) fn nearest(&self, owner: &str, wanted: &str) -> Option<String> {
        let begins = self.jobs.named(owner, wanted).next();
        let begins = begins.filter(|(_, job)| job.name.starts_with(wanted));
        let spelled = || {
            let names = self.jobs.named(owner, "").map(|(_, job)| &*job.name);
            creel_schedule::nearest(wanted, names.take(MAX_NEAR))
        };
        let name = begins.map(|(_, job)| &*job.name).or_else(spelled)?;
        Some(printable(name, MAX_NAME_CHARS))
    }

    /// Jobs with their runs that have not ended, for a copy.
    pub(crate) fn copies(&self, ids: &[JobId], now: Now) -> BTreeMap<JobId, (View, Vec<RunRecord>)> {
        let copy = |id: &JobId| {
            let job = self.jobs.get(id)?;
            let runs = job.state.active.iter().filter_map(|at| self.runs.get(&at.run));
            Some((*id, (self.view(*id, job, now), runs.map(Run::record).collect())))
        };
        ids.iter().filter_map(copy).collect()
    }

    /// A page of what a person asks for. Jobs whose record can't be read have no owner: they are on everyone's
    /// first page by name.
    pub(crate) fn page(&self, owner: &str, query: &Query, size: usize, now: Now) -> Page {
        match &query.order {
            Order::Name(after) => self.page_by_name(owner, query, after.as_deref(), size, now),
            Order::NextRun(after) => self.page_by_next(owner, query, after.as_ref(), size, now),
        }
    }

    fn page_by_name(&self, owner: &str, query: &Query, after: Option<&str>, size: usize, now: Now) -> Page {
        let mut jobs: Vec<_> = match after {
            None => self.named("", &query.prefix, None, now).take(size).collect(),
            Some(_) => Vec::new(),
        };
        jobs.retain(|view| query.wants(view));
        let mut next = None;
        for view in self.named(owner, &query.prefix, after, now) {
            if !query.wants(&view) {
                continue;
            }
            if jobs.len() >= size && next.is_some() {
                return Page { jobs, next };
            }
            next = Some(view.name.to_string());
            jobs.push(view);
        }
        Page { jobs, next: None }
    }

    /// All jobs of an owner are looked at; there is a bound on how many that are.
    fn page_by_next(
        &self,
        owner: &str,
        query: &Query,
        after: Option<&(i64, String)>,
        size: usize,
        now: Now,
    ) -> Page {
        let key = |view: &View| (view.next_run_ms.unwrap_or(i64::MAX), view.name.to_string());
        let mut jobs: Vec<_> = self
            .named(owner, &query.prefix, None, now)
            .filter(|view| query.wants(view) && after.is_none_or(|after| key(view) > *after))
            .collect();
        jobs.sort_by_cached_key(key);
        let more = jobs.len() > size;
        jobs.truncate(size);
        let next = jobs.last().filter(|_| more).map(key);
        Page {
            jobs,
            next: next.map(|(at, name)| format!("{at}.{name}")),
        }
    }

    /// The jobs of an owner by name, from after a name.
    fn named<'a>(
        &'a self,
        owner: &str,
        prefix: &'a str,
        after: Option<&str>,
        now: Now,
    ) -> impl Iterator<Item = View> + use<'a> {
        let after = after.map(Name::from);
        let from = after.as_deref().map_or(prefix, |after| after.max(prefix));
        self.jobs
            .named(owner, from)
            .skip_while(move |(_, job)| after.as_ref() == Some(&job.name))
            .take_while(move |(_, job)| job.name.starts_with(prefix))
            .map(move |(id, job)| self.view(id, job, now))
    }

    /// The runs of these ids that have not ended, as they are now. An end is shown when it is durable.
    pub(crate) fn live(&self, ids: &[RunId]) -> BTreeMap<RunId, RunRecord> {
        let runs = ids.iter().filter_map(|id| Some((*id, self.shown_run(*id)?)));
        runs.collect()
    }

    /// Some of an owner's runs that have not ended, whose ids begin or end so. All are looked at: a person asks.
    pub(crate) fn live_with(&self, owner: &str, end: RunEnd, most: usize) -> Vec<RunId> {
        let runs = self
            .runs
            .values()
            .filter(|run| end.is_of(run.id()) && &*run.owner == owner);
        runs.take(most).map(Run::id).collect()
    }

    fn view(&self, id: JobId, job: &Job, now: Now) -> View {
        let (phase, reason) = job.phase();
        let runs = || job.state.active.iter().filter_map(|at| self.runs.get(&at.run));
        // An alert under way is not the job running.
        let phase = match phase {
            Phase::Running if !runs().any(|run| run.kind != RunKind::Alert) => job.resting_phase(),
            Phase::Running if runs().all(|run| run.lease.is_parked() || run.kind == RunKind::Alert) => {
                Phase::Parked
            }
            phase => phase,
        };
        View {
            id,
            name: job.name.clone(),
            owner: Arc::clone(&job.owner),
            state: job.state.clone(),
            phase,
            reason,
            next_run_ms: job.next_run_ms(now.wall_ms),
            schedule_text: job
                .sound()
                .map(|sound| sound.schedule.describe())
                .unwrap_or_default(),
            expected_ms: job.expected_ms(),
        }
    }
}
