//! Occurrences of one job: decided, committed, given away; with crashes, a clock that is set back, an edit, a
//! recreated job, pauses, and catching up that is held.

use creel_schedule::{Every, EveryMode, Schedule};
use jiff::Timestamp;

use crate::{
    admission::{Decision, SkipReason, Step, View, decide},
    guard::{Guard, Guards},
    policy::{CatchUp, Overlap, Policy},
};

const SECOND: i64 = 1_000;
/// Instants of the small world: one a second.
const END: i64 = 4;

/// An admitted occurrence: (incarnation, instant in seconds).
type Run = (u8, i64);

/// The grid of a schedule: the instants `from`, `from + step`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Grid {
    step: i64,
    /// Instants up to here are none of it: the job was made then, or edited.
    after: i64,
}

impl Grid {
    const fn has(self, at: i64) -> bool {
        at > self.after && at % self.step == 0
    }
}

/// What is written together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Change {
    /// `None`: a packed admission, which leaves the job's own record as it is.
    cursor: Option<i64>,
    admitted: Vec<Run>,
    skipped: Vec<Run>,
    /// The schedule that holds from now on.
    grid: Option<Grid>,
}

/// One job's occurrences, in memory and on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fires {
    guards: Guards,
    now: i64,
    /// Set back once at most, recreated once, edited once: the world stays small.
    set_back: bool,
    edited: bool,
    incarnation: u8,
    /// The schedule in memory, and those that were ever durable of this incarnation, oldest first.
    grid: Grid,
    grids: Vec<Grid>,
    held: bool,
    paused: bool,
    memory: i64,
    /// A run that only a packed admission names.
    unwritten: bool,
    disk: i64,
    /// Packed admissions. They stay: other jobs may still need them.
    packs: Vec<Run>,
    /// On its way to the disk, oldest first.
    commits: Vec<Change>,
    admitted: Vec<Run>,
    skipped: Vec<Run>,
    sent: Vec<Run>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fire {
    /// A second passes.
    Tick,
    /// The clock is set back by two seconds.
    SetBack,
    /// The job is looked at.
    Decide,
    /// The oldest commit is durable.
    Commit,
    /// Memory, and what was on its way, is gone.
    Crash,
    /// Pause or resume.
    Pause,
    /// Catching up is held, or no more.
    Hold,
    /// Another schedule: every second second instead of every one.
    Edit,
    /// Deleted and made again.
    Recreate,
    /// The run that waits gets a record of its own.
    Begin,
}

impl Fire {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Tick,
        Self::SetBack,
        Self::Decide,
        Self::Commit,
        Self::Crash,
        Self::Pause,
        Self::Hold,
        Self::Edit,
        Self::Recreate,
        Self::Begin,
    ];
}

impl Fires {
    /// A new job at second 0.
    #[must_use]
    pub fn new(guards: Guards) -> Self {
        let grid = Grid { step: 1, after: 0 };
        Self {
            guards,
            now: 0,
            set_back: false,
            edited: false,
            incarnation: 0,
            grid,
            grids: vec![grid],
            held: false,
            paused: false,
            memory: 0,
            unwritten: false,
            disk: 0,
            packs: Vec::new(),
            commits: Vec::new(),
            admitted: Vec::new(),
            skipped: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The state after something happened; `None` if it can't happen now.
    #[must_use]
    pub fn after(&self, fire: Fire) -> Option<Self> {
        let mut next = self.clone();
        match fire {
            Fire::Tick if self.now < END => next.now += 1,
            Fire::SetBack if !self.set_back && self.now >= 2 => {
                (next.set_back, next.now) = (true, self.now - 2);
            }
            Fire::Decide if self.commits.len() < 2 => {
                let change = next.look(false)?;
                next.commits.push(change);
            }
            Fire::Edit if !self.edited && self.commits.len() < 2 => next.edit()?,
            Fire::Commit if !self.commits.is_empty() => {
                let Change {
                    cursor,
                    admitted,
                    skipped,
                    grid,
                } = next.commits.remove(0);
                next.grids.extend(grid);
                match cursor {
                    Some(cursor) => next.disk = cursor,
                    None => next.packs.extend(&admitted),
                }
                if self.guards.on(Guard::SyncFirst) {
                    next.sent.extend(&admitted);
                }
                next.admitted.extend(admitted);
                next.skipped.extend(skipped);
            }
            Fire::Crash => {
                next.commits.clear();
                next.memory = self.durable();
                next.unwritten = next.memory > self.disk;
                next.grid = *self.grids.last()?;
                next.edited = self.grids.len() > 1;
            }
            Fire::Pause => next.paused = !self.paused,
            Fire::Hold => next.held = !self.held,
            Fire::Recreate if self.incarnation == 0 && self.commits.is_empty() => {
                next.incarnation = 1;
                (next.memory, next.disk) = (self.now, self.now);
                next.unwritten = false;
                next.edited = false;
                next.grid = Grid {
                    step: 1,
                    after: self.now,
                };
                next.grids = vec![next.grid];
            }
            Fire::Begin if self.unwritten && self.commits.len() < 2 => {
                next.unwritten = false;
                next.commits.push(Change {
                    cursor: Some(self.memory),
                    admitted: Vec::new(),
                    skipped: Vec::new(),
                    grid: None,
                });
            }
            _ => return None,
        }
        (next != *self).then_some(next)
    }

    /// Decides what is due. With `settle`, all of it, so that a change can follow; then the cursor is always written.
    fn look(&mut self, settle: bool) -> Option<Change> {
        let Decision { steps, cursor_ms, .. } = self.decision(settle)?;
        let cursor = cursor_ms / SECOND;
        if steps.is_empty() && cursor == self.memory && !settle {
            return None;
        }
        let (mut admitted, mut skipped) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Admit { nominal_ms, .. } => admitted.push((self.incarnation, nominal_ms / SECOND)),
                Step::Skip {
                    first_ms, last_ms, ..
                } => {
                    let range = first_ms / SECOND..=last_ms / SECOND;
                    let range = range.filter(|at| self.grid.has(*at));
                    skipped.extend(range.map(|at| (self.incarnation, at)));
                }
            }
        }
        if !self.guards.on(Guard::SyncFirst) {
            self.sent.extend(&admitted);
        }
        self.memory = cursor;
        // One run and nothing else is packed, if the job has no packed one yet; all else writes the cursor.
        let packed = !settle && !self.unwritten && admitted.len() == 1 && skipped.is_empty();
        self.unwritten = packed;
        Some(Change {
            cursor: (!packed).then_some(cursor),
            admitted,
            skipped,
            grid: None,
        })
    }

