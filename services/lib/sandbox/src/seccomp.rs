//! System call filters.
//!
//! Filters allow by default and deny what follows: a list of allowed calls would break programs we have never seen
//! and be widened until it means nothing. Against calls that do not exist yet, everything above the newest number
//! known here is answered ENOSYS. Landlock decides about files; this decides about what has no path.
//!
//! A run gets up to three programs, because one program can answer with one errno:
//! 1. EPERM: what a program has no business doing;
//! 2. ENOSYS: what programs try and then do without (`clone3` hides its flags from filters, `io_uring` does work no
//!    filter sees, an executable `memfd` would be writable and executable);
//! 3. the gate: calls that the run's init judges one by one (see `gate.rs`), and numbers of foreign ABIs.
//!
//! Where filters disagree the kernel takes the strictest answer, so what 1 and 2 refuse never reaches the gate.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

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
    pub(crate) eperm: BpfProgram,
    pub(crate) enosys: BpfProgram,
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
            deny(&mut rules, &SHARED_OBJECTS);
        }
        if walls.fs {
            deny(&mut rules, METADATA);
            deny(&mut missing, OLD_METADATA);
        }
        Ok(Self {
            eperm: compile(rules, libc::EPERM)?,
            enosys: compile(missing, libc::ENOSYS)?,
            gate: gate_filter(walls, net)?,
        })
    }
}

/// For a service that restricts itself: the kernel's surface, and no processes or programs of its own.
pub(crate) fn for_service() -> Result<[BpfProgram; 2], BackendError> {
    let mut rules = kernel_surface()?;
    deny(&mut rules, &[libc::SYS_execve, libc::SYS_execveat]);
    #[cfg(target_arch = "x86_64")]
    deny(&mut rules, &[libc::SYS_fork, libc::SYS_vfork]);
    // Threads are made with CLONE_THREAD, processes without.
    let thread = bits(libc::CLONE_THREAD);
    rules.entry(libc::SYS_clone).or_default().push(rule([masked(0, thread, 0)?])?);
    // Families beside the three that services speak. Which addresses they speak to is Landlock's and TLS's part.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    rules.insert(libc::SYS_socket, vec![rule(families.map(|f| ne(0, bits(f))).into_iter().collect::<Result<Vec<_>, _>>()?)?]);
    Ok([compile(rules, libc::EPERM)?, compile(absent()?, libc::ENOSYS)?])
}

/// The gate: notified calls are answered by the run's init.
pub(crate) fn gate_filter(walls: Walls, net: Net) -> Result<BpfProgram, BackendError> {
    const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JGT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut notified = Vec::new();
    if walls.kill {
        notified.push(libc::SYS_clone);
        #[cfg(target_arch = "x86_64")]
        notified.extend([libc::SYS_fork, libc::SYS_vfork]);
    }
    if walls.net && matches!(net, Net::Proxy { .. }) {
        notified.extend([libc::SYS_socket, libc::SYS_connect]);
    }
    if walls.fs {
        #[cfg(target_arch = "x86_64")]
        notified.push(libc::SYS_chmod);
        notified.extend([libc::SYS_fchmodat, FCHMODAT2]);
    }
    // The other two programs have checked the architecture (and kill what is foreign); a gate that stands alone, as
    // in the probe for support, only ever sees this process's own calls.
    let op = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let mut program = vec![
        op(LD, 0, 0, 0),
        op(JGT, NEWEST_SYSCALL, 0, 1),
        op(RET, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(), 0, 0),
    ];
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

fn number(nr: c_long) -> Result<u32, BackendError> {
    u32::try_from(nr).map_err(|_| BackendError::InvalidArgumentNumber)
}

/// What is closed to everybody: administration, introspection of other processes, and the parts of the kernel that
/// keep producing privilege escalations.
fn kernel_surface() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    deny(
        &mut rules,
        &[
            // other processes' memory and descriptors
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_process_mrelease,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
            // kernel attack surface
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_memfd_secret,
            libc::SYS_fanotify_init,
            libc::SYS_fanotify_mark,
            libc::SYS_lookup_dcookie,
            libc::SYS_nfsservctl,
            // namespaces and mounts
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_setns,
            // files by handle bypass the path, and Landlock with it
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            // administration
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_syslog,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_vhangup,
        ],
    );
    #[cfg(target_arch = "x86_64")]
    deny(&mut rules, &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib]);
    // open_tree_attr (6.15) has the same power as open_tree + mount_setattr; libc has no name for it yet.
    deny(&mut rules, &[467]);
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
    rules.insert(libc::SYS_ioctl, vec![rule([eq(1, TIOCSTI)?])?, rule([eq(1, TIOCLINUX)?])?]);
    // 0 sets the default, 0xffffffff asks; every other value changes how the kernel treats addresses or binaries.
    rules.insert(libc::SYS_personality, vec![rule([ne(0, 0)?, ne(0, 0xffff_ffff)?])?]);
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
    for (nr, process) in [(libc::SYS_setpriority, bits(libc::PRIO_PROCESS as c_int)), (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS)] {
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
    let other = families.iter().map(|f| ne(0, bits(*f))).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, if other.is_empty() { Vec::new() } else { vec![rule(other)?] });

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
        for (nr, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            rules.insert(nr, vec![rule([masked(flags, MSG_FASTOPEN, MSG_FASTOPEN)?])?]);
        }
    }
    Ok(())
}

