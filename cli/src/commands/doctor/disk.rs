//! Checks that need no stack: files, config, clock, the audit file.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use creel_kit::{Clock, Config, Profile, audit_file, audit_file::Broken, profile::MAX_SOCKET_PATH};
use creel_wire::ServiceName;

use super::Check;

/// The most files looked at; a profile has dozens.
const MAX_FILES: usize = 10_000;

/// Below this, changes begin to fail.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// Below this, it is time to look.
const LOW_FREE_BYTES: u64 = 512 << 20;

pub(super) fn checks(profile: &Profile, clock: &Clock) -> Vec<Check> {
    vec![
        permissions(profile),
        config(profile),
        sockets(profile),
        space(profile),
        clock_check(clock),
        audit(profile),
    ]
}

fn permissions(profile: &Profile) -> Check {
    const NAME: &str = "profile permissions";
    const WHY: &str = "whoever can read the keys can act as this machine or as a service";
    let root = profile.root();
    match lax(profile) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::failed(
            NAME,
            WHY,
            format!("`{}` is not there", root.display()),
            "make up (or: creeld up)",
        ),
        Err(error) => Check::failed(
            NAME,
            WHY,
            format!("`{}` can't be read: {error}", root.display()),
            format!("ls -ld {}", root.display()),
        ),
        Ok(lax) => match lax.as_slice() {
            [] => Check::ok(NAME, WHY, format!("`{}` is yours alone", root.display())),
            [first, rest @ ..] => {
                let more = if rest.is_empty() {
                    String::new()
                } else {
                    format!(" and {} more", rest.len())
                };
                let what = format!(
                    "`{}`{more} can be read by others, or belongs to another user",
                    first.display()
                );
                Check::failed(NAME, WHY, what, format!("chmod -R go-rwx {}", root.display()))
            }
        },
    }
}

/// The profile's directory, its config, and everything under credentials, secrets and state that others
/// can reach. Inside a directory of 0700 nobody else gets further, so only its own entries count.
fn lax(profile: &Profile) -> io::Result<Vec<PathBuf>> {
    let own = rustix::process::getuid().as_raw();
    let is_lax = |meta: &fs::Metadata| meta.permissions().mode() & 0o077 != 0 || meta.uid() != own;
    let mut lax = Vec::new();
    if is_lax(&fs::metadata(profile.root())?) {
        lax.push(profile.root().to_owned());
    }
    let mut waiting = vec![profile.config_file()];
    waiting.extend(["credentials", "secrets"].map(|dir| profile.root().join(dir)));
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        seen += 1;
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_symlink() {
            continue;
        }
        if is_lax(&meta) {
            lax.push(path.clone());
        }
        if meta.is_dir() && seen < MAX_FILES {
            // A directory that can't be read (another uid, in compose) is walled off, which is what is wanted.
            waiting.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| Some(entry.ok()?.path())),
            );
        }
    }
    lax.sort();
    Ok(lax)
}

fn config(profile: &Profile) -> Check {
    const NAME: &str = "config";
    const WHY: &str = "a part with bad config refuses to start; it never falls back to defaults";
    let path = profile.config_file();
    match Config::load(&path) {
        Ok(_) if path.exists() => Check::ok(NAME, WHY, format!("`{}` is valid", path.display())),
        Ok(_) => Check::ok(NAME, WHY, "no creel.toml: the defaults"),
        Err(error) => Check::failed(NAME, WHY, creel_kit::failure::chain(&error), "creel config check"),
    }
}

fn sockets(profile: &Profile) -> Check {
    const NAME: &str = "sockets";
    const WHY: &str = "the local socket is how this machine proves itself; others must not reach it";
    let longest = profile.socket(ServiceName::ExecApprover).as_os_str().len();
    let open = ServiceName::ALL
        .iter()
        .map(|name| profile.socket(*name))
        .find(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0));
    match open {
        Some(path) => {
            let what = format!("`{}` is open to others", path.display());
            Check::failed(NAME, WHY, what, format!("chmod 600 {}", path.display()))
        }
        None => Check::ok(
            NAME,
            WHY,
            format!("private; the longest path has {longest} of {MAX_SOCKET_PATH} bytes"),
        ),
    }
}

