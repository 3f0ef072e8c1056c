//! One process of a service: started with its join secret, listened to until its end.
//!
//! It leads a process group, and the kernel kills it with the supervisor. What it prints on stderr is
//! shown, and its last lines are the reason if it fails.
//!
//! Its stdin is a pipe that this process holds open: first the join secret comes, then, should this
//! process die and the kernel's signal not do its work, the end. A child is started with a stdin that
//! ends at once, though, so it gets the pipe as stdout and moves it ([`adopt_stdin`]).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use creel_kit::{Profile, service::EXIT_CONFIG};
use creel_sandbox::{Child, ChildSpec, Status, Target};
use creel_wire::{
    Secret, ServiceName,
    names::{hex, sha256_hex},
};
use rand::Rng as _;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::Signal,
    stdio::{dup2_stdin, dup2_stdout, stdout},
};
use tokio::net::unix::pipe::Receiver;

use crate::{
    events::{Event, Events},
    files::replace,
    restart::End,
};

/// A line of a service's stderr is cut here, in bytes.
const MAX_LINE: usize = 4_096;
/// Lines kept as the reason of a failure.
const KEPT_LINES: usize = 3;

/// The value of `CREEL_SUPERVISED` in a service: where its stdin is.
const STDIN_IS_STDOUT: &str = "stdout";

/// A running process of a service.
#[derive(Debug)]
pub(crate) struct Process {
    child: Arc<Child>,
    /// Tells this process of the service from those before it.
    pub(crate) generation: u64,
    /// Held open: its end tells the service that nobody wants it any more.
    stdin: Option<OwnedFd>,
}

