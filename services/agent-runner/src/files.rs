//! Directories of turns: workspaces that stay, temporary ones that go.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use creel_kit::Profile;
use creel_wire::{ServiceName, SessionKey};

use crate::session;

/// Where everything of this service lies.
#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    /// Transcripts, a folder per context.
    pub(crate) transcripts: PathBuf,
    /// Events, a folder per context and a file per turn.
    pub(crate) events: PathBuf,
    /// Long inputs of open turns.
    pub(crate) inputs: PathBuf,
    /// What agents may see.
    pub(crate) workspace: PathBuf,
    /// A directory per running turn.
    pub(crate) turns: PathBuf,
}

impl Dirs {
    /// The places in a profile.
    pub(crate) fn of(profile: &Profile) -> Self {
        let state = profile.state(ServiceName::AgentRunner);
        Self {
            transcripts: state.join("transcripts"),
            events: state.join("events"),
            inputs: state.join("inputs"),
            workspace: profile.workspace(),
            turns: profile.run().join("turns"),
        }
    }

    /// Makes them, and clears what an earlier process left of running turns.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        remove_tree(&self.turns)?;
        for dir in [
            &self.transcripts,
            &self.events,
            &self.inputs,
            &self.workspace,
            &self.turns,
        ] {
            private_dir(dir)?;
        }
        Ok(())
    }

    /// Makes the directories of a turn: where it works, and where it may leave things until its end.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn make(&self, turn: &str, key: &SessionKey) -> io::Result<Places> {
        let own = self.own(turn);
        let tmp = own.join("tmp");
        private_dir(&tmp)?;
        let cwd = if session::is_ephemeral(key) {
            own.join("work")
        } else {
            self.workspace.join(session::workspace_name(key))
        };
        private_dir(&cwd)?;
        Ok(Places { tmp, cwd })
    }

    /// All that is a turn's alone; removed at its end.
    pub(crate) fn own(&self, turn: &str) -> PathBuf {
        self.turns.join(turn)
    }

    /// Where the long input of a turn lies.
    pub(crate) fn input(&self, turn: &str) -> PathBuf {
        self.inputs.join(turn)
    }

    /// Keeps the long input of a turn, durably.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn keep_input(&self, turn: &str, text: &str) -> io::Result<()> {
        creel_kit::profile::write_private(&self.input(turn), text.as_bytes())
    }
}

/// The directories of a running turn.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) tmp: PathBuf,
    pub(crate) cwd: PathBuf,
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a directory and all in it, also what a program made unreadable; nothing there is fine. No
/// link is followed.
///
/// # Errors
/// The system's.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// Makes directories accessible again, outside in.
fn open_up(top: &Path) -> io::Result<()> {
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        if fs::symlink_metadata(&dir)?.is_dir() {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_were_closed_are_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let turn = dir.path().join("turn");
        fs::create_dir_all(turn.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, turn.join("a/link")).unwrap();
        for closed in ["a/b", "a"] {
            fs::set_permissions(turn.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&turn).unwrap();
        assert!(!turn.exists() && outside.join("file").exists());
        remove_tree(&turn).unwrap();
    }
}
