//! The service's side of its spawner.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::capture::{Capture, Captured};
use crate::command::{Command, Io, Parcel, millis};
use crate::exit::Exit;
use crate::profile::ProfileError;
use crate::report::{Enforced, Refusal};
use crate::spawner::MAX_RUNS;
use crate::support::Support;
use crate::sys;
use crate::tree;
use crate::wire::{self, Event, MAX_PACKET, Request};

/// A handle on the helper process that starts this service's runs. Cheap to clone; when the last clone and the last
/// [`Run`] are dropped, every run is ended and the helper exits.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Arc<Shared>,
}

/// One program running inside its walls. Dropping it before it ended kills it.
#[derive(Debug)]
pub struct Run {
    id: u64,
    pid: i32,
    init: i32,
    enforced: Enforced,
    exited: oneshot::Receiver<Exit>,
    captures: [Option<Capture>; 2],
    guard: KillOnDrop,
}

/// How a run ended, and what was captured of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The end itself.
    pub exit: Exit,
    /// What was enforced while it ran.
    pub enforced: Enforced,
    /// Standard output, if [`Io::Capture`] was asked for.
    pub stdout: Captured,
    /// Standard error, likewise.
    pub stderr: Captured,
}

/// Why a command did not run, or its end is not known.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The profile does not hold.
    #[error("the sandbox profile is refused")]
    Profile(#[from] ProfileError),
    /// The walls could not be raised, or the program not be started in them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// [`MAX_RUNS`] are running.
    #[error("{MAX_RUNS} runs are active already")]
    TooMany,
    /// The command can't be sent: malformed, or larger than a packet.
    #[error("the command is not acceptable")]
    Command(#[source] io::Error),
    /// The helper process is gone, and with it every run. A service that has locked itself can't start another: it
    /// should call [`kill_descendants`](crate::kill_descendants) and exit.
    #[error("the spawner process is gone")]
    SpawnerLost,
}

impl Spawner {
    /// Starts the helper: `exe spawner`, where `exe`'s main calls [`dispatch_early`](crate::dispatch_early) first.
    /// Also makes this process a subreaper, so that nothing is lost if the helper is killed.
    ///
    /// Call it before the service locks itself and before it starts threads. Everything asynchronous belongs to the
    /// runtime in which it is first used.
    ///
    /// # Errors
    /// The system's, when the program can't be started.
    pub fn start(exe: &Path) -> io::Result<Self> {
        tree::become_subreaper()?;
        let (ours, theirs) = wire::pair()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this crate is where processes are started"
        )]
        let child = std::process::Command::new(exe)
            .arg("spawner")
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .spawn()?;
        Ok(Self {
            shared: Arc::new(Shared {
                pid: i32::try_from(child.id()).unwrap_or(0),
                socket: Mutex::new(Some(ours)),
                link: OnceLock::new(),
                next: AtomicU64::new(1),
                table: Arc::new(Mutex::new(Some(BTreeMap::new()))),
                state: watch::Sender::new(State::Unknown),
            }),
        })
    }

    /// The helper's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.shared.pid
    }

    /// Starts a command; returns when the program runs inside its walls.
    ///
    /// # Errors
    /// [`RunError`]; the program has then not executed an instruction. Dropping the future kills what it started.
    pub async fn run(&self, mut command: Command) -> Result<Run, RunError> {
        let grants = command.profile.resolve()?;
        let mut captures = [None, None];
        for (io, slot) in [&mut command.stdout, &mut command.stderr]
            .into_iter()
            .zip(&mut captures)
        {
            if let Io::Capture { max_bytes } = *io {
                let (capture, write) = Capture::start(max_bytes).map_err(RunError::Command)?;
                *slot = Some(capture);
                *io = Io::Fd(write);
            }
        }
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let parcel = Parcel::pack(id, command, grants).map_err(RunError::Command)?;
        let link = self.shared.link()?;
        let (started, exited) = self.shared.register(id)?;
        let guard = KillOnDrop {
            run: id,
            shared: Arc::clone(&self.shared),
            armed: true,
        };
        if let Err(e) = link.send(|socket| parcel.send(socket)).await {
            self.shared.forget(id);
            // EPIPE and ECONNRESET are the only errors of a socket whose packets fit.
            tracing::debug!(error = %e, "could not send to the spawner");
            return Err(RunError::SpawnerLost);
        }
        // Our copies of the program's descriptors: their other ends wait for the last holder.
        drop(parcel);
        let Started { pid, init, enforced } = started.await.map_err(|_| RunError::SpawnerLost)??;
        Ok(Run {
            id,
            pid,
            init,
            enforced,
            exited,
            captures,
            guard,
        })
    }

    /// What the kernel and the surrounding container let the walls be made of.
    ///
    /// # Errors
    /// [`RunError::SpawnerLost`].
    pub async fn support(&self) -> Result<Support, RunError> {
        self.shared.link()?;
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|s| *s != State::Unknown).await.map(|s| *s) {
            Ok(State::Up(support)) => Ok(support),
            _ => Err(RunError::SpawnerLost),
        }
    }

    /// Returns when the helper process is gone.
    pub async fn lost(&self) {
        if self.shared.link().is_ok() {
            let _ = self
                .shared
                .state
                .subscribe()
                .wait_for(|s| *s == State::Lost)
                .await;
        }
    }

    /// Ends all runs and the helper; returns when nothing of either is left. Runs get half a second between TERM
    /// and SIGKILL.
    pub async fn shutdown(&self) {
        if let Ok(link) = self.shared.link() {
            let _ = rustix::net::shutdown(link.socket.get_ref(), rustix::net::Shutdown::Write);
            self.lost().await;
        }
    }
}

