//! Workers as processes in the sandbox, started by the spawner.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use creel_kit::config::{Backend, Config, Wall};
use creel_sandbox::{
    Cause, Command, Enforced, Finished, Io, Limits, Net, Profile, Refusal, Run, RunError, Spawner, Status,
    Walls,
};
use tokio::net::unix::pipe;

use crate::{
    launch::{Launch, Launched, Order, Over, Process},
    turn::{Failure, Gone, reason},
};

/// What is kept of a worker's standard error, in bytes; it goes to the log at debug.
const MAX_STDERR: usize = 64 << 10;
/// Processes and threads of one turn.
const MAX_PROCESSES: u32 = 64;
/// Time to raise the walls.
const LAUNCH_TIME: Duration = Duration::from_secs(30);
/// SIGTERM, as the first word of an end that we ask for.
const TERM: i32 = 15;
/// Where programs named without a path are looked for.
const PATH: [&str; 2] = ["/usr/bin", "/bin"];

/// The spawner, and the program that knows `turn-worker`. Made by [`start_spawner`].
#[derive(Debug, Clone)]
pub struct Starter {
    spawner: Spawner,
    exe: PathBuf,
}

/// Starts the helper that starts workers. `exe`'s main calls [`creel_sandbox::dispatch_early`] first and
/// knows `turn-worker` ([`crate::turn_worker_main`]). Call it before `creel_kit::service::run`: before
/// the lockdown, and before there are threads.
///
/// # Errors
/// The system's, when the program can't be started.
pub fn start_spawner(exe: &Path) -> io::Result<Starter> {
    Ok(Starter {
        spawner: Spawner::start(exe)?,
        exe: exe.to_owned(),
    })
}

/// Launches workers in the sandbox.
#[derive(Debug)]
pub(crate) struct Sandboxed {
    starter: Starter,
    backends: BTreeMap<String, Backend>,
    walls: Walls,
    memory_bytes: u64,
    protected: Vec<PathBuf>,
}

impl Sandboxed {
    /// A launcher for the backends of a config. `root` is the profile's directory, `home` the user's.
    pub(crate) fn new(starter: Starter, config: &Config, root: &Path, home: Option<&Path>) -> Self {
        let floor = |wall| config.exec.floor.contains(&wall);
        let mut protected = vec![root.to_owned()];
        for secret in [
            ".ssh",
            ".gnupg",
            ".aws",
            ".kube",
            ".config",
            ".mozilla",
            ".local/share/keyrings",
        ] {
            protected.extend(home.map(|home| home.join(secret)));
        }
        Self {
            starter,
            backends: config.backends.clone(),
            walls: Walls {
                fs: floor(Wall::Fs),
                net: floor(Wall::Net),
                ipc: floor(Wall::Ipc),
                kill: floor(Wall::Kill),
            },
            memory_bytes: u64::from(config.agent.turn_memory_mib) << 20,
            protected,
        }
    }

    fn command(&self, order: &Order) -> Result<Command, Failure> {
        let places = &order.places;
        let mut profile = Profile::turn(&places.cwd, &places.tmp).protect(self.protected.iter().cloned());
        profile.carve_outs.push(places.tmp.clone());
        profile.walls = self.walls;
        profile.limits = Limits {
            memory_bytes: self.memory_bytes,
            cpu_seconds: order.timeout.as_secs().max(1),
            processes: MAX_PROCESSES,
            open_files: 256,
            ..Limits::default()
        };
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), places.cwd.clone().into()),
            ("TMPDIR".into(), places.tmp.clone().into()),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        let argv: Vec<OsString> = match self.backends.get(&order.backend) {
            Some(Backend::Command {
                argv,
                read,
                env: more,
            }) => {
                profile.read.extend(read.iter().cloned());
                env.retain(|(name, _)| !more.contains_key(&*name.to_string_lossy()));
                env.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
                let program = find_program(&argv[0])?;
                profile.read.push(program.clone());
                std::iter::once(program.into())
                    .chain(argv[1..].iter().map(Into::into))
                    .collect()
            }
            None => {
                profile.read.push(self.starter.exe.clone());
                vec![self.starter.exe.clone().into(), "turn-worker".into()]
            }
        };
        let mut command = Command::new(argv, &places.cwd, profile);
        command.env = env;
        command.stderr = Io::Capture {
            max_bytes: MAX_STDERR,
        };
        // Our own timer speaks first; this one holds if this process stands still.
        command.timeout = Some(order.timeout + Duration::from_secs(10));
        Ok(command)
    }
}

