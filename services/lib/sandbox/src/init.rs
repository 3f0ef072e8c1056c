//! A run's init: parent and subreaper of one program, and the one that sees to its end.
//!
//! It stays outside the walls it raises, so it can signal what is inside, and has given up its capabilities. It ends
//! the run when the main program ends, when told to, at the timeout, above a limit, and when whoever holds
//! the other end of its control socket is gone. It exits after its last descendant. If it is killed instead, the
//! program's death signal fires, and what is left falls to the spawner, a subreaper too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::thread::CapabilitySet;

use crate::caps;
use crate::child::{self, Blueprint, Setup};
use crate::exit::{Cause, Exit, Status};
use crate::gate::{self, Gate};
use crate::landlock_wall::{OwnDomain, Ports, Right, Rules, RulesetFailure, Scopes};
use crate::meter::Meter;
use crate::profile::{Net, Walls};
use crate::report::{Enforced, Refusal, Wall};
use crate::seccomp::Filters;
use crate::support::Support;
use crate::sys::{self, Side, SingleThread};
use crate::tree::{self, KILL_PATIENCE, Member};
use crate::wire::{self, End, MAX_FDS, MAX_PACKET, Order};

/// What remains of a run after its main program gets this long between TERM and SIGKILL.
pub(crate) const STRAY_GRACE: Duration = Duration::from_millis(500);

/// How often SIGKILL is repeated while processes are dying.
const KILL_EVERY: Duration = Duration::from_millis(100);
/// Most dead children collected before anything else is looked at.
const REAP_AT_ONCE: usize = 128;
/// Most processes that are signalled one by one.
const MANY: usize = 4096;

/// One run to look after.
pub(crate) struct Job<'a> {
    pub(crate) order: &'a Order,
    pub(crate) strings: &'a [&'a std::ffi::CStr],
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) filters: Option<&'a Filters>,
    pub(crate) support: Support,
    /// Where [`End`] may arrive; its end ends the run. Without one, SIGTERM and SIGINT do.
    pub(crate) control: Option<BorrowedFd<'a>>,
}

impl Job<'_> {
    /// Starts the program, calls `started` when it runs, and returns when nothing of it lives.
    ///
    /// Must be called by a process without other children and with all signals blocked.
    pub(crate) fn run(
        self,
        proof: SingleThread,
        started: impl FnOnce(Pid, Enforced) -> io::Result<()>,
    ) -> Result<Exit, Refusal> {
        let failed = |step: &'static str| move |e: io::Error| Refusal::setup(step, &e);
        let order = self.order;
        let keep: Vec<_> = self
            .fds
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain(self.control.map(|fd| fd.as_raw_fd()))
            .collect();
        sys::close_all_but(&keep).map_err(failed("close inherited descriptors"))?;
        let _ = rustix::thread::set_name(c"creel-init");
        tree::become_subreaper().map_err(failed("become a subreaper"))?;
        let watched: &[_] = if self.control.is_some() {
            &[libc::SIGCHLD]
        } else {
            &[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]
        };
        let signals = sys::signal_fd(watched).map_err(failed("watch children"))?;
        let enforced = self.support.assess(order.walls, order.net)?;
        let (rules, mut pins) = ruleset(order, &self.support)?;
        let (setup, setup_child) = wire::pair().map_err(failed("make a socket pair"))?;
        let gated = self.filters.is_some() && self.support.notify && gate::wall(order).is_some();
        // To act on files for the program it must see its own descriptors in /proc; the walls, not this flag, keep
        // the program from seeing them.
        child::show().map_err(failed("become dumpable"))?;

        // A domain around init and the run, in which the program's own is nested: so that the one signal that ends
        // everything in it can't reach anybody else.
        rustix::thread::set_no_new_privs(true).map_err(|e| Refusal::setup("set no_new_privs", &e.into()))?;
        let domain = match order.walls.kill {
            true => OwnDomain::enter(self.support.landlock_abi)
                .map_err(|e| Refusal::unavailable(Wall::Kill, child::describe(&e)))?,
            false => None,
        };

        let init = rustix::process::getpid();
        let fds = slots(order, self.fds);
        let main = match sys::fork(proof).map_err(failed("fork"))? {
            Side::Child => {
                let blueprint = Blueprint {
                    order,
                    strings: self.strings,
                    fds,
                    rules,
                    filters: self.filters,
                    gated,
                    init,
                };
                blueprint.build(&setup_child)
            }
            Side::Parent(pid) => pid,
        };
        // The program's descriptors must live only in the program: their other ends wait for the end of file.
        drop((fds, rules, setup_child));
        caps::drop_all_but(CapabilitySet::empty())
            .map_err(|e| Refusal::setup("drop capabilities", &e.into()))?;
        if !order.grants.proc.is_empty() {
            // The program may read its own entry; see `Rules::grant_pinned`.
            pins.extend(rustix::fs::open(
                format!("/proc/{main}"),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            ));
        }
        let now = Instant::now();
        let watch = Watch {
            order,
            control: self.control,
            setup: Some(setup),
            gate: None,
            signals,
            domain,
            meter: Meter::new(order.limits),
            deadline: order.timeout_ms.map(|ms| now + Duration::from_millis(ms)),
            main,
            status: None,
            phase: Phase::Running,
            cause: Cause::Ended,
            strays: 0,
            kill_again: now,
            more_dead: false,
            cpu_us: 0,
            max_rss_bytes: 0,
            _pins: pins,
        };
        watch.run(|| started(main, enforced))
    }
}