    /// Up to now the old schedule holds; the new one begins after that. Both are one transaction.
    fn edit(&mut self) -> Option<()> {
        let mut change = self.look(true)?;
        self.edited = true;
        self.memory = self.memory.max(self.now);
        self.grid = Grid {
            step: 2,
            after: self.memory,
        };
        change.cursor = Some(self.memory);
        change.grid = Some(self.grid);
        self.commits.push(change);
        Some(())
    }

    /// Up to where everything is decided, as the disk says it: a packed admission counts if it is of this job, and
    /// beyond the job's own record.
    fn durable(&self) -> i64 {
        let mine = self
            .packs
            .iter()
            .filter(|(incarnation, _)| *incarnation == self.incarnation);
        mine.map(|(_, at)| *at).fold(self.disk, i64::max)
    }

    fn decision(&self, settle: bool) -> Option<Decision> {
        let period = u64::try_from(self.grid.step * SECOND).ok()?;
        let every = Every::new(period, Timestamp::UNIX_EPOCH, EveryMode::FixedRate).ok()?;
        let policy = Policy {
            overlap: Overlap::Allow { max: 1_000 },
            catch_up: CatchUp::Last,
            window_ms: Some(2 * SECOND),
            ..Policy::default()
        };
        let view = View {
            schedule: &Schedule::Every(every),
            policy: &policy,
            job: [0; 16],
            cursor_ms: self.memory * SECOND,
            finished_ms: 0,
            hold: self.paused.then_some(SkipReason::Paused),
            active: 0,
            waiting: 0,
            grace_ms: 0,
            catch_up_from_ms: if self.held && !settle { i64::MAX } else { i64::MIN },
            backoff_until_ms: i64::MIN,
        };
        Some(decide(self.guards, self.now * SECOND, &view))
    }
}

/// INV-FIR-1: at most one run per (incarnation, instant).
#[must_use]
pub fn fir_1(fires: &Fires) -> bool {
    let mut runs = fires.admitted.clone();
    runs.sort_unstable();
    runs.windows(2).all(|pair| pair[0] != pair[1])
}

/// INV-FIR-2: what the durable cursor has passed was admitted or skipped: each instant of each schedule, while it held.
#[must_use]
pub fn fir_2(fires: &Fires) -> bool {
    let until = fires.durable();
    let ends = fires.grids.iter().skip(1).map(|next| next.after).chain([until]);
    let due = |(grid, end): (&Grid, i64)| {
        let grid = *grid;
        (grid.after + 1..=end).filter(move |at| grid.has(*at))
    };
    fires.grids.iter().zip(ends).flat_map(due).all(|at| {
        let run = (fires.incarnation, at);
        fires.admitted.contains(&run) || fires.skipped.contains(&run)
    })
}

/// INV-FIR-3: nothing is given away before it is durable.
#[must_use]
pub fn fir_3(fires: &Fires) -> bool {
    fires.sent.iter().all(|run| fires.admitted.contains(run))
}
