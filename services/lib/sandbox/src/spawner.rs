//! `creeld spawner`: the helper a service starts before it locks itself, to start and keep runs for it.
//!
//! One thread, no runtime, small memory: a run costs one fork of this process instead of one of the service's. It
//! decides nothing; profile and command come checked from the service. It is a subreaper: if a run's init is
//! killed, what the run left becomes a child of this process and is killed. When the service's end of the socket
//! closes, whatever the reason, all runs end and then this process does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::command::millis;
use crate::exit::{Cause, Exit, Status};
use crate::init::{Job, STRAY_GRACE};
use crate::landlock_wall::OwnDomain;
use crate::profile::{Net, Walls};
use crate::report::Refusal;
use crate::seccomp::Filters;
use crate::support::Support;
use crate::sys::{self, Side, SingleThread};
use crate::wire::{self, End, Event, MAX_PACKET, Order, Request};
use crate::{child, tree};

/// Most runs at one time: as many as `agent.max_running_turns` may be.
pub(crate) const MAX_RUNS: usize = 1_024;

/// A run's init that was told to end gets this long beyond the grace it was given. One that hangs (in a file system
/// that does not answer) is killed, and what it leaves is this process's.
const INIT_PATIENCE: Duration = Duration::from_secs(3);

/// How long strays may keep coming before everything is killed in one step.
const STRAY_PATIENCE: Duration = Duration::from_secs(2);

