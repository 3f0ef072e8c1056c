//! Tools that tests drive Creel with, and the loud word when one is missing.

use std::path::PathBuf;

/// A program on the PATH; tells on stderr that a test is skipped without it.
#[must_use]
pub fn find(program: &str, test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {test} needs `{program}`; `make tools` installs it");
    }
    found
}

/// The library that lets a process see another time.
#[must_use]
pub fn faketime(test: &str) -> Option<PathBuf> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {test} needs Debian's package `faketime`; `make tools` installs it");
    }
    found
}
