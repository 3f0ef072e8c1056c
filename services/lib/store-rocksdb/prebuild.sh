#!/bin/sh
# Builds RocksDB once per machine, so that no profile and no checkout compiles its 343 C++ files again.
#
#   prebuild.sh         builds ~/.cache/creel/rocksdb/<version>/librocksdb.a unless it is there
#   prebuild.sh --dir   prints that directory: ROCKSDB_LIB_DIR for cargo, together with ROCKSDB_STATIC=1
#
# The version is that of librocksdb-sys in Cargo.lock. May be interrupted and started again at any time; a second
# one waits for the first. Progress goes to stderr.
set -eu

root=$(cd "$(dirname "$0")/../../.." && pwd)
cache=${CREEL_CACHE_DIR:-$HOME/.cache/creel}
build=$cache/rocksdb-build

say() { printf 'rocksdb: %s\n' "$*" >&2; }
fail() { say "$1"; say "  $2"; exit 1; }

version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/version = |"/, ""); print; exit }' "$root/Cargo.lock")
[ -n "$version" ] || fail "Cargo.lock names no librocksdb-sys" "run cargo metadata in $root, then try again"
dir=$cache/rocksdb/$version

if [ "${1:-}" = --dir ]; then
    printf '%s\n' "$dir"
    exit 0
fi
[ ! -f "$dir/librocksdb.a" ] || exit 0

mkdir -p "$cache/rocksdb"
if command -v flock >/dev/null 2>&1; then
    exec 9>"$cache/rocksdb/.lock"
    flock -n 9 || { say "waiting for the build that already runs"; flock 9; }
    [ ! -f "$dir/librocksdb.a" ] || exit 0
fi

# --- the tools, checked now because their absence shows late and darkly in the build
command -v cargo >/dev/null 2>&1 || fail "cargo is missing" "install Rust: https://rustup.rs"
command -v "${CXX:-c++}" >/dev/null 2>&1 ||
    fail "the C++ compiler ${CXX:-c++} is missing" "make setup (Debian: apt-get install g++)"
have_libclang() {
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    for lib in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib \
        /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib \
        /Library/Developer/CommandLineTools/usr/lib; do
        for file in "$lib"/libclang.so* "$lib"/libclang-*.so* "$lib"/libclang.dylib; do
            [ ! -e "$file" ] || return 0
        done
    done
    return 1
}
have_libclang || fail "libclang is missing" \
    "make setup (Debian: apt-get install libclang-dev), or point LIBCLANG_PATH at its directory"

# --- a crate that depends on exactly this version, with the workspace's lock so that all else is the same too
scratch=$(mktemp -d "${TMPDIR:-/tmp}/creel-rocksdb.XXXXXX")
cargo_pid=
# An interrupted build must not go on behind the user's back, and cargo doesn't take its children along.
kill_tree() {
    for child in $(ps -A -o ppid= -o pid= | awk -v parent="$1" '$1 == parent { print $2 }'); do
        kill_tree "$child"
    done
    kill "$1" 2>/dev/null || :
}
clean() {
    [ -z "$cargo_pid" ] || kill_tree "$cargo_pid"
    rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir "$scratch/src"
: >"$scratch/src/lib.rs"
cp "$root/Cargo.lock" "$scratch/Cargo.lock"
cat >"$scratch/Cargo.toml" <<TOML
[package]
name = "creel-rocksdb-prebuild"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
librocksdb-sys = { version = "=${version%%+*}", default-features = false, features = ["lz4", "bindgen-runtime"] }
[profile.release]
opt-level = 1
TOML

# --- build, reporting objects as they appear
started=$(date +%s)
(
    cd "$scratch"
    # What a caller set for its own build must not change (or skip) this one.
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC ROCKSDB_COMPILE RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
    CARGO_TARGET_DIR=$build exec cargo build --release
) >"$scratch/log" 2>&1 &
cargo_pid=$!

# The running build's output directory is the one touched last; an older one may be left from another version.
newest_out() { ls -td "$build"/release/build/librocksdb-sys-*/out 2>/dev/null | head -n 1; }
total() {
    # The crate's own list of sources; unpacked by the time the first object exists.
    for list in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/librocksdb-sys-"$version"/rocksdb_lib_sources.txt; do
        [ ! -f "$list" ] || { wc -l <"$list" | tr -d ' '; return; }
    done
    echo '?'
}
seconds=0
while kill -0 "$cargo_pid" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ -t 2 ] || [ $((seconds % 30)) -eq 0 ]; then
        out=$(newest_out)
        [ -n "$out" ] || continue
        objects=$(find "$out" -name '*.o' | wc -l | tr -d ' ')
        if [ -t 2 ]; then
            printf '\rrocksdb: %s of %s objects ' "$objects" "$(total)" >&2
        else
            say "$objects of $(total) objects"
        fi
    fi
done
[ ! -t 2 ] || printf '\r\033[K' >&2

status=0
wait "$cargo_pid" || status=$?
cargo_pid=
if [ "$status" -ne 0 ]; then
    tail -n 40 "$scratch/log" >&2
    fail "the build failed (above: its last lines)" "mend what it names, then run $0 again"
fi

# --- keep the archive alone; the rename makes it appear whole or not at all
archive=$(newest_out)/librocksdb.a
[ -f "$archive" ] || fail "the build left no $archive" "remove $build and run $0 again"
mkdir -p "$dir"
cp "$archive" "$dir/librocksdb.a.$$"
mv -f "$dir/librocksdb.a.$$" "$dir/librocksdb.a"
rm -rf "$build"
say "built $dir/librocksdb.a in $(($(date +%s) - started)) s"
