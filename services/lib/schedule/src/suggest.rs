//! The nearest existing name to a mistyped one.

/// The candidate nearest to `name`, compared without case, whole or by its last part (`Berlin`); `None` if none is
/// near. Work is bounded by the candidates times the product of the lengths.
pub(crate) fn nearest(name: &str, candidates: &[String]) -> Option<String> {
    let wanted = normal(name);
    let limit = (wanted.len() / 4).clamp(1, 3);
    let near = |candidate: &[u8]| {
        let longer = candidate.len().abs_diff(wanted.len());
        if longer > limit {
            usize::MAX
        } else {
            distance(&wanted, candidate)
        }
    };
    let score = |candidate: &String| {
        let whole = normal(candidate);
        let last = whole
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(&whole[..], |at| &whole[at + 1..]);
        // A whole match is worth more than the same match of a part.
        near(&whole)
            .saturating_mul(2)
            .min(near(last).saturating_mul(2).saturating_add(1))
    };
    let best = candidates
        .iter()
        .map(|candidate| (score(candidate), candidate))
        .min()?;
    (best.0 <= limit * 2 + 1).then(|| best.1.clone())
}

/// Lower case, and blanks as the underscores that zone names have instead.
fn normal(name: &str) -> Vec<u8> {
    name.bytes()
        .map(|byte| {
            if byte == b' ' {
                b'_'
            } else {
                byte.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Edits (insert, remove, replace, swap neighbours) from one to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut before: Vec<usize> = vec![0; to.len() + 1];
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut here = vec![row + 1; to.len() + 1];
        for (column, b) in to.iter().enumerate() {
            let mut cost = (above[column] + usize::from(a != b))
                .min(above[column + 1] + 1)
                .min(here[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                cost = cost.min(before[column - 1] + 1);
            }
            here[column + 1] = cost;
        }
        before = std::mem::replace(&mut above, here);
    }
    above[to.len()]
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
        ]
        .map(str::to_owned);
        let cases = [
            ("europe/berlin", Some("Europe/Berlin")),
            ("Europe/Brelin", Some("Europe/Berlin")),
            ("Berlin", Some("Europe/Berlin")),
            ("New York", Some("America/New_York")),
            ("utc", Some("UTC")),
            ("Tokio", Some("Asia/Tokyo")),
            ("Mars/Olympus", None),
            ("+02:00", None),
            ("", None),
        ];
        for (typed, expected) in cases {
            assert_eq!(nearest(typed, &names).as_deref(), expected, "{typed}");
        }
    }
}
