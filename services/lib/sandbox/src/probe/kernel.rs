//! Acts against what stands under every wall: namespaces, mounts, privileges, and the kernel's riskier parts.

use std::io;

use super::{Act, Outcome, Targets, check, reach, reached};
use crate::report::Wall::Ipc;
use crate::sys;

/// The base filter stands whenever a run has seccomp at all; it is listed under `ipc`, the wall `exec.md` puts
/// ptrace and io_uring in.
const fn act(name: &'static str, attempt: fn(&Targets) -> Outcome) -> Act {
    Act {
        name,
        wall: Ipc,
        needs: &[],
        attempt,
    }
}

pub(super) const ACTS: &[Act] = &[
    act("unshare the user namespace", |t| {
        t.in_child(|| unshare(libc::CLONE_NEWUSER))
    }),
    act("unshare the network namespace", |t| {
        t.in_child(|| unshare(libc::CLONE_NEWNET))
    }),
    act("unshare the mount namespace", |t| {
        t.in_child(|| unshare(libc::CLONE_NEWNS))
    }),
    act("clone into a user namespace", |t| {
        t.in_child(|| {
            let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            // SAFETY: without CLONE_VM and with a null stack this is fork; the child leaves at once.
            match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0i64, 0i64, 0i64, 0i64) })? {
                0 => sys::exit(0),
                _ => Ok(()),
            }
        })
    }),
    act("clone3", |_| reach(libc::SYS_clone3)),
    act("enter a namespace", |_| reach(libc::SYS_setns)),
    act("mount", |_| reach(libc::SYS_mount)),
    act("unmount", |_| reach(libc::SYS_umount2)),
    act("open a mount tree", |_| reach(libc::SYS_open_tree)),
    act("open a file system", |_| reach(libc::SYS_fsopen)),
    act("move a mount", |_| reach(libc::SYS_move_mount)),
    act("set mount attributes", |_| reach(libc::SYS_mount_setattr)),
    act("pivot the root", |_| reach(libc::SYS_pivot_root)),
    act("load a BPF program", |_| reach(libc::SYS_bpf)),
    act("open performance events", |_| reach(libc::SYS_perf_event_open)),
    act("handle page faults", |_| reach(libc::SYS_userfaultfd)),
    act("use the kernel's keys", |_| reach(libc::SYS_keyctl)),
    act("add a key", |_| reach(libc::SYS_add_key)),
    act("load a module", |_| reach(libc::SYS_finit_module)),
    act("load a kernel", |_| reach(libc::SYS_kexec_load)),
    act("reboot", |_| reach(libc::SYS_reboot)),
    act("swap", |_| reach(libc::SYS_swapon)),
    act("account", |_| reach(libc::SYS_acct)),
    act("read the kernel's log", |_| reach(libc::SYS_syslog)),
    act("set the clock", |_| reach(libc::SYS_clock_settime)),
    act("watch the file system", |_| reach(libc::SYS_fanotify_init)),
    act("make secret memory", |_| reach(libc::SYS_memfd_secret)),
    act("switch off address randomisation", |_| {
        // SAFETY: an integer; affects this process's later execs only.
        check(unsafe { libc::personality(0x004_0000) }).map(|_| "switched off".to_owned())
    }),
    act("type into the terminal", |_| {
        let letter = b'x';
        // SAFETY: the kernel reads one byte behind the pointer.
        let rc = unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const letter) };
        match check(rc) {
            Ok(_) => Ok("typed".to_owned()),
            // Outside, a standard input that is no terminal says ENOTTY.
            Err(e) => reached(e),
        }
    }),
    act("keep capabilities", |_| {
        let sets = rustix::thread::capabilities(None)?;
        match (sets.permitted | sets.inheritable).is_empty() {
            true => Err(io::Error::other("none")),
            false => Ok(format!("{:?}", sets.permitted)),
        }
    }),
    act(
        "gain privileges by exec",
        |_| match rustix::thread::no_new_privs()? {
            true => Err(io::Error::other("no_new_privs")),
            false => Ok("no_new_privs is not set".to_owned()),
        },
    ),
    act("call by the numbers of x32", |t| {
        t.in_child(|| {
            const X32: i64 = 0x4000_0000;
            // SAFETY: getpid takes no arguments.
            check(unsafe { libc::syscall(X32 | libc::SYS_getpid) }).map(drop)
        })
    }),
    #[cfg(target_arch = "x86_64")]
    act("call by the numbers of i386", |t| {
        t.in_child(|| {
            let pid: u64;
            // SAFETY: getpid (20) by the 32-bit entry touches no memory; the entry clobbers r8 to r11.
            unsafe {
                std::arch::asm!(
                    "int 0x80", inlateout("rax") 20u64 => pid,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _, options(nostack),
                );
            }
            if i32::try_from(pid) == Ok(rustix::process::getpid().as_raw_nonzero().get()) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ENOSYS))
            }
        })
    }),
    act("call a number of the future", |_| reach(600)),
];

fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: in a child that exits right after.
    check(unsafe { libc::unshare(flags) }).map(drop)
}
