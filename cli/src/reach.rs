//! Where the edge is, and what it means when it can't be reached.

use std::{error::Error as StdError, fs, io};

use creel_kit::{
    Profile,
    profile::{EdgeFile, StatusFile},
};
use creel_wire::{Code, Error, error::printable};
use rustls::CertificateError;
use tonic::Status;

use crate::failure::Failure;

/// The edge's usual port, for an endpoint that names none.
const EDGE_PORT: u16 = 18_789;

/// The edge's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host name or address; IPv6 in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Found in the profile, not given by hand.
    pub(crate) local: bool,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Endpoint {
    /// The one of the flag or of `CREEL_ENDPOINT`; else where the profile's gateway says it listens.
    ///
    /// # Errors
    /// Exit 2 for a text that is no address, exit 5 when there is no stack.
    pub(crate) fn find(flag: Option<&str>, profile: &Profile) -> Result<Self, Failure> {
        let from_env = std::env::var("CREEL_ENDPOINT").ok();
        match flag.or(from_env.as_deref()).filter(|text| !text.is_empty()) {
            Some(text) => Self::parse(text),
            None => Self::of_profile(profile)?.ok_or_else(|| not_running(profile)),
        }
    }

    /// Where the profile's gateway says it listens.
    ///
    /// # Errors
    /// When its file is there and can't be read.
    pub(crate) fn of_profile(profile: &Profile) -> Result<Option<Self>, Failure> {
        let path = profile.edge_file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, &error)),
        };
        let edge: EdgeFile = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::internal("reading run/edge.json", &error))?;
        let mut endpoint = Self::parse(&edge.address)?;
        // A listener on every address is dialled on loopback, which its certificate always names.
        match endpoint.host.as_str() {
            "0.0.0.0" => "127.0.0.1".clone_into(&mut endpoint.host),
            "[::]" => "[::1]".clone_into(&mut endpoint.host),
            _ => {}
        }
        Ok(Some(Self {
            local: true,
            ..endpoint
        }))
    }

    /// `HOST`, `HOST:PORT`, `[V6]:PORT`, each also as an `https://` URL without a path.
    ///
    /// # Errors
    /// Exit 2.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            let message = format!("`{}` is not an endpoint", printable(text, 128));
            Failure::usage_hint(
                message,
                "write HOST:PORT, for example 127.0.0.1:18789 or [::1]:18789",
            )
        };
        let bare = text
            .strip_prefix("https://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let (host, port) = match bare.rsplit_once(':') {
            Some((host, port)) if !bare.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (bare, EDGE_PORT),
        };
        let bracketed = host.starts_with('[')
            && host.ends_with(']')
            && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
        let plain = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if bracketed || plain {
            Ok(Self {
                host: host.to_owned(),
                port,
                local: false,
            })
        } else {
            Err(wrong())
        }
    }
}

/// The stack is not there; or it is, and its edge is not.
pub(crate) fn not_running(profile: &Profile) -> Failure {
    let flag = if profile.name() == "default" {
        String::new()
    } else {
        format!(" --profile {}", profile.name())
    };
    if supervisor(profile).is_some() {
        return Error::new(
            Code::Unavailable,
            "edge_not_ready",
            "the stack runs, but its edge does not answer",
        )
        .hint(format!("creel{flag} logs gateway"))
        .into();
    }
    Error::new(Code::Unavailable, "not_running", "the stack is not running")
        .hint(format!("`make up` in the repository, or `creeld{flag} up`"))
        .into()
}

/// What the supervisor knows of its children, if it lives.
pub(crate) fn supervisor(profile: &Profile) -> Option<StatusFile> {
    let status: StatusFile = serde_json::from_slice(&fs::read(profile.status_file()).ok()?).ok()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(status.pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        // Another user's process answers with a refusal: it lives.
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(status),
        Err(_) => None,
    }
}