impl Run {
    /// Unique within this spawner.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The main program.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its init.
    #[must_use]
    pub fn init_pid(&self) -> i32 {
        self.init
    }

    /// What stands around it.
    #[must_use]
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// Asks for the end: TERM to the group, after `grace` (at most [`MAX_GRACE`](crate::MAX_GRACE)) SIGKILL to
    /// everything. Returns at once; [`Run::wait`] tells when it is done. Asking again can only shorten the grace.
    pub fn kill(&self, grace: Duration) {
        self.guard.shared.kill(self.id, grace);
    }

    /// Waits until nothing of the run lives.
    ///
    /// # Errors
    /// [`RunError::SpawnerLost`].
    pub async fn wait(mut self) -> Result<Finished, RunError> {
        let exit = (&mut self.exited).await.map_err(|_| RunError::SpawnerLost)?;
        self.guard.armed = false;
        let [stdout, stderr] = self.captures.each_mut().map(Option::take);
        Ok(Finished {
            exit,
            enforced: self.enforced.clone(),
            stdout: finish(stdout).await,
            stderr: finish(stderr).await,
        })
    }
}

async fn finish(capture: Option<Capture>) -> Captured {
    match capture {
        Some(capture) => capture.finish().await,
        None => Captured::default(),
    }
}

#[derive(Debug)]
struct KillOnDrop {
    run: u64,
    shared: Arc<Shared>,
    armed: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.shared.kill(self.run, Duration::ZERO);
        }
    }
}

struct Started {
    pid: i32,
    init: i32,
    enforced: Enforced,
}

type StartResult = Result<Started, Refusal>;

struct Slot {
    started: Option<oneshot::Sender<StartResult>>,
    exited: oneshot::Sender<Exit>,
}

/// At most [`MAX_RUNS`] entries. `None` once the helper is lost.
type Table = Mutex<Option<BTreeMap<u64, Slot>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Up(Support),
    Lost,
}

