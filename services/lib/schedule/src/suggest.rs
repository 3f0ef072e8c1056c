//! The nearest existing name to a mistyped one.

/// The candidate nearest to `name`, compared without case, whole or by its last part (`Berlin`); `None` if none is
/// near. Work is bounded by the candidates times the product of the lengths.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = normal(name);
    let limit = (wanted.len() / 4).clamp(1, 3);
    let near = |candidate: &str| {
        let longer = candidate.len().abs_diff(wanted.len());
        if longer > limit {
            usize::MAX
        } else {
            strsim::osa_distance(&wanted, candidate)
        }
    };
    let score = |candidate: &str| {
        let whole = normal(candidate);
        let last = whole.rsplit('/').next().unwrap_or(&whole);
        // A whole match is worth more than the same match of a part.
        near(&whole)
            .saturating_mul(2)
            .min(near(last).saturating_mul(2).saturating_add(1))
    };
    let best = candidates
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .min()?;
    (best.0 <= limit * 2 + 1).then_some(best.1)
}

/// Lower case, and blanks as the underscores that zone names have instead.
fn normal(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = [
            "America/New_York",
            "Asia/Tokyo",
            "Europe/Berlin",
            "Europe/Dublin",
            "UTC",
        ];
        let cases = [
            ("europe/berlin", Some("Europe/Berlin")),
            ("Europe/Brelin", Some("Europe/Berlin")),
            ("Berlin", Some("Europe/Berlin")),
            ("New York", Some("America/New_York")),
            ("utc", Some("UTC")),
            (" UTC", Some("UTC")),
            ("Tokio", Some("Asia/Tokyo")),
            ("Mars/Olympus", None),
            ("+02:00", None),
            ("", None),
        ];
        for (typed, expected) in cases {
            assert_eq!(nearest(typed, names), expected, "{typed}");
        }
    }
}
