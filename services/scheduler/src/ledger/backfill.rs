//! Backfills: asked for, stopped, and carried on a few runs at a time.

use creel_kit::outbox::Event;
use creel_proto::scheduler::v1::RunKind;
use creel_wire::{Code, Error};

use super::{Ledger, Target, change::gone};
use crate::{
    admission::{self, MAX_ADMITS},
    backfill::{Backfill, MAX_OCCURRENCES},
    id::JobId,
    run::{Extra, Now},
};

/// Jobs whose backfills go on in one step.
const MAX_EACH: usize = 64;

impl Ledger {
    /// What a backfill would be.
    ///
    /// # Errors
    /// When the job can't have one, or has one.
    pub(crate) fn may_backfill(
        &mut self,
        target: &Target,
        from_ms: i64,
        until_ms: i64,
        at_once: u32,
        now: Now,
    ) -> Result<Backfill, Error> {
        self.check(target)?;
        let job = self.jobs.get(&target.job).ok_or_else(gone)?;
        let sound = job.sound().ok_or_else(|| {
            let message = "the job's record is invalid, so its schedule is not known";
            Error::new(Code::FailedPrecondition, "invalid_record", message).hint("creel cron edit NAME")
        })?;
        if let Some(running) = &job.state.backfill {
            let message = format!(
                "a backfill of this job is running: {} of {} runs are admitted",
                running.admitted, running.total
            );
            return Err(Error::new(Code::FailedPrecondition, "backfill_running", message)
                .hint("creel cron explain NAME, or creel cron backfill NAME --stop"));
        }
        if admission::is_fixed_delay(&sound.schedule) {
            let message = "an interval counted from the end of each run has no instants in the past";
            return Err(Error::new(Code::FailedPrecondition, "fixed_delay", message).field("job"));
        }
        let id = format!("{:x}-{:04x}", now.wall_ms.max(0), (self.random)() & 0xffff);
        Backfill::new(id, &sound.schedule, from_ms, until_ms, at_once).ok_or_else(|| {
            let message = format!("more than {MAX_OCCURRENCES} occurrences are in that range");
            Error::new(Code::InvalidArgument, "too_many", message)
                .field("until")
                .hint("backfill a shorter range, then the next")
        })
    }

    pub(crate) fn backfill(&mut self, target: &Target, backfill: Backfill, now: Now) -> Result<(), Error> {
        let id = target.job;
        let event = Event::new("job.backfilled", &target.principal, format!("job/{id}"))
            .with("from_unix_ms", backfill.from_ms)
            .with("until_unix_ms", backfill.until_ms)
            .with("runs", backfill.total);
        let audit = self.audit(event)?;
        let job = self.jobs.get_mut(&id).ok_or_else(gone)?;
        job.state.backfill = Some(Box::new(backfill));
        job.state.version += 1;
        self.changes.state(id);
        self.changes.extra(id, audit);
        self.backfilling.insert(id);
        self.advance_backfills(now);
        Ok(())
    }

    /// Ends a backfill; what is admitted goes on.
    pub(crate) fn stop_backfill(&mut self, target: &Target) -> Result<Backfill, Error> {
        self.check(target)?;
        let id = target.job;
        let job = self.jobs.get(&id).ok_or_else(gone)?;
        if job.state.backfill.is_none() {
            let message = "no backfill of this job is running";
            return Err(Error::new(Code::FailedPrecondition, "no_backfill", message).field("stop"));
        }
        let audit = self.audit(Event::new(
            "job.backfill_stopped",
            &target.principal,
            format!("job/{id}"),
        ))?;
        let job = self.jobs.get_mut(&id).ok_or_else(gone)?;
        job.state.version += 1;
        let backfill = job.state.backfill.take().ok_or_else(gone)?;
        self.backfilling.remove(&id);
        self.changes.state(id);
        self.changes.extra(id, audit);
        Ok(*backfill)
    }

    /// Admits what fits of the backfills that may go on.
    pub(super) fn advance_backfills(&mut self, now: Now) {
        let some: Vec<_> = self.backfilling.iter().copied().take(MAX_EACH).collect();
        for id in some {
            if !self.changes.is_heavy(id) {
                self.advance_backfill(id, now);
            }
        }
        self.assign(now);
    }

    fn advance_backfill(&mut self, id: JobId, now: Now) {
        self.backfilling.remove(&id);
        let Some(job) = self.jobs.get(&id) else { return };
        // A pause holds it, too; whoever lifts it lets it go on.
        let (Some(backfill), None, Some(sound)) = (&job.state.backfill, job.hold(), job.sound()) else {
            return;
        };
        let under_way = job
            .state
            .active
            .iter()
            .filter(|at| {
                self.runs
                    .get(&at.run)
                    .is_some_and(|run| run.kind == RunKind::Backfill)
            })
            .count();
        let room = (backfill.at_once as usize).saturating_sub(under_way);
        let (mut backfill, request, extra) = (
            backfill.clone(),
            backfill.request(),
            Extra::Backfill(backfill.id.clone()),
        );
        let mut next = Vec::new();
        while next.len() < room.min(MAX_ADMITS)
            && let Some(at_ms) = backfill.next(&sound.schedule)
        {
            backfill.admit(at_ms);
            next.push(at_ms);
        }
        let over = backfill.next(&sound.schedule).is_none();
        let more = !over && next.len() < room;
        for at_ms in &next {
            let run = self.admit(id, RunKind::Backfill, *at_ms, Some(&request), 0, now);
            if let Some(run) = run.and_then(|run| self.runs.get_mut(&run)) {
                run.extra = Some(Box::new(extra.clone()));
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state.backfill = if over && next.is_empty() && under_way == 0 {
            None
        } else {
            Some(backfill)
        };
        self.changes.state(id);
        if more {
            self.backfilling.insert(id);
        }
        self.enqueue(id, now);
    }
}
