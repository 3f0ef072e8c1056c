//! `creel doctor`: what is wrong or soon will be, why it matters, and the command that mends it.

mod disk;
mod stack;

use serde::Serialize;

use crate::{context::Context, failure::Failure};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Not wrong yet.
    Warning,
    Failed,
    /// It could not be looked at, since something before it failed.
    Skipped,
}

/// One check.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Verdict,
    /// What was found.
    what: String,
    /// Why it matters.
    why: &'static str,
    /// The command that mends it; none when there is nothing to mend.
    next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, why: &'static str, what: impl Into<String>) -> Self {
        Self {
            name,
            status: Verdict::Ok,
            what: what.into(),
            why,
            next: None,
        }
    }

    fn warning(
        name: &'static str,
        why: &'static str,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status: Verdict::Warning,
            what: what.into(),
            why,
            next: Some(next.into()),
        }
    }

    fn failed(
        name: &'static str,
        why: &'static str,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status: Verdict::Failed,
            what: what.into(),
            why,
            next: Some(next.into()),
        }
    }

    fn skipped(name: &'static str, why: &'static str, what: impl Into<String>) -> Self {
        Self {
            name,
            status: Verdict::Skipped,
            what: what.into(),
            why,
            next: None,
        }
    }
}

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let profile = context.profile()?;
    let mut checks = disk::checks(&profile, &context.clock);
    checks.extend(stack::checks(context).await);
    let failed = checks
        .iter()
        .filter(|check| check.status == Verdict::Failed)
        .count();
    if context.out.is_json() {
        context.out.json(&checks)?;
    } else {
        for check in &checks {
            context.out.line(&line(check))?;
        }
        let warnings = checks
            .iter()
            .filter(|check| check.status == Verdict::Warning)
            .count();
        context.out.line(&format!(
            "\n{} checks: {failed} failed, {warnings} warnings",
            checks.len()
        ))?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::Exit(1))
    }
}

fn line(check: &Check) -> String {
    let mark = match check.status {
        Verdict::Ok => "ok     ",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED ",
        Verdict::Skipped => "skipped",
    };
    let mut line = format!("{mark}  {}: {}", check.name, check.what);
    if let Some(next) = &check.next {
        line.push_str(&format!(
            "\n           why:  {}\n           next: {next}",
            check.why
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wrong_says_why_and_what_next() {
        let check = Check::failed("disk", "a full disk stops every change", "3 MiB free", "df -h");
        assert_eq!(
            line(&check),
            "FAILED   disk: 3 MiB free\n           why:  a full disk stops every change\n           next: df -h"
        );
        assert_eq!(
            line(&Check::ok("disk", "x", "9 GiB free")),
            "ok       disk: 9 GiB free"
        );
        let value = serde_json::to_value(&check).unwrap();
        assert_eq!(
            (&value["status"], &value["next"]),
            (&"failed".into(), &"df -h".into())
        );
        assert_eq!(
            serde_json::to_value(Check::skipped("a", "b", "c")).unwrap()["next"],
            serde_json::Value::Null
        );
    }
}
