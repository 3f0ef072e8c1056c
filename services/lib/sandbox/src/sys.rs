//! The system calls that rustix does not wrap, each behind a safe function with the narrowest contract.
//!
//! Everything here is a thin shell around one call; what the calls are for is told where they are used.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::c_int;
use rustix::process::Pid;
use seccompiler::sock_filter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Proof that the process had exactly one thread when it was made.
///
/// `fork` in a process with threads leaves the child with locks nobody will release; whoever holds this value
/// promises by construction (no code of this crate's helper processes starts threads) that it still holds.
#[derive(Clone, Copy)]
pub(crate) struct SingleThread(());

impl SingleThread {
    /// For code that `main` calls before anything else: no thread can have been started. Inside walls `/proc` may
    /// be closed, so that [`SingleThread::check`] can't tell.
    pub(crate) fn at_start_of_main() -> Self {
        Self(())
    }

    /// `None` when other threads run, or when `/proc` can't tell.
    pub(crate) fn check() -> Option<Self> {
        (thread_count()? == 1).then_some(Self(()))
    }
}

/// Threads of this process. From `status` and not by listing `task/`: Landlock judges the listing of a directory
/// and the reading of a file by different rights, and only the latter is always granted.
pub(crate) fn thread_count() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok())
}

/// Which side of a fork the caller is on.
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// Forks. The child shares nothing but copies; it must end in [`exit`] or [`exec`], never return to its caller's
/// caller.
pub(crate) fn fork(_proof: SingleThread) -> io::Result<Side> {
    // SAFETY: `SingleThread` says no other thread exists, so the child may use the heap and any lock.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid)
            .map(Side::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Ends the process at once: no destructors, no exit handlers. In a forked child both belong to the parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 up that is not in `keep`. The owners of those descriptors in this process must
/// never be dropped or used afterwards: for a freshly forked child that only ends in [`exit`] or [`exec`].
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd > 2)
        .collect();
    keep.sort_unstable();
    let mut first = 3u32;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from 3 up close-on-exec.
pub(crate) fn close_on_exec_from_3() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: the call takes three integers; the callers own the consequences for the descriptors in the range.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes `target` (0, 1 or 2) a copy of `fd`, inherited across exec.
pub(crate) fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: `fd` is open; replacing a standard descriptor is this function's purpose and no `OwnedFd` owns one.
    check(i64::from(unsafe { libc::dup2(fd.as_raw_fd(), target) })).map(drop)
}

/// Blocks (`true`) or unblocks all signals of this thread.
pub(crate) fn block_signals(block: bool) -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset/sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if block {
            libc::sigfillset(&raw mut set)
        } else {
            libc::sigemptyset(&raw mut set)
        };
        check(i64::from(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const set,
            ptr::null_mut(),
        )))
        .map(drop)
    }
}

/// Gives SIGPIPE its default action again: Rust's start-up ignores it, and ignored signals survive exec.
pub(crate) fn restore_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// A descriptor that becomes readable when one of `signals` arrives. They must be blocked.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the returned descriptor is new and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        owned(i64::from(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )))
    }
}

/// Empties a [`signal_fd`]; `true` if anything but SIGCHLD was in it.
pub(crate) fn drain_signals(fd: BorrowedFd<'_>) -> bool {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut told = false;
    let mut records = [0u8; RECORD * 8];
    while let Ok(n @ 1..) = rustix::io::read(fd, &mut records) {
        // `ssi_signo` is the first field of each record.
        let numbers = records[..n]
            .chunks_exact(RECORD)
            .filter_map(|r| r.first_chunk::<4>());
        told |= numbers
            .map(|n| u32::from_ne_bytes(*n))
            .any(|n| n != libc::SIGCHLD.unsigned_abs());
    }
    told
}

/// Whether the kernel says that the wall clock follows a time server (`adjtimex`, without `STA_UNSYNC`). Setting the
/// clock by hand makes it say no.
#[must_use]
pub fn clock_is_synchronised() -> bool {
    // SAFETY: an all-zero timex asks and changes nothing; the pointer is to a live local.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    (0..libc::TIME_ERROR).contains(&state) && status & libc::STA_UNSYNC == 0
}

/// Bytes in a page of memory.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// What a reaped child left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: Pid,
    /// Raw wait status.
    pub(crate) status: i32,
    /// User and system time of the child and of what it had waited for.
    pub(crate) cpu_us: u64,
    pub(crate) max_rss_bytes: u64,
}

