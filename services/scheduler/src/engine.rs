//! The one task that owns the ledger. It turns over like this: time passes, commands change the ledger, what they
//! leave behind is committed (many commits at once, in order), and what follows from a commit happens when it is
//! durable. Whatever the store refuses, the ledger is thrown away and read again: the store is the truth.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use creel_kit::{Clock, outbox::Outbox};
use creel_proto::scheduler::v1::RunRecord;
use creel_schedule::Zones;
use creel_store::{Outcome, Store};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    task::{JoinSet, yield_now},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    clock::Look,
    dispatch::{Attempt, Made, prepare},
    figures::Figures,
    id::JobId,
    ledger::{Commit, Effect, Ledger},
    mint::{MAX_SUBJECTS, Minter},
    run::{Extra, Now},
    store,
    zoning::Zoning,
};

mod handle;
mod load;
mod news;

use handle::{Command, Reply, Streams};
pub(crate) use handle::{Handle, JobNews};
use news::News;

/// Commands that wait.
const MAX_COMMANDS: usize = 1_024;
/// Commands taken into one step, so that their changes share transactions.
const MAX_BATCH: usize = 256;
/// Commits on their way at once; the store makes groups of them.
const MAX_IN_FLIGHT: usize = 64;
/// Batches of works made at once: enough that this service and identity both have something to do.
const MAX_PREPARING: usize = 4;
/// Run changes a slow watcher may lag behind.
const MAX_LAG: usize = 4_096;
/// Jobs that wait to have old runs removed; more are found by the sweep.
const MAX_PRUNES: usize = 4_096;
/// Zone data is looked at this often.
const ZONES: Duration = Duration::from_secs(3_600);
/// Three starts within this are a crash loop: catching up waits.
const CRASH_LOOP_MS: i64 = 300_000;

/// Milliseconds since boot, suspended time included.
pub(crate) type BootMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Whether the wall clock follows a time server.
pub(crate) type Synced = Arc<dyn Fn() -> bool + Send + Sync>;

/// What an engine is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) boot_ms: BootMs,
    pub(crate) synced: Synced,
    pub(crate) zones: Zoning,
    pub(crate) minter: Arc<dyn Minter>,
    pub(crate) outbox: Outbox,
    pub(crate) figures: Figures,
    /// Makes a source of randomness for each ledger.
    pub(crate) random: fn() -> crate::ledger::Random,
}

pub(crate) struct Engine {
    parts: Parts,
    started: Instant,
    commands: mpsc::Receiver<Command>,
    runs: News<Arc<RunRecord>>,
    jobs: News<JobNews>,
    streams: Streams,
    prunes: mpsc::Sender<JobId>,
}

struct Done {
    result: Result<Outcome, creel_store::Error>,
    effects: Vec<Effect>,
    replies: Vec<Reply>,
    audited: bool,
}

enum Stop {
    Drained,
    Store(String),
}

/// What lives as long as one reading of the store.
struct Turn {
    ledger: Ledger,
    in_flight: FuturesOrdered<BoxFuture<'static, Done>>,
    preparing: JoinSet<Vec<Made>>,
    waiting: VecDeque<Attempt>,
    /// Reads zone data again, once in a while.
    zoning: JoinSet<Option<Arc<Zones>>>,
    zoned: Instant,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> (Self, Handle, mpsc::Receiver<JobId>) {
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let (runs, jobs) = (News::new(MAX_LAG), News::new(MAX_LAG));
        let (prunes, pruned) = mpsc::channel(MAX_PRUNES);
        let streams = Streams::default();
        let handle = Handle::new(sender, runs.clone(), jobs.clone(), streams.clone());
        (
            Self {
                parts,
                started: Instant::now(),
                commands,
                runs,
                jobs,
                streams,
                prunes,
            },
            handle,
            pruned,
        )
    }

