//! The parts of the system every program needs. Each line has its reason; what has none stays outside.
//!
//! Missing entries are skipped (no `/lib64` on aarch64, no `/etc/pki` on Debian): unlike the paths a profile
//! names, these are guesses about the distribution.

use serde::{Deserialize, Serialize};

/// Which part of the system a profile includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// What programs installed by the distribution need: the default.
    System,
    /// What the dynamic loader needs and nothing else: for programs that are stdin filters.
    Loader,
    /// Nothing: the profile lists everything itself.
    None,
}

impl Base {
    /// Readable and executable.
    pub(crate) fn executable(self) -> &'static [&'static str] {
        match self {
            Self::System => &["/usr", "/bin", "/sbin", "/lib", "/lib64"],
            Self::Loader => &["/lib", "/lib64", "/usr/lib", "/usr/lib64"],
            Self::None => &[],
        }
    }

    /// Readable, never executable.
    pub(crate) fn readable(self) -> &'static [&'static str] {
        match self {
            Self::System => &[
                "/etc/ld.so.cache",                                   // where the loader looks first
                "/etc/localtime",                                     // the zone
                "/etc/timezone",           // its name, for runtimes that want a name
                "/etc/passwd",             // names of uids: git, ssh-less tools, `whoami` fail without
                "/etc/group",              // the same for gids
                "/etc/nsswitch.conf",      // how to look the two up
                "/etc/hosts",              // `localhost`, for the proxy's address
                "/etc/resolv.conf",        // runtimes read it at start even when they never resolve
                "/etc/host.conf",          // the same
                "/etc/gai.conf",           // the same
                "/etc/protocols",          // getprotobyname
                "/etc/services",           // getservbyname
                "/etc/mime.types",         // Python's mimetypes
                "/etc/gitconfig",          // git stops when it may not read it
                "/etc/ssl/certs",          // trust anchors, for clients of the proxy
                "/etc/ssl/openssl.cnf",    // OpenSSL refuses to start when it may not read it
                "/etc/ca-certificates",    // targets of links in the above
                "/etc/pki/tls",            // the same on Fedora
                "/etc/pki/ca-trust",       // the same on Fedora
                "/etc/crypto-policies",    // the same on Fedora
                "/etc/alternatives",       // `/usr/bin/awk` and friends pass through it
                "/sys/devices/system/cpu", // how many CPUs: Go, JVM, make -j
                "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", // Go's allocator
            ],
            Self::Loader => &["/etc/ld.so.cache"],
            Self::None => &[],
        }
    }

    /// Files of `/proc` that tell about the machine, none about another process. `/proc` as a whole would show
    /// every process's command line, and `kcore` to root.
    pub(crate) fn proc(self) -> &'static [&'static str] {
        match self {
            Self::System => &[
                "/proc/cpuinfo",
                "/proc/filesystems",
                "/proc/loadavg",
                "/proc/meminfo",
                "/proc/stat",
                "/proc/uptime",
                "/proc/version",
                "/proc/sys/kernel/cap_last_cap",
                "/proc/sys/kernel/ngroups_max",
                "/proc/sys/kernel/osrelease",
                "/proc/sys/kernel/pid_max",
                "/proc/sys/vm/overcommit_memory",
            ],
            Self::Loader | Self::None => &[],
        }
    }

    /// Device files: readable and writable, no ioctl.
    pub(crate) fn devices(self) -> &'static [&'static str] {
        match self {
            Self::System => &[
                "/dev/null",
                "/dev/zero",
                "/dev/full",
                "/dev/random",
                "/dev/urandom",
                "/dev/tty",
            ],
            Self::Loader => &["/dev/null", "/dev/random", "/dev/urandom"],
            Self::None => &["/dev/null"],
        }
    }
}
