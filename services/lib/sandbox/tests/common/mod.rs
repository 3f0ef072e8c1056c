//! What the end-to-end tests share: a place with a workspace and a secret, targets to attack, and roles to play.

#![allow(dead_code, reason = "every test binary uses its part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use creel_sandbox::{Child, ChildSpec, Profile, Status, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The program that is dispatched as creeld is.
pub(crate) const BED: &str = env!("CARGO_BIN_EXE_creel-sandbox-bed");

/// Everything in these tests ends within this, or the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with `workspace/`, `tmp/`, `bin/bed` and `protected/secret`, usable by root and by nobody.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        // Not below a home directory: nobody must get there.
        let dir = tempfile::Builder::new()
            .prefix("creel-")
            .tempdir_in("/tmp")
            .unwrap();
        let place = Self { dir };
        place.open_to_all(place.root(), 0o755);
        for (sub, mode) in [
            ("workspace", 0o777),
            ("tmp", 0o777),
            ("bin", 0o777),
            ("protected", 0o777),
        ] {
            fs::create_dir(place.path(sub)).unwrap();
            place.open_to_all(&place.path(sub), mode);
        }
        // A link, not a copy: while a thread writes a program, the forks of another thread keep it busy.
        if fs::hard_link(BED, place.bed()).is_err() {
            fs::copy(BED, place.bed()).unwrap();
        }
        place.open_to_all(&place.bed(), 0o755);
        place.renew_secret();
        place
    }

    /// A secret whose owner is whoever probes: permissions must not be what refuses.
    pub(crate) fn renew_secret(&self) {
        let _ = fs::remove_file(self.secret());
        fs::write(self.secret(), "secret").unwrap();
        self.open_to_all(&self.secret(), 0o666);
    }

    pub(crate) fn give_secret_to(&self, uid: u32) {
        std::os::unix::fs::chown(self.secret(), Some(uid), Some(uid)).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub(crate) fn bed(&self) -> PathBuf {
        self.path("bin/bed")
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.path("protected/secret")
    }

    /// The profile of a turn here, with the bed's directory to execute from.
    pub(crate) fn profile(&self) -> Profile {
        let mut profile =
            Profile::turn(&self.path("workspace"), &self.path("tmp")).protect([self.path("protected")]);
        profile.read.push(self.path("bin"));
        profile
    }

    /// Writes a profile to a file for the bed's roles.
    pub(crate) fn write_profile(&self, profile: &Profile) -> PathBuf {
        let path = self.path("profile.json");
        fs::write(&path, serde_json::to_string(profile).unwrap()).unwrap();
        self.open_to_all(&path, 0o644);
        path
    }

    fn open_to_all(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A process the test looks at from outside.
pub(crate) struct Role {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<fs::File>,
}

impl Role {
    /// Starts a program with its standard output to read.
    pub(crate) fn start(exe: &Path, args: &[&str]) -> Self {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let child = Child::spawn(ChildSpec {
            exe: exe.to_owned(),
            args: args.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            stdout: Target::Fd(write),
            stderr: Target::Inherit,
            own_group: true,
            ..ChildSpec::default()
        });
        Self {
            child: child.unwrap(),
            lines: BufReader::new(read.into()),
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn json(&mut self) -> serde_json::Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: `{line}`"))
    }

    /// Everything it still says, and how it ended.
    pub(crate) fn finish(mut self) -> (String, Status) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        Watched::new(self.child.pid()).wait_gone(DEADLINE);
        (rest, self.child.try_wait().unwrap().unwrap())
    }
}

/// A process whose end the test waits for, immune to reuse of its pid.
pub(crate) struct Watched {
    pub(crate) pid: i32,
    handle: std::os::fd::OwnedFd,
}

impl Watched {
    pub(crate) fn new(pid: i32) -> Self {
        let handle = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty());
        Self {
            pid,
            handle: handle.unwrap_or_else(|e| panic!("{pid} is gone already: {e}")),
        }
    }

    /// Waits for the end; a zombie is an end.
    pub(crate) fn gone_within(&self, patience: Duration) -> bool {
        let mut polled = [PollFd::new(&self.handle, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).unwrap();
        poll(&mut polled, Some(&timeout)).unwrap() == 1
    }

    pub(crate) fn wait_gone(&self, patience: Duration) {
        assert!(
            self.gone_within(patience),
            "{} still lives: {}",
            self.pid,
            describe(self.pid)
        );
    }

    pub(crate) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    pub(crate) fn signal(&self, number: i32) {
        let signal = rustix::process::Signal::from_named_raw(number).unwrap();
        rustix::process::pidfd_send_signal(&self.handle, signal).unwrap();
    }

    /// Whether a signal waits for this process to unblock it.
    pub(crate) fn has_pending(&self, number: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let pending = status
            .lines()
            .find_map(|line| line.strip_prefix("ShdPnd:"))
            .unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & (1 << (number - 1)) != 0
    }
}

fn describe(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .take(8)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Things outside the sandbox that a probe is pointed at.
pub(crate) struct Targets {
    place: PathBuf,
    tcp: std::net::SocketAddr,
    pub(crate) proxy: u16,
    udp: UdpSocket,
    abstract_name: String,
    dgram: UnixDatagram,
    _stream: UnixListener,
    _abstract: UnixListener,
}

impl Targets {
    pub(crate) fn new(place: &Place) -> Self {
        let dir = place.path("protected");
        let abstract_name = format!("creel-test-{}-{}", std::process::id(), dir.display());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let targets = Self {
            place: place.root().to_owned(),
            tcp: answering(b"target"),
            proxy: answering(b"proxy!").port(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            _stream: UnixListener::bind(dir.join("stream.sock")).unwrap(),
            dgram: UnixDatagram::bind(dir.join("dgram.sock")).unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
        };
        targets.udp.set_nonblocking(true).unwrap();
        targets.dgram.set_nonblocking(true).unwrap();
        for socket in ["stream.sock", "dgram.sock"] {
            fs::set_permissions(dir.join(socket), fs::Permissions::from_mode(0o777)).unwrap();
        }
        targets
    }

    /// The probe's arguments.
    pub(crate) fn arguments(&self, victim: i32, limits: creel_sandbox::Limits) -> Vec<String> {
        let at = |sub: &str| self.place.join(sub).display().to_string();
        [
            ("secret", at("protected/secret")),
            ("workspace", at("workspace")),
            ("readable", at("bin")),
            ("socket", at("protected/stream.sock")),
            ("dgram", at("protected/dgram.sock")),
            ("abstract", self.abstract_name.clone()),
            ("tcp", self.tcp.to_string()),
            ("udp", self.udp.local_addr().unwrap().to_string()),
            ("pid", victim.to_string()),
            ("memory", limits.memory_bytes.to_string()),
        ]
        .map(|(key, value)| format!("{key}={value}"))
        .into()
    }

    /// Datagrams that got through, whatever the probe itself believes.
    pub(crate) fn assert_untouched(&self) {
        let mut byte = [0];
        assert!(self.udp.recv(&mut byte).is_err(), "a UDP datagram arrived");
        assert!(self.dgram.recv(&mut byte).is_err(), "a unix datagram arrived");
    }
}

/// A TCP listener whose connections answer their first byte with `word`.
fn answering(word: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                if stream.read_exact(&mut [0]).is_ok() {
                    let _ = stream.write_all(word);
                }
            });
        }
    });
    address
}

/// An own end of a stream socket pair and one for a program's standard streams.
pub(crate) fn socketpair() -> (std::os::unix::net::UnixStream, std::os::fd::OwnedFd) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (ours, theirs.as_fd().try_clone_to_owned().unwrap())
}
