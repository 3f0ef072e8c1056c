//! What one run may touch, and the checks a profile passes before anything is started with it.
//!
//! A [`Profile`] is what callers write and what a plan hash covers; [`Grants`] is what it comes to on this machine:
//! canonical paths, so that the helper that opens them can refuse to follow any link and what was checked is what
//! is opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::Base;

/// Most paths one profile may name, all kinds together.
pub const MAX_PATHS: usize = 128;

/// The walls a run must have: each `true` one stands or the run does not start; each `false` one is not raised
/// (only `exec.floor` in `creel.toml` lowers a wall).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Walls {
    /// Files.
    pub fs: bool,
    /// Network.
    pub net: bool,
    /// Inter-process communication.
    pub ipc: bool,
    /// Signals outward, and nothing left at the end.
    pub kill: bool,
}

impl Walls {
    /// The default floor.
    pub const ALL: Self = Self {
        fs: true,
        net: true,
        ipc: true,
        kill: true,
    };
}

/// The network a run sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// None at all.
    None,
    /// TCP to `127.0.0.1:port`, whatever address the program asks for, and nothing else.
    Proxy {
        /// Where this run's proxy listens on loopback.
        port: u16,
    },
    /// The host's. An allowlist entry must say so.
    Host,
}

/// Resource limits. None can be switched off; large numbers are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Private writable memory of each process (`RLIMIT_DATA`, at once), and proportional memory of the whole run
    /// (sampled; above it the run is killed).
    pub memory_bytes: u64,
    /// CPU time of each process, then SIGXCPU and a second later SIGKILL.
    pub cpu_seconds: u64,
    /// Processes and threads of the whole run at one time (sampled; above it the run is killed). Until the sample,
    /// an unprivileged run can't exceed it by more than the number of tasks the system had when it started.
    pub processes: u32,
    /// Descriptors of each process.
    pub open_files: u64,
    /// Size of any one file written.
    pub file_bytes: u64,
}

impl Default for Limits {
    /// Room for a compiler or a script runtime.
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            cpu_seconds: 600,
            processes: 256,
            open_files: 1024,
            file_bytes: 1 << 30,
        }
    }
}

/// Everything the walls of one run are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Walls that must stand.
    pub walls: Walls,
    /// How much of the system is visible.
    pub base: Base,
    /// Files and directories to read and execute from.
    pub read: Vec<PathBuf>,
    /// Files and directories to read, never to execute from.
    pub read_only: Vec<PathBuf>,
    /// Files and directories to read and write, never to execute from.
    pub write: Vec<PathBuf>,
    /// Network.
    pub net: Net,
    /// Resource limits.
    pub limits: Limits,
    /// Directories no grant may contain, equal or lie in: Creel's profile directory, `~/.ssh`, keyrings. A profile
    /// that names none is refused.
    pub protected: Vec<PathBuf>,
    /// The exceptions: directories strictly inside a protected one that may be granted (`workspace/`, the run's own
    /// directory below `run/`).
    pub carve_outs: Vec<PathBuf>,
}

impl Profile {
    /// The profile of an agent's turn: all walls, the system read-only, `workspace` and `tmp` writable, no network.
    /// Add the protected directories with [`Profile::protect`]; `workspace` is already carved out of them, `tmp`
    /// is not.
    #[must_use]
    pub fn turn(workspace: &Path, tmp: &Path) -> Self {
        Self {
            walls: Walls::ALL,
            base: Base::System,
            read: Vec::new(),
            read_only: Vec::new(),
            write: vec![workspace.to_owned(), tmp.to_owned()],
            net: Net::None,
            limits: Limits::default(),
            protected: Vec::new(),
            carve_outs: vec![workspace.to_owned()],
        }
    }

    /// Adds directories no grant may reach.
    #[must_use]
    pub fn protect(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.protected.extend(directories);
        self
    }

    /// Checks the profile against the file system and makes it concrete.
    ///
    /// # Errors
    /// [`ProfileError`]: a path that is relative, missing, protected, or both writable and executable.
    pub fn resolve(&self) -> Result<Grants, ProfileError> {
        let named = self.read.len() + self.read_only.len() + self.write.len();
        if named + self.protected.len() + self.carve_outs.len() > MAX_PATHS {
            return Err(ProfileError::TooManyPaths);
        }
        if self.protected.is_empty() {
            return Err(ProfileError::NothingProtected);
        }
        let mut grants = Grants {
            exec: present(self.base.executable()),
            read: present(self.base.readable()),
            proc: present(self.base.proc()),
            devices: present(self.base.devices()),
            write: canonical(&self.write)?,
        };
        grants.exec.extend(canonical(&self.read)?);
        grants.read.extend(canonical(&self.read_only)?);
        grants.simplify();
        if !self.walls.fs {
            return Ok(grants);
        }
        let guard = Guard::new(&self.protected, &self.carve_outs);
        for path in grants.exec.iter().chain(&grants.read).chain(&grants.write) {
            guard.check(path)?;
        }
        for write in &grants.write {
            if let Some(exec) = grants.exec.iter().find(|exec| nested(exec, write)) {
                return Err(ProfileError::WritableAndExecutable {
                    write: write.clone(),
                    exec: exec.clone(),
                });
            }
        }
        Ok(grants)
    }
}

