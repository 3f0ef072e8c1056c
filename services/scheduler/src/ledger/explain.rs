//! What keeps a job from running, and how the service as a whole is: what only the ledger knows.

use creel_proto::{
    scheduler::v1::{ClockState, Finding, RunKind, SchedulerStatus, WorkKind, WorkerStatus},
    time::{duration, timestamp},
};
use creel_schedule::Zones;
use creel_wire::error::printable;

use super::{Backend, Ledger, listed};
use crate::{
    clock::Trust,
    id::{JobId, RunId},
    job::{APPROVAL, DISABLED, Job, OWNER_REVOKED, Plan},
    lane::Lane,
    policy::Overlap,
    run::{Now, Place},
    spec::{MAX_BACKEND_BYTES, Sample},
    store::RunRef,
};

/// Ids of jobs whose records can't be used, shown at most.
const MAX_INVALID: usize = 100;

/// What the ledger knows of a job that is to be explained.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) findings: Vec<Finding>,
    /// `None` for a job whose record can't be used.
    pub(crate) sample: Option<Sample>,
    pub(crate) incarnation: u64,
    pub(crate) cursor_ms: i64,
    /// The newest run that ended or runs, whatever its kind.
    pub(crate) newest: Option<RunId>,
}

fn finding(reason: &str, text: impl Into<String>, hint: &str) -> Finding {
    Finding {
        reason: reason.to_owned(),
        text: text.into(),
        hint: hint.to_owned(),
        until: None,
    }
}

/// A job's name as a shell takes it.
pub(crate) fn quoted(job: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if !job.starts_with('-') && job.chars().all(plain) {
        job.to_owned()
    } else {
        format!("'{}'", job.replace('\'', r"'\''"))
    }
}

/// Findings whose commands name the job.
fn named(findings: Vec<Finding>, job: &str) -> Vec<Finding> {
    let name = quoted(job);
    let hint = |finding: Finding| Finding {
        hint: finding.hint.replace("NAME", &name),
        ..finding
    };
    findings.into_iter().map(hint).collect()
}

fn until(finding: Finding, ms: i64) -> Finding {
    Finding {
        until: Some(timestamp(ms)),
        ..finding
    }
}

impl Ledger {
    /// What is known of a job that names this backend.
    pub(crate) fn known(&self, id: JobId, backend: Option<&str>, now: Now) -> Option<Known> {
        let job = self.jobs.get(&id)?;
        let state = &job.state;
        let ended = [state.last_success, state.last_failure].into_iter().flatten();
        // An alert is not the job's own.
        let own = |at: &RunRef| {
            self.runs
                .get(&at.run)
                .is_none_or(|run| run.kind != RunKind::Alert)
        };
        let active = state.active.iter().copied().filter(own);
        let newest = active.chain(ended).max().map(|at| at.run);
        let mut findings = self.findings(job, now);
        findings.extend(backend.and_then(|name| self.find_backend(name)));
        Some(Known {
            findings: named(findings, &job.name),
            sample: job.sound().map(|sound| Sample {
                schedule: sound.schedule.clone(),
                job: id.bytes(),
                jitter_ms: sound.policy.jitter_ms,
                hold: job.hold().map(|reason| reason.as_str()),
                backoff_until_ms: state.backoff_until_ms,
            }),
            incarnation: job.incarnation,
            cursor_ms: state.cursor_ms,
            newest,
        })
    }

