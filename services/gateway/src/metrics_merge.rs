//! One OpenMetrics text of several: a family stands once, with the samples of every service.

use std::{collections::BTreeMap, fmt::Write as _};

/// Merges texts; families in order of name.
pub(crate) fn merge<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    // Family → (its descriptor lines, its samples).
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
            if let Some(descriptor) = line.strip_prefix("# ") {
                family = descriptor.split(' ').nth(1).unwrap_or_default();
                let (descriptors, _) = families.entry(family).or_default();
                if !descriptors.contains(&line) {
                    descriptors.push(line);
                }
            } else {
                families.entry(family).or_default().1.push(line);
            }
        }
    }
    let mut out = String::new();
    for (descriptors, samples) in families.values() {
        for line in descriptors.iter().chain(samples) {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{line}");
        }
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_once_with_everybodys_samples() {
        let a = "# HELP x X\n# TYPE x counter\nx_total{service=\"a\"} 1\n# HELP y Y\n# TYPE y gauge\ny 5\n# EOF\n";
        let b = "# HELP x X\n# TYPE x counter\nx_total{service=\"b\"} 2\n# EOF\n";
        assert_eq!(
            merge([a, b]),
            "# HELP x X\n# TYPE x counter\nx_total{service=\"a\"} 1\nx_total{service=\"b\"} 2\n\
             # HELP y Y\n# TYPE y gauge\ny 5\n# EOF\n"
        );
    }
}