/// Reaps one dead child without waiting: `Ok(None)` when all children live, `ECHILD` when there are none.
pub(crate) fn reap_any() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value; both pointers are to live locals.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (
            libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage),
            usage,
        )
    };
    check(i64::from(pid))?;
    let micros = |t: libc::timeval| {
        u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0)
    };
    Ok(Pid::from_raw(pid).map(|pid| Reaped {
        pid,
        status,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

/// What to execute.
pub(crate) enum Image<'a> {
    Path(&'a CStr),
    Fd(BorrowedFd<'a>),
}

/// Replaces this process; returns only on failure.
pub(crate) fn exec(image: &Image<'_>, argv: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    match image {
        Image::Path(path) => {
            // SAFETY: NUL-terminated strings in NULL-terminated arrays that outlive the call.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        }
        Image::Fd(fd) => {
            // SAFETY: as above; the empty path with AT_EMPTY_PATH means the descriptor itself.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    fd.as_raw_fd(),
                    c"".as_ptr(),
                    argv.as_ptr(),
                    env.as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
        }
    }
    io::Error::last_os_error()
}

/// The kernel's Landlock ABI, 0 when it has none or an outer filter hides it.
pub(crate) fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with the version flag the kernel reads neither pointer nor size.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0usize,
            VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

/// Sends SIGKILL to every process this one may signal, but itself and pid 1. The kernel does it in one step with
/// regard to fork: no process can escape by making another one.
///
/// Only for a process whose signals are scoped to what it shall kill; see `landlock_wall::OwnDomain`.
pub(crate) fn kill_everything() {
    // SAFETY: a system call with two integers. What it kills is the caller's responsibility.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Whether the kernel knows seccomp filters with user notification.
pub(crate) fn seccomp_has(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 behind the pointer.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            ptr::from_ref(&action),
        )
    };
    rc == 0
}

/// Installs a filter on this thread and returns the descriptor its notifications arrive on.
/// `no_new_privs` must be set. `EBUSY`: an enclosing sandbox already listens.
pub(crate) fn install_listener(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: both structs are the kernel's sock_filter layout (repr(C): u16, u8, u8, u32); the kernel only
        // copies them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                ptr::from_ref(&fprog),
            )
        };
        // SAFETY: on success the kernel returned a new descriptor.
        unsafe { owned(fd) }
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // The second flag (5.19) keeps a call that is being judged from being restarted by every signal.
    match install(listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(listener),
        other => other,
    }
}

/// Takes the next notification.
pub(crate) fn notification(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: the kernel demands a zeroed struct and fills it; all-zero is valid for plain integers.
    unsafe {
        let mut notif: libc::seccomp_notif = std::mem::zeroed();
        check(i64::from(libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV as _,
            &raw mut notif,
        )))?;
        Ok(notif)
    }
}

/// How a notified system call goes on.
pub(crate) enum Verdict<'a> {
    /// It returns zero and is not run: what it asked for has been seen to.
    Done,
    /// It fails with this errno.
    Fail(i32),
    /// It returns a new descriptor, a copy of this one.
    Give { fd: BorrowedFd<'a>, cloexec: bool },
}

/// Answers a notification. `ENOENT` when the caller died meanwhile.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, verdict: &Verdict<'_>) -> io::Result<()> {
    let error = match verdict {
        Verdict::Done => 0,
        Verdict::Fail(errno) => -errno,
        Verdict::Give { fd, cloexec } => return give(listener, id, *fd, *cloexec),
    };
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags: 0,
    };
    // SAFETY: the kernel reads one response struct.
    let rc = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND as _,
            ptr::from_ref(&response),
        )
    };
    check(i64::from(rc)).map(drop)
}

/// Whether the caller of a notified system call still waits for the answer.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    let rc = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _,
            ptr::from_ref(&id),
        )
    };
    rc == 0
}

/// Copies memory out of another process; may be shorter than `buffer` where less is mapped.
pub(crate) fn read_memory(pid: libc::pid_t, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let address = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let remote = libc::iovec {
        iov_base: ptr::without_provenance_mut(address),
        iov_len: buffer.len(),
    };
    // SAFETY: `local` describes `buffer`, which is writable for the call; the remote address is the other process's.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

fn give(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<()> {
    let added = libc::seccomp_notif_addfd {
        id,
        // SEND answers the call in the same step, so a signal in between can't leave a stray descriptor.
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or_default(),
        srcfd: u32::try_from(fd.as_raw_fd()).unwrap_or_default(),
        newfd: 0,
        newfd_flags: if cloexec {
            libc::O_CLOEXEC.unsigned_abs()
        } else {
            0
        },
    };
    // SAFETY: the kernel reads one addfd struct; `fd` is open for the duration.
    let rc = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD as _,
            ptr::from_ref(&added),
        )
    };
    check(i64::from(rc)).map(drop)
}

/// `SO_PEERCRED`. Not by rustix: it has a non-zero type for the pid, and the kernel says 0 for a peer whose pid
/// namespace this process can't see.
pub(crate) fn peer_ucred(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let none = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    socket_option(socket, libc::SO_PEERCRED, none)
}

/// `SO_PEERPIDFD` (6.5): a descriptor for the process that connected, immune to pid reuse.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: c_int = 77;
    let fd: RawFd = socket_option(socket, SO_PEERPIDFD, -1)?;
    // SAFETY: on success the kernel returned a new descriptor.
    unsafe { owned(i64::from(fd)) }
}

/// Reads a plain-data socket option over `value`.
fn socket_option<T: Copy>(socket: BorrowedFd<'_>, option: c_int, mut value: T) -> io::Result<T> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`; the types used here (integers, ucred) have
    // no invalid bit patterns.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    check(i64::from(rc)).map(|_| value)
}

/// Registers a descriptor with the current tokio runtime.
pub(crate) fn watch<T: AsFd + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: tokio wants the descriptor to stay open and the same for as long as it is registered. `AsFd` with the
    // types this crate uses (`OwnedFd`, `BorrowedFd`) promises that by I/O safety.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Takes this process's descriptor 0 as an owned one, for helpers that are started with their socket there.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC returns a new descriptor.
    unsafe { owned(i64::from(libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3))) }
}

/// # Safety
/// A non-negative `fd` must be a new descriptor nobody else owns.
unsafe fn owned(fd: i64) -> io::Result<OwnedFd> {
    check(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the caller's contract.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(rc: i64) -> io::Result<i64> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}