/// What a failed call means to the person who made it.
pub(crate) fn judge(status: &Status, endpoint: &Endpoint, profile: &Profile) -> Failure {
    let error = Error::of_status(status);
    if error.reason != "unknown" {
        // One of ours: it says itself what to do, but for a caller who is simply nobody here.
        let denied = matches!(error.code, Code::PermissionDenied | Code::Unauthenticated);
        let hint = match (&error.hint, denied) {
            (None, true) if error.reason == "scope_missing" => "creel whoami shows what this machine may do",
            (None, true) if error.reason == "principal_not_admitted" => {
                "creel whoami shows who this is; creel use NAME calls another stack, `local` that of this machine"
            }
            (None, true) => way_back(endpoint),
            _ => return error.into(),
        };
        return error.hint(hint).into();
    }
    let causes = causes(status);
    let dialled = causes.iter().any(|cause| cause.is::<tonic::ConnectError>());
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>());
    if let Some(tls) = io
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return tls_failed(tls, endpoint).into();
    }
    if causes
        .iter()
        .any(|cause| cause.to_string().contains("received fatal alert"))
    {
        return certificate_refused(endpoint).into();
    }
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) if dialled && endpoint.local => {
            not_running(profile)
        }
        Some(_) if dialled => {
            let why = io.map_or_else(String::new, |error| format!(": {error}"));
            Error::new(
                Code::Unavailable,
                "unreachable",
                format!("can't reach {endpoint}{why}"),
            )
            .hint("check the address (creel contexts, --endpoint, CREEL_ENDPOINT) and that the stack runs there")
            .into()
        }
        // What has a cause was said by nobody: it is what became of the connection.
        _ if !causes.is_empty() => {
            let message = format!("the connection to {endpoint} broke");
            Error::new(Code::Unavailable, "connection_lost", message)
                .hint("creel status")
                .into()
        }
        _ => error.into(),
    }
}

/// The next step of a machine that is not let in: only on the machine of the stack is there a socket to
/// recover by.
fn way_back(endpoint: &Endpoint) -> &'static str {
    if endpoint.local {
        "creel devices recover"
    } else {
        "over there: creel devices invite --name NAME; then here: creel join CODE (creel use local: the stack of \
         this machine)"
    }
}

/// Whether a stream ended because something between here and its service did: it may be asked for again.
pub(crate) fn is_cut(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown) || !causes(status).is_empty()
}

/// Whether the failure may be over soon. A stack that was ended stays so until somebody starts it.
pub(crate) fn may_come_back(failure: &Failure) -> bool {
    failure
        .error()
        .is_some_and(|error| error.code == Code::Unavailable && error.reason != "not_running")
}

/// Whether calling again may help: the connection stood, and the answer was "not now".
pub(crate) fn is_worth_repeating(status: &Status) -> bool {
    let dialling = causes(status)
        .iter()
        .any(|cause| cause.is::<tonic::ConnectError>());
    status.code() == tonic::Code::Unavailable && !dialling
}

/// What is behind a status, outermost first.
fn causes(status: &Status) -> Vec<&(dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = StdError::source(status);
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

fn tls_failed(error: &rustls::Error, endpoint: &Endpoint) -> Error {
    match error {
        rustls::Error::AlertReceived(_) => certificate_refused(endpoint),
        rustls::Error::InvalidCertificate(why) => not_trusted(why, endpoint),
        other => Error::new(
            Code::Unavailable,
            "tls_failed",
            format!("TLS with {endpoint} failed: {other}"),
        )
        .hint("creel doctor"),
    }
}

/// Why the edge's certificate was not believed, and what a person can do about each.
fn not_trusted(why: &CertificateError, endpoint: &Endpoint) -> Error {
    use CertificateError as Why;
    let (what, hint) = match why {
        Why::UnknownIssuer | Why::BadSignature => (
            "is another stack than the one this machine knows".to_owned(),
            "check the address, and what listens there; a stack that was made anew is joined anew: creel join CODE",
        ),
        Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. } => (
            "has a certificate that does not hold now".to_owned(),
            "compare the clocks (creel doctor); over there: creel status says until when it holds",
        ),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => (
            "has a certificate for other names".to_owned(),
            "use a name that creel status lists over there, or add this one to gateway.names",
        ),
        other => (
            format!("does not prove to be the stack this machine knows: {other:?}"),
            "check the address; creel doctor shows certificates and clock",
        ),
    };
    Error::new(
        Code::Unauthenticated,
        "server_not_trusted",
        format!("{endpoint} {what}"),
    )
    .hint(hint)
}

