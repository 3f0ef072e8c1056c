//! Acts against the `kill` wall: other processes, and limits.

use std::io;

use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, getrlimit, kill_process, pidfd_open, pidfd_send_signal,
};

use super::{Act, Outcome, Targets, check, done, reach, reached};
use crate::report::Wall::Kill;
use crate::sys;

const fn act(name: &'static str, needs: &'static [&'static str], attempt: fn(&Targets) -> Outcome) -> Act {
    Act {
        name,
        wall: Kill,
        needs,
        attempt,
    }
}

pub(super) const ACTS: &[Act] = &[
    // SIGCONT does nothing to a process that is not stopped, but is judged like every signal.
    act("signal the parent", &[], |_| {
        let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(parent, Signal::CONT).map(done("sent"))?)
    }),
    act("signal a process outside", &["pid"], |t| {
        Ok(kill_process(pid(t)?, Signal::CONT).map(done("sent"))?)
    }),
    act("signal a process outside by pidfd", &["pid"], |t| {
        let fd = pidfd_open(pid(t)?, PidfdFlags::empty())?;
        Ok(pidfd_send_signal(fd, Signal::CONT).map(done("sent"))?)
    }),
    act("signal a thread outside", &["pid"], |t| {
        let pid = t.get::<i32>("pid")?;
        // SAFETY: three integers.
        check(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGCONT) }).map(|_| "sent".to_owned())
    }),
    act("queue a signal to a process outside", &["pid"], |t| {
        let value = libc::sigval {
            sival_ptr: std::ptr::null_mut(),
        };
        // SAFETY: integers and a value that is only carried.
        check(unsafe { libc::sigqueue(t.get::<i32>("pid")?, libc::SIGCONT, value) })
            .map(|_| "sent".to_owned())
    }),
    act("change a limit of a process outside", &["pid"], |t| {
        let limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        let core = libc::RLIMIT_CORE;
        // SAFETY: an initialised limit and a null pointer for the old one.
        let rc = unsafe { libc::prlimit(t.get::<i32>("pid")?, core, &raw const limit, std::ptr::null_mut()) };
        check(rc).map(|_| "changed".to_owned())
    }),
    act("change the scheduling of a process outside", &["pid"], |t| {
        let param = libc::sched_param { sched_priority: 0 };
        // SAFETY: an initialised parameter.
        let rc =
            unsafe { libc::sched_setscheduler(t.get::<i32>("pid")?, libc::SCHED_OTHER, &raw const param) };
        check(rc).map(|_| "changed".to_owned())
    }),
    act("pin a process outside to a CPU", &["pid"], |t| {
        let mut set = rustix::thread::CpuSet::new();
        (0..64).for_each(|cpu| set.set(cpu));
        Ok(rustix::thread::sched_setaffinity(Some(pid(t)?), &set).map(done("pinned"))?)
    }),
    act("change the priority of a process outside", &["pid"], |t| {
        // SAFETY: three integers.
        let rc = unsafe { libc::setpriority(libc::PRIO_PROCESS, t.get::<libc::id_t>("pid")?, 0) };
        check(rc).map(|_| "changed".to_owned())
    }),
    act("trace the parent", &[], |_| {
        trace(rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?)
    }),
    act("trace a process outside", &["pid"], |t| trace(pid(t)?)),
    act("read a process's memory", &["pid"], |t| {
        let mut buffer = [0; 8];
        // The address is in nobody's map; a process that may look is told so.
        match sys::read_memory(t.get("pid")?, 8, &mut buffer) {
            Ok(n) => Ok(format!("{n} bytes")),
            Err(e) => reached(e),
        }
    }),
    act("write a process's memory", &[], |_| {
        reach(libc::SYS_process_vm_writev)
    }),
    act("take a process's descriptor", &["pid"], |t| {
        let fd = pidfd_open(pid(t)?, PidfdFlags::empty())?;
        match rustix::process::pidfd_getfd(fd, 0, rustix::process::PidfdGetfdFlags::empty()) {
            Ok(_) => Ok("taken".to_owned()),
            Err(e) => reached(e.into()),
        }
    }),
    act("have more memory than the limit", &["memory"], |t| {
        let limit = t.get::<usize>("memory")?;
        let mut bytes: Vec<u8> = Vec::new();
        bytes
            .try_reserve_exact(limit)
            .map(|()| "reserved".to_owned())
            .map_err(io::Error::other)
    }),
    act("dump core", &[], |_| match getrlimit(Resource::Core).maximum {
        Some(0) => Err(io::Error::other("the limit is 0")),
        other => Ok(format!("limit {other:?}")),
    }),
    act("use CPU without limit", &[], |_| {
        match getrlimit(Resource::Cpu).maximum {
            None => Ok("no limit".to_owned()),
            Some(limit) => Err(io::Error::other(format!("{limit} s"))),
        }
    }),
];

fn pid(t: &Targets) -> io::Result<Pid> {
    Pid::from_raw(t.get("pid")?).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Attaches without stopping the other, and lets go again.
fn trace(pid: Pid) -> Outcome {
    let null = std::ptr::null_mut::<libc::c_void>();
    let raw = pid.as_raw_nonzero().get();
    // SAFETY: SEIZE and DETACH with null addresses touch no memory of this process.
    unsafe {
        check(libc::ptrace(libc::PTRACE_SEIZE, raw, null, null))?;
        libc::ptrace(libc::PTRACE_DETACH, raw, null, null);
    }
    Ok("attached".to_owned())
}