    fn findings(&self, job: &Job, now: Now) -> Vec<Finding> {
        let mut found = Vec::new();
        self.find_clock(now, &mut found);
        let sound = match &job.plan {
            Plan::Sound(sound) => sound,
            Plan::Broken(why) => {
                let text = format!("Its record can't be used: {why}.");
                found.push(finding(
                    "invalid_record",
                    text,
                    "creel cron edit NAME, or creel cron rm NAME",
                ));
                return found;
            }
        };
        let state = &job.state;
        match state.pause.as_deref() {
            Some(APPROVAL) => found.push(finding(
                APPROVAL,
                "An agent made it, and nobody has approved it yet.",
                "creel cron resume NAME approves it, creel cron rm NAME refuses it",
            )),
            Some(OWNER_REVOKED) => found.push(finding(
                OWNER_REVOKED,
                "Its owner's grant was revoked.",
                "creel cron resume NAME, once its owner has a device again",
            )),
            Some(reason) => found.push(finding(
                "paused",
                format!("It is paused: {reason}."),
                "creel cron resume NAME",
            )),
            None => {}
        }
        if sound.disabled {
            found.push(finding(
                DISABLED,
                "Its spec disables it.",
                "creel cron resume NAME",
            ));
        }
        if let Some(quarantine) = state.quarantine {
            let text = format!(
                "It is quarantined after {} failures in a row: one run is tried when the quarantine ends.",
                state.failures
            );
            let one = finding(
                "quarantined",
                text,
                "creel cron run NAME tries it now, creel cron resume NAME ends it",
            );
            found.push(until(one, quarantine.until_ms));
        } else if let Some(backoff_ms) = state.backoff_until_ms.filter(|until| *until > now.wall_ms) {
            let text = match state.failures {
                1 => "It waits after a failure.".to_owned(),
                more => format!("It waits after {more} failures in a row."),
            };
            found.push(until(
                finding("backoff", text, "creel cron run NAME runs it now"),
                backoff_ms,
            ));
        }
        if state.completed {
            found.push(finding("completed", "It is never due again.", ""));
        }
        self.find_runs(job, sound.kind, sound.policy.overlap, &mut found);
        if now.wall_ms < self.catch_up_from_ms {
            let text = "The service started three times within five minutes: missed runs wait.";
            found.push(until(finding("catch_up_held", text, ""), self.catch_up_from_ms));
        }
        found
    }

    fn find_clock(&self, now: Now, found: &mut Vec<Finding>) {
        match self.clock.trust() {
            Trust::Held { jump, .. } => {
                let text = format!(
                    "The clock jumped {} s ahead: nothing fires for a minute.",
                    jump.by_ms() / 1_000
                );
                let held_ms = self.clock.held_ms().unwrap_or(0);
                found.push(until(
                    finding("clock_held", text, "creel cron status"),
                    now.wall_ms.saturating_add(held_ms),
                ));
            }
            Trust::Suspect(jump) if jump.by_ms() > 0 => {
                let text = format!(
                    "The clock jumped {} h ahead: nothing fires until it is set right or somebody says that it is right.",
                    jump.by_ms() / 3_600_000
                );
                found.push(finding("clock_suspect", text, "creel cron accept-clock"));
            }
            Trust::Suspect(jump) => {
                let text = format!(
                    "The clock was set back by {} h: jobs that ran ahead of it wait until it has caught up.",
                    -jump.by_ms() / 3_600_000
                );
                let one = finding(
                    "clock_suspect",
                    text,
                    "creel cron accept-clock lets them begin anew",
                );
                found.push(until(one, jump.before_ms));
            }
            Trust::Believed => {}
        }
    }

