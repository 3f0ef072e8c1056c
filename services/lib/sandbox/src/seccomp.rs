//! System call filters.
//!
//! Filters allow by default and deny what follows: a list of allowed calls would break programs we have never seen
//! and be widened until it means nothing. Against calls that do not exist yet, everything above the newest number
//! known here is answered ENOSYS. Landlock decides about files; this decides about what has no path.
//!
//! A run gets two programs:
//! 1. errors: EPERM for what a program has no business doing; ENOSYS for what programs try and then do without
//!    (`clone3` hides its flags from filters, `io_uring` does work no filter sees, an executable `memfd` would be
//!    writable and executable) and for numbers of the future; a foreign architecture is killed;
//! 2. the gate, where the walls need one: calls that the run's init judges one by one (see `gate.rs`).
//!
//! Where programs disagree the kernel takes the strictest answer, so what 1 refuses never reaches the gate.

mod lists;

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use self::lists::{KERNEL_SURFACE, METADATA, OLD_METADATA, SHARED_OBJECTS};
use crate::profile::{Net, Walls};

/// `file_setattr`, the newest call of Linux 6.18; x86_64 and aarch64 share numbers up here. Also refuses x32, whose
/// numbers carry bit 30.
const NEWEST_SYSCALL: u32 = 469;

/// From `linux/fcntl.h` and friends; libc does not have them for every target.
const MSG_FASTOPEN: u64 = 0x2000_0000;
const MFD_NOEXEC_SEAL: u64 = 0x8;
const TIOCLINUX: u64 = 0x541C;
const TIOCSTI: u64 = 0x5412;
const SOCK_TYPE_MASK: u64 = 0xf;
const FCHMODAT2: c_long = 452;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiled programs for one kind of run.
#[derive(Clone)]
pub(crate) struct Filters {
    pub(crate) errors: BpfProgram,
    pub(crate) gate: BpfProgram,
}

impl Filters {
    /// For a sandboxed run.
    pub(crate) fn for_run(walls: Walls, net: Net) -> Result<Self, BackendError> {
        let mut rules = kernel_surface()?;
        other_processes(&mut rules)?;
        sockets(&mut rules, walls, net)?;
        let mut missing = absent()?;
        if walls.ipc {
            deny(&mut rules, SHARED_OBJECTS);
        }
        if walls.fs {
            deny(&mut rules, METADATA);
            deny(&mut missing, OLD_METADATA);
        }
        Ok(Self {
            errors: compile(rules, missing)?,
            gate: gate_filter(walls, net)?,
        })
    }
}

/// For a service that restricts itself: the kernel's surface, and no processes or programs of its own.
pub(crate) fn for_service() -> Result<BpfProgram, BackendError> {
    let mut rules = kernel_surface()?;
    deny(&mut rules, &[libc::SYS_execve, libc::SYS_execveat]);
    #[cfg(target_arch = "x86_64")]
    deny(&mut rules, &[libc::SYS_fork, libc::SYS_vfork]);
    // Threads are made with CLONE_THREAD, processes without.
    let thread = bits(libc::CLONE_THREAD);
    rules
        .entry(libc::SYS_clone)
        .or_default()
        .push(rule([masked(0, thread, 0)?])?);
    // Families beside the three that services speak. Which addresses they speak to is Landlock's and TLS's part.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    rules.insert(
        libc::SYS_socket,
        vec![rule(
            families
                .map(|f| ne(0, bits(f)))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?,
        )?],
    );
    compile(rules, absent()?)
}

