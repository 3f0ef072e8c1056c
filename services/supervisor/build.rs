//! How `creeld` is linked: what is in this file twice is in memory twice, in each process of the stack.

use std::{env, fs, path::PathBuf, process::Command};

/// What the C library of this machine says of itself where it reads relocations as a bitmap (glibc 2.36).
const READS_BITMAPS: &[u8] = b"GLIBC_ABI_DT_RELR";
/// Where that library lies: Debian, others.
const LIBC: [&str; 2] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let target = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    // Another linker may know neither argument. And not while one debugs: functions that were made one have one name.
    if !target || !is("PROFILE", "release") || !is_linked_by_lld() {
        return;
    }
    // Functions of the same code are kept once: each crate compiles the generics that it uses anew.
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    // A thirtieth of the list of relocations, which every start reads to its end.
    let found = |path: &&str| {
        fs::read(path).is_ok_and(|libc| {
            libc.windows(READS_BITMAPS.len())
                .any(|part| part == READS_BITMAPS)
        })
    };
    if LIBC.iter().any(found) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether rustc brings its own linker, as rustup's does and a distribution's may not, and nobody chose another.
#[expect(clippy::disallowed_methods, reason = "a build asks its compiler")]
fn is_linked_by_lld() -> bool {
    let chosen = ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER"]
        .iter()
        .any(|name| env::var(name).is_ok_and(|value| !value.is_empty()));
    let sysroot = || {
        let rustc = env::var_os("RUSTC")?;
        let said = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(said.stdout).ok()?.trim()))
    };
    let brought = "lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld";
    !chosen && sysroot().is_some_and(|root| root.join(brought).is_file())
}