    fn find_runs(&self, job: &Job, kind: WorkKind, overlap: Overlap, found: &mut Vec<Finding>) {
        let runs = || job.state.active.iter().filter_map(|at| self.runs.get(&at.run));
        let parked = runs().filter(|run| run.lease.is_parked()).count();
        if parked > 0 {
            let text = match parked {
                1 => "A run of it waits for an approval.".to_owned(),
                more => format!("{more} of its runs wait for an approval."),
            };
            found.push(finding("parked", text, "creel approvals list"));
        }
        let (active, waiting) = self.overlapping(job);
        let full = match overlap {
            Overlap::Forbid => active > 0,
            Overlap::BufferOne => active > 0 && waiting > 0,
            Overlap::Allow { max } => active >= max as usize,
            Overlap::Replace => false,
        };
        if full && active > waiting {
            let runs = match active {
                1 => "A run of it is not over".to_owned(),
                more => format!("{more} of its runs are not over"),
            };
            let text = format!("{runs}, and its policy lets no other begin meanwhile.");
            found.push(finding("overlap", text, "creel cron runs --job NAME"));
        }
        let waits = runs().any(|run| run.lease.is_free());
        let lined_up = runs().filter_map(|run| match run.place {
            Place::Ready(lane) => Some(lane),
            _ => None,
        });
        let mut workers = self
            .workers
            .values()
            .filter(|worker| worker.kinds.contains(&(kind as i32)))
            .peekable();
        if workers.peek().is_none() {
            let text = "No worker that runs such jobs is attached: what is due waits.";
            found.push(finding("no_worker", text, "creel status"));
        } else if let Some(lane) = lined_up.max()
            && workers.all(|worker| worker.room().last < Some(lane))
        {
            let text = match lane {
                Lane::Alert | Lane::Prompt => {
                    "All workers are busy, or keep their last places for alerts: what is due waits for its turn."
                }
                Lane::Unknown => {
                    "The workers have no place left but those they keep for jobs whose runs end well and soon: what \
                     is due waits for its turn."
                }
                Lane::Unruly => {
                    "Its last run or attempt did not end well, and the workers have no place left but those they keep for other \
                     jobs: what is due waits for its turn."
                }
            };
            found.push(finding("workers_full", text, "creel cron status"));
        }
        if waits && self.mint.is_shut() {
            let text = "identity can't be reached: runs wait for their assertion.";
            found.push(finding("identity_unavailable", text, "creel status"));
        }
    }

    fn find_backend(&self, name: &str) -> Option<Finding> {
        let shown = printable(name, MAX_BACKEND_BYTES);
        match self.backend(name) {
            Backend::There => None,
            Backend::Unknown => {
                let text = format!("No attached worker says whether there is its backend `{shown}`.");
                Some(finding("backend_not_known", text, "creel status"))
            }
            Backend::Missing(there) => {
                let text = format!(
                    "No worker has its backend `{shown}`: its runs fail. There are: {}.",
                    listed(&there)
                );
                Some(finding(
                    "unknown_backend",
                    text,
                    "creel cron edit NAME --backend BACKEND",
                ))
            }
        }
    }

    /// How the service is.
    pub(crate) fn status(&self, zones: &Zones, now: Now) -> SchedulerStatus {
        let (state, jump) = match self.clock.trust() {
            Trust::Believed => (ClockState::Trusted, None),
            Trust::Held { jump, .. } => (ClockState::Held, Some(jump)),
            Trust::Suspect(jump) => (ClockState::Suspect, Some(jump)),
        };
        let (mut waiting, mut held) = (0, 0);
        for run in self.runs.values().filter(|run| run.end.is_none()) {
            waiting += u64::from(run.lease.is_free());
            held += u64::from(run.lease.held().is_some());
        }
        SchedulerStatus {
            clock: state.into(),
            clock_since: jump.map(|jump| timestamp(jump.after_ms)),
            clock_jump: jump.map(|jump| duration(jump.by_ms())),
            now: Some(timestamp(now.wall_ms)),
            jobs: self.jobs.len() as u64,
            invalid_jobs: self
                .invalid
                .iter()
                .take(MAX_INVALID)
                .map(ToString::to_string)
                .collect(),
            runs_waiting: waiting,
            runs_with_workers: held,
            runs_parked: self.parked.len() as u64,
            workers: self
                .workers
                .values()
                .map(|worker| WorkerStatus {
                    instance: worker.instance.to_string(),
                    kinds: worker.kinds.iter().copied().collect(),
                    capacity: u32::try_from(worker.capacity).unwrap_or(u32::MAX),
                    holding: u32::try_from(worker.holding.len()).unwrap_or(u32::MAX),
                })
                .collect(),
            zone_data_version: zones.zone_data_version().to_string(),
            catch_up_from: (self.catch_up_from_ms > now.wall_ms).then(|| timestamp(self.catch_up_from_ms)),
            next_due_at: self.jobs.first_due().map(|(at, _)| timestamp(at)),
        }
    }
}