/// Objects named outside the file system and shared with every process of the user: an X server's frame buffers
/// are SysV segments.
const SHARED_OBJECTS: [c_long; 13] = [
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Changes of owner and attributes by path, which Landlock does not judge. By descriptor they stay: opening was
/// judged. Mode and times go through the gate; these are rare enough to be refused.
const METADATA: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    463, // setxattrat
    466, // removexattrat
    469, // file_setattr
];

/// Older ways to set times; programs since 2008 have `utimensat`.
const OLD_METADATA: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

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
    rules.insert(libc::SYS_memfd_create, vec![rule([masked(1, MFD_NOEXEC_SEAL, 0)?])?]);
    Ok(rules)
}

fn deny(rules: &mut Rules, calls: &[c_long]) {
    for nr in calls {
        rules.insert(*nr, Vec::new());
    }
}

fn compile(rules: Rules, errno: c_int) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch()?)?.try_into()
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
mod tests {
    use super::*;

    /// The little of the BPF machine that seccomp programs use, as an oracle independent of the kernel.
    fn run(program: &[sock_filter], nr: c_long, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(nr).unwrap().to_ne_bytes());
        let audit_arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        data.extend(audit_arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        args.iter().for_each(|a| data.extend(a.to_ne_bytes()));
        let (mut acc, mut pc) = (0u32, 0usize);
        loop {
            let op = &program[pc];
            pc += 1;
            let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
            match u32::from(op.code) {
                0x20 => acc = u32::from_ne_bytes(data[op.k as usize..][..4].try_into().unwrap()),
                0x05 => pc += op.k as usize,
                0x15 => pc += jump(acc == op.k),
                0x25 => pc += jump(acc > op.k),
                0x35 => pc += jump(acc >= op.k),
                0x54 => acc &= op.k,
                0x06 => return op.k,
                code => panic!("unexpected opcode {code:#x}"),
            }
        }
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

    fn filters(walls: Walls, net: Net) -> Filters {
        Filters::for_run(walls, net).unwrap()
    }

    fn socket(f: &Filters, family: c_int) -> u32 {
        run(&f.eperm, libc::SYS_socket, [bits(family), 1, 0, 0, 0, 0])
    }

    #[test]
    fn sockets_follow_the_walls() {
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK];
        let allowed = |walls, net| {
            let f = filters(walls, net);
            families.iter().copied().filter(|x| socket(&f, *x) == ALLOW).collect::<Vec<_>>()
        };
        assert_eq!(allowed(Walls::ALL, Net::None), []);
        assert_eq!(allowed(Walls::ALL, Net::Host), [libc::AF_INET, libc::AF_INET6]);
        assert_eq!(allowed(Walls { ipc: false, ..Walls::ALL }, Net::None), [libc::AF_UNIX]);
        assert_eq!(allowed(Walls { net: false, ..Walls::ALL }, Net::None), [libc::AF_INET, libc::AF_INET6]);
    }

