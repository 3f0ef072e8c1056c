//! Words for commands that are shown to be copied.

/// For a shell; as it is where nothing in it is special.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one() {
        for (text, word) in [
            ("briefing", "briefing"),
            ("a b/c", "'a b/c'"),
            ("it's", "'it'\\''s'"),
            ("täglich", "'täglich'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
