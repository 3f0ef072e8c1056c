//! What is read from files of others, and what becomes of it.

use creel_schedule::{EveryMode, ScheduleSpec};

use super::*;
use crate::{
    times::tests::berlin,
    views::{job::tests::job as shown_job, spec::PayloadView},
};

fn origin() -> Origin {
    Origin {
        zone: "Europe/Berlin".into(),
        zone_is_ours: true,
        now: berlin().now,
        late_ok: false,
    }
}

fn take(json: &str) -> Result<Taken, String> {
    entries(json).map_err(|failure| format!("{failure:?}"))?;
    convert::job(&jobs(json)[0], 1, &origin())
}

/// The entries of a text that has no others than jobs.
fn jobs(text: &str) -> Vec<Map<String, Value>> {
    entries(text).unwrap().into_iter().map(Result::unwrap).collect()
}

/// A store as Clawdbot writes it.
const STORE: &str = r#"{"version":1,"jobs":[
  {"id":"0d9c2d4e-0000-4000-8000-000000000001","name":"briefing","enabled":true,
   "createdAtMs":1769000000000,"updatedAtMs":1769000000000,
   "schedule":{"kind":"cron","expr":"0 7 * * *","tz":"Europe/Berlin"},
   "sessionTarget":"isolated","wakeMode":"next-heartbeat",
   "payload":{"kind":"agentTurn","message":"Summarise my inbox","timeoutSeconds":300,
              "deliver":true,"channel":"telegram","to":"12345","model":"m"},
   "isolation":{"postToMainPrefix":"Cron"},
   "state":{"nextRunAtMs":1795413600000,"lastStatus":"ok"}},
  {"id":"a","name":"pulse","enabled":"false","agentId":null,
   "schedule":{"everyMs":1800000},"sessionTarget":"main","wakeMode":"next-heartbeat",
   "payload":{"kind":"systemEvent","text":"Look around"},"state":{"nextRunAtMs":1795341000000}}
]}"#;

#[test]
fn a_store_of_the_original_is_taken_with_what_was_changed() {
    let entries = jobs(STORE);
    let briefing = convert::job(&entries[0], 1, &origin()).unwrap();
    assert_eq!(briefing.spec.name, "briefing");
    assert_eq!(briefing.spec.policy.timeout_ms, Some(300_000));
    let Some(PayloadView::AgentTurn { message, .. }) = &briefing.spec.payload else {
        panic!("{briefing:?}")
    };
    assert_eq!(message, "Summarise my inbox");
    assert_eq!(
        briefing.notes,
        [
            "delivery to telegram 12345 is left out: the summary goes to main (--deliver)",
            "left out: `model`",
            "how its summary is cut is left out",
        ]
    );
    let pulse = convert::job(&entries[1], 2, &origin()).unwrap();
    assert!(!pulse.spec.enabled);
    let rhythm = ScheduleSpec::Every {
        period_ms: 1_800_000,
        anchor_ms: Some(1_795_341_000_000),
        mode: EveryMode::FixedRate,
    };
    assert_eq!(pulse.spec.schedule, Some(rhythm));
    assert_eq!(pulse.notes, ["runs at its time, not with the next heartbeat"]);
    for taken in [&briefing, &pulse] {
        taken.spec.wire(berlin().now).unwrap();
    }
}

