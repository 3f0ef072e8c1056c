//! What a changed clock and changed zone data mean for jobs.

use std::collections::BTreeMap;

use creel_kit::outbox::Event;
use creel_proto::scheduler::v1::ClockRecord;
use creel_schedule::{Moment, Schedule, Zone, Zones};
use creel_store::Op;
use creel_wire::{Code, Error};
use prost::Message as _;

use super::Ledger;
use crate::{
    clock::{Jump, Look, Trust, Watch},
    id::JobId,
    job::Plan,
    run::Now,
    store::clock_key,
};

/// Jobs that begin anew in one step.
const MAX_EACH: usize = 512;

impl Ledger {
    /// Begins to watch the clock, with what was written down about it.
    pub(crate) fn watch_from(&mut self, now: Now, written: Option<Jump>) {
        let newest = self.jobs.iter().map(|(_, job)| job.state.cursor_ms).max();
        self.clock = Watch::new(now.wall_ms, written, newest);
        if written.is_some() != matches!(self.clock.trust(), Trust::Suspect(_)) {
            self.note_trust(written.map(Trust::Suspect).unwrap_or_default());
        }
    }

    /// Looks at the clocks; answers for how long nothing may fire.
    pub(crate) fn look(&mut self, look: Look, now: Now) -> Option<i64> {
        let before = self.clock.trust();
        let after = self.clock.look(look, self.config.hold_ms);
        if std::mem::discriminant(&before) != std::mem::discriminant(&after) {
            self.note_trust(before);
        }
        let now = self.believed(now);
        if self.clock.step_ms() <= -self.config.grace_ms {
            self.set_back(now);
        }
        if self.clock.is_vouched_for(self.config.hold_ms)
            && let Err(error) = self.believe_clock("service/scheduler", "ntp", now)
        {
            tracing::warn!(%error, "the clock follows a time server, and can't be believed yet");
        }
        self.clock.held_ms()
    }

    /// The moment that everything goes by: while a jump ahead is not believed, the time from before it goes on. So what
    /// happens meanwhile waits for no instant of a wrong year.
    pub(crate) fn believed(&self, now: Now) -> Now {
        Now {
            wall_ms: now.wall_ms.saturating_sub(self.clock.ahead_ms()),
            ..now
        }
    }

    /// The clock was set back: what was to come after some time comes after no more than that.
    fn set_back(&mut self, now: Now) {
        let hold_ms = now.wall_ms.saturating_add(self.config.hold_ms);
        self.catch_up_from_ms = self.catch_up_from_ms.min(hold_ms);
        for (_, run_id) in self.delayed.clone() {
            self.unqueue(run_id);
            if let Some(id) = self.runs.get(&run_id).map(|run| run.job) {
                self.enqueue(id, now);
            }
        }
        for (_, run_id) in std::mem::take(&mut self.parked) {
            self.wait_for_person(run_id, now);
        }
        self.wake_all();
    }

    /// Whether it matters if the clock follows a time server.
    pub(crate) const fn is_clock_suspect(&self) -> bool {
        self.clock.is_suspect()
    }

    /// A person says that the clock is right as it is. Answers how many jobs begin anew.
    pub(crate) fn accept_clock(&mut self, principal: &str, now: Now) -> Result<u64, Error> {
        self.believe_clock(principal, "operator", now)
    }

    /// The clock is right as it is, says `by`.
    fn believe_clock(&mut self, principal: &str, by: &'static str, now: Now) -> Result<u64, Error> {
        let Trust::Suspect(jump) = self.clock.trust() else {
            return Err(trusted());
        };
        let ahead: Vec<JobId> = if jump.by_ms() < 0 {
            let jobs = self.jobs.iter();
            jobs.filter(|(_, job)| job.state.cursor_ms > now.wall_ms)
                .map(|(id, _)| id)
                .collect()
        } else {
            Vec::new()
        };
        let event = Event::new("clock.accepted", principal, "clock")
            .with("by", by)
            .with("jump_ms", jump.by_ms())
            .with("jobs", ahead.len());
        let audit = self.audit(event)?;
        self.clock.accept();
        tracing::info!(
            by,
            principal,
            jump_ms = jump.by_ms(),
            jobs = ahead.len(),
            "the clock is believed"
        );
        self.changes.general(audit, true);
        self.changes.op(Op::Delete(clock_key()));
        let count = ahead.len() as u64;
        self.realign.extend(ahead);
        self.realign(now);
        Ok(count)
    }

    /// Whether there is something to accept.
    pub(crate) fn may_accept_clock(&self) -> Result<(), Error> {
        match self.clock.trust() {
            Trust::Suspect(_) => Ok(()),
            Trust::Believed | Trust::Held { .. } => Err(trusted()),
        }
    }

