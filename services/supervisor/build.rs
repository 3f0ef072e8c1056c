//! How `creeld` is linked: what is in this file twice is in memory twice, in each process of the stack.

use std::{env, fs};

/// What the C library of this machine says of itself where it reads relocations as a bitmap (glibc 2.36).
const READS_BITMAPS: &[u8] = b"GLIBC_ABI_DT_RELR";
/// Where that library lies: Debian, others.
const LIBC: [&str; 2] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Where rustc brings its own linker; another may know neither argument. And not while one debugs: functions that
    // were made one have one name.
    let own_linker = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !own_linker || !is("PROFILE", "release") {
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