#[tonic::async_trait]
impl Launch for Sandboxed {
    async fn launch(&self, order: Order) -> Result<Launched, Failure> {
        let mut command = self.command(&order)?;
        let pipes = || -> io::Result<_> {
            let (stdin, to) = io::pipe()?;
            let (from, stdout) = io::pipe()?;
            command.stdin = Io::Fd(stdin.into());
            command.stdout = Io::Fd(stdout.into());
            Ok((
                pipe::Sender::from_owned_fd(to.into())?,
                pipe::Receiver::from_owned_fd(from.into())?,
            ))
        };
        let (to, from) = { pipes }().map_err(|error| setup(&error.to_string()))?;
        let run = tokio::time::timeout(LAUNCH_TIME, self.starter.spawner.run(command))
            .await
            .map_err(|_| setup("the sandbox did not answer in time"))?
            .map_err(failure)?;
        let sandbox = run.enforced().level().to_string();
        let process = Box::new(Running {
            run,
            backend: order.backend,
        });
        Ok(Launched {
            to: Box::new(to),
            from: Box::new(from),
            sandbox,
            process,
        })
    }

    async fn sandbox(&self) -> Result<Enforced, Failure> {
        let support = self.starter.spawner.support().await.map_err(failure)?;
        support
            .assess(self.walls, Net::None)
            .map_err(|refusal| failure(RunError::Refused(refusal)))
    }

    async fn lost(&self) {
        self.starter.spawner.lost().await;
    }
}

fn find_program(name: &str) -> Result<PathBuf, Failure> {
    let found = if name.starts_with('/') {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else if name.contains('/') {
        None
    } else {
        PATH.iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.is_file())
    };
    found.ok_or_else(|| {
        let message = format!(
            "the backend's program `{}` is not there",
            creel_wire::error::printable(name, 200)
        );
        Failure::new(reason::BACKEND_MISSING, message)
            .hint("give an absolute path, or a name in /usr/bin or /bin, in [backends] of creel.toml")
    })
}

fn setup(why: &str) -> Failure {
    Failure::new("sandbox_setup", format!("the worker can't be started: {why}"))
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Refused(refusal @ Refusal::Unavailable { .. }) => {
            let hint = refusal.hint().unwrap_or_default().to_owned();
            Failure::new(reason::SANDBOX_UNAVAILABLE, refusal.to_string()).hint(hint)
        }
        RunError::Profile(error) => {
            let message = creel_kit::failure::chain(&error);
            Failure::new(
                reason::SANDBOX_PROFILE,
                format!("the sandbox profile is refused: {message}"),
            )
            .hint("change `read` of the backend in creel.toml")
        }
        error => setup(&creel_kit::failure::chain(&error)),
    }
}

#[derive(Debug)]
struct Running {
    run: Run,
    backend: String,
}

#[tonic::async_trait]
impl Process for Running {
    fn end(&self, grace: Duration) {
        self.run.kill(grace);
    }

    async fn gone(self: Box<Self>) -> Over {
        let Self { run, backend } = *self;
        match run.wait().await {
            Ok(finished) => {
                log_stderr(&backend, &finished);
                let gone = match (finished.exit.cause, finished.exit.status) {
                    (Cause::Memory, _) => Gone::Memory,
                    (Cause::OwnerLost, _) | (_, Status::Lost) => Gone::Unknown,
                    (_, Status::Code(code)) => Gone::Exited(code),
                    (Cause::Killed, Status::Signal(TERM)) => Gone::Silent,
                    (_, Status::Signal(signal)) => Gone::Signalled(signal),
                };
                Over {
                    gone,
                    memory_bytes: finished.exit.max_rss_bytes,
                }
            }
            Err(_) => Over {
                gone: Gone::Unknown,
                memory_bytes: 0,
            },
        }
    }
}

fn log_stderr(backend: &str, finished: &Finished) {
    let bytes = &finished.stderr.bytes;
    if !bytes.is_empty() {
        let text = creel_wire::error::printable(&String::from_utf8_lossy(bytes), 16_384);
        tracing::debug!(backend, dropped = finished.stderr.dropped, stderr = %text, "the worker's standard error");
    }
}