    #[test]
    fn only_stream_pairs_are_made() {
        let f = filters(Walls::ALL, Net::None);
        let pair = |family: c_int, kind: c_int| run(&f.eperm, libc::SYS_socketpair, [bits(family), bits(kind), 0, 0, 0, 0]);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC), ALLOW);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_SEQPACKET), ALLOW);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK), EPERM);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_RAW), EPERM);
        assert_eq!(pair(libc::AF_INET, libc::SOCK_STREAM), EPERM);
    }

    #[test]
    fn high_halves_of_arguments_can_not_hide_low_ones() {
        let f = filters(Walls::ALL, Net::None);
        let hidden = 0x1_0000_0000u64;
        assert_eq!(run(&f.eperm, libc::SYS_ioctl, [0, hidden | TIOCSTI, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.eperm, libc::SYS_clone, [hidden | bits(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.eperm, libc::SYS_prlimit64, [hidden | 1, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.enosys, libc::SYS_memfd_create, [0, hidden, 0, 0, 0, 0]), ENOSYS);
    }

    #[test]
    fn acting_on_oneself_stays_possible() {
        let f = filters(Walls::ALL, Net::None);
        for nr in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
            assert_eq!(run(&f.eperm, nr, [0; 6]), ALLOW);
            assert_eq!(run(&f.eperm, nr, [1, 0, 0, 0, 0, 0]), EPERM);
        }
        assert_eq!(run(&f.eperm, libc::SYS_setpriority, [0, 0, 5, 0, 0, 0]), ALLOW);
        assert_eq!(run(&f.eperm, libc::SYS_setpriority, [0, 7, 5, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.eperm, libc::SYS_setpriority, [2, 0, 5, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.eperm, libc::SYS_personality, [0; 6]), ALLOW);
        assert_eq!(run(&f.eperm, libc::SYS_personality, [0x40000, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&f.enosys, libc::SYS_memfd_create, [0, MFD_NOEXEC_SEAL | 1, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn the_gate_sees_what_its_walls_need() {
        let none = Walls { fs: false, net: false, ipc: false, kill: false };
        let gate = |walls, net| gate_filter(walls, net).unwrap();
        let plain = gate(Walls::ALL, Net::None);
        let thread = bits(libc::CLONE_THREAD);
        assert_eq!(run(&plain, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), NOTIFY, "threads count too");
        assert_eq!(run(&plain, libc::SYS_socket, [0; 6]), ALLOW);
        assert_eq!(run(&plain, libc::SYS_fchmodat, [0; 6]), NOTIFY);
        assert_eq!(run(&plain, libc::SYS_fchmod, [0; 6]), ALLOW);
        assert_eq!(run(&plain, libc::SYS_utimensat, [3, 0, 0, 0, 0, 0]), ALLOW);
        for path in [1, 0x1_0000_0000, u64::MAX] {
            assert_eq!(run(&plain, libc::SYS_utimensat, [3, path, 0, 0, 0, 0]), NOTIFY);
        }
        assert_eq!(run(&plain, libc::SYS_read, [0; 6]), ALLOW);
        let proxied = gate(Walls::ALL, Net::Proxy { port: 1 });
        assert_eq!(run(&proxied, libc::SYS_socket, [0; 6]), NOTIFY);
        assert_eq!(run(&proxied, libc::SYS_connect, [0; 6]), NOTIFY);
        let lowered = gate(none, Net::Proxy { port: 1 });
        for nr in [libc::SYS_clone, libc::SYS_socket, libc::SYS_fchmodat, libc::SYS_utimensat] {
            assert_eq!(run(&lowered, nr, [1; 6]), ALLOW);
        }
        for foreign in [c_long::from(NEWEST_SYSCALL) + 1, 0x4000_0000, 0x4000_0000 + libc::SYS_read] {
            assert_eq!(run(&plain, foreign, [0; 6]), ENOSYS, "{foreign:#x}");
        }
    }

    #[test]
    fn services_make_threads_but_no_processes() {
        let [eperm, enosys] = for_service().unwrap();
        let thread = bits(libc::CLONE_THREAD | libc::CLONE_VM);
        assert_eq!(run(&eperm, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&eperm, libc::SYS_clone, [17, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&eperm, libc::SYS_clone, [thread | bits(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&eperm, libc::SYS_execve, [0; 6]), EPERM);
        assert_eq!(run(&enosys, libc::SYS_clone3, [0; 6]), ENOSYS, "glibc then uses clone, whose flags are seen");
        assert_eq!(run(&eperm, libc::SYS_socket, [bits(libc::AF_NETLINK), 3, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&eperm, libc::SYS_socket, [bits(libc::AF_UNIX), 1, 0, 0, 0, 0]), ALLOW);
    }
}