#[test]
fn every_spelling_of_a_schedule_is_read() {
    let of = |schedule: &str| {
        let json = format!(
            r#"{{"name":"x","schedule":{schedule},"payload":{{"kind":"systemEvent","text":"t"}},"wakeMode":"now"}}"#
        );
        take(&json).map(|taken| (taken.spec.schedule.unwrap(), taken.notes))
    };
    let at = |time: &str| ScheduleSpec::At {
        time: time.into(),
        zone: None,
    };
    for (schedule, expected) in [
        (r#"{"kind":"at","atMs":1795500000000}"#, "2026-11-24T06:00:00Z"),
        (r#"{"atMs":"1795500000000"}"#, "2026-11-24T06:00:00Z"),
        (r#"{"at":"2026-12-01"}"#, "2026-12-01T00:00:00Z"),
        (r#"{"at":"2026-12-01T07:00"}"#, "2026-12-01T07:00:00Z"),
        (
            r#"{"kind":"at","at":"2026-12-01T07:00:00+01:00"}"#,
            "2026-12-01T06:00:00Z",
        ),
    ] {
        assert_eq!(of(schedule).unwrap().0, at(expected), "{schedule}");
    }
    for (expr, expected, note) in [
        ("0 7 * * *", "0 7 * * *", None),
        (" @DAILY ", "@daily", Some("the nickname is spelled small")),
        ("0 30 7 * * *", "30 7 * * *", Some("its seconds, 0, are left out")),
        ("0 7 ? * MON", "0 7 * * MON", Some("`?` is written `*`")),
        (
            "5/15,3 1/6 * * 1/2",
            "5-59/15,3 1-23/6 * * 1-7/2",
            Some("a step from a value on is written with the end of its range"),
        ),
    ] {
        let (schedule, notes) = of(&format!(r#"{{"kind":"cron","expr":"{expr}","tz":"UTC"}}"#)).unwrap();
        let ScheduleSpec::Cron { expr: read, zone, .. } = schedule else {
            panic!("{expr}")
        };
        assert_eq!((read.as_str(), zone.as_str()), (expected, "UTC"));
        assert_eq!(
            notes,
            note.map(str::to_owned).into_iter().collect::<Vec<_>>(),
            "{expr}"
        );
    }
    let (schedule, notes) = of(r#"{"kind":"cron","expr":"0 7 * * *"}"#).unwrap();
    assert!(matches!(schedule, ScheduleSpec::Cron { zone, .. } if zone == "Europe/Berlin"));
    assert_eq!(notes, ["zone Europe/Berlin (from this machine)"]);
}

#[test]
fn a_job_without_a_name_gets_one_that_is_no_id() {
    let json = |id: &str| {
        format!(
            r#"{{"id":"{id}","schedule":{{"everyMs":60000}},"payload":{{"kind":"systemEvent","text":"t"}},"wakeMode":"now"}}"#
        )
    };
    let named = |id: &str| take(&json(id)).unwrap().spec.name;
    assert_eq!(named("0d9c2d4e-0000-4000-8000-000000000002"), "job 0d9c2d4e");
    assert_eq!((named("a"), named(" ")), ("job a".into(), "job 1".into()));
}

#[test]
fn the_seeds_spelling_and_our_own_are_taken_as_they_are() {
    let seed = r#"{"name":"s","schedule":{"kind":"interval","everyMs":1800000},"payload":{"kind":"systemEvent","text":"t"}}"#;
    assert!(take(seed).unwrap().notes.is_empty());
    let shown = serde_json::to_string(&vec![crate::views::job::JobView::from(&shown_job())]).unwrap();
    let taken = take(&shown).unwrap();
    assert_eq!(
        taken.spec,
        crate::views::spec::SpecView::from(&shown_job().spec.unwrap())
    );
}

#[test]
fn what_can_not_be_taken_says_why() {
    let event = r#""payload":{"kind":"systemEvent","text":"t"},"wakeMode":"now""#;
    for (json, why) in [
        (
            format!(r#"{{"schedule":{{"everyMs":60000}},"agentId":"work",{event}}}"#),
            "the agent `work`",
        ),
        (
            format!(r#"{{"schedule":{{"kind":"cron","expr":"5 0 7 * * *"}},{event}}}"#),
            "5 0 7",
        ),
        (
            format!(r#"{{"schedule":{{"kind":"at","atMs":1000}},{event}}}"#),
            "--late ok",
        ),
        (
            format!(r#"{{"schedule":{{"kind":"at","atMs":1000}},"state":{{"lastStatus":"ok"}},{event}}}"#),
            "it has run",
        ),
        (
            format!(r#"{{"schedule":{{"kind":"sometimes"}},{event}}}"#),
            "`sometimes`",
        ),
        (
            format!(r#"{{"schedule":{{"everyMs":60000}},"sessionTarget":"isolated",{event}}}"#),
            "systemEvent",
        ),
        (
            r#"{"schedule":{"everyMs":60000},"wakeMode":"now"}"#.to_owned(),
            "`payload`",
        ),
        (
            r#"{"schedule":{"everyMs":60000},"payload":{"kind":"agentTurn","message":" "}}"#.to_owned(),
            "",
        ),
        (format!(r#"{{{event}}}"#), "`schedule`"),
    ] {
        match take(&json) {
            Err(reason) => assert!(reason.contains(why), "{json}: {reason}"),
            // Only the scheduler knows that an empty message is refused when the job is one of ours.
            Ok(taken) => assert!(why.is_empty(), "{json}: {taken:?}"),
        }
    }
    let late = Origin {
        late_ok: true,
        ..origin()
    };
    let json = format!(r#"{{"name":"x","schedule":{{"kind":"at","atMs":1000}},{event}}}"#);
    assert!(convert::job(&jobs(&json)[0], 1, &late).is_ok());
}

#[test]
fn names_are_made_to_differ_the_same_way_each_time() {
    let job = |id: &str| {
        format!(
            r#"{{"id":"{id}","name":"x","schedule":{{"everyMs":60000}},"payload":{{"kind":"systemEvent","text":"t"}},"wakeMode":"now"}}"#
        )
    };
    let text = format!("[{},{},{}]", job("a-1"), job("b-2"), job("b-2"));
    let named = || {
        let mut names = BTreeSet::new();
        let entries = jobs(&text);
        entries
            .iter()
            .map(|entry| {
                unique(convert::job(entry, 1, &origin()).unwrap(), entry, &mut names)
                    .spec
                    .name
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(named(), ["x", "x b2", "x 2"]);
    assert_eq!(named(), named());
}

#[test]
fn files_of_every_shape_are_read_and_others_refused() {
    let job = r#"{"name":"x","schedule":{"everyMs":60000},"payload":{"kind":"systemEvent","text":"t"}}"#;
    for (text, count) in [
        (job.to_owned(), 1),
        (format!("[{job},{job}]"), 2),
        (format!("{job}\n{job}\n"), 2),
        (format!(r#"{{"jobs":[{job}]}}"#), 1),
        (format!(r#"{{"jobs":{{"a":{job}}}}}"#), 1),
        (format!(r#"[{{"data":{job}}}]"#), 1),
        (String::new(), 0),
    ] {
        assert_eq!(entries(&text).unwrap().len(), count, "{text}");
    }
    for text in ["7", r#"{"jobs":7}"#, "{", "nothing"] {
        let failure = entries(text).unwrap_err();
        assert_eq!(failure.code(), Some(Code::InvalidArgument), "{text}");
    }
    let many = format!("[{}]", vec!["{}"; MAX_JOBS + 1].join(","));
    assert!(entries(&many).is_err());

    // What is no job among jobs is one row that says so.
    let mixed = entries(r#"[{"name":"a"}, "junk", {"name":"b"}]"#).unwrap();
    assert!(mixed[0].is_ok() && mixed[2].is_ok());
    assert_eq!(mixed[1].as_ref().unwrap_err(), "\"junk\"");
}

#[test]
fn a_refused_job_makes_the_import_fail_and_its_row_says_why() {
    let row = |outcome, reason: Option<&str>| Row {
        name: "x".into(),
        id: None,
        outcome,
        schedule_text: None,
        reason: reason.map(str::to_owned),
        notes: vec!["n".into()],
    };
    assert!(verdict(&[row(Outcome::Taken, None), row(Outcome::Unchanged, None)]).is_ok());
    let failure = verdict(&[row(Outcome::Taken, None), row(Outcome::Refused, Some("why"))]).unwrap_err();
    assert_eq!(crate::output::Out::new(true).report(&failure), 1);
    assert_eq!(
        cells(&row(Outcome::Refused, Some("why")), false),
        ["x", "refused", "-", "why; n"]
    );
    assert_eq!(cells(&row(Outcome::Taken, None), true)[1], "would be taken");
}
