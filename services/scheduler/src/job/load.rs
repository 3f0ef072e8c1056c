//! Jobs off their records, a million at a start.
//!
//! Most of them are one of a few kinds: what they do when something goes wrong is the same, and it was checked
//! before. So a record is read in part, without its texts, and only the first of each kind goes through
//! [`Spec::check`]; whatever is not plainly sound does, too, so that every refusal is that one's.

use std::{collections::BTreeMap, sync::Arc};

use creel_proto::scheduler::v1::{JobRecord, JobStateRecord, Payload, Schedule as Written, schedule::Kind};
use creel_schedule::{Schedule, Zones};
use prost::Message as _;

use super::{
    Job, Plan, Rules, Sound, State,
    head::{RecordHead, SpecHead},
};
use crate::{
    id::JobId,
    spec::{self, Origin, Spec},
};

/// Kinds of jobs remembered, and expressions.
const MAX_KINDS: usize = 1_024;
const MAX_CRONS: usize = 4_096;

/// Reads jobs. What is the same in many of them is held once.
#[derive(Debug)]
pub(crate) struct Reader {
    zones: Arc<Zones>,
    /// By what they are made of, as it is written.
    kinds: BTreeMap<Vec<u8>, Arc<Rules>>,
    crons: BTreeMap<(String, String, i32, i32), Schedule>,
    /// Of the last job: most likely the next one's, too.
    owner: Arc<str>,
    /// Room for the terms of one.
    terms: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(zones: Arc<Zones>) -> Self {
        Self {
            zones,
            kinds: BTreeMap::new(),
            crons: BTreeMap::new(),
            owner: "".into(),
            terms: Vec::new(),
        }
    }

    /// A job of its records. A record that can't be used makes a broken job, never an error.
    pub(crate) fn job(&mut self, id: JobId, record: &[u8], state: Option<&[u8]>) -> Job {
        let head = RecordHead::read(record);
        let mut job = match head.as_ref().and_then(|head| self.sound(head)) {
            Some(job) => job,
            None => match JobRecord::decode(record) {
                Ok(full) => {
                    let job = self.checked(&full);
                    self.remember(head.as_ref(), &job);
                    job
                }
                Err(error) => return Job::unreadable(id, error.to_string()),
            },
        };
        match state.and_then(|state| JobStateRecord::decode(state).ok()) {
            Some(state) => {
                job.incarnation = job.incarnation.wrapping_add(state.incarnation_bumps);
                job.state = State::of_record(&state);
            }
            None => job.plan = Plan::Broken("its state record is missing".into()),
        }
        job
    }

    /// A job of a kind that was found sound before, if it is sound in what is its own, too.
    fn sound(&mut self, head: &RecordHead<'_>) -> Option<Job> {
        let spec = &head.spec;
        spec::name(spec.name).ok()?;
        if spec.description.len() > spec::MAX_DESCRIPTION_BYTES {
            return None;
        }
        self.terms.clear();
        terms(spec, &mut self.terms)?;
        let rules = Arc::clone(self.kinds.get(&self.terms)?);
        let written = Written::decode(spec.schedule).ok()?;
        let schedule = self.schedule(&written, head.anchor_unix_ms)?;
        let plan = Plan::Sound(Sound { schedule, rules });
        if *self.owner != *head.owner {
            self.owner = head.owner.into();
        }
        let owner = Arc::clone(&self.owner);
        Some(Job::read(head.incarnation, owner, spec.name, plan, head.context))
    }

    fn schedule(&mut self, written: &Written, anchor_ms: i64) -> Option<Schedule> {
        let zones = &self.zones;
        let resolve = || {
            let origin = Origin { zones, anchor_ms };
            spec::schedule(Some(written), origin)
                .ok()
                .map(|(schedule, _)| schedule)
        };
        let Some(Kind::Cron(cron)) = &written.kind else {
            return resolve();
        };
        let key = (cron.expression.clone(), cron.zone.clone(), cron.syntax, cron.dst);
        if let Some(known) = self.crons.get(&key) {
            return Some(known.clone());
        }
        let schedule = resolve()?;
        if self.crons.len() < MAX_CRONS {
            self.crons.insert(key, schedule.clone());
        }
        Some(schedule)
    }