enum Phase {
    Running,
    /// TERM was sent.
    Asked {
        kill_at: Instant,
    },
    /// SIGKILL is being sent.
    Killing {
        give_up_at: Instant,
    },
}

struct Watch<'a> {
    order: &'a Order,
    control: Option<BorrowedFd<'a>>,
    setup: Option<OwnedFd>,
    gate: Option<Gate>,
    signals: OwnedFd,
    domain: Option<OwnDomain>,
    meter: Meter,
    deadline: Option<Instant>,
    main: Pid,
    status: Option<Status>,
    phase: Phase,
    cause: Cause,
    strays: u32,
    kill_again: Instant,
    /// Not all of the dead have been collected.
    more_dead: bool,
    cpu_us: u64,
    max_rss_bytes: u64,
    /// Held for as long as the walls stand.
    _pins: Vec<OwnedFd>,
}

impl Watch<'_> {
    fn run(mut self, started: impl FnOnce() -> io::Result<()>) -> Result<Exit, Refusal> {
        let mut started = Some(started);
        loop {
            let anybody = self.reap();
            let ready = self.hear_setup().inspect_err(|_| {
                // It is on its way out already, unless its report was unreadable.
                let _ = kill_process(self.main, Signal::KILL);
            })?;
            if ready
                && let Some(tell) = started.take()
                && tell().is_err()
            {
                self.end(Cause::OwnerLost, STRAY_GRACE);
            }
            if !anybody {
                return Ok(self.exit(0));
            }
            if let Some(left) = self.advance(Instant::now()) {
                return Ok(self.exit(left));
            }
            // A broken poll must not become a busy loop that nobody can end.
            if self.wait().is_err() {
                self.end(Cause::OwnerLost, Duration::ZERO);
            }
        }
    }

    /// Collects the dead; `false` when no child is left.
    fn reap(&mut self) -> bool {
        // A run can make children die faster than they are collected; time and orders must be heeded meanwhile.
        for _ in 0..REAP_AT_ONCE {
            match sys::reap_any() {
                Ok(Some(dead)) => {
                    self.cpu_us += dead.cpu_us;
                    self.max_rss_bytes = self.max_rss_bytes.max(dead.max_rss_bytes);
                    if dead.pid == self.main {
                        self.status = Some(Status::from_raw(dead.status));
                    } else if !matches!(self.phase, Phase::Running) {
                        self.strays = self.strays.saturating_add(1);
                    }
                }
                Ok(None) => {
                    self.more_dead = false;
                    if self.status.is_some() && matches!(self.phase, Phase::Running) {
                        self.end(Cause::Ended, STRAY_GRACE);
                    }
                    return true;
                }
                Err(_) => return false,
            }
        }
        self.more_dead = true;
        true
    }

    /// Reads what the child said; `true` once it has become the program.
    fn hear_setup(&mut self) -> Result<bool, Refusal> {
        let (mut buffer, mut fds) = (vec![0; MAX_PACKET], Vec::new());
        loop {
            let Some(socket) = &self.setup else {
                return Ok(false);
            };
            match wire::receive(socket.as_fd(), &mut buffer, &mut fds) {
                Ok(Some(packet)) => match wire::decode(packet) {
                    Ok((Setup::Gate, _)) => {
                        self.gate = fds.pop().map(|fd| Gate::new(fd, self.order));
                    }
                    Ok((Setup::Failed(refusal), _)) => return Err(refusal),
                    Err(e) => return Err(Refusal::setup("read the child's report", &e)),
                },
                Ok(None) => {
                    self.setup = None;
                    // Exec closed it, or a signal ended the child before; then the status tells.
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Refusal::setup("read the child's report", &e)),
            }
        }
    }

    /// Sets the end in motion; a second call can only bring SIGKILL forward.
    fn end(&mut self, cause: Cause, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.phase {
            Phase::Killing { .. } => return,
            Phase::Asked { kill_at: earlier } => {
                *earlier = kill_at.min(*earlier);
                return;
            }
            Phase::Running => {}
        }
        self.cause = cause;
        self.phase = Phase::Asked { kill_at };
        if grace.is_zero() {
            // No time to heed a TERM, and none to lose: every moment may make more of them.
            self.start_killing(Instant::now());
            return;
        }
        if self.status.is_none() {
            // Unreaped, so neither its pid nor its group can belong to anybody else. No group yet: before setsid.
            if kill_process_group(self.main, Signal::TERM).is_err() {
                let _ = kill_process(self.main, Signal::TERM);
            }
        } else {
            // What was orphaned has become a child.
            signal_all(&tree::members(MANY), Signal::TERM);
        }
    }

    /// Moves on with time. `Some(n)` when it gives up on `n` processes.
    fn advance(&mut self, now: Instant) -> Option<u32> {
        if matches!(self.phase, Phase::Running) {
            let grace = Duration::from_millis(self.order.grace_ms);
            if self.deadline.is_some_and(|at| now >= at) {
                self.end(Cause::TimedOut, grace);
            } else if let Some(limit) = self.meter.exceeded(now) {
                self.end(limit, Duration::ZERO);
            }
        }
        if let Phase::Asked { kill_at } = self.phase
            && now >= kill_at
        {
            self.start_killing(now);
        }
        if let Phase::Killing { give_up_at } = self.phase {
            let alive = self.kill(now);
            return (now >= give_up_at).then_some(alive);
        }
        None
    }

    fn start_killing(&mut self, now: Instant) {
        self.phase = Phase::Killing {
            give_up_at: now + KILL_PATIENCE,
        };
        self.gate = None;
        self.kill(now);
    }

    /// Kills everything; how many children there still were.
    fn kill(&mut self, now: Instant) -> u32 {
        let children = tree::children().unwrap_or_default();
        match &self.domain {
            // Once is enough. Again now and then, because nothing may depend on that being true.
            Some(domain) if now >= self.kill_again => {
                domain.kill_all();
                self.kill_again = now + KILL_EVERY;
            }
            Some(_) => {}
            // Not in one step, so it may take several rounds.
            None => signal_all(&tree::members(MANY), Signal::KILL),
        }
        u32::try_from(children.len()).unwrap_or(u32::MAX)
    }

    fn wait(&mut self) -> io::Result<()> {
        let until = match self.phase {
            Phase::Running => self
                .deadline
                .map_or(self.meter.next(), |d| d.min(self.meter.next())),
            Phase::Asked { kill_at } => kill_at,
            Phase::Killing { give_up_at } => give_up_at,
        };
        let patience = match self.more_dead {
            true => Duration::ZERO,
            false => until.saturating_duration_since(Instant::now()),
        };
        let timeout = tree::timespec(patience);
        let [signals, control, gate] = self.poll(timeout.as_ref())?;
        if !signals.is_empty() && sys::drain_signals(self.signals.as_fd()) {
            self.end(Cause::Killed, Duration::from_millis(self.order.grace_ms));
        }
        if !control.is_empty() {
            self.hear_control();
        }
        if gate.contains(PollFlags::IN) {
            if self.gate.as_mut().is_some_and(|gate| gate.judge().is_err()) {
                // Fails closed: without listener the kernel refuses the gated calls.
                self.gate = None;
            }
        } else if !gate.is_empty() {
            self.gate = None; // the last process under the filter is gone
        }
        Ok(())
    }

    /// Waits; what is ready of signals, control and gate. The setup socket is looked at in every round anyway.
    fn poll(&self, timeout: Option<&Timespec>) -> io::Result<[PollFlags; 3]> {
        // Every source is always there, so that places are fixed: the signals stand in for what is absent.
        let sources = [
            Some(self.signals.as_fd()),
            self.control,
            self.gate.as_ref().map(AsFd::as_fd),
            self.setup.as_ref().map(AsFd::as_fd),
        ];
        let fds = sources.map(|source| source.unwrap_or(self.signals.as_fd()));
        let mut polled = fds.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |i: usize| {
            if sources[i].is_some() {
                polled[i].revents()
            } else {
                PollFlags::empty()
            }
        };
        Ok([ready(0), ready(1), ready(2)])
    }

    fn hear_control(&mut self) {
        let Some(control) = self.control else { return };
        let mut buffer = [0; 256];
        let end = match wire::receive(control, &mut buffer, &mut Vec::new()) {
            Ok(Some(packet)) => wire::decode::<End>(packet).ok().map(|(end, _)| end),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => None,
        };
        match end {
            Some(end) => self.end(end.cause, Duration::from_millis(end.grace_ms)),
            None => {
                // The end of a socket stays readable; there is nothing more to hear from it.
                self.control = None;
                self.end(Cause::OwnerLost, STRAY_GRACE);
            }
        }
    }

    fn exit(&self, left: u32) -> Exit {
        Exit {
            status: self.status.unwrap_or(Status::Lost),
            cause: self.cause,
            strays: self.strays,
            left,
            cpu_ms: self.cpu_us / 1000,
            max_rss_bytes: self.max_rss_bytes,
        }
    }
}

