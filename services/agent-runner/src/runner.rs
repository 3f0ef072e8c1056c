//! The service itself: takes turns in, says which runs, knows which are open, and what becomes of all
//! when something breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use creel_kit::{
    Clock, Config, Deps, Profile,
    failure::store_error,
    idempotency::{Idempotency, Slot},
    metrics::Metrics,
    outbox::Outbox,
};
use creel_proto::agent::v1::{Turn, TurnRecord};
use creel_store::{Outcome, Store, Txn};
use creel_wire::{Error, SessionKey};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    contexts::Contexts,
    course,
    events::{self, EventLog},
    figures::Figures,
    files::Dirs,
    kept::Kept,
    launch::Launch,
    queue::{Limits, Queue, Ticket},
    sandbox::{Sandboxed, Starter},
    turn,
    works::Works,
};

/// Turns that end during a drain get this long; what still runs then is interrupted.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What agent-runner is made from; a part of [`Deps`], so that tests need no certificates.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where its files lie.
    pub profile: Profile,
    /// What is deployed.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Clock,
    /// Its own store.
    pub store: Store,
    /// Its audit records.
    pub outbox: Outbox,
    /// Its answers by request id.
    pub idempotency: Idempotency,
    /// Its metrics.
    pub metrics: Metrics,
    /// Cancelled when it should stop.
    pub drain: CancellationToken,
}

impl From<&Deps> for Parts {
    fn from(deps: &Deps) -> Self {
        Self {
            profile: deps.profile.clone(),
            config: Arc::clone(&deps.config),
            clock: deps.clock.clone(),
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            idempotency: deps.idempotency.clone(),
            metrics: deps.metrics.clone(),
            drain: deps.drain.clone(),
        }
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl std::ops::Deref for Runner {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

#[doc(hidden)]
pub struct Inner {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    pub(crate) idempotency: Idempotency,
    pub(crate) figures: Figures,
    pub(crate) dirs: Dirs,
    pub(crate) settings: Settings,
    pub(crate) launcher: Arc<dyn Launch>,
    pub(crate) contexts: Contexts,
    pub(crate) works: Works,
    pub(crate) kept: Kept,
    pub(crate) drain: CancellationToken,
    /// Cancelled when what still runs has to end now.
    pub(crate) stop: CancellationToken,
    /// Told whenever a running turn has left its place.
    pub(crate) released: Notify,
    queue: Mutex<Queue>,
    /// Open turns; bounded by the queue's limits.
    live: Mutex<BTreeMap<String, Live>>,
    /// Contexts that are being deleted.
    closing: Mutex<BTreeSet<SessionKey>>,
    tasks: TaskTracker,
    broken: watch::Sender<Option<String>>,
}

/// What the config says of turns.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) backend: String,
    pub(crate) backends: BTreeSet<String>,
    pub(crate) timeout_ms: i64,
}

/// An open turn.
struct Live {
    plan: course::Plan,
    progress: watch::Sender<Progress>,
    control: mpsc::Sender<Control>,
    /// For the task that will run it.
    ready: Option<course::Ready>,
}

/// How far an open turn is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The newest event that may be shown.
    pub(crate) visible: u64,
    pub(crate) ended: bool,
}

/// What an open turn can be told.
pub(crate) enum Control {
    /// End it, for this reason.
    Abort { why: String, order: Option<AbortOrder> },
}

/// Who waits for the end of an abort, and what is committed with it.
pub(crate) struct AbortOrder {
    /// Holds the audit record.
    pub(crate) txn: Txn,
    pub(crate) slot: Slot,
    pub(crate) answer: oneshot::Sender<Result<Turn, Error>>,
}

impl Runner {
    /// A service with real workers. Nothing runs before [`Self::recover`].
    ///
    /// # Errors
    /// When its directories can't be made.
    pub fn new(parts: Parts, starter: Starter) -> std::io::Result<Self> {
        let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
        let sandboxed = Sandboxed::new(starter, &parts.config, parts.profile.root(), home.as_deref());
        Self::with_launcher(parts, Arc::new(sandboxed))
    }