/// A profile made concrete: canonical paths, sorted by right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    pub(crate) exec: Vec<PathBuf>,
    pub(crate) read: Vec<PathBuf>,
    pub(crate) proc: Vec<PathBuf>,
    pub(crate) devices: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
}

impl Grants {
    /// Drops what a grant of a directory above says already: each rule costs the start of every run time.
    fn simplify(&mut self) {
        let within =
            |path: &PathBuf, above: &[PathBuf]| above.iter().any(|a| a != path && path.starts_with(a));
        for list in [&mut self.exec, &mut self.write, &mut self.read] {
            list.sort();
            list.dedup();
            let all = list.clone();
            list.retain(|path| !within(path, &all));
        }
        let (exec, write) = (&self.exec, &self.write);
        self.read
            .retain(|path| !within(path, exec) && !within(path, write));
    }
}

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Granted paths must not depend on anybody's working directory.
    #[error("`{}` is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// A path the profile names does not exist or can't be looked up.
    #[error("could not resolve `{}`", .path.display())]
    Unresolvable {
        /// As written in the profile.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A grant would open a protected directory.
    #[error("`{}` reaches the protected directory `{}`", .path.display(), .protected.display())]
    Protected {
        /// The grant, canonical.
        path: PathBuf,
        /// The directory it contains or lies in.
        protected: PathBuf,
    },
    /// A file could be written and then executed.
    #[error("`{}` would be writable and, by `{}`, executable", .write.display(), .exec.display())]
    WritableAndExecutable {
        /// The writable grant.
        write: PathBuf,
        /// The executable grant that contains it or lies in it.
        exec: PathBuf,
    },
    /// A profile without protected directories is a mistake, not a wish.
    #[error("the profile protects no directory; name Creel's profile directory with `Profile::protect`")]
    NothingProtected,
    /// More than [`MAX_PATHS`].
    #[error("the profile names more than {MAX_PATHS} paths")]
    TooManyPaths,
    /// Paths cross to the spawner as text.
    #[error("`{}` is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
}

struct Guard {
    protected: Vec<PathBuf>,
    carve_outs: Vec<PathBuf>,
}

impl Guard {
    fn new(protected: &[PathBuf], carve_outs: &[PathBuf]) -> Self {
        // A protected directory that does not exist yet is still protected, under the name it was given.
        let real = |p: &PathBuf| fs::canonicalize(p).unwrap_or_else(|_| p.clone());
        Self {
            protected: protected.iter().map(real).collect(),
            carve_outs: carve_outs.iter().map(real).collect(),
        }
    }

    fn check(&self, path: &Path) -> Result<(), ProfileError> {
        for protected in &self.protected {
            let contains = protected.starts_with(path);
            let inside = path.starts_with(protected);
            let carved = || {
                self.carve_outs
                    .iter()
                    .any(|c| path.starts_with(c) && c.starts_with(protected) && c != protected)
            };
            if contains || (inside && !carved()) {
                return Err(ProfileError::Protected {
                    path: path.into(),
                    protected: protected.clone(),
                });
            }
        }
        Ok(())
    }
}

fn nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn present(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().filter_map(|p| fs::canonicalize(p).ok()).collect()
}