    /// Jobs that ran ahead of a clock that was set back begin anew from now, as another incarnation: an instant
    /// may come a second time, and must not meet the run it had the first time.
    pub(super) fn realign(&mut self, now: Now) {
        for _ in 0..MAX_EACH {
            let Some(id) = self.realign.pop_front() else {
                return;
            };
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let state = &mut job.state;
            if state.cursor_ms <= now.wall_ms {
                continue;
            }
            state.bumps += 1;
            state.version += 1;
            state.cursor_ms = now.wall_ms;
            state.backoff_until_ms = None;
            state.backfill = None;
            if let Some(last) = &mut state.last {
                last.finished_ms = last.finished_ms.min(now.wall_ms);
            }
            if let Some(quarantine) = &mut state.quarantine {
                quarantine.until_ms = quarantine.until_ms.min(now.wall_ms);
            }
            job.incarnation = job.incarnation.wrapping_add(1);
            job.open_skip = None;
            self.restart(id, now);
        }
    }

    /// Schedules follow new zone data. Answers how many jobs have another next instant.
    pub(crate) fn rezone(&mut self, zones: &Zones, now: Now) -> usize {
        // Most jobs share a few zones, and few zones change.
        let mut fresh: BTreeMap<Box<str>, Option<Zone>> = BTreeMap::new();
        let mut moved = Vec::new();
        for (id, job) in self.jobs.iter_mut() {
            let next_ms = job.next_run_ms(now.wall_ms);
            let Plan::Sound(sound) = &mut job.plan else {
                continue;
            };
            let Some(zone) = zone_of(&sound.schedule) else {
                continue;
            };
            let newest = fresh.entry(zone.name().into()).or_insert_with(|| {
                let found = zones.get(zone.name());
                if found.is_err() {
                    tracing::warn!(
                        zone = zone.name(),
                        "the new zone data lacks a zone: jobs keep the old one"
                    );
                }
                found.ok().filter(|found| found != zone)
            });
            let Some(newest) = newest else { continue };
            match &mut sound.schedule {
                Schedule::Cron(cron) => cron.zone = newest.clone(),
                Schedule::At(Moment::Civil { zone, .. }) => *zone = newest.clone(),
                Schedule::At(Moment::Instant(_)) | Schedule::Every(_) => continue,
            }
            let after_ms = job.next_run_ms(now.wall_ms);
            if after_ms != next_ms {
                tracing::info!(job = %id, name = %job.name, before = ?next_ms, after = ?after_ms,
                    "new zone data moves the next run of a job");
                moved.push(id);
            }
        }
        for id in &moved {
            let wake = self.jobs.get(id).and_then(|job| self.first_wake(*id, job));
            self.jobs.wake(*id, wake);
            self.show_next(*id, now);
        }
        moved.len()
    }

    /// Writes down whether the clock is suspect, and says so.
    fn note_trust(&mut self, before: Trust) {
        let trust = self.clock.trust();
        match trust {
            Trust::Suspect(jump) => {
                tracing::warn!(
                    jump_ms = jump.by_ms(),
                    "the clock was set by hours: `creel cron status` says what that holds, `creel cron accept-clock` \
                     ends it, and so does a minute in step with a time server"
                );
                let record = ClockRecord {
                    before_unix_ms: jump.before_ms,
                    after_unix_ms: jump.after_ms,
                };
                self.changes
                    .op(Op::Put(clock_key(), record.encode_to_vec().into()));
            }
            Trust::Held { jump, .. } => {
                tracing::warn!(
                    ahead_ms = jump.by_ms(),
                    "the clock jumped ahead: nothing fires for a minute, in case it is set back"
                );
            }
            Trust::Believed => tracing::info!("the clock is believed again"),
        }
        if matches!(before, Trust::Suspect(_)) && !matches!(trust, Trust::Suspect(_)) {
            self.changes.op(Op::Delete(clock_key()));
        }
        let (Trust::Suspect(jump), false) = (trust, matches!(before, Trust::Suspect(_))) else {
            return;
        };
        let event = Event::new("clock.suspect", "service/scheduler", "clock").with("jump_ms", jump.by_ms());
        // A full outbox does not make the clock right: the record above says it, too.
        if let Ok(audit) = self.audit(event) {
            self.changes.general(audit, true);
        }
    }
}

fn zone_of(schedule: &Schedule) -> Option<&Zone> {
    match schedule {
        Schedule::Cron(cron) => Some(&cron.zone),
        Schedule::At(Moment::Civil { zone, .. }) => Some(zone),
        Schedule::At(Moment::Instant(_)) | Schedule::Every(_) => None,
    }
}

fn trusted() -> Error {
    let message = "the clock is not suspect: there is nothing to accept";
    Error::new(Code::FailedPrecondition, "clock_trusted", message).hint("creel cron status")
}