    pub(crate) fn with_launcher(parts: Parts, launcher: Arc<dyn Launch>) -> std::io::Result<Self> {
        let dirs = Dirs::of(&parts.profile);
        dirs.prepare()?;
        let agent = &parts.config.agent;
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let limits = Limits {
            running: size(agent.max_running_turns),
            waiting: size(agent.max_waiting_turns),
        };
        let mut backends: BTreeSet<String> = parts.config.backends.keys().cloned().collect();
        backends.insert("echo".to_owned());
        let timeout_ms = i64::from(agent.turn_timeout_seconds) * 1_000;
        Ok(Self(Arc::new(Inner {
            contexts: Contexts::new(parts.store.clone(), &dirs.transcripts),
            figures: Figures::new(&parts.metrics),
            settings: Settings {
                backend: agent.backend.clone(),
                backends,
                timeout_ms,
            },
            store: parts.store,
            clock: parts.clock,
            outbox: parts.outbox,
            idempotency: parts.idempotency,
            dirs,
            launcher,
            works: Works::new(limits.running),
            kept: Kept::new(u64::from(agent.kept_mib) << 20, limits.running),
            drain: parts.drain,
            stop: CancellationToken::new(),
            released: Notify::new(),
            queue: Mutex::new(Queue::new(limits)),
            live: Mutex::default(),
            closing: Mutex::default(),
            tasks: TaskTracker::new(),
            broken: watch::Sender::new(None),
        })))
    }