fn space(profile: &Profile) -> Check {
    const NAME: &str = "disk space";
    const WHY: &str = "state is on disk before anyone is told: a full disk stops every change";
    // Before the first start, the directory that will hold it.
    let root = profile
        .root()
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    let next = format!("df -h {}", root.display());
    match rustix::fs::statvfs(root) {
        Err(error) => Check::failed(
            NAME,
            WHY,
            format!("`{}` can't be asked: {error}", root.display()),
            next,
        ),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            judge_space(free, next, NAME, WHY)
        }
    }
}

fn judge_space(free: u64, next: String, name: &'static str, why: &'static str) -> Check {
    let what = format!("{} MiB free", free >> 20);
    match free {
        0..MIN_FREE_BYTES => Check::failed(name, why, what, next),
        MIN_FREE_BYTES..LOW_FREE_BYTES => Check::warning(name, why, what, next),
        _ => Check::ok(name, why, what),
    }
}

fn clock_check(clock: &Clock) -> Check {
    const NAME: &str = "clock";
    const WHY: &str = "certificates and schedules are true only by a true clock";
    let now = clock.now();
    if clock.is_plausible() {
        Check::ok(NAME, WHY, now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
    } else {
        Check::failed(
            NAME,
            WHY,
            format!("{now} is before this program was built"),
            "timedatectl set-ntp true",
        )
    }
}

fn audit(profile: &Profile) -> Check {
    const NAME: &str = "audit chain";
    const WHY: &str = "a record that was changed, cut out or moved is found by its hash";
    let path = profile.audit_file();
    match audit_file::verify(&path) {
        Ok(count) => Check::ok(NAME, WHY, format!("{count} records hold together")),
        Err(Broken::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(NAME, WHY, "no records yet")
        }
        Err(Broken::Io(error)) => Check::warning(
            NAME,
            WHY,
            format!("`{}` can't be read: {error}", path.display()),
            format!("ls -l {}", path.display()),
        ),
        Err(error) => Check::failed(
            NAME,
            WHY,
            format!("`{}`, {error}", path.display()),
            keep_aside(&path),
        ),
    }
}

/// Evidence is kept, never mended.
fn keep_aside(path: &Path) -> String {
    format!(
        "cp -p {0} {0}.evidence, and look at who could write there",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn profile() -> (tempfile::TempDir, Profile) {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path().join("p")).unwrap();
        (dir, profile)
    }

    #[test]
    fn keys_that_others_can_read_fail_and_name_the_cure() {
        let (_dir, profile) = profile();
        assert_eq!(permissions(&profile).status, Verdict::Failed, "no profile at all");
        profile.create(&[ServiceName::Identity]).unwrap();
        creel_kit::profile::private_dir(&profile.cli_credentials()).unwrap();
        let key = profile.cli_credentials().join("device.key");
        creel_kit::profile::write_private(&key, b"x").unwrap();
        assert_eq!(permissions(&profile).status, Verdict::Ok);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let check = permissions(&profile);
        assert_eq!(check.status, Verdict::Failed);
        assert!(
            check.what.contains("device.key") && check.next.unwrap().contains("chmod"),
            "{}",
            check.what
        );
    }

    #[test]
    fn config_clock_space_and_audit_are_judged() {
        let (_dir, profile) = profile();
        profile.create(&[]).unwrap();
        assert_eq!(config(&profile).status, Verdict::Ok);
        fs::write(profile.config_file(), "[gatway]\n").unwrap();
        assert_eq!(config(&profile).status, Verdict::Failed);
        assert_eq!(audit(&profile).status, Verdict::Ok);
        fs::write(profile.audit_file(), "{}\n").unwrap();
        assert_eq!(audit(&profile).status, Verdict::Failed);
        assert_eq!(clock_check(&Clock::manual(0)).status, Verdict::Failed);
        assert_eq!(clock_check(&Clock::system()).status, Verdict::Ok);
        let judged = |mib: u64| judge_space(mib << 20, String::new(), "", "").status;
        assert_eq!(
            (judged(10), judged(100), judged(1_000)),
            (Verdict::Failed, Verdict::Warning, Verdict::Ok)
        );
        assert_eq!(space(&profile).name, "disk space");
        assert_eq!(sockets(&profile).status, Verdict::Ok);
        fs::write(profile.socket(ServiceName::Identity), "").unwrap();
        fs::set_permissions(
            profile.socket(ServiceName::Identity),
            fs::Permissions::from_mode(0o666),
        )
        .unwrap();
        assert_eq!(sockets(&profile).status, Verdict::Failed);
    }
}