fn signal_all(members: &[Member], signal: Signal) {
    for member in members {
        // One that died meanwhile needs no signal.
        let _ = kill_process(member.pid, signal);
    }
}

/// Builds the rules; the program's own `/proc` entry is added by the child.
fn ruleset(order: &Order, support: &Support) -> Result<(Option<Rules>, Vec<OwnedFd>), Refusal> {
    let Walls { fs, net, ipc, kill } = order.walls;
    let tcp = if net && order.net != Net::Host {
        Ports::None
    } else {
        Ports::Any
    };
    let scopes = Scopes {
        files: fs,
        bind: tcp.clone(),
        connect: tcp,
        signals: kill,
        abstract_sockets: ipc,
    };
    let build = || -> Result<_, RulesetFailure> {
        let Some(mut rules) = Rules::new(support.landlock_abi, &scopes)? else {
            return Ok((None, Vec::new()));
        };
        let grants = &order.grants;
        for (paths, right) in [
            (&grants.exec, Right::Exec),
            (&grants.read, Right::Read),
            (&grants.devices, Right::Device),
            (&grants.write, Right::Write),
        ] {
            for path in paths {
                rules = rules.grant(path, right)?;
            }
        }
        for path in &grants.proc {
            rules = rules.grant_pinned(path, Right::Read)?;
        }
        let pins = rules.take_pins();
        Ok((Some(rules), pins))
    };
    build().map_err(|e| match e {
        RulesetFailure::Open { path, source } => {
            Refusal::setup(format!("open the granted path `{}`", path.display()), &source)
        }
        e @ RulesetFailure::Landlock(_) => Refusal::unavailable(Wall::Fs, child::describe(&e)),
    })
}

/// Sorts the received descriptors into the slots the order names.
fn slots(order: &Order, fds: Vec<OwnedFd>) -> [Option<OwnedFd>; MAX_FDS] {
    let mut fds = fds.into_iter();
    order.fds.map(|sent| if sent { fds.next() } else { None })
}
