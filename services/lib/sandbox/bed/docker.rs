//! The conditions of a container: Docker's default seccomp profile, all capabilities dropped, `no-new-privileges`,
//! an unprivileged user.
//!
//! Docker's profile allows a list and denies the rest with EPERM. What of the rest this crate could want, or a
//! program could try, is denied here by the same errno; `clone3` is ENOSYS as there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::anyhow_lite::{Result, err};

/// `docker [--without landlock|notify] PROGRAM ARGS…`, run as uid and gid 65534.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let (without, argv) = match args {
        [flag, what, rest @ ..] if flag == "--without" => (what.to_str(), rest),
        rest => (None, rest),
    };
    let [program, argv @ ..] = argv else {
        return err("docker [--without WHAT] PROGRAM ARGS…");
    };

    let mut eperm = denied()?;
    let mut enosys: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    match without {
        None => {}
        Some("landlock") => {
            for nr in [
                libc::SYS_landlock_create_ruleset,
                libc::SYS_landlock_restrict_self,
            ] {
                enosys.insert(nr, vec![]);
            }
        }
        Some("notify") => {
            // As where another listener is installed already: no filter with a listener can be added.
            let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            eperm.insert(
                libc::SYS_seccomp,
                vec![rule(1, SeccompCmpOp::MaskedEq(listener), listener)?],
            );
        }
        Some(other) => return err(&format!("can't do without {other}")),
    }

    // Order matters: changing users needs capabilities, and does away with them.
    if rustix::process::getuid().is_root() {
        for bit in 0..41 {
            let _ = rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
                1 << bit,
            ));
        }
        let nobody = 65534;
        rustix::thread::set_thread_groups(&[])?;
        let gid = rustix::process::Gid::from_raw(nobody);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = rustix::process::Uid::from_raw(nobody);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    for (rules, errno) in [(eperm, libc::EPERM), (enosys, libc::ENOSYS)] {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            errno,
            std::env::consts::ARCH.try_into()?,
        )?;
        seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "replaces this process; nothing is started"
    )]
    let error = std::process::Command::new(program).args(argv).exec();
    Err(error.into())
}

fn denied() -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_unshare,
        libc::SYS_setns,
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
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_open_by_handle_at,
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
        libc::SYS_syslog,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_vhangup,
        libc::SYS_fanotify_init,
        libc::SYS_lookup_dcookie,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_madvise,
        libc::SYS_move_pages,
        libc::SYS_migrate_pages,
    ]
    .map(|nr| (nr, vec![]))
    .into();
    // clone with any CLONE_NEW* flag but NEWCGROUP… the profile's mask is 0x7E020000.
    let mut clone = Vec::new();
    for bit in (0..32).map(|i| 1u64 << i).filter(|bit| bit & 0x7E02_0000 != 0) {
        clone.push(rule(0, SeccompCmpOp::MaskedEq(bit), bit)?);
    }
    rules.insert(libc::SYS_clone, clone);
    let families = [libc::AF_VSOCK, libc::AF_ALG];
    let families: Result<Vec<_>> = families
        .map(|f| rule(0, SeccompCmpOp::Eq, u64::from(f.unsigned_abs())))
        .into_iter()
        .collect();
    rules.insert(libc::SYS_socket, families?);
    Ok(rules)
}

fn rule(arg: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(
        arg,
        SeccompCmpArgLen::Dword,
        op,
        value,
    )?])?)
}
