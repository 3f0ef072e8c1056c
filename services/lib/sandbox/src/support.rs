//! What this kernel, and whatever sandbox Creel itself sits in, lets us raise; and the decision what that means
//! for a profile.

use serde::{Deserialize, Serialize};

use crate::profile::{Net, Walls};
use crate::report::{Enforced, Level, Refusal, Wall, WallReport};
use crate::seccomp;
use crate::sys::{self, Side, SingleThread};

/// Findings of one look at the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Landlock ABI; 0 = none.
    pub landlock_abi: u32,
    /// Seccomp filters can be installed.
    pub seccomp: bool,
    /// A filter with user notification could really be installed (an enclosing sandbox may hold the only place).
    pub notify: bool,
}

impl Support {
    /// Looks. The notification is tried for real, in a child, because no query tells whether it would work.
    pub(crate) fn probe(proof: SingleThread) -> Self {
        let seccomp = sys::seccomp_has(libc::SECCOMP_RET_ERRNO);
        Self {
            landlock_abi: sys::landlock_abi(),
            seccomp,
            notify: seccomp && sys::seccomp_has(libc::SECCOMP_RET_USER_NOTIF) && listener_works(proof),
        }
    }

    /// What a run with these walls and this network will have around it, or why it can't have that.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] for the first demanded wall that can't be raised.
    pub fn assess(&self, walls: Walls, net: Net) -> Result<Enforced, Refusal> {
        // `fs` needs seccomp too: Landlock does not see programs executed from anonymous memory.
        let needs_seccomp = [
            (walls.net, Wall::Net),
            (walls.ipc, Wall::Ipc),
            (walls.fs, Wall::Fs),
        ];
        if let (false, Some((_, wall))) = (self.seccomp, needs_seccomp.iter().find(|(demanded, _)| *demanded))
        {
            return Err(Refusal::unavailable(*wall, "seccomp filters are not available"));
        }
        Ok(Enforced {
            fs: self.fs(walls.fs)?,
            net: self.net(walls.net, net)?,
            ipc: if walls.ipc { self.ipc() } else { lowered() },
            kill: if walls.kill { self.kill() } else { lowered() },
        })
    }

    fn fs(&self, demanded: bool) -> Result<WallReport, Refusal> {
        if !demanded {
            return Ok(lowered());
        }
        Ok(match self.landlock_abi {
            0 => return Err(Refusal::unavailable(Wall::Fs, "Landlock is not available")),
            abi @ 1..=2 => WallReport::new(
                Level::Partial,
                format!("Landlock ABI {abi}: truncating files by path is not restricted (needs kernel 6.2)"),
            ),
            abi if !self.notify => WallReport::new(
                Level::Partial,
                format!(
                    "Landlock ABI {abi}: modes, owners and times of files outside can be changed (an enclosing sandbox \
                     holds the seccomp listener)"
                ),
            ),
            abi => WallReport::new(
                Level::Full,
                format!("Landlock ABI {abi}, gate for modes, owners and times"),
            ),
        })
    }

    fn net(&self, demanded: bool, net: Net) -> Result<WallReport, Refusal> {
        if !demanded {
            return Ok(lowered());
        }
        Ok(match net {
            Net::Host => WallReport::new(Level::None, "this run is allowed the host's network"),
            Net::None => WallReport::new(Level::Full, "no sockets"),
            Net::Proxy { .. } if !self.notify => {
                return Err(Refusal::unavailable(
                    Wall::Net,
                    "seccomp user notification is not available, and without it a run with the proxy's port could \
                     reach any host that listens on the same port number",
                ));
            }
            Net::Proxy { port } => WallReport::new(
                Level::Full,
                format!("every TCP socket is connected to 127.0.0.1:{port} before the run sees it"),
            ),
        })
    }

    fn ipc(&self) -> WallReport {
        WallReport::new(
            Level::Full,
            "no AF_UNIX but stream socketpairs, no SysV or POSIX queues",
        )
    }

    fn kill(&self) -> WallReport {
        let mut gaps = Vec::new();
        if self.landlock_abi < 6 {
            gaps.push(
                "may signal this user's other processes, and is not killed in one step (needs kernel 6.12)",
            );
        }
        if gaps.is_empty() {
            // Not a gap: the wall is that nothing outlives the run. But worth knowing.
            let root = rustix::process::getuid().is_root();
            let how = if root {
                "; root has no limit on processes between two samples"
            } else {
                ""
            };
            WallReport::new(Level::Full, format!("subreaper, signal scope{how}"))
        } else {
            WallReport::new(Level::Partial, gaps.join("; "))
        }
    }
}

fn lowered() -> WallReport {
    WallReport::new(Level::None, "lowered by configuration")
}

fn listener_works(proof: SingleThread) -> bool {
    match sys::fork(proof) {
        Ok(Side::Child) => {
            let tried = seccomp::gate_filter(Walls::ALL, Net::None)
                .map_err(drop)
                .and_then(|f| rustix::thread::set_no_new_privs(true).map(|()| f).map_err(drop))
                .and_then(|f| sys::install_listener(&f).map_err(drop));
            sys::exit(i32::from(tried.is_err()))
        }
        Ok(Side::Parent(pid)) => rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            .is_ok_and(|w| w.is_some_and(|(_, status)| status.exit_status() == Some(0))),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Support = Support {
        landlock_abi: 7,
        seccomp: true,
        notify: true,
    };
    const ALL: Walls = Walls {
        fs: true,
        net: true,
        ipc: true,
        kill: true,
    };

    #[test]
    fn a_modern_kernel_gives_every_wall_in_full() {
        let e = GOOD.assess(ALL, Net::Proxy { port: 1 }).unwrap();
        assert_eq!(e.level(), Level::Full, "{e:?}");
    }

    #[test]
    fn each_missing_feature_refuses_the_wall_that_needs_it() {
        let wall = |s: Support, net| match s.assess(ALL, net) {
            Err(Refusal::Unavailable { wall, .. }) => Some(wall),
            _ => None,
        };
        assert_eq!(
            wall(
                Support {
                    landlock_abi: 0,
                    ..GOOD
                },
                Net::None
            ),
            Some(Wall::Fs)
        );
        assert_eq!(
            wall(
                Support {
                    seccomp: false,
                    ..GOOD
                },
                Net::None
            ),
            Some(Wall::Net)
        );
        assert_eq!(
            wall(
                Support {
                    notify: false,
                    ..GOOD
                },
                Net::Proxy { port: 1 }
            ),
            Some(Wall::Net)
        );
        assert_eq!(
            wall(
                Support {
                    notify: false,
                    ..GOOD
                },
                Net::None
            ),
            None
        );
    }

    #[test]
    fn older_kernels_are_reported_as_partial_and_never_as_full() {
        let e = Support {
            landlock_abi: 2,
            ..GOOD
        }
        .assess(ALL, Net::None)
        .unwrap();
        assert_eq!((e.fs.level, e.kill.level), (Level::Partial, Level::Partial));
        let e = Support {
            notify: false,
            ..GOOD
        }
        .assess(ALL, Net::None)
        .unwrap();
        assert_eq!((e.fs.level, e.level()), (Level::Partial, Level::Partial));
    }

    #[test]
    fn a_lowered_wall_is_reported_and_not_demanded() {
        let none = Support {
            landlock_abi: 0,
            seccomp: false,
            notify: false,
        };
        let e = none
            .assess(
                Walls {
                    fs: false,
                    net: false,
                    ipc: false,
                    kill: false,
                },
                Net::None,
            )
            .unwrap();
        assert_eq!(e.level(), Level::None);
    }
}