    /// Runs until the drain.
    pub(crate) async fn run(mut self, drain: CancellationToken) {
        let mut catch_up_from_ms = None;
        loop {
            let outcome = self.once(&mut catch_up_from_ms, &drain).await;
            // Workers come back and say what they hold.
            self.streams.clear();
            match outcome {
                Stop::Drained => return,
                Stop::Store(error) => tracing::error!(error, "the store failed; the jobs are read again"),
            }
            tokio::select! {
                () = drain.cancelled() => return,
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn once(&mut self, catch_up_from_ms: &mut Option<i64>, drain: &CancellationToken) -> Stop {
        let loading = async {
            let from_ms = match *catch_up_from_ms {
                Some(from_ms) => from_ms,
                None => *catch_up_from_ms.insert(self.note_start().await?),
            };
            Ok((load::load(&self.parts, || self.now()).await?, from_ms))
        };
        let loaded: Result<_, creel_store::Error> = tokio::select! {
            loaded = loading => loaded,
            () = drain.cancelled() => return Stop::Drained,
        };
        match loaded {
            Ok((ledger, from_ms)) => self.drive(ledger, from_ms, drain).await,
            Err(error) => Stop::Store(creel_kit::failure::chain(&error)),
        }
    }

    /// Where catching up begins: at once, or a minute after the third start in five minutes.
    async fn note_start(&self) -> Result<i64, creel_store::Error> {
        let now_ms = self.now().wall_ms;
        let starts = store::note_start(&self.parts.store, now_ms).await?;
        let looping = starts.len() == 3 && starts.first().is_some_and(|first| now_ms - first < CRASH_LOOP_MS);
        if looping {
            tracing::warn!("the third start within five minutes: missed runs are made up for in a minute");
        }
        Ok(if looping {
            now_ms + self.parts.config.hold_ms
        } else {
            i64::MIN
        })
    }

    /// Looks at the clocks: the moment to go by, and for how long nothing may fire. Nothing happens at a moment that was
    /// not looked at: a wrong one would be written down.
    fn look(&self, ledger: &mut Ledger) -> (Now, Option<i64>) {
        let now = self.now();
        let look = Look {
            wall_ms: now.wall_ms,
            boot_ms: (self.parts.boot_ms)(),
            synced: ledger.is_clock_suspect() && (self.parts.synced)(),
        };
        let held_ms = ledger.look(look, now);
        (ledger.believed(now), held_ms)
    }

    fn now(&self) -> Now {
        let mono = self.started.elapsed().as_millis();
        Now {
            wall_ms: self.parts.clock.now_ms(),
            mono_ms: i64::try_from(mono).unwrap_or(i64::MAX),
        }
    }

    async fn drive(&mut self, mut ledger: Ledger, catch_up_from_ms: i64, drain: &CancellationToken) -> Stop {
        let now = ledger.believed(self.now());
        ledger.open(now, catch_up_from_ms);
        let mut turn = Turn {
            ledger,
            in_flight: FuturesOrdered::new(),
            preparing: JoinSet::new(),
            waiting: VecDeque::new(),
            zoning: JoinSet::new(),
            zoned: Instant::now(),
        };
        tracing::info!("the jobs are loaded");
        loop {
            let (now, held_ms) = self.look(&mut turn.ledger);
            self.reload_zones(&mut turn);
            let room = turn.in_flight.len() < MAX_IN_FLIGHT;
            if room {
                turn.ledger.tick(now, held_ms.is_some());
                self.commit(&mut turn, Vec::new());
            }
            let most_ms = self.parts.config.max_step_ms;
            let wait_ms = if room {
                turn.ledger.wait_ms(now, held_ms, most_ms)
            } else {
                most_ms
            };
            tokio::select! {
                biased;
                () = drain.cancelled() => return self.wind_down(turn).await,
                Some(done) = turn.in_flight.next(), if !turn.in_flight.is_empty() => {
                    if let Some(stop) = self.all_durable(&mut turn, done) {
                        return stop;
                    }
                }
                Some(Ok(made)) = turn.preparing.join_next(), if !turn.preparing.is_empty() => {
                    let (now, _) = self.look(&mut turn.ledger);
                    turn.ledger.prepared(made, now);
                    self.prepare(&mut turn);
                    self.commit(&mut turn, Vec::new());
                }
                Some(Ok(Some(zones))) = turn.zoning.join_next(), if !turn.zoning.is_empty() => {
                    let (now, _) = self.look(&mut turn.ledger);
                    let moved = turn.ledger.rezone(&zones, now);
                    tracing::info!(zone_data = %zones.zone_data_version(), moved, "newer zone data is in use");
                }
                Some(command) = self.commands.recv(), if room => self.commands(&mut turn, command),
                () = pause(wait_ms) => {}
            }
        }
    }

    /// Looks for newer zone data once an hour.
    fn reload_zones(&self, turn: &mut Turn) {
        if turn.zoning.is_empty() && turn.zoned.elapsed() >= ZONES {
            turn.zoned = Instant::now();
            let zones = self.parts.zones.clone();
            turn.zoning.spawn_blocking(move || zones.reload());
        }
    }

    /// Takes a command, and those that wait behind it, as long as what they change fits.
    fn commands(&mut self, turn: &mut Turn, first: Command) {
        let mut replies = Vec::new();
        let (now, _) = self.look(&mut turn.ledger);
        replies.extend(first(&mut turn.ledger, now));
        for _ in 1..MAX_BATCH {
            if turn.ledger.is_full() {
                break;
            }
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            let (now, _) = self.look(&mut turn.ledger);
            replies.extend(command(&mut turn.ledger, now));
        }
        self.commit(turn, replies);
    }

    /// Commits what the steps left behind. Replies follow the last of it, or what is on its way already.
    fn commit(&self, turn: &mut Turn, mut replies: Vec<Reply>) {
        let mut commits = turn.ledger.flush();
        if commits.is_empty() && !replies.is_empty() {
            commits.push(Commit::default());
        }
        let count = commits.len();
        for (
            place,
            Commit {
                txn,
                effects,
                audited,
            },
        ) in commits.into_iter().enumerate()
        {
            let replies = if place + 1 == count {
                std::mem::take(&mut replies)
            } else {
                Vec::new()
            };
            let store = self.parts.store.clone();
            turn.in_flight.push_back(Box::pin(async move {
                let nothing = txn.then.is_empty();
                let result = if nothing {
                    Ok(Outcome::Committed { rev: 0 })
                } else {
                    store.commit(txn).await
                };
                Done {
                    result,
                    effects,
                    replies,
                    audited,
                }
            }));
        }
    }

    /// A commit has its outcome, and those behind it may have theirs. What became durable together is dispatched
    /// together.
    fn all_durable(&self, turn: &mut Turn, first: Done) -> Option<Stop> {
        let mut next = Some(first);
        while let Some(done) = next {
            if let Some(stop) = self.durable(turn, done) {
                return Some(stop);
            }
            next = turn.in_flight.next().now_or_never().flatten();
        }
        self.prepare(turn);
        None
    }

    /// A commit has its outcome: what follows from it happens now.
    fn durable(&self, turn: &mut Turn, done: Done) -> Option<Stop> {
        match done.result {
            Ok(Outcome::Committed { .. }) => {}
            Ok(Outcome::Conflict { .. }) => {
                return Some(Stop::Store(
                    "another writer changed what only this service writes".to_owned(),
                ));
            }
            Err(error) => return Some(Stop::Store(creel_kit::failure::chain(&error))),
        }
        if done.audited {
            self.parts.outbox.committed();
        }
        for effect in done.effects {
            self.follow(turn, effect);
        }
        done.replies.into_iter().for_each(|reply| reply());
        None
    }

    fn follow(&self, turn: &mut Turn, effect: Effect) {
        match effect {
            Effect::Prepare(run_id, attempt) => {
                if let Some(run) = turn.ledger.persisted(run_id, attempt) {
                    let alert = match run.extra.as_deref() {
                        Some(Extra::Alert { text }) => Some(text.clone()),
                        _ => None,
                    };
                    let (job, nominal_ms) = (run.job, run.nominal_ms);
                    turn.waiting.push_back(Attempt {
                        job,
                        run: run_id,
                        attempt,
                        nominal_ms,
                        alert,
                    });
                }
            }
            Effect::Send(stream, message) => self.streams.send(stream, *message),
            Effect::Close(stream) => self.streams.close(stream),
            Effect::Publish(_) | Effect::Admitted(_) | Effect::Began(_) if !self.runs.is_heard() => {}
            Effect::Publish(record) => match RunRecord::decode(record) {
                Ok(record) => self.publish(record),
                Err(error) => tracing::error!(%error, "a run's record can't be read again: nobody is told"),
            },
            Effect::Admitted(runs) => {
                let records = runs.into_iter().filter_map(|run| turn.ledger.shown_run(run));
                records.for_each(|record| self.publish(record));
            }
            Effect::Began(run) => {
                turn.ledger
                    .shown_run(run)
                    .into_iter()
                    .for_each(|record| self.publish(record));
            }
            Effect::Changed {
                id,
                owner,
                name,
                deleted,
            } => {
                let news = JobNews {
                    id,
                    owner,
                    name,
                    deleted,
                };
                self.jobs.tell(news);
            }
            Effect::Forget(run) => turn.ledger.forget(run),
            // A full queue is no loss: the sweep finds them.
            Effect::Prune(job) => drop(self.prunes.try_send(job)),
        }
    }

    fn publish(&self, record: RunRecord) {
        self.runs.tell(Arc::new(record));
    }

    /// Makes works, all that wait, as far as batches may be under way. Bounded by what workers have room for.
    fn prepare(&self, turn: &mut Turn) {
        while turn.preparing.len() < MAX_PREPARING && !turn.waiting.is_empty() {
            let batch = turn
                .waiting
                .drain(..turn.waiting.len().min(MAX_SUBJECTS))
                .collect();
            let (store, minter) = (self.parts.store.clone(), Arc::clone(&self.parts.minter));
            turn.preparing
                .spawn(async move { prepare(&store, minter.as_ref(), batch).await });
        }
    }

    /// What is on its way still gets its answer.
    async fn wind_down(&self, mut turn: Turn) -> Stop {
        turn.preparing.abort_all();
        while let Some(done) = turn.in_flight.next().await {
            if let Some(stop) = self.durable(&mut turn, done) {
                return stop;
            }
        }
        Stop::Drained
    }
}

/// The timer counts whole milliseconds, so no time at all would be most of one: a herd's steps follow each other at once.
async fn pause(ms: i64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms.unsigned_abs())).await;
    } else {
        yield_now().await;
    }
}

#[cfg(test)]
mod tests;
