//! Two networks that a test makes: one for a stack, one for those who come to it from many addresses. Joined by
//! one cable, without a route anywhere else, gone with the threads that live in them.
//!
//! A thread moves into a namespace, and with it whatever it starts: sockets, threads, processes.

use std::{net::Ipv4Addr, process::Command};

use rustix::thread::{UnshareFlags, gettid};

/// Where the stack listens.
pub const STACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The address of a host far away: so many that no two of the first 32,768 are of one /24.
#[must_use]
pub const fn host(n: u32) -> Ipv4Addr {
    let network = n % 32_768;
    let last = 1 + (n / 32_768) % 250;
    Ipv4Addr::from_bits((10 << 24) | (1 << 23) | (network << 8) | last)
}

/// Runs `stack` in a network of its own, and gives it what runs another closure among the hosts far away.
/// Tells on stderr that a test is skipped where no namespace can be had.
pub fn with_networks(test: &str, stack: impl FnOnce(&Far) + Send) {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            if let Err(why) = enter() {
                eprintln!("SKIPPED: {test} needs network namespaces ({why}); nothing was tested");
                return;
            }
            ip(&["link", "add", "near", "type", "veth", "peer", "name", "far"]);
            ip(&["address", "add", "10.77.0.1/24", "dev", "near"]);
            ip(&["link", "set", "near", "up"]);
            ip(&["route", "add", "10.128.0.0/9", "via", "10.77.0.2"]);
            stack(&Far { near: thread() });
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The way to the hosts far away.
#[derive(Debug)]
pub struct Far {
    /// The thread in the stack's network.
    near: String,
}

impl Far {
    /// Runs `act` on a thread of theirs, to its end. Once per test.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                enter().expect("a second namespace");
                let here = format!("/proc/{}/ns/net", thread());
                let mut hand_over = Command::new("nsenter");
                hand_over.args(["-t", &self.near, "-n", "ip", "link", "set", "far", "netns", &here]);
                run(&mut hand_over);
                ip(&["address", "add", "10.77.0.2/24", "dev", "far"]);
                ip(&["link", "set", "far", "up"]);
                // Every address of theirs is this host's, none has to be added.
                ip(&["route", "add", "local", "10.128.0.0/9", "dev", "lo"]);
                act()
            });
            match there.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Moves this thread into a new network with nothing but its loopback.
#[expect(
    deprecated,
    reason = "for the flags that leave a thread without its memory; this one is safe"
)]
fn enter() -> Result<(), String> {
    rustix::thread::unshare(UnshareFlags::NEWNET).map_err(|error| error.to_string())?;
    ip(&["link", "set", "lo", "up"]);
    Ok(())
}

/// The id of this thread, under which `/proc` shows its namespaces.
fn thread() -> String {
    gettid().as_raw_nonzero().to_string()
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().expect("`ip` of Debian's iproute2");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
