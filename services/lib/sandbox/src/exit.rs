//! How a run ended.

use serde::{Deserialize, Serialize};

/// The last state of the main program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Unknown: the run's init was killed from outside. The run itself is gone too.
    Lost,
}

/// What set the end in motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The main program ended by itself.
    Ended,
    /// The service asked.
    Killed,
    /// The command's timeout.
    TimedOut,
    /// The whole run used more than `memory_bytes`.
    Memory,
    /// The whole run had more than `processes`.
    Processes,
    /// The spawner or the service went away.
    OwnerLost,
}

/// The end of a run. When it is reported, nothing of the run lives, unless `left` says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Of the main program.
    pub status: Status,
    /// Why.
    pub cause: Cause,
    /// Orphans collected after the end was set in motion: what the main program left.
    pub strays: u32,
    /// Processes that even SIGKILL did not end in time (uninterruptible IO). Normally 0.
    pub left: u32,
    /// CPU time of all processes, user and system.
    pub cpu_ms: u64,
    /// The largest resident size any single process reached.
    pub max_rss_bytes: u64,
}

impl Exit {
    /// The conventional shell code: the exit code, or 128 + signal; 125 when it is unknown.
    #[must_use]
    pub fn shell_code(&self) -> i32 {
        match self.status {
            Status::Code(code) => code,
            Status::Signal(signal) => 128 + signal,
            Status::Lost => 125,
        }
    }
}

impl Status {
    /// From a raw wait status of a process that ended.
    pub(crate) fn from_raw(raw: i32) -> Self {
        if libc::WIFEXITED(raw) {
            Self::Code(libc::WEXITSTATUS(raw))
        } else {
            Self::Signal(libc::WTERMSIG(raw))
        }
    }
}
