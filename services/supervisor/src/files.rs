//! Small files that live no longer than the stack.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use creel_kit::Profile;

/// Replaces a file atomically, mode 0600, without waiting for the disk: after a power failure nobody
/// needs it any more.
///
/// # Errors
/// What the system said.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    // Made with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes what an earlier stack left in `run/`, the lock excepted. Only while holding the lock.
///
/// # Errors
/// What the system said.
pub(crate) fn clean_run(profile: &Profile) -> io::Result<()> {
    for entry in fs::read_dir(profile.run())? {
        let path = entry?.path();
        if path != profile.lock_file() && !path.is_dir() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_left_goes_and_the_lock_stays() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        profile.create(&[]).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(profile.run().join("gateway.sock")).unwrap();
        replace(&profile.status_file(), b"{}").unwrap();
        replace(&profile.lock_file(), b"").unwrap();
        assert_eq!(
            fs::metadata(profile.status_file()).unwrap().permissions().mode() & 0o777,
            0o600
        );
        clean_run(&profile).unwrap();
        let left: Vec<_> = fs::read_dir(profile.run())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [profile.lock_file()]);
    }
}
