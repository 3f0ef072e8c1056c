//! Acts against the `fs` wall.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, Timespec, Timestamps};

use super::{Act, Outcome, Targets, done, reach};
use crate::report::Wall::Fs;
use crate::sys::{self, Image};

const fn act(name: &'static str, needs: &'static [&'static str], attempt: fn(&Targets) -> Outcome) -> Act {
    Act {
        name,
        wall: Fs,
        needs,
        attempt,
    }
}

pub(super) const ACTS: &[Act] = &[
    act("read a secret", &["secret"], |t| contents(&t.path("secret")?)),
    act("read a secret through /proc/self/root", &["secret"], |t| {
        contents(
            &Path::new("/proc/self/root")
                .join(t.path("secret")?.strip_prefix("/").map_err(io::Error::other)?),
        )
    }),
    act(
        "read a secret through another process's root",
        &["secret", "pid"],
        |t| {
            let root = format!(
                "/proc/{}/root{}",
                t.get::<i32>("pid")?,
                t.path("secret")?.display()
            );
            contents(Path::new(&root))
        },
    ),
    act(
        "read a secret through a symbolic link",
        &["secret", "workspace"],
        |t| {
            let link = t.scratch("link")?;
            symlink(t.path("secret")?, &link)?;
            contents(&link)
        },
    ),
    act(
        "read a secret through a hard link",
        &["secret", "workspace"],
        |t| {
            let link = t.scratch("hard")?;
            fs::hard_link(t.path("secret")?, &link)?;
            contents(&link)
        },
    ),
    act(
        "move a secret into the workspace",
        &["secret", "workspace"],
        |t| {
            let (secret, there) = (t.path("secret")?, t.scratch("moved")?);
            fs::rename(&secret, &there)?;
            // Back again, for the acts that follow.
            fs::rename(there, secret).map(done("moved"))
        },
    ),
    act("list the secret's directory", &["secret"], |t| {
        let secret = t.path("secret")?;
        let parent = secret.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::read_dir(parent).map(|d| format!("{} entries", d.count()))
    }),
    act("create a file beside the secret", &["secret"], |t| {
        File::create_new(t.path("secret")?.with_extension("probe")).map(|_| "created".to_owned())
    }),
    act("append to a secret", &["secret"], |t| {
        OpenOptions::new()
            .append(true)
            .open(t.path("secret")?)
            .map(|_| "opened".to_owned())
    }),
    act("truncate a secret by path", &["secret"], |t| {
        let path = c_path(&t.path("secret")?)?;
        // SAFETY: a NUL-terminated path.
        super::check(unsafe { libc::truncate(path.as_ptr(), 1 << 20) }).map(|_| "truncated".to_owned())
    }),
    act("change a secret's mode", &["secret"], |t| {
        fs::set_permissions(t.path("secret")?, fs::Permissions::from_mode(0o666)).map(done("changed"))
    }),
    act(
        "change a secret's mode through a link",
        &["secret", "workspace"],
        |t| {
            let link = t.scratch("modelink")?;
            symlink(t.path("secret")?, &link)?;
            fs::set_permissions(&link, fs::Permissions::from_mode(0o666)).map(done("changed"))
        },
    ),
    act(
        "change a secret's mode by an O_PATH descriptor",
        &["secret"],
        |t| {
            let fd = rustix::fs::open(t.path("secret")?, OFlags::PATH, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map(done("changed"))
        },
    ),
    act(
        "change a secret's mode by fchmodat2 on a descriptor",
        &["secret"],
        |t| {
            let fd = rustix::fs::open(t.path("secret")?, OFlags::PATH, Mode::empty())?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
            // SAFETY: an open descriptor, an empty NUL-terminated path, two integers.
            super::check(unsafe { libc::syscall(452, fd, c"".as_ptr(), 0o666, libc::AT_EMPTY_PATH) })
                .map(|_| "changed".to_owned())
        },
    ),
    act("change a secret's times", &["secret"], |t| {
        let old = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: old,
            last_modification: old,
        };
        Ok(rustix::fs::utimensat(CWD, t.path("secret")?, &times, AtFlags::empty()).map(done("changed"))?)
    }),
    act("change a secret's owner", &["secret"], |t| {
        std::os::unix::fs::chown(t.path("secret")?, None, Some(rustix::process::getgid().as_raw()))
            .map(done("changed"))
    }),
    act("attach an attribute to a secret", &["secret"], |t| {
        let flags = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(t.path("secret")?, "user.probe", b"1", flags).map(done("attached"))?)
    }),
    act("remove a secret", &["secret"], |t| {
        fs::remove_file(t.path("secret")?).map(done("removed"))
    }),
    act("write where programs are", &["readable"], |t| {
        File::create_new(t.path("readable")?.join("creel-probe")).map(|_| "created".to_owned())
    }),
    act("create a device", &["workspace"], |t| {
        let device = rustix::fs::makedev(1, 1);
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        Ok(rustix::fs::mknodat(CWD, t.scratch("mem")?, kind, mode, device).map(done("created"))?)
    }),
    act("read kernel memory", &[], |_| contents(Path::new("/proc/kcore"))),
    act("read another process's environment", &["pid"], |t| {
        contents(Path::new(&format!("/proc/{}/environ", t.get::<i32>("pid")?)))
    }),
    act("read another process's command line", &["pid"], |t| {
        contents(Path::new(&format!("/proc/{}/cmdline", t.get::<i32>("pid")?)))
    }),
    act("list another process's descriptors", &["pid"], |t| {
        fs::read_dir(format!("/proc/{}/fd", t.get::<i32>("pid")?)).map(|d| format!("{}", d.count()))
    }),
    act("write a program and execute it", &["workspace"], |t| {
        let copy = t.scratch("prog")?;
        fs::copy("/bin/true", &copy)?;
        let path = c_path(&copy)?;
        t.in_child(|| Err(sys::exec(&Image::Path(&path), &[c"true"], &[])))
    }),
    act("link a program and execute the link", &["workspace"], |t| {
        let link = t.scratch("hardprog")?;
        fs::hard_link(fs::canonicalize("/bin/true")?, &link)?;
        let path = c_path(&link)?;
        t.in_child(|| Err(sys::exec(&Image::Path(&path), &[c"true"], &[])))
    }),
    act("execute an unnamed file of the workspace", &["workspace"], |t| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .mode(0o755)
            .open(t.path("workspace")?)?;
        execute_copy(t, file)
    }),
    act("execute anonymous memory", &[], |t| {
        execute_copy(
            t,
            File::from(rustix::fs::memfd_create("probe", MemfdFlags::empty())?),
        )
    }),
    act("execute anonymous memory that was sealed against it", &[], |t| {
        let flags = MemfdFlags::NOEXEC_SEAL | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("probe", flags)?);
        let _ = file.set_permissions(fs::Permissions::from_mode(0o755));
        execute_copy(t, file)
    }),
    act("execute shared memory", &[], |t| {
        let path = format!("/dev/shm/probe-{}", rustix::process::getpid());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&path)?;
        let _ = fs::remove_file(path);
        execute_copy(t, file)
    }),
    act("open a file by handle", &[], |_| {
        reach(libc::SYS_open_by_handle_at)
    }),
    act("get a file's handle", &[], |_| reach(libc::SYS_name_to_handle_at)),
    act("change the root directory", &[], |_| reach(libc::SYS_chroot)),
];

fn contents(path: &Path) -> Outcome {
    let mut byte = [0];
    let n = File::open(path)?.read(&mut byte)?;
    Ok(format!("read {n} byte"))
}

/// Fills a file with a program and executes it by descriptor.
fn execute_copy(t: &Targets, mut file: File) -> Outcome {
    file.write_all(&fs::read("/bin/true")?)?;
    // A descriptor open for writing can't be executed; a fresh one of the same file can.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let path = std::ffi::CString::new(path)?;
    let reopened = File::open(Path::new(path.to_str().map_err(io::Error::other)?));
    drop(reopened.as_ref().map(|_| file));
    let reopened = reopened?;
    t.in_child(|| Err(sys::exec(&Image::Fd(reopened.as_fd()), &[c"true"], &[])))
}

fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}
