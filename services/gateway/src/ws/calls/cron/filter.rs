//! Which jobs and runs a client wants to see, and in which order. Pure.

use creel_proto::{
    scheduler::v1::{Job, Schedule, schedule::Kind},
    time::unix_ms,
};
use serde::Deserialize;
use serde_json::Value;

use super::shape;

/// `params` of `cron.list`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct List {
    include_disabled: Option<bool>,
    pub(super) limit: Option<u64>,
    pub(super) offset: Option<u64>,
    query: Option<String>,
    enabled: Option<String>,
    schedule_kind: Option<String>,
    last_run_status: Option<String>,
    sort_by: Option<String>,
    sort_dir: Option<String>,
}

impl List {
    pub(super) fn takes(&self, job: &Job) -> bool {
        let enabled = shape::is_enabled(job);
        let shown = match self.enabled.as_deref() {
            Some("enabled") => enabled,
            Some("disabled") => !enabled,
            Some(_) => true,
            None => enabled || self.include_disabled == Some(true),
        };
        let spec = job.spec.as_ref();
        let texts = spec.map(|spec| [job.job_id.as_str(), &spec.name, &spec.description]);
        let kind = kind(spec.and_then(|spec| spec.schedule.as_ref()));
        let status = if job.last_status.is_empty() {
            "unknown"
        } else {
            shape::status_text(&job.last_status)
        };
        shown
            && matches(self.query.as_deref(), texts.iter().flatten().copied())
            && is_any_or(self.schedule_kind.as_deref(), kind)
            && is_any_or(self.last_run_status.as_deref(), status)
    }

    /// As the original: the next one first, those without a next instant before all.
    pub(super) fn sort(&self, jobs: &mut [Job]) {
        let ms = |at: &Option<prost_types::Timestamp>| at.as_ref().map_or(0, unix_ms);
        match self.sort_by.as_deref() {
            Some("name") => jobs.sort_by_cached_key(|job| {
                job.spec
                    .as_ref()
                    .map_or_else(String::new, |spec| spec.name.to_lowercase())
            }),
            Some("updatedAtMs") => jobs.sort_by_key(|job| ms(&job.updated_at)),
            _ => jobs.sort_by_key(|job| ms(&job.next_run_at)),
        }
        if self.sort_dir.as_deref() == Some("desc") {
            jobs.reverse();
        }
    }
}

const fn kind(schedule: Option<&Schedule>) -> &'static str {
    match schedule {
        Some(Schedule {
            kind: Some(Kind::Every(_)),
        }) => "every",
        Some(Schedule {
            kind: Some(Kind::Cron(_)),
        }) => "cron",
        _ => "at",
    }
}

/// `params` of `cron.runs`, but for the job.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Runs {
    pub(super) run_id: Option<String>,
    scope: Option<String>,
    pub(super) limit: Option<u64>,
    pub(super) offset: Option<u64>,
    status: Option<String>,
    statuses: Option<Vec<String>>,
    query: Option<String>,
    sort_dir: Option<String>,
}

impl Runs {
    pub(super) fn is_of_a_job(&self) -> bool {
        self.scope.as_deref() == Some("job")
    }

    pub(super) fn is_of_all(&self) -> bool {
        self.scope.as_deref() == Some("all")
    }

    pub(super) fn is_oldest_first(&self) -> bool {
        self.sort_dir.as_deref() == Some("asc")
    }

    /// Whether a line of the run log is wanted.
    pub(super) fn takes(&self, entry: &Value) -> bool {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let wanted = self.statuses.as_deref().unwrap_or_default();
        let status = text("status");
        let fits = if wanted.is_empty() {
            is_any_or(self.status.as_deref(), status)
        } else {
            wanted.iter().any(|wanted| wanted == status)
        };
        fits && matches(
            self.query.as_deref(),
            ["jobId", "jobName", "summary", "error"].map(text),
        )
    }
}

/// Whether one of these texts has what is looked for, whatever its case.
fn matches<'a>(query: Option<&str>, texts: impl IntoIterator<Item = &'a str>) -> bool {
    let query = query.unwrap_or_default().trim().to_lowercase();
    query.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&query))
}

fn is_any_or(wanted: Option<&str>, found: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == "all" || wanted == found)
}

#[cfg(test)]
mod tests {
    use creel_proto::scheduler::v1::{Every, JobSpec};
    use serde_json::json;

    use super::*;

    fn job(name: &str, disabled: bool, next_ms: i64) -> Job {
        Job {
            job_id: format!("id-{name}"),
            spec: Some(JobSpec {
                name: name.to_owned(),
                disabled,
                schedule: Some(Schedule {
                    kind: Some(Kind::Every(Every::default())),
                }),
                ..JobSpec::default()
            }),
            next_run_at: Some(creel_proto::time::timestamp(next_ms)),
            ..Job::default()
        }
    }

    fn shown(params: Value) -> Vec<String> {
        let list: List = serde_json::from_value(params).unwrap();
        let mut jobs = vec![
            job("Beta", false, 1),
            job("alpha", true, 3),
            job("gamma", false, 2),
        ];
        jobs.retain(|job| list.takes(job));
        list.sort(&mut jobs);
        jobs.into_iter().map(|job| job.spec.unwrap().name).collect()
    }

    #[test]
    fn a_list_shows_what_was_asked_for_in_the_order_that_was_asked_for() {
        assert_eq!(shown(json!({})), ["Beta", "gamma"]);
        assert_eq!(
            shown(json!({"includeDisabled": true})),
            ["Beta", "gamma", "alpha"]
        );
        assert_eq!(shown(json!({"enabled": "disabled"})), ["alpha"]);
        assert_eq!(
            shown(json!({"enabled": "all", "sortBy": "name"})),
            ["alpha", "Beta", "gamma"]
        );
        assert_eq!(shown(json!({"query": " BET "})), ["Beta"]);
        assert_eq!(shown(json!({"query": "id-gamma", "sortDir": "desc"})), ["gamma"]);
        assert_eq!(shown(json!({"sortDir": "desc"})), ["gamma", "Beta"]);
        assert_eq!(shown(json!({"scheduleKind": "cron"})), [""; 0]);
        assert_eq!(
            shown(json!({"lastRunStatus": "unknown", "scheduleKind": "every"})),
            ["Beta", "gamma"]
        );
    }

    #[test]
    fn runs_are_filtered_by_status_and_words() {
        let takes = |params: Value| {
            let runs: Runs = serde_json::from_value(params).unwrap();
            runs.takes(&json!({"jobId": "j", "jobName": "Briefing", "status": "error", "error": "too late"}))
        };
        assert!(takes(json!({})) && takes(json!({"status": "all"})) && takes(json!({"status": "error"})));
        assert!(takes(json!({"query": "LATE"})) && takes(json!({"query": "brief"})));
        assert!(!takes(json!({"status": "ok"})) && !takes(json!({"query": "early"})));
        assert!(takes(json!({"statuses": ["ok", "error"]})) && !takes(json!({"statuses": ["ok"]})));
    }
}
