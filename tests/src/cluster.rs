//! A stack of real processes in a temporary profile.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use creel_kit::profile::{EdgeFile, Profile, StatusFile};
use creel_wire::ServiceName;

use crate::processes::{is_alive, kill9, of_profile, signal, wait_until};

/// How long a start or a stop may take on a busy machine before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        &self.stdout
    }

    /// stdout as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// The binary that `cargo build --bins` left beside the test's own.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let dir = own.parent().and_then(Path::parent).expect("target/debug/deps");
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// A profile, and the supervisor that runs in it.
pub struct Cluster {
    pub profile: Profile,
    home: PathBuf,
    supervisor: Option<Child>,
    lines: Arc<Mutex<Vec<String>>>,
    env: BTreeMap<String, String>,
    _dir: Option<tempfile::TempDir>,
}

impl Cluster {
    /// A fresh profile with a config on free ports; nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        creel_wire::install_crypto();
        // Short: socket paths have a limit.
        let dir = tempfile::Builder::new()
            .prefix("creel-")
            .tempdir_in("/tmp")
            .expect("a directory");
        let home = dir.path().join("p");
        fs::create_dir(&home).expect("profile");
        let profile = Profile::at("default", &home).expect("profile");
        let (edge, admin) = (free_port(), free_port());
        let config =
            format!("[gateway]\nlisten = \"127.0.0.1:{edge}\"\nadmin_listen = \"127.0.0.1:{admin}\"\n");
        creel_kit::profile::write_private(&home.join("creel.toml"), config.as_bytes()).expect("config");
        Self {
            profile,
            home,
            supervisor: None,
            lines: Arc::default(),
            env: BTreeMap::new(),
            _dir: Some(dir),
        }
    }

    /// A running, ready stack.
    #[must_use]
    pub fn start() -> Self {
        let mut cluster = Self::new();
        cluster.up();
        cluster
    }

    /// Adds to the config.
    #[must_use]
    pub fn config(self, more: &str) -> Self {
        let path = self.profile.config_file();
        let text = fs::read_to_string(&path).expect("config") + more;
        fs::write(path, text).expect("config");
        self
    }

    /// A variable for everything that is started.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Starts the supervisor and waits until the stack is ready.
    pub fn up(&mut self) {
        self.spawn_up();
        self.wait_ready();
    }

    /// Starts the supervisor without waiting.
    pub fn spawn_up(&mut self) {
        let mut child = self
            .command("creeld")
            .arg("up")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("creeld");
        self.lines.lock().expect("lines").clear();
        self.collect(child.stdout.take().expect("piped"));
        self.collect(child.stderr.take().expect("piped"));
        self.supervisor = Some(child);
    }

    fn collect(&self, pipe: impl std::io::Read + Send + 'static) {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().expect("lines").push(line);
            }
        });
    }

    /// Waits until every service is ready.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let end = std::time::Instant::now() + PATIENCE;
        while !self.is_ready() {
            let ended = self
                .supervisor
                .as_mut()
                .and_then(|child| child.try_wait().expect("wait"));
            assert!(ended.is_none(), "creeld ended with {ended:?}:\n{}", self.said());
            assert!(
                std::time::Instant::now() < end,
                "not ready:\n{}\n{:?}",
                self.said(),
                self.status()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status().is_some_and(|status| {
            Some(status.pid) == self.supervisor.as_ref().map(Child::id)
                && !status.services.is_empty()
                && status.services.iter().all(|service| service.state == "ready")
        })
    }

    /// What the supervisor has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.lines.lock().expect("lines").join("\n")
    }

    #[must_use]
    pub fn status(&self) -> Option<StatusFile> {
        serde_json::from_slice(&fs::read(self.profile.status_file()).ok()?).ok()
    }

    /// How a service is, as the supervisor sees it.
    #[must_use]
    pub fn state_of(&self, name: ServiceName) -> Option<String> {
        let services = self.status()?.services;
        services
            .into_iter()
            .find(|one| one.name == name.as_str())
            .map(|one| one.state)
    }

    #[must_use]
    pub fn edge(&self) -> EdgeFile {
        serde_json::from_slice(&fs::read(self.profile.edge_file()).expect("edge.json")).expect("edge.json")
    }

    /// The process of a service, as the supervisor knows it.
    #[track_caller]
    #[must_use]
    pub fn pid_of(&self, service: &str) -> u32 {
        let status = self.status().expect("status.json");
        status
            .services
            .iter()
            .find(|one| one.name == service)
            .map(|one| one.pid)
            .expect("service")
    }

    #[must_use]
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.as_ref().map(Child::id).expect("started")
    }

    /// Kills a service with SIGKILL and waits until another one is ready in its place.
    #[track_caller]
    pub fn kill9_and_wait(&mut self, service: &str) {
        self.kill9_all_and_wait(&[service]);
    }

    /// The same for several at once.
    #[track_caller]
    pub fn kill9_all_and_wait(&mut self, services: &[&str]) {
        let before: Vec<u32> = services.iter().map(|service| self.pid_of(service)).collect();
        before.iter().copied().for_each(kill9);
        for (service, before) in services.iter().zip(before) {
            let mut asked = false;
            wait_until(&format!("{service} is there again"), PATIENCE, || {
                let Some(status) = self.status() else { return false };
                let Some(one) = status.services.iter().find(|one| one.name == *service) else {
                    return false;
                };
                // So many kills in a minute that the supervisor has given up: what an operator would do then.
                if one.state == "failed" && !asked {
                    asked = true;
                    signal(self.supervisor_pid(), rustix::process::Signal::HUP);
                }
                one.pid != before && one.state == "ready"
            });
        }
    }

    /// Kills the supervisor with SIGKILL and waits until nothing of the stack is left.
    #[track_caller]
    pub fn kill9_stack(&mut self) {
        kill9(self.supervisor_pid());
        self.wait_end();
        self.wait_empty(PATIENCE);
    }

    /// Asks the supervisor to drain, and waits for its end; its exit status.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        signal(self.supervisor_pid(), rustix::process::Signal::TERM);
        self.wait_end()
    }

    /// Waits for the supervisor's end by itself; its exit status (128 + signal if it was killed).
    #[track_caller]
    pub fn wait_end(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = self.supervisor.take().expect("started");
        let mut status = None;
        wait_until("the supervisor ends", PATIENCE, || {
            status = child.try_wait().expect("wait");
            status.is_some()
        });
        let status = status.expect("ended");
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Runs `creel` with these arguments.
    #[must_use]
    pub fn creel(&self, arguments: &[&str]) -> Output {
        self.run(self.command("creel").args(arguments))
    }

    /// Runs `creeld` with these arguments.
    #[must_use]
    pub fn creeld(&self, arguments: &[&str]) -> Output {
        self.run(self.command("creeld").args(arguments))
    }

    /// Runs any program in the environment of this profile, for two minutes at most.
    #[must_use]
    pub fn run(&self, command: &mut Command) -> Output {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (mut out, mut err) = (
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        let out = std::thread::spawn(move || read_all(&mut out));
        let err = std::thread::spawn(move || read_all(&mut err));
        let pid = child.id();
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(120)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                kill9(pid);
            }
        });
        let status = child.wait().expect("wait");
        drop(done);
        watchdog.join().expect("watchdog");
        Output {
            status: status.code().unwrap_or(-1),
            stdout: out.join().expect("stdout"),
            stderr: err.join().expect("stderr"),
        }
    }

    /// A command in the environment of this profile.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.env_clear();
        for keep in ["PATH", "HOME", "USER", "LANG", "TZ"] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        command
            .env("CREEL_HOME", &self.home)
            .envs(&self.env)
            .env("NO_COLOR", "1");
        command
    }

    /// Processes that belong to this profile.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<u32, String> {
        of_profile(&self.home.to_string_lossy())
    }

    /// Waits until no process of this profile is left.
    #[track_caller]
    pub fn wait_empty(&self, limit: Duration) {
        let end = std::time::Instant::now() + limit;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "still there after {limit:?}: {left:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn keep_logs(&self) {
        let kept = std::env::temp_dir()
            .join("creel-failed-tests")
            .join(format!("{}", std::process::id()));
        let _ = fs::create_dir_all(&kept);
        let _ = fs::write(kept.join("supervisor.txt"), self.said());
        for entry in fs::read_dir(self.profile.logs()).into_iter().flatten().flatten() {
            let _ = fs::copy(entry.path(), kept.join(entry.file_name()));
        }
        eprintln!("logs of the failed stack: {}", kept.display());
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        if let Some(mut child) = self.supervisor.take() {
            signal(child.id(), rustix::process::Signal::TERM);
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while is_alive(child.id()) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.processes().into_keys() {
            kill9(pid);
        }
    }
}

fn read_all(pipe: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // A broken pipe ends the text.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A port nobody listens on at this moment.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
