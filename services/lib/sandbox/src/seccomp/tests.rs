//! The filters, run on a small BPF machine.

use super::*;

/// The little of the BPF machine that seccomp programs use, as an oracle independent of the kernel.
fn run(program: &[sock_filter], nr: c_long, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(nr).unwrap().to_ne_bytes());
    let audit_arch: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
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
    run(&f.errors, libc::SYS_socket, [bits(family), 1, 0, 0, 0, 0])
}

#[test]
fn sockets_follow_the_walls() {
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_VSOCK,
    ];
    let allowed = |walls, net| {
        let f = filters(walls, net);
        families
            .iter()
            .copied()
            .filter(|x| socket(&f, *x) == ALLOW)
            .collect::<Vec<_>>()
    };
    assert!(allowed(Walls::ALL, Net::None).is_empty());
    assert_eq!(allowed(Walls::ALL, Net::Host), [libc::AF_INET, libc::AF_INET6]);
    assert_eq!(
        allowed(
            Walls {
                ipc: false,
                ..Walls::ALL
            },
            Net::None
        ),
        [libc::AF_UNIX]
    );
    assert_eq!(
        allowed(
            Walls {
                net: false,
                ..Walls::ALL
            },
            Net::None
        ),
        [libc::AF_INET, libc::AF_INET6]
    );
}

#[test]
fn only_stream_pairs_are_made() {
    let f = filters(Walls::ALL, Net::None);
    let pair = |family: c_int, kind: c_int| {
        run(
            &f.errors,
            libc::SYS_socketpair,
            [bits(family), bits(kind), 0, 0, 0, 0],
        )
    };
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
    assert_eq!(
        run(&f.errors, libc::SYS_ioctl, [0, hidden | TIOCSTI, 0, 0, 0, 0]),
        EPERM
    );
    assert_eq!(
        run(
            &f.errors,
            libc::SYS_clone,
            [hidden | bits(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]
        ),
        EPERM
    );
    assert_eq!(
        run(&f.errors, libc::SYS_prlimit64, [hidden | 1, 0, 0, 0, 0, 0]),
        EPERM
    );
    assert_eq!(
        run(&f.errors, libc::SYS_memfd_create, [0, hidden, 0, 0, 0, 0]),
        ENOSYS
    );
}

#[test]
fn acting_on_oneself_stays_possible() {
    let f = filters(Walls::ALL, Net::None);
    for nr in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        assert_eq!(run(&f.errors, nr, [0; 6]), ALLOW);
        assert_eq!(run(&f.errors, nr, [1, 0, 0, 0, 0, 0]), EPERM);
    }
    assert_eq!(run(&f.errors, libc::SYS_setpriority, [0, 0, 5, 0, 0, 0]), ALLOW);
    assert_eq!(run(&f.errors, libc::SYS_setpriority, [0, 7, 5, 0, 0, 0]), EPERM);
    assert_eq!(run(&f.errors, libc::SYS_setpriority, [2, 0, 5, 0, 0, 0]), EPERM);
    assert_eq!(run(&f.errors, libc::SYS_personality, [0; 6]), ALLOW);
    assert_eq!(
        run(&f.errors, libc::SYS_personality, [0x40000, 0, 0, 0, 0, 0]),
        EPERM
    );
    assert_eq!(
        run(
            &f.errors,
            libc::SYS_memfd_create,
            [0, MFD_NOEXEC_SEAL | 1, 0, 0, 0, 0]
        ),
        ALLOW
    );
}

#[test]
fn the_gate_sees_what_its_walls_need() {
    let none = Walls {
        fs: false,
        net: false,
        ipc: false,
        kill: false,
    };
    let gate = |walls, net| gate_filter(walls, net).unwrap();
    let plain = gate(Walls::ALL, Net::None);
    assert_eq!(run(&plain, libc::SYS_clone, [0; 6]), ALLOW);
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
    for nr in [libc::SYS_socket, libc::SYS_fchmodat, libc::SYS_utimensat] {
        assert_eq!(run(&lowered, nr, [1; 6]), ALLOW);
    }
}

#[test]
fn numbers_nobody_knows_are_no_calls() {
    let f = filters(
        Walls {
            fs: false,
            net: false,
            ipc: false,
            kill: false,
        },
        Net::Host,
    );
    for foreign in [
        c_long::from(NEWEST_SYSCALL) + 1,
        0x4000_0000,
        0x4000_0000 + libc::SYS_read,
    ] {
        assert_eq!(run(&f.errors, foreign, [0; 6]), ENOSYS, "{foreign:#x}");
    }
    assert_eq!(run(&f.errors, c_long::from(NEWEST_SYSCALL), [0; 6]), ALLOW);
}

#[test]
fn services_make_threads_but_no_processes() {
    let errors = for_service().unwrap();
    let thread = bits(libc::CLONE_THREAD | libc::CLONE_VM);
    assert_eq!(run(&errors, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&errors, libc::SYS_clone, [17, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(
        run(
            &errors,
            libc::SYS_clone,
            [thread | bits(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]
        ),
        EPERM
    );
    assert_eq!(run(&errors, libc::SYS_execve, [0; 6]), EPERM);
    assert_eq!(
        run(&errors, libc::SYS_clone3, [0; 6]),
        ENOSYS,
        "glibc then uses clone, whose flags are seen"
    );
    assert_eq!(
        run(&errors, libc::SYS_socket, [bits(libc::AF_NETLINK), 3, 0, 0, 0, 0]),
        EPERM
    );
    assert_eq!(
        run(&errors, libc::SYS_socket, [bits(libc::AF_UNIX), 1, 0, 0, 0, 0]),
        ALLOW
    );
}
