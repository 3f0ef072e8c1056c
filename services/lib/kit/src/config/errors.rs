//! What is wrong with a config, where, and which name was probably meant.

use std::{io, path::Path, path::PathBuf};

/// A place in a file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// Why a config was refused. Nothing falls back to defaults.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and can't be read.
    #[error("can't read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The text is not a config.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What, and the nearest valid name.
        message: String,
    },
    /// A variable's value can't be used.
    #[error("the variable {variable} can't be `{value}`")]
    Environment {
        /// Which.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
}

pub(super) fn syntax(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let place = place(text, path, error.span().map_or(0, |span| span.start));
    let message = error.message();
    // serde: "unknown field `x`, expected one of `a`, `b`"
    let mut quoted = message.split('`').skip(1).step_by(2);
    let suggestion = match (message.starts_with("unknown "), quoted.next()) {
        (true, Some(wrong)) => nearest(wrong, &quoted.collect::<Vec<_>>()).map(str::to_owned),
        _ => None,
    };
    let message = suggestion.map_or_else(
        || message.to_owned(),
        |name| format!("{message}; did you mean `{name}`?"),
    );
    ConfigError::Syntax { place, message }
}

/// A value that the types let through: the place is that of its key, or of the nearest table above it.
pub(super) fn invalid(text: &str, path: &Path, key: &str, why: String) -> ConfigError {
    let offset = toml_edit::Document::parse(text)
        .ok()
        .and_then(|document| span_of(document.as_table(), key));
    ConfigError::Syntax {
        place: place(text, path, offset.unwrap_or(0)),
        message: format!("`{key}`: {why}"),
    }
}

fn span_of(table: &toml_edit::Table, key: &str) -> Option<usize> {
    let mut table = table;
    let mut found = None;
    for part in key.split('.') {
        let (key, item) = table.get_key_value(part)?;
        found = key.span().map(|span| span.start).or(found);
        match item.as_table() {
            Some(inner) => table = inner,
            None => return found,
        }
    }
    found
}

fn place(text: &str, path: &Path, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place {
        path: path.to_owned(),
        line,
        column,
    }
}

/// Characters of a wrong name that are compared: longer ones are like none.
const MAX_COMPARED: usize = 64;

/// The name that was probably meant: at most two edits, or a third of its length, away.
pub(super) fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let wrong: String = wrong.chars().take(MAX_COMPARED).collect();
    names
        .iter()
        .map(|name| (strsim::osa_distance(&wrong, name), *name))
        .filter(|(edits, name)| *edits <= 2.max(name.len() / 3))
        .min()
        .map(|(_, name)| name)
}