struct Shared {
    pid: i32,
    /// Until a runtime is there to watch it.
    socket: Mutex<Option<OwnedFd>>,
    link: OnceLock<Link>,
    next: AtomicU64,
    table: Arc<Table>,
    state: watch::Sender<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spawner")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

struct Link {
    socket: Arc<AsyncFd<OwnedFd>>,
    reader: JoinHandle<()>,
}

impl Link {
    async fn send(&self, packet: impl Fn(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(result) = ready.try_io(|socket| packet(socket.get_ref())) {
                return result;
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader holds the socket; with it goes the last end, which ends the helper.
        self.reader.abort();
    }
}

impl Shared {
    fn link(&self) -> Result<&Link, RunError> {
        if let Some(link) = self.link.get() {
            return Ok(link);
        }
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = socket.take() {
            let watched = sys::watch(fd, Interest::READABLE | Interest::WRITABLE);
            let socket = Arc::new(watched.map_err(RunError::Command)?);
            let reader = tokio::spawn(read(
                Arc::clone(&socket),
                Arc::clone(&self.table),
                self.state.clone(),
                self.pid,
            ));
            let _ = self.link.set(Link { socket, reader });
        }
        self.link.get().ok_or(RunError::SpawnerLost)
    }

    fn register(
        &self,
        run: u64,
    ) -> Result<(oneshot::Receiver<StartResult>, oneshot::Receiver<Exit>), RunError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table.as_mut().ok_or(RunError::SpawnerLost)?;
        if table.len() >= MAX_RUNS {
            return Err(RunError::TooMany);
        }
        let (started, started_rx) = oneshot::channel();
        let (exited, exited_rx) = oneshot::channel();
        table.insert(
            run,
            Slot {
                started: Some(started),
                exited,
            },
        );
        Ok((started_rx, exited_rx))
    }

    fn forget(&self, run: u64) {
        if let Some(table) = self.table.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            table.remove(&run);
        }
    }

    /// Sends a kill now if there is room, else as soon as there is.
    fn kill(&self, run: u64, grace: Duration) {
        let grace_ms = millis(grace.min(crate::command::MAX_GRACE));
        let (Some(link), Ok(packet)) = (
            self.link.get(),
            wire::encode(&Request::Kill { run, grace_ms }, &[]),
        ) else {
            return;
        };
        let send = |socket: &OwnedFd| wire::send(socket.as_fd(), &packet, &[], false);
        if send(link.socket.get_ref()).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let socket = Arc::clone(&link.socket);
            runtime.spawn(async move {
                while let Ok(mut ready) = socket.writable().await {
                    let sent = ready.try_io(|s| wire::send(s.get_ref().as_fd(), &packet, &[], false));
                    if sent.is_ok() {
                        break;
                    }
                }
            });
        }
    }
}

/// Reads events until the helper is gone.
async fn read(socket: Arc<AsyncFd<OwnedFd>>, table: Arc<Table>, state: watch::Sender<State>, pid: i32) {
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let Ok(mut ready) = socket.readable().await else {
            break;
        };
        let received = ready.try_io(|s| {
            let packet = wire::receive(s.get_ref().as_fd(), &mut buffer, &mut Vec::new())?;
            packet
                .map(|p| wire::decode::<Event>(p).map(|(event, _)| event))
                .transpose()
        });
        match received {
            Ok(Ok(Some(event))) => dispatch(event, &table, &state),
            Ok(Ok(None) | Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    drop(socket);
    // Dropping the senders tells every waiter.
    table.lock().unwrap_or_else(PoisonError::into_inner).take();
    // It closed the socket by exiting, so this returns soon; collecting it leaves no zombie.
    let collected = tokio::task::spawn_blocking(move || {
        rustix::process::Pid::from_raw(pid)
            .map(|pid| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()))
    });
    let _ = collected.await;
    tracing::debug!(pid, "spawner is gone");
    state.send_replace(State::Lost);
}

fn dispatch(event: Event, table: &Table, state: &watch::Sender<State>) {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(table) = table.as_mut() else { return };
    // A receiver that is gone was dropped by its caller; there is nobody to tell.
    match event {
        Event::Hello(support) => {
            state.send_replace(State::Up(support));
        }
        Event::Started {
            run,
            pid,
            init,
            enforced,
        } => {
            if let Some(tell) = table.get_mut(&run).and_then(|slot| slot.started.take()) {
                let _ = tell.send(Ok(Started { pid, init, enforced }));
            }
        }
        Event::Refused { run, refusal } => {
            if let Some(tell) = table.remove(&run).and_then(|slot| slot.started) {
                let _ = tell.send(Err(refusal));
            }
        }
        Event::Exited { run, exit } => {
            let Some(slot) = table.remove(&run) else { return };
            if let Some(tell) = slot.started {
                let cause = io::Error::from_raw_os_error(libc::ESRCH);
                let _ = tell.send(Err(Refusal::setup("keep the run's init alive", &cause)));
            }
            let _ = slot.exited.send(exit);
        }
    }
}
