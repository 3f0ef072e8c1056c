//! Landlock rulesets: files, TCP, and the scopes of signals and abstract sockets.
//!
//! Everything is asked for as a hard requirement of an ABI the kernel has said it knows: nothing is silently
//! dropped, and what an older kernel lacks has been reported before (`support.rs`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::sys;

/// A right on a file or on everything below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Read and execute.
    Exec,
    /// Read.
    Read,
    /// Read and write an existing file; for devices.
    Device,
    /// Read, write, create, remove, rename within; no device files, no sockets.
    Write,
    /// As `Write`, and create and connect to sockets. For services' own directories.
    WriteAndSockets,
}

/// TCP ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ports {
    /// None.
    #[default]
    None,
    /// These.
    Only(Vec<u16>),
    /// Any: not restricted.
    Any,
}

/// What a ruleset shall restrict.
pub(crate) struct Scopes {
    pub(crate) files: bool,
    pub(crate) bind: Ports,
    pub(crate) connect: Ports,
    pub(crate) signals: bool,
    pub(crate) abstract_sockets: bool,
}

/// What went wrong with a ruleset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesetFailure {
    #[error("could not open `{}`", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("Landlock refused the rules")]
    Landlock(#[from] RulesetError),
}

/// A ruleset being filled, with the descriptors that must stay open while it is in force.
pub(crate) struct Rules {
    abi: ABI,
    files: bool,
    ruleset: RulesetCreated,
    pins: Vec<OwnedFd>,
}

impl Rules {
    /// `None` when there is nothing to restrict at this ABI.
    pub(crate) fn new(abi: u32, scopes: &Scopes) -> Result<Option<Self>, RulesetFailure> {
        let abi = known(abi);
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let mut anything = false;
        if scopes.files && abi >= ABI::V1 {
            ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
            anything = true;
        }
        let tcp = tcp_rights(scopes);
        if abi >= ABI::V4 && !tcp.is_empty() {
            ruleset = ruleset.handle_access(tcp)?;
            anything = true;
        }
        if abi >= ABI::V6 {
            for (wanted, scope) in [
                (scopes.signals, Scope::Signal),
                (scopes.abstract_sockets, Scope::AbstractUnixSocket),
            ] {
                if wanted {
                    ruleset = ruleset.scope(scope)?;
                    anything = true;
                }
            }
        }
        if !anything {
            return Ok(None);
        }
        let mut ruleset = ruleset.create()?;
        if abi >= ABI::V4 {
            for (ports, right) in [
                (&scopes.bind, AccessNet::BindTcp),
                (&scopes.connect, AccessNet::ConnectTcp),
            ] {
                if let Ports::Only(ports) = ports {
                    for port in ports {
                        ruleset = ruleset.add_rule(NetPort::new(*port, right))?;
                    }
                }
            }
        }
        Ok(Some(Self {
            abi,
            files: scopes.files,
            ruleset,
            pins: Vec::new(),
        }))
    }

    /// Grants a right on a canonical path. Links are not followed: a path that has become one since it was checked
    /// is an error.
    pub(crate) fn grant(self, path: &Path, right: Right) -> Result<Self, RulesetFailure> {
        let fd = open(path, ResolveFlags::NO_SYMLINKS)?;
        self.add(path, fd, right, false)
    }

    /// As [`Rules::grant`] for files of `/proc`, whose inodes live only as long as something holds them: without
    /// the pin, memory pressure would make a new inode that the rule does not know.
    pub(crate) fn grant_pinned(self, path: &Path, right: Right) -> Result<Self, RulesetFailure> {
        let fd = open(path, ResolveFlags::empty())?;
        self.add(path, fd, right, true)
    }

    fn add(mut self, path: &Path, fd: OwnedFd, right: Right, pin: bool) -> Result<Self, RulesetFailure> {
        if !self.files {
            return Ok(self);
        }
        let failed = |source: rustix::io::Errno| RulesetFailure::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let stat = fstat(&fd).map_err(failed)?;
        let mut rights = self.rights(right);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            rights &= AccessFs::from_file(self.abi);
        }
        self.ruleset = self.ruleset.add_rule(PathBeneath::new(fd.as_fd(), rights))?;
        if pin {
            self.pins.push(fd);
        }
        Ok(self)
    }

    fn rights(&self, right: Right) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match right {
            Right::Exec => read | AccessFs::Execute,
            Right::Read => read,
            Right::Device => AccessFs::ReadFile | AccessFs::WriteFile,
            Right::Write | Right::WriteAndSockets => {
                let mut never = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
                if right == Right::Write {
                    never |= AccessFs::MakeSock;
                    never |= AccessFs::ResolveUnix;
                }
                read | (AccessFs::from_write(self.abi) & !never)
            }
        }
    }

    /// Takes the descriptors out that must stay open for as long as the rules are in force.
    pub(crate) fn take_pins(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.pins)
    }

    /// Puts the calling thread under the rules (and `no_new_privs`) for good.
    pub(crate) fn enforce(self) -> Result<(), RulesetFailure> {
        self.ruleset.restrict_self()?;
        Ok(())
    }
}

/// Proof that this process can signal only its own descendants (and whatever else is in its Landlock domain): it
/// has entered a domain of its own with scoped signals, and tried.
pub(crate) struct OwnDomain(());

impl OwnDomain {
    /// Enters one; `None` where the kernel can't scope signals (before 6.12). Needs `no_new_privs`.
    pub(crate) fn enter(abi: u32) -> Result<Option<Self>, RulesetFailure> {
        let scopes = Scopes {
            files: false,
            bind: Ports::Any,
            connect: Ports::Any,
            signals: true,
            abstract_sockets: false,
        };
        let Some(rules) = Rules::new(abi, &scopes)? else {
            return Ok(None);
        };
        rules.enforce()?;
        // The proof that matters: the parent is outside, and out of reach.
        let outside = rustix::process::getppid().map(rustix::process::test_kill_process);
        Ok((outside == Some(Err(rustix::io::Errno::PERM))).then_some(Self(())))
    }

    /// Kills everything in the domain but this process, at once.
    pub(crate) fn kill_all(&self) {
        sys::kill_everything();
    }
}

fn open(path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, RulesetFailure> {
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(|source| {
        RulesetFailure::Open {
            path: path.to_owned(),
            source: source.into(),
        }
    })
}

fn tcp_rights(scopes: &Scopes) -> BitFlags<AccessNet> {
    let mut rights = BitFlags::EMPTY;
    if scopes.bind != Ports::Any {
        rights |= AccessNet::BindTcp;
    }
    if scopes.connect != Ports::Any {
        rights |= AccessNet::ConnectTcp;
    }
    rights
}

/// The newest ABI that both the kernel and this code know. What a newer one would add is not asked for.
fn known(abi: u32) -> ABI {
    match abi {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        7 => ABI::V7,
        8 => ABI::V8,
        _ => ABI::V9,
    }
}
