//! Names of principals: services, devices, scopes, trust domains, SPIFFE ids.

use std::{collections::BTreeSet, fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// A name that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct NameError {
    what: &'static str,
    text: String,
}

fn name_error(what: &'static str, text: &str) -> NameError {
    NameError {
        what,
        text: text.chars().take(128).collect(),
    }
}

macro_rules! closed_names {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name as it is written everywhere.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| name_error($what, text))
            }
        }
    };
}

closed_names! {
    /// A Creel service (or the supervisor, which is a principal of its own).
    ServiceName, "service name" {
        /// The edge.
        Gateway = "gateway",
        /// The CA, devices, grants.
        Identity = "identity",
        /// Jobs and fires.
        Scheduler = "scheduler",
        /// Contexts and turns.
        AgentRunner = "agent-runner",
        /// Commands.
        ExecApprover = "exec-approver",
        /// Connections to the outside.
        FetchProxy = "fetch-proxy",
        /// Plugins.
        PluginRunner = "plugin-runner",
        /// The log in which a later change is found.
        Auditor = "auditor",
        /// Process life.
        Supervisor = "supervisor",
    }
}

closed_names! {
    /// What an operator may do. The names are the original's.
    Scope, "scope" {
        /// Look.
        Read = "operator.read",
        /// Change what the agent does.
        Write = "operator.write",
        /// Change the stack.
        Admin = "operator.admin",
        /// Decide approvals.
        Approvals = "operator.approvals",
        /// Let devices and senders in.
        Pairing = "operator.pairing",
    }
}

/// A set of scopes, ordered, at most as many as there are.
pub type Scopes = BTreeSet<Scope>;

/// Reads scopes; the first unknown one is an error.
///
/// # Errors
/// [`NameError`] with the text that is no scope.
pub fn parse_scopes<S: AsRef<str>>(texts: &[S]) -> Result<Scopes, NameError> {
    texts.iter().map(|text| text.as_ref().parse()).collect()
}

/// Lower-case hex SHA-256 of a device's raw 32-byte Ed25519 public key (the original's rule).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// The id of a raw public key.
    #[must_use]
    pub fn of_public_key(raw: &[u8; 32]) -> Self {
        Self(hex(&Sha256::digest(raw)))
    }

    /// As text, 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = text.len() == 64
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(name_error("device id", text))
        }
    }
}

/// The name space of one stack: base32 of the root's fingerprint, 16 characters, `.creel.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain of a root certificate in DER.
    #[must_use]
    pub fn of_root(der: &[u8]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digest = Sha256::digest(der);
        let mut bits = 0_u128;
        for byte in &digest[..10] {
            bits = (bits << 8) | u128::from(*byte);
        }
        let label: String = (0..16)
            .rev()
            .map(|i| char::from(ALPHABET[((bits >> (i * 5)) & 31) as usize]))
            .collect();
        Self(format!("{label}.creel.internal"))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The DNS name that a service's certificate carries and clients verify.
    #[must_use]
    pub fn dns_name(&self, service: ServiceName) -> String {
        format!("{service}.{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = text.strip_suffix(".creel.internal").unwrap_or_default();
        let valid = label.len() == 16
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(name_error("trust domain", text))
        }
    }
}

/// The one URI name of a certificate: `spiffe://<trust domain>/<kind>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    /// The stack it belongs to.
    pub domain: TrustDomain,
    /// Whom it names.
    pub subject: Subject,
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A service.
    Service(ServiceName),
    /// A device that acts for a person.
    Operator(DeviceId),
    /// A companion device.
    Node(DeviceId),
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/", self.domain)?;
        match &self.subject {
            Subject::Service(name) => write!(f, "service/{name}"),
            Subject::Operator(device) => write!(f, "operator/{device}"),
            Subject::Node(device) => write!(f, "node/{device}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || name_error("SPIFFE id of Creel", text);
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let mut parts = rest.split('/');
        let (domain, kind, name) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some(kind), Some(name), None) => (domain.parse()?, kind, name),
            _ => return Err(wrong()),
        };
        let subject = match kind {
            "service" => Subject::Service(name.parse()?),
            "operator" => Subject::Operator(name.parse()?),
            "node" => Subject::Node(name.parse()?),
            _ => return Err(wrong()),
        };
        Ok(Self { domain, subject })
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a String does not fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// Lower-case hex SHA-256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_survive_both_ways_and_strangers_are_refused() {
        let domain = TrustDomain::of_root(b"a root");
        assert_eq!(domain.as_str().parse::<TrustDomain>().unwrap(), domain);
        let device = DeviceId::of_public_key(&[7; 32]);
        for subject in [
            Subject::Service(ServiceName::AgentRunner),
            Subject::Operator(device.clone()),
            Subject::Node(device),
        ] {
            let id = SpiffeId {
                domain: domain.clone(),
                subject,
            };
            assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }
        for bad in [
            "spiffe://x/service/gateway".to_owned(),
            format!("spiffe://{domain}/service/nobody"),
            format!("spiffe://{domain}/service/gateway/x"),
            format!("spiffe://{domain}/operator/ABC"),
            format!("https://{domain}/service/gateway"),
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_are_a_closed_set() {
        assert_eq!(
            parse_scopes(&["operator.read"]).unwrap(),
            Scopes::from([Scope::Read])
        );
        assert!(parse_scopes(&["operator.root"]).is_err());
    }
}
