//! Where everything of one stack lies (`architecture.md` §5).

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use creel_wire::ServiceName;

/// Unix socket paths are shorter than this, in bytes (the kernel's limit is 108).
pub const MAX_SOCKET_PATH: usize = 100;

/// One stack's directory and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: String,
    root: PathBuf,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not a profile name.
    #[error("`{0}` is not a profile name: 1 to 32 of a-z, 0-9 and `-`")]
    BadName(String),
    /// Neither `CREEL_HOME` nor a home directory.
    #[error("no home directory: set CREEL_HOME to the directory for Creel's state")]
    NoHome,
    /// Socket paths would not fit.
    #[error(
        "the path `{path}` is too long for sockets ({length} bytes, at most {MAX_SOCKET_PATH}): set CREEL_HOME to a shorter one"
    )]
    PathTooLong {
        /// The longest socket path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Making or checking a directory failed.
    #[error("can't use `{path}`")]
    Io {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Profile {
    /// The profile of a name (`default` if `None`): `CREEL_HOME`, else `~/.creel` or `~/.creel-NAME`.
    ///
    /// # Errors
    /// [`ProfileError`] when the name or the path can't be used.
    pub fn resolve(name: Option<&str>) -> Result<Self, ProfileError> {
        let name = name
            .map(str::to_owned)
            .or_else(|| env::var("CREEL_PROFILE").ok())
            .filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "default".to_owned());
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(valid) {
            return Err(ProfileError::BadName(creel_wire::error::printable(&name, 64)));
        }
        let root = match env::var_os("CREEL_HOME").filter(|home| !home.is_empty()) {
            Some(home) => PathBuf::from(home),
            None => {
                let home = env::var_os("HOME")
                    .filter(|home| !home.is_empty())
                    .ok_or(ProfileError::NoHome)?;
                let dir = if name == "default" {
                    ".creel".to_owned()
                } else {
                    format!(".creel-{name}")
                };
                Path::new(&home).join(dir)
            }
        };
        let root = std::path::absolute(&root).map_err(|source| ProfileError::Io { path: root, source })?;
        Self::at(name, root)
    }

    /// A profile at a directory.
    ///
    /// # Errors
    /// [`ProfileError::PathTooLong`].
    pub fn at(name: impl Into<String>, root: impl Into<PathBuf>) -> Result<Self, ProfileError> {
        let profile = Self {
            name: name.into(),
            root: root.into(),
        };
        let longest = profile.socket(ServiceName::ExecApprover);
        let length = longest.as_os_str().len();
        if length >= MAX_SOCKET_PATH {
            return Err(ProfileError::PathTooLong {
                path: longest,
                length,
            });
        }
        Ok(profile)
    }

    /// The profile's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The profile's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `creel.toml`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.root.join("creel.toml")
    }

    /// A service's keys and certificates; readable by it alone.
    #[must_use]
    pub fn credentials(&self, service: ServiceName) -> PathBuf {
        self.root.join("credentials").join(service.as_str())
    }

    /// The command line's device key.
    #[must_use]
    pub fn cli_credentials(&self) -> PathBuf {
        self.root.join("credentials/cli")
    }

    /// What everybody may know (the root certificate, the trust bundle); written by identity alone.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.root.join("credentials/public")
    }

    /// The trust bundle, an encoded `creel.identity.v1.TrustBundle`.
    #[must_use]
    pub fn bundle_file(&self) -> PathBuf {
        self.public().join("bundle.bin")
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn root_cert_file(&self) -> PathBuf {
        self.public().join("ca.pem")
    }

    /// A service's state; its store lies in `db` inside.
    #[must_use]
    pub fn state(&self, service: ServiceName) -> PathBuf {
        self.root.join("state").join(service.as_str())
    }

    /// What agents may see.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// Logs of all services.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A service's log.
    #[must_use]
    pub fn log_file(&self, service: ServiceName) -> PathBuf {
        self.logs().join(format!("{service}.jsonl"))
    }

    /// The audit records, hash-chained, until the auditor keeps them.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.logs().join("audit.jsonl")
    }

    /// Sockets, lock, status: nothing here outlives the stack.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// A service's socket.
    #[must_use]
    pub fn socket(&self, service: ServiceName) -> PathBuf {
        self.run().join(format!("{service}.sock"))
    }

    /// Where the edge listens, written by the gateway: JSON [`EdgeFile`].
    #[must_use]
    pub fn edge_file(&self) -> PathBuf {
        self.run().join("edge.json")
    }

    /// What the supervisor knows of its children: JSON [`StatusFile`].
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.run().join("status.json")
    }

    /// The lock of the one supervisor.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// Hashes of join secrets, by service.
    #[must_use]
    pub fn join_dir(&self) -> PathBuf {
        self.state(ServiceName::Identity).join("join")
    }

    /// The SHA-256 of the recovery code, hex.
    #[must_use]
    pub fn recovery_file(&self) -> PathBuf {
        self.state(ServiceName::Identity).join("recovery")
    }

    /// Makes the directories, 0700 each, and tightens those that are laxer.
    ///
    /// # Errors
    /// [`ProfileError::Io`] naming the directory.
    pub fn create(&self, services: &[ServiceName]) -> Result<(), ProfileError> {
        let mut dirs = vec![self.root.clone()];
        dirs.extend([
            self.public(),
            self.workspace(),
            self.logs(),
            self.run(),
            self.join_dir(),
        ]);
        for service in services {
            dirs.extend([self.credentials(*service), self.state(*service)]);
        }
        dirs.into_iter().try_for_each(|dir| private_dir(&dir))
    }
}

/// Makes a directory and its parents with mode 0700, or tightens the directory to it.
///
/// # Errors
/// [`ProfileError::Io`].
pub fn private_dir(path: &Path) -> Result<(), ProfileError> {
    let wrong = |source| ProfileError::Io {
        path: path.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(wrong)?;
    let mode = fs::metadata(path).map_err(wrong)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(wrong)?;
    }
    Ok(())
}

/// Replaces a file atomically with mode 0600 and syncs it and its directory.
///
/// # Errors
/// What the system said.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o600))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(dir)?.sync_all()
}

/// Where the edge listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EdgeFile {
    /// `address:port` of the edge.
    pub address: String,
    /// `address:port` of the admin listener (metrics).
    pub admin: String,
    /// SHA-256 of the edge's certificate, lower-case hex.
    pub certificate_sha256: String,
    /// The gateway's process.
    pub pid: u32,
}

/// What the supervisor knows of its children.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StatusFile {
    /// The supervisor's process.
    pub pid: u32,
    /// When it started, Unix milliseconds.
    pub started_at_unix_ms: i64,
    /// Its children.
    pub services: Vec<ChildStatus>,
}

/// One child of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChildStatus {
    /// The service.
    pub name: String,
    /// `starting`, `ready`, `unready`, `waiting`, `backoff`, `failed`, `draining`, `stopped`.
    pub state: String,
    /// Why, when not ready.
    pub detail: String,
    /// Since when, Unix milliseconds.
    pub since_unix_ms: i64,
    /// Its process; 0 when there is none.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_too_long_for_sockets_is_refused_with_the_way_out() {
        let error = Profile::at("default", format!("/{}", "a".repeat(90))).unwrap_err();
        assert!(error.to_string().contains("CREEL_HOME"), "{error}");
    }

    #[test]
    fn directories_are_private_even_if_they_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("p");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let profile = Profile::at("default", &open).unwrap();
        profile.create(&[ServiceName::Identity]).unwrap();
        for path in [open, profile.credentials(ServiceName::Identity), profile.run()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