    fn checked(&self, record: &JobRecord) -> Job {
        let origin = Origin {
            zones: &self.zones,
            anchor_ms: record.anchor_unix_ms,
        };
        let (name, plan) = match &record.spec {
            Some(spec) => {
                let plan = match Spec::check(spec, origin) {
                    Ok(spec) => Plan::Sound(Sound::from(&spec)),
                    Err(error) => Plan::Broken(error.message.into()),
                };
                (spec.name.as_str(), plan)
            }
            None => ("", Plan::Broken("its record has no spec".into())),
        };
        let owner = record.owner.as_str().into();
        Job::read(record.incarnation, owner, name, plan, &record.context)
    }

    fn remember(&mut self, head: Option<&RecordHead<'_>>, job: &Job) {
        let mut written = Vec::new();
        if head.and_then(|head| terms(&head.spec, &mut written)).is_some()
            && let Plan::Sound(sound) = &job.plan
            && self.kinds.len() < MAX_KINDS
        {
            self.kinds.insert(written, Arc::clone(&sound.rules));
        }
    }
}

/// What makes a job's [`Rules`], and what else of it is checked: few bytes, the same for all of a kind. `None` if
/// its payload is refused.
fn terms(spec: &SpecHead<'_>, terms: &mut Vec<u8>) -> Option<()> {
    let payload = Payload::decode(spec.payload).ok()?;
    let kind = spec::payload(Some(&payload)).ok()?;
    let lens = [spec.policy.len(), spec.target.len()].map(|len| len as u64);
    for number in lens {
        terms.extend(number.to_be_bytes());
    }
    terms.extend((kind as i32).to_be_bytes());
    terms.extend(spec.delete_after.to_be_bytes());
    terms.extend([spec.disabled, spec.delete_after_run].map(u8::from));
    for bytes in [spec.policy, spec.target, spec.delivery] {
        terms.extend_from_slice(bytes);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        scheduler::v1::{
            self as proto, AgentTurnPayload, Cron, Delivery, Every, JobSpec, Phase, Policy,
            SystemEventPayload, delivery, payload,
        },
        time::duration,
    };

    use super::*;

    fn every(period_ms: i64) -> Option<Written> {
        let every = Every {
            period: Some(duration(period_ms)),
            ..Every::default()
        };
        Some(Written {
            kind: Some(Kind::Every(every)),
        })
    }

    fn cron(expression: &str, zone: &str) -> Option<Written> {
        let cron = Cron {
            expression: expression.to_owned(),
            zone: zone.to_owned(),
            ..Cron::default()
        };
        Some(Written {
            kind: Some(Kind::Cron(cron)),
        })
    }

    fn says(message: &str) -> Option<Payload> {
        let turn = AgentTurnPayload {
            message: message.to_owned(),
            ..AgentTurnPayload::default()
        };
        Some(Payload {
            kind: Some(payload::Kind::AgentTurn(turn)),
        })
    }

    fn record(spec: JobSpec) -> JobRecord {
        JobRecord {
            job_id: "id".into(),
            incarnation: 7,
            spec: Some(spec),
            owner: "device/owner".into(),
            scopes: vec!["operator.read".into()],
            anchor_unix_ms: 1_234,
            created_by: "device/owner".into(),
            context: "agent:default:main".into(),
            ..JobRecord::default()
        }
    }

    /// Specs that differ in one thing each; some of them are refused.
    fn specs() -> Vec<JobSpec> {
        let base = JobSpec {
            name: "name".into(),
            schedule: every(60_000),
            target: "main".into(),
            payload: says("hello"),
            ..JobSpec::default()
        };
        let change = |with: fn(&mut JobSpec)| {
            let mut spec = base.clone();
            with(&mut spec);
            spec
        };
        let delivery = |to| Some(Delivery { to: Some(to) });
        let mut specs = vec![
            base.clone(),
            change(|spec| spec.name = "another".into()),
            change(|spec| spec.name = " blank".into()),
            change(|spec| spec.name = String::new()),
            change(|spec| spec.description = "d".repeat(4_096)),
            change(|spec| spec.description = "d".repeat(4_097)),
            change(|spec| spec.schedule = every(90_000)),
            change(|spec| spec.schedule = every(1)),
            change(|spec| spec.schedule = None),
            change(|spec| spec.schedule = cron("0 7 * * *", "Europe/Berlin")),
            change(|spec| spec.schedule = cron("0 7 * * *", "Europe/Paris")),
            change(|spec| spec.schedule = cron("0 7 * * *", "Europe/Nowhere")),
            change(|spec| spec.schedule = cron("0 0 30 2 *", "Europe/Berlin")),
            change(|spec| spec.target = "agent:default:other".into()),
            change(|spec| spec.target = "what:ever".into()),
            change(|spec| spec.payload = says("")),
            change(|spec| spec.payload = says("other words")),
            change(|spec| spec.payload = None),
            change(|spec| spec.disabled = true),
            change(|spec| spec.delete_after_run = true),
            change(|spec| spec.delete_after = proto::DeleteAfter::Always.into()),
            change(|spec| spec.delete_after = 99),
        ];
        let event = SystemEventPayload { text: "text".into() };
        specs.push(JobSpec {
            payload: Some(Payload {
                kind: Some(payload::Kind::SystemEvent(event)),
            }),
            ..base.clone()
        });
        specs.push(JobSpec {
            policy: Some(Policy {
                keep_runs: 5,
                ..Policy::default()
            }),
            ..base.clone()
        });
        specs.push(JobSpec {
            policy: Some(Policy {
                keep_runs: u32::MAX,
                ..Policy::default()
            }),
            ..base.clone()
        });
        specs.push(JobSpec {
            delivery: delivery(delivery::To::None(proto::NoDelivery {})),
            ..base.clone()
        });
        let session = proto::SessionDelivery {
            session: "no session".into(),
        };
        specs.push(JobSpec {
            delivery: delivery(delivery::To::Session(session)),
            ..base
        });
        specs
    }

    #[test]
    fn every_job_is_read_as_the_check_says_however_many_of_its_kind_came_before() {
        let mut reader = Reader::new(Arc::new(Zones::bundled()));
        let state = JobStateRecord::default().encode_to_vec();
        let id = JobId::new(1, &[1; 10]);
        for round in 0..3 {
            for spec in specs() {
                let full = record(spec);
                let fresh = Reader::new(Arc::new(Zones::bundled())).checked(&full);
                let read = reader.job(id, &full.encode_to_vec(), Some(&state));
                let said = |job: &Job| format!("{job:?}");
                assert_eq!(said(&read), said(&fresh), "round {round}: {:?}", full.spec);
            }
        }
        let sound = specs().into_iter().filter(|spec| {
            let zones = Zones::bundled();
            Spec::check(
                spec,
                Origin {
                    zones: &zones,
                    anchor_ms: 0,
                },
            )
            .is_ok()
        });
        assert!(reader.kinds.len() < sound.count(), "kinds are fewer than jobs");
    }

    #[test]
    fn jobs_of_a_kind_share_their_rules_and_their_expression() {
        let mut reader = Reader::new(Arc::new(Zones::bundled()));
        let state = JobStateRecord::default().encode_to_vec();
        let mut read = |name: &str, message: &str, schedule| {
            let spec = JobSpec {
                name: name.into(),
                schedule,
                payload: says(message),
                ..JobSpec::default()
            };
            let record = record(spec).encode_to_vec();
            let job = reader.job(JobId::new(1, &[1; 10]), &record, Some(&state));
            let Plan::Sound(sound) = job.plan else {
                panic!("{:?}", job.plan)
            };
            sound
        };
        let one = read("one", "a", every(60_000));
        let other = read("other", "b", cron("0 7 * * *", "Europe/Berlin"));
        assert!(Arc::ptr_eq(&one.rules, &other.rules));
        assert_eq!(read("third", "c", cron("0 7 * * *", "Europe/Berlin")), other);
        assert_eq!(reader.crons.len(), 1);
    }

    #[test]
    fn records_that_make_no_sense_make_broken_jobs() {
        let mut reader = Reader::new(Arc::new(Zones::bundled()));
        let id = JobId::new(1, &[1; 10]);
        let state = JobStateRecord::default().encode_to_vec();
        let good = record(specs().swap_remove(0)).encode_to_vec();
        assert!(reader.job(id, &good, Some(&state)).sound().is_some());
        let no_spec = JobRecord {
            spec: None,
            ..record(JobSpec::default())
        };
        // Another context, which is no text.
        let bad_text = [&good[..], &[0xb2, 1, 1, 0xff]].concat();
        let (state, cut, by_id) = (Some(&state[..]), &good[..good.len() - 1], id.to_string());
        for (record, state, why, name) in [
            (&no_spec.encode_to_vec()[..], state, "no spec", ""),
            (&good, None, "state record is missing", "name"),
            (&good, Some(&[0xff][..]), "state record is missing", "name"),
            (cut, state, "", &by_id),
            (&bad_text, state, "UTF-8", &by_id),
        ] {
            let job = reader.job(id, record, state);
            let (phase, reason) = job.phase();
            assert_eq!((phase, &*job.name), (Phase::Quarantined, name));
            assert!(reason.contains(why), "{reason}");
        }
    }
}
