//! Walls, what was really enforced, and the refusal when one can't be raised.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the four walls of `exec.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// Files: only what the profile grants, nowhere both writable and executable.
    Fs,
    /// Network: none, or only the fetch-proxy's port.
    Net,
    /// No AF_UNIX, no SysV or POSIX message objects, no abstract sockets.
    Ipc,
    /// Nothing outlives the run, and the run signals nothing outside it.
    Kill,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fs => "fs",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Kill => "kill",
        })
    }
}

/// How much of a wall stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Not raised: configuration lowered it, or this run is entitled to the host's.
    None,
    /// Raised, with the gap that the report's detail names.
    Partial,
    /// All of it.
    Full,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        })
    }
}

/// What was enforced of one wall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallReport {
    /// How much of it stands.
    pub level: Level,
    /// Made of what; for anything below `full` also what is missing.
    pub detail: Cow<'static, str>,
}

impl WallReport {
    pub(crate) fn new(level: Level, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            level,
            detail: detail.into(),
        }
    }
}

/// What was enforced on one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Files.
    pub fs: WallReport,
    /// Network.
    pub net: WallReport,
    /// Inter-process communication.
    pub ipc: WallReport,
    /// End of life and signals.
    pub kill: WallReport,
}

impl Enforced {
    /// `full` only if every wall is, `none` only if none stands.
    #[must_use]
    pub fn level(&self) -> Level {
        let levels = [self.fs.level, self.net.level, self.ipc.level, self.kill.level];
        match (levels.iter().min(), levels.iter().max()) {
            (Some(Level::Full), _) => Level::Full,
            (_, Some(Level::None)) => Level::None,
            _ => Level::Partial,
        }
    }

    /// The report of one wall.
    #[must_use]
    pub fn wall(&self, wall: Wall) -> &WallReport {
        match wall {
            Wall::Fs => &self.fs,
            Wall::Net => &self.net,
            Wall::Ipc => &self.ipc,
            Wall::Kill => &self.kill,
        }
    }
}

/// Why a run did not start. The program has not executed a single instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// A wall the profile demands can't be raised here.
    #[error("sandbox_unavailable: {wall}: {detail}")]
    Unavailable {
        /// Which wall.
        wall: Wall,
        /// What the kernel or the surrounding container lacks.
        detail: String,
        /// What the owner can change.
        hint: String,
    },
    /// Something the run needs could not be set up; the walls were not the reason.
    #[error("could not {step}: {cause}")]
    Setup {
        /// What was attempted, in words that complete "could not …".
        step: String,
        /// The system's reason.
        cause: String,
        /// Raw errno, 0 if there was none.
        errno: i32,
    },
}

impl Refusal {
    pub(crate) fn unavailable(wall: Wall, detail: impl Into<String>) -> Self {
        let hint = match wall {
            Wall::Fs => {
                "run a kernel >= 5.13 with Landlock enabled (`lsm=landlock,…`) and a container profile that \
                 allows the landlock_* calls, or take `fs` out of `exec.floor` in creel.toml"
            }
            Wall::Net => {
                "allow seccomp with user notification in the container's profile (Docker's default does), or \
                 take `net` out of `exec.floor` in creel.toml"
            }
            Wall::Ipc => "allow seccomp filters here, or take `ipc` out of `exec.floor` in creel.toml",
            Wall::Kill => {
                "mount /proc and allow seccomp here, or take `kill` out of `exec.floor` in creel.toml"
            }
        };
        Self::Unavailable {
            wall,
            detail: detail.into(),
            hint: hint.to_owned(),
        }
    }

    pub(crate) fn setup(step: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Setup {
            step: step.into(),
            cause: error.to_string(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    /// What to do about it, for operators only (`architecture.md` §7).
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unavailable { hint, .. } => Some(hint),
            Self::Setup { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(level: Level) -> Enforced {
        let w = || WallReport::new(level, "");
        Enforced {
            fs: w(),
            net: w(),
            ipc: w(),
            kill: w(),
        }
    }

    #[test]
    fn the_level_is_full_or_none_only_when_every_wall_agrees() {
        assert_eq!(all(Level::Full).level(), Level::Full);
        assert_eq!(all(Level::None).level(), Level::None);
        for wall in 0..4 {
            for odd in [Level::None, Level::Partial] {
                let mut e = all(Level::Full);
                *[&mut e.fs, &mut e.net, &mut e.ipc, &mut e.kill][wall] = WallReport::new(odd, "");
                assert_eq!(e.level(), Level::Partial, "wall {wall} {odd}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_wall_and_what_to_change() {
        let refusal = Refusal::unavailable(Wall::Net, "no seccomp");
        assert!(refusal.to_string().starts_with("sandbox_unavailable: net"));
        assert!(refusal.hint().is_some_and(|h| h.contains("exec.floor")));
    }
}
