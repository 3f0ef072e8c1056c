//! Two networks that a test makes: one for a stack, one for those who come to it from many addresses. Joined by
//! one cable, without a route anywhere else.
//!
//! They live as long as the handle, and what was started in them: a network that ended with its last thread took
//! the cable along, and whoever still waited for an answer over it waited for ever.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space},
};

/// Where the stack listens.
pub const STACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The address of a host far away: no two of the first 32,768 are of one /24.
#[must_use]
pub const fn host(n: u32) -> Ipv4Addr {
    let network = n % 32_768;
    let last = 1 + (n / 32_768) % 250;
    Ipv4Addr::from_bits((10 << 24) | (1 << 23) | (network << 8) | last)
}

/// The two networks.
#[derive(Debug)]
pub struct Networks {
    near: File,
    far: File,
}

impl Networks {
    /// Makes them; tells on stderr that a test is skipped where no namespace can be had.
    #[must_use]
    pub fn make(test: &str) -> Option<Self> {
        let made = apart(|| {
            let near = unshared()?;
            let far = unshared()?;
            enter(&near);
            up("lo");
            ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"]);
            let there = format!("/proc/{}/fd/{}", std::process::id(), far.as_raw_fd());
            ip(&["link", "set", "far", "netns", &there]);
            ip(&["address", "add", "10.77.0.1/24", "dev", "near"]);
            up("near");
            ip(&["route", "add", "10.128.0.0/9", "via", "10.77.0.2"]);
            enter(&far);
            up("lo");
            ip(&["address", "add", "10.77.0.2/24", "dev", "far"]);
            up("far");
            // Every address of theirs is this host's, none has to be added.
            ip(&["route", "add", "local", "10.128.0.0/9", "dev", "lo"]);
            Ok::<_, rustix::io::Errno>(Self { near, far })
        });
        made.inspect_err(|why| eprintln!("SKIPPED: {test} needs network namespaces ({why}); be root"))
            .ok()
    }

    /// Runs `act` on a thread in the stack's network; what it starts is there, too.
    pub fn near<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        apart(|| {
            enter(&self.near);
            act()
        })
    }

    /// The same among the hosts far away.
    pub fn far<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        apart(|| {
            enter(&self.far);
            act()
        })
    }
}

/// On a thread of its own, which is in whatever network it moved to when it ends.
fn apart<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Moves this thread into a new network, with nothing in it.
#[expect(
    deprecated,
    reason = "for the flags that leave a thread without its memory; this one is safe"
)]
fn unshared() -> Result<File, rustix::io::Errno> {
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    let here = format!("/proc/self/task/{}/ns/net", gettid().as_raw_nonzero());
    Ok(File::from(rustix::fs::open(
        here,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?))
}

fn enter(network: &File) {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("a network");
}

fn up(device: &str) {
    ip(&["link", "set", device, "up"]);
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.expect("`ip` of Debian's iproute2");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