impl Process {
    /// Starts a service. Its lines and its end come as events.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(
        profile: &Profile,
        name: ServiceName,
        generation: u64,
        events: Events,
    ) -> io::Result<Self> {
        let (stderr, its_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (its_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        // Less than a page, so it fits the pipe before anybody reads.
        rustix::io::write(&stdin, &join_line(profile, name)?)?;
        let child = Child::spawn(ChildSpec {
            exe: own_binary()?,
            args: vec![name.as_str().into()],
            env: environment(profile, std::env::vars_os()),
            stdin: None,
            stdout: Target::Fd(its_stdin),
            stderr: Target::Fd(its_stderr),
            own_group: true,
            death_signal: Some(Signal::KILL.as_raw()),
        })?;
        let child = Arc::new(child);
        let stderr = Receiver::from_owned_fd(stderr)?;
        tokio::spawn(listen(Arc::clone(&child), stderr, name, generation, events));
        Ok(Self {
            child,
            generation,
            stdin: Some(stdin),
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Tells it to end.
    pub(crate) fn stop(&mut self) {
        // It may have ended already; then its end is on its way to us.
        let _ = self.child.signal(Signal::TERM.as_raw());
        // A thread of it waits for this, and its end waits for the thread.
        self.stdin = None;
    }

    /// Ends it and what is left in its group.
    pub(crate) fn kill(&self) {
        // As above. A process not yet collected keeps the group's id from being anybody else's.
        if self.child.signal(Signal::KILL.as_raw()).is_ok() {
            let _ = self.child.signal_group(Signal::KILL.as_raw());
        }
    }
}

/// In a service: takes the pipe that [`Process::start`] gave it as its stdin. Does nothing in a service
/// that was started by somebody else.
///
/// # Errors
/// What the system said.
pub(crate) fn adopt_stdin() -> io::Result<()> {
    if std::env::var_os("CREEL_SUPERVISED").is_none_or(|value| value != STDIN_IS_STDOUT) {
        return Ok(());
    }
    dup2_stdin(stdout())?;
    dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    Ok(())
}

/// A fresh join secret for a service. Its hash is where identity looks for it before this returns.
///
/// # Errors
/// What the system said.
pub(crate) fn join_secret(profile: &Profile, name: ServiceName) -> io::Result<Secret<Vec<u8>>> {
    let mut secret = vec![0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    // Good for this start only, so it need not survive a power failure.
    replace(
        &profile.join_dir().join(name.as_str()),
        sha256_hex(&secret).as_bytes(),
    )?;
    Ok(Secret::new(secret))
}

/// The path of this binary, also after it was replaced by a newer one: services of two versions must
/// not run side by side.
///
/// # Errors
/// What the system said.
pub(crate) fn own_binary() -> io::Result<PathBuf> {
    let me = Path::new("/proc/self/exe");
    let path = std::env::current_exe()?;
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    Ok(if id(&path).ok() == Some(id(me)?) {
        path
    } else {
        me.to_owned()
    })
}

/// What a service reads on stdin. Identity enrols nobody but others.
fn join_line(profile: &Profile, name: ServiceName) -> io::Result<Vec<u8>> {
    if name == ServiceName::Identity {
        return Ok(b"\n".to_vec());
    }
    let secret = join_secret(profile, name)?;
    Ok(format!("join {}\n", hex(secret.expose())).into_bytes())
}

/// Only what a service has a use for; whatever else is in our environment may be somebody's secret.
fn environment(
    profile: &Profile,
    own: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    const KEPT: [&str; 8] = [
        "HOME",
        "LANG",
        "NO_COLOR",
        "PATH",
        "RUST_BACKTRACE",
        "TMPDIR",
        "TZ",
        "USER",
    ];
    const OURS: [&str; 4] = [
        "CREEL_HOME",
        "CREEL_JOIN_FILE",
        "CREEL_PROFILE",
        "CREEL_SUPERVISED",
    ];
    let kept = own.filter(|(name, _)| {
        let Some(name) = name.to_str() else { return false };
        let shared = name.starts_with("CREEL_") || name.starts_with("LC_") || name.starts_with("OTEL_");
        // Only in debug builds: the tests set the clock of a whole stack with libfaketime.
        let tests = cfg!(debug_assertions) && (name == "LD_PRELOAD" || name.starts_with("FAKETIME"));
        (shared && !OURS.contains(&name)) || KEPT.contains(&name) || tests
    });
    let ours = [
        ("CREEL_HOME".into(), profile.root().as_os_str().to_owned()),
        ("CREEL_PROFILE".into(), profile.name().into()),
        ("CREEL_SUPERVISED".into(), STDIN_IS_STDOUT.into()),
    ];
    kept.chain(ours).collect()
}

async fn listen(child: Arc<Child>, stderr: Receiver, name: ServiceName, generation: u64, events: Events) {
    let mut lines = Lines::default();
    let mut kept = VecDeque::with_capacity(KEPT_LINES);
    let mut open = true;
    let status = loop {
        tokio::select! {
            ready = stderr.readable(), if open => {
                open = ready.is_ok() && lines.read(&stderr);
                tell(&mut lines, &mut kept, name, &events).await;
            }
            status = child.wait() => break status,
        }
    };
    // What it said last may still be in the pipe. Its end can't be waited for: others may hold it open.
    lines.read(&stderr);
    lines.finish();
    tell(&mut lines, &mut kept, name, &events).await;
    let end = end_of(&status, kept.make_contiguous());
    events
        .send(Event::Ended {
            name,
            generation,
            end,
        })
        .await;
}

async fn tell(lines: &mut Lines, kept: &mut VecDeque<String>, name: ServiceName, events: &Events) {
    for line in lines.complete.drain(..) {
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line.clone());
        events.send(Event::Line { name, line }).await;
    }
}

fn end_of(status: &io::Result<Status>, said: &[String]) -> End {
    let bad_config = matches!(status, Ok(Status::Code(code)) if *code == i32::from(EXIT_CONFIG));
    let how = match status {
        Ok(Status::Code(0)) => "ended without being asked to".to_owned(),
        Ok(Status::Code(code)) => format!("exit {code}"),
        Ok(Status::Signal(signal)) => format!("signal {signal}"),
        Ok(Status::Lost) => "lost".to_owned(),
        Err(error) => format!("lost ({error})"),
    };
    let said: Vec<_> = said
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    let reason = if said.is_empty() {
        how
    } else {
        format!("{how}: {}", said.join(" | "))
    };
    End { bad_config, reason }
}

/// Bytes of a pipe, cut into lines that are safe to show.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    complete: Vec<String>,
}

impl Lines {
    /// Reads what is there, at most 64 KiB at once; false at the end.
    fn read(&mut self, pipe: &Receiver) -> bool {
        let mut buffer = [0_u8; 4_096];
        for _ in 0..16 {
            match pipe.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.finish(),
                _ if self.partial.len() < MAX_LINE => self.partial.push(*byte),
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        if !self.partial.is_empty() {
            let text = String::from_utf8_lossy(&self.partial);
            self.complete.push(creel_wire::error::printable(&text, MAX_LINE));
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_cannot_steer_a_terminal() {
        let mut lines = Lines::default();
        lines.push(b"one\n\ntw");
        lines.push(b"o\x1b[2J\n");
        lines.push(&vec![b'x'; MAX_LINE + 10]);
        lines.push(b"\nlast");
        lines.finish();
        assert_eq!(lines.complete[..2], ["one", "two\\u{1b}[2J"]);
        assert_eq!(lines.complete[2].len(), MAX_LINE);
        assert_eq!(lines.complete[3], "last");
    }

    #[test]
    fn the_reason_is_what_it_said_last() {
        let said = ["gateway: no port".to_owned(), "  free one".to_owned()];
        let end = end_of(&Ok(Status::Code(1)), &said);
        assert_eq!(
            end,
            End {
                bad_config: false,
                reason: "exit 1: gateway: no port | free one".to_owned()
            }
        );
        assert!(end_of(&Ok(Status::Code(78)), &[]).bad_config);
        assert_eq!(end_of(&Ok(Status::Signal(9)), &[]).reason, "signal 9");
    }

    #[test]
    fn services_see_the_profile_and_nobody_elses_secrets() {
        let profile = Profile::at("work", "/p").unwrap();
        let own = [
            ("AWS_SECRET", "x"),
            ("NOTIFY_SOCKET", "x"),
            ("CREEL_HOME", "/q"),
            ("CREEL_JOIN_FILE", "/j"),
            ("CREEL_LOG", "debug"),
            ("TZ", "UTC"),
        ];
        let env = environment(
            &profile,
            own.into_iter().map(|(name, value)| (name.into(), value.into())),
        );
        let text: Vec<_> = env
            .iter()
            .map(|(n, v)| format!("{}={}", n.display(), v.display()))
            .collect();
        assert_eq!(
            text,
            [
                "CREEL_LOG=debug",
                "TZ=UTC",
                "CREEL_HOME=/p",
                "CREEL_PROFILE=work",
                "CREEL_SUPERVISED=stdout"
            ]
        );
    }

    #[tokio::test]
    async fn every_start_has_its_own_secret_and_identity_can_know_it() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        profile.create(&[]).unwrap();
        let first = join_line(&profile, ServiceName::Gateway).unwrap();
        let second = join_line(&profile, ServiceName::Gateway).unwrap();
        assert_ne!(first, second);
        let text = String::from_utf8(second).unwrap();
        let hex = text.strip_prefix("join ").unwrap().trim();
        let secret: Vec<_> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let kept = fs::read_to_string(profile.join_dir().join("gateway")).unwrap();
        assert_eq!(kept, sha256_hex(&secret));
        assert_eq!(join_line(&profile, ServiceName::Identity).unwrap(), b"\n");
    }
}