/// The gate: notified calls are answered by the run's init.
pub(crate) fn gate_filter(walls: Walls, net: Net) -> Result<BpfProgram, BackendError> {
    let mut notified = Vec::new();
    if walls.net && matches!(net, Net::Proxy { .. }) {
        notified.extend([libc::SYS_socket, libc::SYS_connect]);
    }
    if walls.fs {
        #[cfg(target_arch = "x86_64")]
        notified.extend([libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown]);
        notified.extend([libc::SYS_fchmodat, FCHMODAT2, libc::SYS_fchownat]);
    }
    // The other program has checked architecture and number.
    let mut program = vec![op(LD, 0, 0, 0)];
    for nr in notified {
        program.push(op(JEQ, number(nr)?, 0, 1));
        program.push(op(RET, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    }
    if walls.fs {
        // With a null path the call is about an open descriptor, and opening was judged. Two halves of the pointer.
        const PATH_LOW: u32 = 16 + 8;
        program.extend([
            op(JEQ, number(libc::SYS_utimensat)?, 0, 5),
            op(LD, PATH_LOW, 0, 0),
            op(JEQ, 0, 0, 2),
            op(LD, PATH_LOW + 4, 0, 0),
            op(JEQ, 0, 1, 0),
            op(RET, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        ]);
    }
    program.push(op(RET, libc::SECCOMP_RET_ALLOW, 0, 0));
    Ok(program)
}

const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction: `k` is its operand, `jt` and `jf` how many to skip when a comparison holds or not.
fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn number(nr: c_long) -> Result<u32, BackendError> {
    u32::try_from(nr).map_err(|_| BackendError::InvalidArgumentNumber)
}

/// What stands under every wall.
fn kernel_surface() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    deny(&mut rules, KERNEL_SURFACE);
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    for flag in namespaces {
        // CLONE_NEWTIME shares its bit with the exit signal and is only reachable by unshare and clone3.
        let rule = rule([masked(0, bits(flag), bits(flag))?])?;
        rules.entry(libc::SYS_clone).or_default().push(rule);
    }
    // Typing into somebody's terminal.
    rules.insert(
        libc::SYS_ioctl,
        vec![rule([eq(1, TIOCSTI)?])?, rule([eq(1, TIOCLINUX)?])?],
    );
    // 0 sets the default, 0xffffffff asks; every other value changes how the kernel treats addresses or binaries.
    rules.insert(
        libc::SYS_personality,
        vec![rule([ne(0, 0)?, ne(0, 0xffff_ffff)?])?],
    );
    Ok(rules)
}

/// What acts on any process of the same user and that Landlock does not scope: only oneself may be the target.
fn other_processes(rules: &mut Rules) -> Result<(), BackendError> {
    let by_pid = [
        libc::SYS_prlimit64,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
    ];
    for nr in by_pid {
        rules.insert(nr, vec![rule([ne(0, 0)?])?]);
    }
    // (which, who): which must be PROCESS, who must be 0.
    const IOPRIO_WHO_PROCESS: u64 = 1;
    for (nr, process) in [
        (libc::SYS_setpriority, bits(libc::PRIO_PROCESS as c_int)),
        (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS),
    ] {
        rules.insert(nr, vec![rule([ne(0, process)?])?, rule([ne(1, 0)?])?]);
    }
    Ok(())
}

fn sockets(rules: &mut Rules, walls: Walls, net: Net) -> Result<(), BackendError> {
    let mut families = Vec::new();
    if !walls.ipc {
        families.push(libc::AF_UNIX);
    }
    if !walls.net || net != Net::None {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    let other = families
        .iter()
        .map(|f| ne(0, bits(*f)))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(
        libc::SYS_socket,
        if other.is_empty() {
            Vec::new()
        } else {
            vec![rule(other)?]
        },
    );

    let mut pairs = vec![rule([ne(0, bits(libc::AF_UNIX))?])?];
    if walls.ipc {
        // A datagram pair can be redirected to any named socket with sendto; SOCK_RAW means SOCK_DGRAM here.
        for kind in [libc::SOCK_DGRAM, libc::SOCK_RAW] {
            pairs.push(rule([masked(1, SOCK_TYPE_MASK, bits(kind))?])?);
        }
    }
    rules.insert(libc::SYS_socketpair, pairs);

    if walls.net && net != Net::Host {
        // Fast open connects without the connect call, and past Landlock's hook (seen on 6.18).
        for (nr, flags) in [
            (libc::SYS_sendto, 3),
            (libc::SYS_sendmsg, 2),
            (libc::SYS_sendmmsg, 3),
        ] {
            rules.insert(nr, vec![rule([masked(flags, MSG_FASTOPEN, MSG_FASTOPEN)?])?]);
        }
    }
    Ok(())
}

/// Calls that programs know how to do without.
fn absent() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    deny(
        &mut rules,
        &[
            libc::SYS_clone3,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    );
    // Anonymous files are beyond Landlock: an executable one would be writable and executable. Sealed against
    // execution (6.3) they are welcome.
    rules.insert(
        libc::SYS_memfd_create,
        vec![rule([masked(1, MFD_NOEXEC_SEAL, 0)?])?],
    );
    Ok(rules)
}

fn deny(rules: &mut Rules, calls: &[c_long]) {
    for nr in calls {
        rules.insert(*nr, Vec::new());
    }
}

/// One program out of two sets of calls without a common member. Installing a program costs the kernel more than
/// its length does, and a filter of the library answers with one errno only.
fn compile(eperm: Rules, enosys: Rules) -> Result<BpfProgram, BackendError> {
    debug_assert!(
        eperm.keys().all(|nr| !enosys.contains_key(nr)),
        "the first set would hide the second"
    );
    let build = |rules, errno: c_int| -> Result<BpfProgram, BackendError> {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, errno, arch()?)?.try_into()
    };
    let (mut program, second) = (build(eperm, libc::EPERM)?, build(enosys, libc::ENOSYS)?);
    // Each begins with the check of the architecture and a load of the call's number (4 instructions), then has a
    // block per call that either jumps over itself, number still loaded, or returns; last comes the default. So in
    // place of the first's default go the second's blocks, and its default.
    const PRELUDE: usize = 4;
    program.pop();
    program.extend_from_slice(&second[PRELUDE..]);
    let unknown = [
        op(JGT, NEWEST_SYSCALL, 0, 1),
        op(RET, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(), 0, 0),
    ];
    program.splice(PRELUDE..PRELUDE, unknown);
    Ok(program)
}

fn arch() -> Result<TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

// All judged arguments are ints or flag words in the low half; the kernel ignores the high half of them, and so
// must the filter, or setting a high bit would slip past it.
fn eq(arg: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn ne(arg: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn masked(arg: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn bits(value: c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests;