/// After the service is gone, its runs' inits get this long to end them before they are killed themselves.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// The whole life of the helper; descriptor 0 is the socket.
pub(crate) fn main() -> ExitCode {
    match Helper::start().and_then(Helper::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            #[expect(
                clippy::print_stderr,
                reason = "this process has no log; stderr is the service's"
            )]
            {
                eprintln!("creeld spawner: {e}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Helper {
    proof: SingleThread,
    service: OwnedFd,
    signals: OwnedFd,
    support: Support,
    /// One compilation per kind of run; see [`Helper::filters`] for why it can't grow.
    filters: BTreeMap<(Walls, Net), Filters>,
    runs: BTreeMap<u64, Running>,
    /// Set when the service is gone: when to stop being patient with what is left.
    last_call: Option<Instant>,
    /// Around this process and all its runs; `None` where the kernel can't scope signals.
    domain: Option<OwnDomain>,
    /// Since when every look found strays.
    strays_since: Option<Instant>,
}

struct Running {
    init: Pid,
    control: OwnedFd,
    /// The last event has been passed on.
    finished: bool,
    /// When patience with it ends.
    end_by: Option<Instant>,
}

impl Helper {
    fn start() -> io::Result<Self> {
        let proof = SingleThread::check().ok_or_else(|| io::Error::other("other threads are running"))?;
        let service = sys::take_stdin()?;
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        sys::dup_onto(null.as_fd(), 0)?;
        let _ = rustix::thread::set_name(c"creel-spawner");
        // A session of its own, for two reasons. Signals to the service's group, TERM from a supervisor or INT from
        // a terminal, are the service's to heed: its socket's end is our signal. And schedulers that share the CPU
        // between sessions (autogroup) then let this process and the inits in however busy service or runs are.
        let _ = rustix::process::setsid();
        sys::block_signals(true)?;
        tree::become_subreaper()?;
        let support = Support::probe(proof);
        rustix::thread::set_no_new_privs(true)?;
        child::hide()?;
        let domain = OwnDomain::enter(support.landlock_abi).map_err(io::Error::other)?;
        let signals = sys::signal_fd(&[libc::SIGCHLD])?;
        wire::post(&service, &Event::Hello(support))?;
        Ok(Self {
            proof,
            service,
            signals,
            support,
            filters: BTreeMap::new(),
            runs: BTreeMap::new(),
            last_call: None,
            domain,
            strays_since: None,
        })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let (service, signals, ready) = self.wait()?;
            self.lose_patience();
            if signals {
                sys::drain_signals(self.signals.as_fd());
                self.reap_strays();
            }
            for run in ready {
                self.hear(run, &mut buffer);
            }
            if service && self.last_call.is_none() && !self.obey(&mut buffer)? {
                self.end_all();
            }
            if let Some(last_call) = self.last_call
                && (self.runs.is_empty() || Instant::now() >= last_call)
            {
                // Inits that hung, and strays that are just dying.
                self.kill_all();
                return tree::kill_descendants(Duration::ZERO).map(drop);
            }
        }
    }

    fn wait(&self) -> io::Result<(bool, bool, Vec<u64>)> {
        // The end of a socket stays readable; once seen there is nothing more to wait for on it.
        let service = if self.last_call.is_none() {
            &self.service
        } else {
            &self.signals
        };
        let mut polled = vec![
            PollFd::new(service, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        polled.extend(
            self.runs
                .values()
                .map(|run| PollFd::new(&run.control, PollFlags::IN)),
        );
        let wake = self
            .runs
            .values()
            .filter_map(|run| run.end_by)
            .chain(self.last_call)
            .min();
        let timeout = wake.and_then(|at| tree::timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |i: usize| !polled[i].revents().is_empty();
        let runs = self
            .runs
            .keys()
            .enumerate()
            .filter(|(i, _)| ready(i + 2))
            .map(|(_, run)| *run)
            .collect();
        Ok((ready(0), ready(1), runs))
    }

    /// The service is gone, or shuts down and still listens: every run is to end.
    fn end_all(&mut self) {
        self.last_call = Some(Instant::now() + LAST_GRACE);
        let end = End {
            grace_ms: millis(STRAY_GRACE),
            cause: Cause::OwnerLost,
        };
        for run in self.runs.values() {
            let _ = wire::post(&run.control, &end);
        }
    }

    fn lose_patience(&mut self) {
        let now = Instant::now();
        for run in self.runs.values_mut() {
            if run.end_by.take_if(|at| now >= *at).is_some() {
                // Not reaped, so the pid is its own; its socket's end does the rest.
                let _ = kill_process(run.init, Signal::KILL);
            }
        }
    }

    /// Takes one request; `false` at the end of the service.
    fn obey(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut fds = Vec::new();
        let packet = match wire::receive(self.service.as_fd(), buffer, &mut fds) {
            Ok(Some(packet)) => packet,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            // A reset is an end, too.
            Ok(None) | Err(_) => return Ok(false),
        };
        match wire::decode(packet)? {
            (Request::Run(order), tail) => {
                let run = order.run;
                if let Err(refusal) = self.start_run(&order, tail, fds) {
                    self.tell(&Event::Refused { run, refusal });
                }
            }
            (Request::Kill { run, grace_ms }, _) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    let _ = wire::post(
                        &run.control,
                        &End {
                            grace_ms,
                            cause: Cause::Killed,
                        },
                    );
                    let patience = Duration::from_millis(grace_ms) + INIT_PATIENCE;
                    run.end_by.get_or_insert(Instant::now() + patience);
                }
            }
        }
        Ok(true)
    }

    fn start_run(&mut self, order: &Order, tail: &[u8], fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let failed = |step: &'static str| move |e: io::Error| Refusal::setup(step, &e);
        if self.runs.len() >= MAX_RUNS {
            return Err(Refusal::setup(
                "start another run",
                &io::Error::from_raw_os_error(libc::EAGAIN),
            ));
        }
        let strings = wire::strings(tail).map_err(failed("read the order"))?;
        let (control, init_control) = wire::pair().map_err(failed("make a socket pair"))?;
        self.filters(order.walls, order.net)?;
        let filters = self.filters.get(&kind(order.walls, order.net));
        match sys::fork(self.proof).map_err(failed("fork"))? {
            Side::Parent(init) => {
                self.runs.insert(
                    order.run,
                    Running {
                        init,
                        control,
                        finished: false,
                        end_by: None,
                    },
                );
                Ok(())
            }
            Side::Child => {
                let job = Job {
                    order,
                    strings: &strings,
                    fds,
                    filters: filters.filter(|_| self.support.seccomp),
                    support: self.support,
                    control: Some(init_control.as_fd()),
                };
                // A panic must not unwind into the copy of the spawner's loop that this process also is.
                let done = catch_unwind(AssertUnwindSafe(|| self.be_init(job, &init_control)));
                sys::exit(i32::from(!done.unwrap_or(false)))
            }
        }
    }

    /// In the forked child: look after the run and report.
    fn be_init(&self, job: Job<'_>, report: &OwnedFd) -> bool {
        let run = job.order.run;
        let init = rustix::process::getpid().as_raw_nonzero().get();
        let outcome = job.run(self.proof, |pid, enforced| {
            wire::post(
                report,
                &Event::Started {
                    run,
                    pid: pid.as_raw_nonzero().get(),
                    init,
                    enforced,
                },
            )
        });
        let last = match outcome {
            Ok(exit) => Event::Exited { run, exit },
            Err(refusal) => Event::Refused { run, refusal },
        };
        wire::post(report, &last).is_ok()
    }

    /// Passes on what a run's init says, or speaks for it when it died without a last word.
    fn hear(&mut self, run: u64, buffer: &mut [u8]) {
        let Some(running) = self.runs.get_mut(&run) else {
            return;
        };
        match wire::receive(running.control.as_fd(), buffer, &mut Vec::new()) {
            Ok(Some(packet)) => {
                if let Ok((event, _)) = wire::decode::<Event>(packet) {
                    running.finished |= matches!(event, Event::Exited { .. } | Event::Refused { .. });
                    self.tell(&event);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.bury(run),
        }
    }

    fn bury(&mut self, run: u64) {
        let Some(running) = self.runs.remove(&run) else {
            return;
        };
        // Its socket closed, so it is dead or dying; after this its orphans are ours.
        let _ = waitpid(Some(running.init), WaitOptions::empty());
        self.reap_strays();
        if !running.finished {
            let exit = Exit {
                status: Status::Lost,
                cause: Cause::Killed,
                strays: 0,
                left: 0,
                cpu_ms: 0,
                max_rss_bytes: 0,
            };
            self.tell(&Event::Exited { run, exit });
        }
    }

    fn reap_strays(&mut self) {
        let known: Vec<i32> = self
            .runs
            .values()
            .map(|run| run.init.as_raw_nonzero().get())
            .collect();
        // If /proc can't be read now, the next SIGCHLD tries again.
        match tree::reap_strays(&known) {
            Ok(strays) if strays.killed == 0 => self.strays_since = None,
            _ => {
                let since = *self.strays_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STRAY_PATIENCE {
                    // A dead init's run forks faster than it is killed. This ends the other runs, too; leaving it
                    // alive is worse.
                    self.kill_all();
                }
            }
        }
    }

    fn kill_all(&self) {
        if let Some(domain) = &self.domain {
            domain.kill_all();
        }
    }

    /// A service that is gone is noticed by its socket's end.
    fn tell(&self, event: &Event) {
        let _ = wire::post(&self.service, event);
    }

    /// Compiles the filters for a kind of run once. There are 2^4 walls and three kinds of network.
    fn filters(&mut self, walls: Walls, net: Net) -> Result<(), Refusal> {
        if let Entry::Vacant(place) = self.filters.entry(kind(walls, net)) {
            let compiled = Filters::for_run(walls, net);
            place.insert(compiled.map_err(|e| Refusal::setup("compile the filters", &io::Error::other(e)))?);
        }
        Ok(())
    }
}

/// The port of a proxy is the gate's business; the filters are the same for all.
fn kind(walls: Walls, net: Net) -> (Walls, Net) {
    (
        walls,
        if let Net::Proxy { .. } = net {
            Net::Proxy { port: 0 }
        } else {
            net
        },
    )
}
