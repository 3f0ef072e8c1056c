//! A text in the person's own editor. The one process this program starts: it is the person's choice
//! (`$VISUAL`, `$EDITOR`), on the person's terminal, and given nothing but a file.

use std::{
    env, fs,
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use creel_wire::{Code, Error};

use crate::failure::Failure;

/// Used where neither variable is set.
const FALLBACK: &str = "vi";

/// The longest text read back, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// A file that is edited. It stays where it is until [`Draft::discard`]: a text that was refused is not lost.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Writes the text into a new file that only this user can read.
    pub(crate) fn new(text: &str, extension: &str) -> Result<Self, Failure> {
        let name = format!("creel-{}.{extension}", uuid::Uuid::now_v7());
        let path = env::temp_dir().join(name);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::file("write", &path, &error))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the editor and waits for its end; the text as it is then.
    ///
    /// # Errors
    /// Exit 1 when there is no editor, or it ended with a failure.
    pub(crate) fn edit(&self) -> Result<String, Failure> {
        let editor = ["VISUAL", "EDITOR"]
            .iter()
            .filter_map(|name| env::var(name).ok())
            .find(|value| !value.trim().is_empty())
            .map_or_else(Self::fallback, Ok)?;
        self.edit_with(&editor)?;
        let mut text = String::new();
        let read = fs::File::open(&self.path).and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text));
        read.map_err(|error| Failure::file("read", &self.path, &error))?;
        Ok(text)
    }

    /// Nobody chose an editor; without a terminal it would wait for keys that never come.
    fn fallback() -> Result<String, Failure> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            return Ok(FALLBACK.to_owned());
        }
        let message = "there is no terminal for an editor";
        Err(Error::new(Code::FailedPrecondition, "no_terminal", message)
            .hint("say what changes by flags, or give the whole job with --file FILE")
            .into())
    }

    /// `editor`: a program and its arguments, separated by blanks; no shell reads it.
    fn edit_with(&self, editor: &str) -> Result<(), Failure> {
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or(FALLBACK);
        #[expect(
            clippy::disallowed_methods,
            reason = "the person's own editor, with their own rights; see the module"
        )]
        let status = std::process::Command::new(program)
            .args(words)
            .arg(&self.path)
            .status();
        let failed = |what: String| {
            let error = Error::new(Code::FailedPrecondition, "editor", what);
            Failure::from(error.hint(format!(
                "set EDITOR, or edit {} yourself and give it with --file",
                self.path.display()
            )))
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("the editor `{program}` ended with {status}"))),
            Err(error) => Err(failed(format!("can't start the editor `{program}`: {error}"))),
        }
    }

    /// Removes the file.
    pub(crate) fn discard(self) {
        // In a directory for such files; what stays there does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_that_fails_leaves_the_text() {
        let draft = Draft::new("a = 1\n", "toml").unwrap();
        for editor in ["false", "/no/such/editor --wait"] {
            let failure = draft.edit_with(editor).unwrap_err();
            let error = failure.error().unwrap();
            assert!(error.hint.as_ref().unwrap().contains("--file"), "{error:?}");
        }
        draft.edit_with("true").unwrap();
        let path = draft.path().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a = 1\n");
        draft.discard();
        assert!(!path.exists());
    }
}