fn canonical(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ProfileError> {
    paths
        .iter()
        .map(|path| {
            if !path.is_absolute() {
                return Err(ProfileError::Relative(path.clone()));
            }
            let real = fs::canonicalize(path).map_err(|source| ProfileError::Unresolvable {
                path: path.clone(),
                source,
            })?;
            if real.to_str().is_none() {
                Err(ProfileError::NotUtf8(real))
            } else {
                Ok(real)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Home {
        dir: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for sub in [
                "creel/workspace/src",
                "creel/state/identity",
                "creel/run/exec/7",
                "tmp",
                "bin",
            ] {
                fs::create_dir_all(dir.path().join(sub)).unwrap();
            }
            Self { dir }
        }

        fn path(&self, sub: &str) -> PathBuf {
            self.dir.path().join(sub)
        }

        fn turn(&self) -> Profile {
            Profile::turn(&self.path("creel/workspace"), &self.path("tmp")).protect([self.path("creel")])
        }
    }

    fn is_protected(p: &Profile) -> bool {
        matches!(p.resolve(), Err(ProfileError::Protected { .. }))
    }

    #[test]
    fn a_turn_gets_its_workspace_and_the_system() {
        let home = Home::new();
        let grants = home.turn().resolve().unwrap();
        assert_eq!(grants.write.len(), 2);
        assert!(grants.exec.iter().any(|p| p == Path::new("/usr")));
        assert!(grants.devices.iter().any(|p| p == Path::new("/dev/null")));
        assert!(
            !grants
                .exec
                .iter()
                .chain(&grants.read)
                .any(|p| p.starts_with(home.dir.path()))
        );
    }

    #[test]
    fn the_profile_directory_is_out_of_reach_by_every_spelling() {
        let home = Home::new();
        symlink(home.path("creel/state"), home.path("innocent")).unwrap();
        symlink(home.path("creel"), home.path("alias")).unwrap();
        let outside = [
            "creel",
            "creel/state",
            "creel/state/identity",
            "creel/run/exec/7",
            "creel/workspace/../state",
            "innocent",
            "alias/state",
            ".",
            "..",
        ];
        for sub in outside {
            let path = home.path(sub);
            for grant in [
                |p: &mut Profile, path: PathBuf| p.read.push(path),
                |p: &mut Profile, path: PathBuf| p.read_only.push(path),
                |p: &mut Profile, path: PathBuf| p.write.push(path),
            ] {
                let mut profile = home.turn();
                grant(&mut profile, path.clone());
                assert!(is_protected(&profile), "{sub}");
            }
        }
        let mut profile = home.turn();
        profile.read_only.push(PathBuf::from("/"));
        assert!(is_protected(&profile));
    }

    #[test]
    fn a_carve_out_opens_its_own_subtree_and_no_other() {
        let home = Home::new();
        let mut profile = home.turn();
        profile.read.push(home.path("creel/run/exec/7"));
        assert!(is_protected(&profile));
        profile.carve_outs.push(home.path("creel/run/exec/7"));
        profile.resolve().unwrap();
        // Naming the protected directory itself, or something above it, carves nothing out.
        for whole in ["creel", "."] {
            let mut profile = home.turn();
            profile.carve_outs.push(home.path(whole));
            profile.read.push(home.path("creel/state"));
            assert!(is_protected(&profile), "{whole}");
        }
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        let home = Home::new();
        let both = |read: &str| {
            let mut p = home.turn();
            p.read.push(home.path(read));
            matches!(p.resolve(), Err(ProfileError::WritableAndExecutable { .. }))
        };
        assert!(both("creel/workspace"), "the same directory");
        assert!(both("creel/workspace/src"), "below a writable one");
        assert!(both("tmp"));
        assert!(!both("bin"));
        let mut p = home.turn();
        p.write.push(PathBuf::from("/usr/share"));
        assert!(
            matches!(p.resolve(), Err(ProfileError::WritableAndExecutable { .. })),
            "below the base"
        );
        let mut p = home.turn();
        p.read_only.push(home.path("tmp"));
        p.resolve()
            .expect("reading without executing may overlap with writing");
    }

    #[test]
    fn sloppy_profiles_are_refused() {
        let home = Home::new();
        let mut p = home.turn();
        p.read.push(PathBuf::from("bin"));
        assert!(matches!(p.resolve(), Err(ProfileError::Relative(_))));
        let mut p = home.turn();
        p.read.push(home.path("missing"));
        assert!(matches!(p.resolve(), Err(ProfileError::Unresolvable { .. })));
        let mut p = home.turn();
        p.protected.clear();
        assert!(matches!(p.resolve(), Err(ProfileError::NothingProtected)));
        let mut p = home.turn();
        p.read_only = vec![PathBuf::from("/usr"); MAX_PATHS - 4];
        p.resolve()
            .expect("at the limit: 2 writable, 1 protected, 1 carved out");
        p.read_only.push(PathBuf::from("/usr"));
        assert!(matches!(p.resolve(), Err(ProfileError::TooManyPaths)));
    }

    #[test]
    fn a_lowered_fs_wall_lifts_the_overlap_rule() {
        let home = Home::new();
        let mut p = home.turn();
        p.walls.fs = false;
        p.read.push(home.path("tmp"));
        p.resolve().unwrap();
    }

    #[test]
    fn the_text_form_is_strict_and_lossless() {
        let home = Home::new();
        let mut p = home.turn();
        p.net = Net::Proxy { port: 3128 };
        let text = serde_json::to_string(&p).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), p);
        let widened = text.replacen('{', "{\"trust\":true,", 1);
        assert!(serde_json::from_str::<Profile>(&widened).is_err());
    }
}