    /// Runs until the drain is over. Turns get a moment to end; what still runs then is interrupted.
    ///
    /// # Errors
    /// When the store or the spawner is lost: the process has to start anew.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut broken = self.broken.subscribe();
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.launcher.lost() => anyhow::bail!("the spawner process is gone"),
            why = broken.wait_for(Option::is_some) => {
                let why = why.ok().and_then(|why| why.clone()).unwrap_or_default();
                anyhow::bail!("can't go on: {why}");
            }
        }
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIME, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            self.tasks.wait().await;
        }
        Ok(())
    }

    /// Says that state on disk can't be kept up: the process must not go on.
    pub(crate) fn break_down(&self, what: &str, error: &Error) {
        tracing::error!(%error, "{what} failed");
        self.broken.send_replace(Some(format!("{what}: {error}")));
    }

    /// Commits, trying again while the store is only busy.
    ///
    /// # Errors
    /// What the store said at last.
    pub(crate) async fn commit(&self, txn: &Txn) -> Result<Outcome, Error> {
        let mut tries = 0;
        loop {
            match self.store.commit(txn.clone()).await {
                Err(creel_store::Error::Unavailable { .. }) if tries < 3 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50 << tries)).await;
                }
                other => return other.map_err(store_error),
            }
        }
    }

    /// An id that sorts by time.
    pub(crate) fn new_id(&self) -> String {
        let ms = self.clock.now_ms().max(0).unsigned_abs();
        uuid::Builder::from_unix_timestamp_millis(ms, &rand::random())
            .into_uuid()
            .simple()
            .to_string()
    }

    /// Opens a turn's events; the first one is made if there is none.
    ///
    /// # Errors
    /// `Unavailable` when the file can't be written.
    pub(crate) fn open_log(&self, record: &TurnRecord) -> Result<EventLog, Error> {
        let path = events::path_of(&self.dirs.events, &record.folder, &record.turn_id);
        let (_, first) = turn::Turn::accepted(record.queued_behind);
        EventLog::open(&path, &record.turn_id, first, record.accepted_at_unix_ms)
            .map_err(|error| crate::contexts::storage(&error))
    }

    /// Starts what may start.
    pub(crate) fn dispatch(&self) {
        while !self.drain.is_cancelled() {
            let Some(ticket) = self.queue().next() else { return };
            let taken = self
                .live()
                .get_mut(&ticket.turn)
                .and_then(|live| Some((live.plan.clone(), live.ready.take()?)));
            match taken {
                Some((plan, ready)) => {
                    self.tasks.spawn(course::run(self.clone(), ticket, plan, ready));
                }
                None => self.queue().finished(&ticket.turn, &ticket.context),
            }
        }
    }

    /// A turn has left its place and nothing of its worker lives.
    pub(crate) fn release(&self, ticket: &Ticket) {
        self.queue().finished(&ticket.turn, &ticket.context);
        self.released.notify_waiters();
        self.dispatch();
    }

    /// Tells an open turn to end; `false` when there is no such open turn.
    pub(crate) async fn abort(&self, turn: &str, why: &str, order: Option<AbortOrder>) -> bool {
        let found = self
            .live()
            .get(turn)
            .map(|live| (live.plan.clone(), live.control.clone()));
        let Some((plan, control)) = found else {
            return false;
        };
        let abort = Control::Abort {
            why: why.to_owned(),
            order,
        };
        if !self.queue().withdraw(turn, &plan.key.to_string()) {
            return control.send(abort).await.is_ok();
        }
        // It waited, so nobody else will end it.
        let ready = self.live().get_mut(turn).and_then(|live| live.ready.take());
        let Some(ready) = ready else { return false };
        self.tasks.spawn(course::end_waiting(
            self.clone(),
            turn.to_owned(),
            plan,
            ready,
            abort,
        ));
        true
    }

    /// Makes an open turn known; the sender tells its task that it is durable.
    pub(crate) fn insert_live(
        &self,
        turn: &str,
        plan: course::Plan,
        at: Progress,
    ) -> oneshot::Sender<TurnRecord> {
        let (durable, ready) = oneshot::channel();
        let (control, controls) = mpsc::channel(8);
        let ready = Some(course::Ready {
            durable: ready,
            control: controls,
        });
        let live = Live {
            plan,
            progress: watch::Sender::new(at),
            control,
            ready,
        };
        self.live().insert(turn.to_owned(), live);
        durable
    }

    /// Takes a turn of an earlier process into the queue.
    pub(crate) fn restore(&self, record: TurnRecord, key: SessionKey) {
        let plan = course::Plan {
            key,
            backend: record.backend.clone(),
            timeout_ms: record.timeout_ms,
        };
        let durable = self.insert_live(
            &record.turn_id,
            plan,
            Progress {
                visible: 1,
                ended: false,
            },
        );
        let ticket = Ticket {
            turn: record.turn_id.clone(),
            context: record.session.clone(),
            owner: record.owner.clone(),
        };
        self.queue().restore(ticket);
        // The receiver was put away a moment ago.
        let _ = durable.send(record);
    }

    /// Lets subscribers of a turn see more of it.
    pub(crate) fn show(&self, turn: &str, progress: Progress) {
        let mut live = self.live();
        if let Some(found) = live.get(turn) {
            found.progress.send_replace(progress);
        }
        if progress.ended {
            live.remove(turn);
        }
    }

    /// Turns that have not ended.
    pub(crate) fn open(&self) -> BTreeSet<String> {
        self.live().keys().cloned().collect()
    }

    /// Follows an open turn.
    pub(crate) fn follow(&self, turn: &str) -> Option<watch::Receiver<Progress>> {
        self.live().get(turn).map(|live| live.progress.subscribe())
    }

    /// The turns of a context: the running one, and those that wait.
    pub(crate) fn turns_of(&self, key: &SessionKey) -> (Option<String>, Vec<String>) {
        let queue = self.queue();
        let (running, waiting) = queue.of_context(&key.to_string());
        (running.map(str::to_owned), waiting)
    }

    /// The turn of a context that runs now, if one has not ended.
    pub(crate) fn current_turn(&self, key: &SessionKey) -> Option<String> {
        // A turn that has ended may still hold its place while its processes go.
        self.turns_of(key).0.filter(|turn| self.follow(turn).is_some())
    }

    /// Running turns.
    #[must_use]
    pub fn running(&self) -> usize {
        self.queue().running()
    }

    /// Runs something until its end, which the drain waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    pub(crate) fn closing(&self) -> MutexGuard<'_, BTreeSet<SessionKey>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn into the queue; one that is refused is not known any more.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn admit(&self, ticket: Ticket) -> Result<u32, Error> {
        let turn = ticket.turn.clone();
        let admitted = self.queue().admit(ticket);
        if admitted.is_err() {
            self.live().remove(&turn);
        }
        Ok(admitted?)
    }

    /// Takes a turn back that was admitted and never became durable.
    pub(crate) fn take_back(&self, turn: &str, key: &SessionKey) {
        self.live().remove(turn);
        // One that has a place already leaves it by itself.
        self.queue().withdraw(turn, &key.to_string());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
