//! The house is kept: every crate says what it is, inherits the lints, and every file has a room.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "bin", "node_modules"].contains(&name.as_str()) {
                files(&path, out);
            }
        } else {
            out.push(path);
        }
    }
}

fn all() -> Vec<PathBuf> {
    let mut out = Vec::new();
    files(&root(), &mut out);
    out.into_iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_crate_inherits_lints_and_versions_and_opens_with_its_purpose() {
    for manifest in all().into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = read(&manifest);
        let dir = manifest.parent().unwrap();
        if !text.contains("[package]") {
            continue;
        }
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} does not inherit the lints",
            manifest.display()
        );
        let pinned = text.lines().find(|line| line.contains("version = \""));
        assert_eq!(
            pinned,
            None,
            "{}: versions belong in the workspace table",
            manifest.display()
        );
        let entry = ["src/lib.rs", "src/main.rs"]
            .iter()
            .map(|name| dir.join(name))
            .find(|path| root().join(path).exists());
        let entry = entry.unwrap_or_else(|| panic!("{} has no source", dir.display()));
        let purpose = read(&entry);
        let lines = purpose.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(
            lines >= 3,
            "{} does not open with what it is, what it is not, and its invariants",
            entry.display()
        );
    }
}

#[test]
fn no_file_is_without_a_home_or_too_long_and_every_module_says_what_it_is() {
    let homes = [
        "proto",
        "services",
        "cli",
        "deploy",
        "tests",
        ".ci",
        "Cargo.toml",
        "Cargo.lock",
        "Makefile",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
        ".gitignore",
        "docker-compose.yml",
    ];
    for path in all() {
        let first = path
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        assert!(
            homes.contains(&first.as_str()),
            "{} has no home; ARCHITECTURE.md tells where things go",
            path.display()
        );
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            let lines = text.lines().count();
            assert!(
                lines <= 900,
                "{} has {lines} lines: split it by idea",
                path.display()
            );
            let is_test = path.to_string_lossy().contains("tests");
            assert!(
                is_test || text.starts_with("//!"),
                "{} does not say what it is",
                path.display()
            );
        }
    }
}

#[test]
fn what_is_dangerous_stays_in_its_room() {
    let rules: [(&str, &[&str]); 3] = [
        ("unsafe {", &["services/lib/sandbox"]),
        (
            "process::Command::new",
            &[
                "services/lib/sandbox",
                // The person's own editor.
                "cli/src/editor.rs",
                "tests",
                "services/lib/store-rocksdb/tests",
                "services/agent-runner/tests",
                "services/agent-runner/src/bin",
            ],
        ),
        (
            "UnixStream::connect",
            &["services/lib/wire", "services/lib/sandbox", "tests"],
        ),
    ];
    for path in all()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
    {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let text = read(&path);
        for (what, rooms) in &rules {
            let code = text
                .lines()
                .any(|line| line.contains(what) && !line.trim_start().starts_with("//"));
            let allowed = rooms.iter().any(|room| path.starts_with(room));
            assert!(
                !code || allowed,
                "{} has `{what}`, which belongs in {rooms:?}",
                path.display()
            );
        }
    }
}

#[test]
fn the_lock_holds_one_tls_provider_and_one_copy_of_the_stack() {
    let lock = read(Path::new("Cargo.lock"));
    let versions = |name: &str| lock.matches(&format!("\nname = \"{name}\"\n")).count();
    for banned in [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl-sys",
        "native-tls",
        "rustls-pemfile",
        "reqwest",
    ] {
        assert_eq!(versions(banned), 0, "{banned} must not be linked");
    }
    for single in [
        "tonic", "prost", "hyper", "h2", "rustls", "ring", "tokio", "axum", "tower", "jiff",
    ] {
        assert_eq!(versions(single), 1, "one copy of {single}");
    }
    for source in lock.lines().filter(|line| line.starts_with("source = ")) {
        assert!(
            source.contains("registry+"),
            "only the registry is a source: {source}"
        );
    }
}

/// Each row of a table of `tests/corpora` ends with a file and a test that is in it; how many rows there are.
fn rows_that_name_their_test(table: &str) -> usize {
    let text = read(&Path::new("tests/corpora").join(table));
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| test |");
    let mut rows = 0;
    for row in text.lines().filter(is_row) {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let [.., file, test] = quoted[..] else {
            panic!("{table}: no test: {row}")
        };
        let tests = read(Path::new(file));
        assert!(
            tests.contains(&format!("fn {test}(")),
            "{table}: {file} has no {test}"
        );
        rows += 1;
    }
    rows
}

#[test]
fn each_defect_of_the_original_names_a_test_that_is_there() {
    assert!(rows_that_name_their_test("original-defects.md") >= 9);
}

#[test]
fn each_limit_of_identity_names_a_test_that_is_there() {
    assert!(rows_that_name_their_test("identity-limits.md") >= 30);
}