fn certificate_refused(endpoint: &Endpoint) -> Error {
    Error::new(
        Code::Unauthenticated,
        "certificate_refused",
        "the edge refused this machine's certificate",
    )
    .hint(way_back(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_ports() {
        for (text, shown) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("box.example.net", "box.example.net:18789"),
            ("https://box:7/", "box:7"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:18789"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            ":1",
            "a b:1",
            "::1",
            "http://x:1",
            "x:99999",
            "x:y",
            "[nonsense]:1",
        ] {
            assert_eq!(
                Endpoint::parse(bad).unwrap_err().code(),
                Some(Code::InvalidArgument),
                "{bad}"
            );
        }
    }

    #[test]
    fn without_a_stack_the_next_step_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("work", dir.path()).unwrap();
        let failure = not_running(&profile);
        let error = failure.error().unwrap();
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::Unavailable, "the stack is not running")
        );
        let hint = error.hint.as_deref().unwrap();
        assert!(
            hint.contains("make up") && hint.contains("creeld --profile work up"),
            "{hint}"
        );

        fs::create_dir(profile.run()).unwrap();
        fs::write(
            profile.edge_file(),
            r#"{"address":"0.0.0.0:5","admin":"","certificate_sha256":"","pid":1}"#,
        )
        .unwrap();
        let endpoint = Endpoint::of_profile(&profile).unwrap().unwrap();
        assert_eq!(
            (endpoint.to_string().as_str(), endpoint.local),
            ("127.0.0.1:5", true)
        );
        let status = StatusFile {
            pid: std::process::id(),
            started_at_unix_ms: 0,
            services: Vec::new(),
        };
        fs::write(profile.status_file(), serde_json::to_vec(&status).unwrap()).unwrap();
        assert_eq!(not_running(&profile).error().unwrap().reason, "edge_not_ready");
    }

    #[test]
    fn whoever_is_refused_learns_the_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        let elsewhere = Endpoint::parse("127.0.0.1:1").unwrap();
        let endpoint = Endpoint {
            local: true,
            ..elsewhere.clone()
        };
        let refused: Status =
            Error::new(Code::Unauthenticated, "device_revoked", "this device was revoked").into();
        let failure = judge(&refused, &endpoint, &profile);
        assert_eq!(
            failure.error().unwrap().hint.as_deref(),
            Some("creel devices recover")
        );
        // To recover here would make this machine an operator of its own stack, which is not the one that said no.
        let failure = judge(&refused, &elsewhere, &profile);
        assert!(
            failure
                .error()
                .unwrap()
                .hint
                .as_deref()
                .unwrap()
                .contains("creel join CODE")
        );
        let busy: Status = Error::new(Code::Unavailable, "outbox_full", "x").into();
        assert!(is_worth_repeating(&busy) && !is_worth_repeating(&refused));
        assert!(is_cut(&busy) && !is_cut(&refused));
        assert!(may_come_back(&Failure::from(Error::of_status(&busy))));
        assert!(
            !may_come_back(&not_running(&profile)) && !may_come_back(&judge(&refused, &endpoint, &profile))
        );
    }

    #[test]
    fn a_stranger_at_the_address_is_told_from_a_wrong_clock() {
        let endpoint = Endpoint::parse("box:1").unwrap();
        for (why, word) in [
            (CertificateError::BadSignature, "creel join"),
            (CertificateError::UnknownIssuer, "creel join"),
            (CertificateError::Expired, "clocks"),
            (CertificateError::NotValidForName, "gateway.names"),
            (CertificateError::Revoked, "creel doctor"),
        ] {
            let error = not_trusted(&why, &endpoint);
            assert!(
                error.hint.as_deref().unwrap().contains(word),
                "{why:?}: {error:?}"
            );
            assert_eq!(
                (error.code, error.reason.as_ref()),
                (Code::Unauthenticated, "server_not_trusted")
            );
        }
    }

    #[test]
    fn a_broken_stream_is_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        let endpoint = Endpoint::parse("127.0.0.1:1").unwrap();
        let broken = io::Error::new(io::ErrorKind::BrokenPipe, "h2 protocol error");
        let status = Status::from_error(Box::new(broken));
        let failure = judge(&status, &endpoint, &profile);
        let error = failure.error().unwrap();
        assert_eq!(
            (error.code, error.reason.as_ref()),
            (Code::Unavailable, "connection_lost")
        );
        assert!(is_cut(&status) && error.hint.is_some());
    }
}
