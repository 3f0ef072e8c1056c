//! Assertions: how a caller travels across one hop. Minted by `identity`, verified here.
//!
//! The verifier demands that the presenter named inside is the mTLS peer, so a callee can't replay
//! one, and that this service may present callers of this kind at all.

use bytes::Bytes;
use creel_proto::identity::v1::{AssertionClaims, SignedAssertion, SubjectKind};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;

use crate::{
    Caller, Principal, Scopes, ServiceName,
    names::{SpiffeId, Subject, TrustDomain, parse_scopes},
};

/// The metadata key (binary) that carries it.
pub const METADATA: &str = "creel-assertion-bin";

/// The longest life of an assertion, in milliseconds.
pub const MAX_LIFE_MS: i64 = 5 * 60 * 1_000;

/// An encoded assertion is never longer, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;

/// How far clocks of two processes may differ, in milliseconds (they share one machine or NTP).
pub const SKEW_MS: i64 = 5_000;

const CONTEXT: &[u8] = b"creel-assertion-v1\0";

/// Why an assertion was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refused {
    #[error("the assertion can't be read")]
    Malformed,
    #[error("the assertion is signed by an unknown key")]
    UnknownKey,
    #[error("the assertion's signature is wrong")]
    BadSignature,
    #[error("the assertion has ended")]
    Expired,
    #[error("the assertion is not valid yet, or too long")]
    BadLifetime,
    #[error("the assertion was made for another presenter")]
    ForeignPresenter,
    #[error("this service may not present such a caller")]
    PresenterNotAllowed,
}

impl Refused {
    /// Stable, for programs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "assertion_malformed",
            Self::UnknownKey => "assertion_unknown_key",
            Self::BadSignature => "assertion_bad_signature",
            Self::Expired => "assertion_expired",
            Self::BadLifetime => "assertion_bad_lifetime",
            Self::ForeignPresenter => "assertion_foreign_presenter",
            Self::PresenterNotAllowed => "assertion_presenter_not_allowed",
        }
    }
}

/// A key that verifies assertions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// Names the key inside an assertion.
    pub key_id: String,
    /// The key itself.
    pub key: VerifyingKey,
}

/// Which kinds of caller a service may present (`architecture.md` §4).
#[must_use]
pub const fn may_present(service: ServiceName, kind: SubjectKind) -> bool {
    match kind {
        SubjectKind::Operator | SubjectKind::Node | SubjectKind::Sender => {
            matches!(service, ServiceName::Gateway)
        }
        // The gateway passes a turn's tool calls on, after identity re-minted the assertion for it.
        SubjectKind::AgentTurn => matches!(service, ServiceName::AgentRunner | ServiceName::Gateway),
        SubjectKind::Job => matches!(service, ServiceName::Scheduler),
        SubjectKind::Plugin => matches!(service, ServiceName::PluginRunner),
        SubjectKind::Unspecified => false,
    }
}

/// When an assertion holds, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from_unix_ms: i64,
    /// Not any more at this moment.
    pub(crate) to_unix_ms: i64,
}

impl Validity {
    const fn of(claims: &AssertionClaims) -> Self {
        Self {
            from_unix_ms: claims.issued_at_unix_ms,
            to_unix_ms: claims.expires_at_unix_ms,
        }
    }

    /// Whether it holds now, by the clock of this process.
    pub(crate) fn judge(self, now_unix_ms: i64) -> Result<(), Refused> {
        if self.to_unix_ms <= now_unix_ms {
            return Err(Refused::Expired);
        }
        let life = self.to_unix_ms.saturating_sub(self.from_unix_ms);
        if self.from_unix_ms > now_unix_ms.saturating_add(SKEW_MS) || !(1..=MAX_LIFE_MS).contains(&life) {
            return Err(Refused::BadLifetime);
        }
        Ok(())
    }
}

/// Signs claims. Only `identity` holds the key.
#[must_use]
pub fn sign(key: &SigningKey, key_id: &str, claims: &AssertionClaims) -> Vec<u8> {
    let payload = claims.encode_to_vec();
    let signature = key.sign(&signed_bytes(&payload)).to_bytes().to_vec();
    SignedAssertion {
        payload,
        key_id: key_id.to_owned(),
        signature,
    }
    .encode_to_vec()
}

/// Reads and verifies an assertion without looking at who presents it.
///
/// # Errors
/// [`Refused`], never a panic, whatever the bytes are.
pub fn open(keys: &[VerifierKey], bytes: &[u8], now_unix_ms: i64) -> Result<AssertionClaims, Refused> {
    if bytes.len() > MAX_BYTES {
        return Err(Refused::Malformed);
    }
    let signed = SignedAssertion::decode(bytes).map_err(|_| Refused::Malformed)?;
    let key = keys
        .iter()
        .find(|key| key.key_id == signed.key_id)
        .ok_or(Refused::UnknownKey)?;
    let signature = Signature::from_slice(&signed.signature).map_err(|_| Refused::BadSignature)?;
    key.key
        .verify_strict(&signed_bytes(&signed.payload), &signature)
        .map_err(|_| Refused::BadSignature)?;
    let claims = AssertionClaims::decode(signed.payload.as_slice()).map_err(|_| Refused::Malformed)?;
    Validity::of(&claims).judge(now_unix_ms)?;
    Ok(claims)
}

/// The caller that `presenter`, the mTLS peer, presents, and for how long.
///
/// # Errors
/// [`Refused`] as [`open`], and when the presenter is not the one named or may not present this kind.
pub(crate) fn verify(
    keys: &[VerifierKey],
    domain: &TrustDomain,
    presenter: ServiceName,
    bytes: Bytes,
    now_unix_ms: i64,
) -> Result<(Caller, Validity), Refused> {
    let claims = open(keys, &bytes, now_unix_ms)?;
    let peer = SpiffeId {
        domain: domain.clone(),
        subject: Subject::Service(presenter),
    };
    if claims.presenter != peer.to_string() {
        return Err(Refused::ForeignPresenter);
    }
    if !may_present(presenter, claims.kind()) {
        return Err(Refused::PresenterNotAllowed);
    }
    let validity = Validity::of(&claims);
    Ok((caller_of(claims, Some(presenter), bytes)?, validity))
}

/// The caller of claims that identity just minted for this very process (the edge's own services).
pub(crate) fn caller_of(
    claims: AssertionClaims,
    via: Option<ServiceName>,
    bytes: Bytes,
) -> Result<Caller, Refused> {
    // An unknown scope denies: a claim we can't read is not a smaller claim.
    let scopes: Scopes = parse_scopes(&claims.scopes).map_err(|_| Refused::Malformed)?;
    let device = || claims.subject.parse().map_err(|_| Refused::Malformed);
    let principal = match claims.kind() {
        SubjectKind::Operator => Principal::Operator(device()?),
        SubjectKind::Node => Principal::Node(device()?),
        SubjectKind::AgentTurn => Principal::AgentTurn(claims.subject.clone()),
        SubjectKind::Job => Principal::Job(claims.subject.clone()),
        SubjectKind::Plugin => Principal::Plugin(claims.subject.clone()),
        SubjectKind::Sender => Principal::Sender(claims.subject.clone()),
        SubjectKind::Unspecified => return Err(Refused::Malformed),
    };
    Ok(Caller {
        principal,
        via,
        person: claims.person,
        label: claims.label,
        scopes,
        binding: claims.binding,
        assertion: Some(bytes),
    })
}

fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [CONTEXT, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceId;

    const NOW: i64 = 1_764_000_000_000;

    struct Setup {
        key: SigningKey,
        keys: Vec<VerifierKey>,
        domain: TrustDomain,
    }

    fn setup() -> Setup {
        let key = SigningKey::from_bytes(&[9; 32]);
        let keys = vec![VerifierKey {
            key_id: "k1".into(),
            key: key.verifying_key(),
        }];
        Setup {
            key,
            keys,
            domain: TrustDomain::of_root(b"root"),
        }
    }

    fn claims(domain: &TrustDomain) -> AssertionClaims {
        AssertionClaims {
            kind: SubjectKind::Operator.into(),
            subject: DeviceId::of_public_key(&[1; 32]).to_string(),
            person: "owner".into(),
            scopes: vec!["operator.read".into()],
            label: "laptop".into(),
            epoch: 1,
            binding: "connection-1".into(),
            presenter: format!("spiffe://{domain}/service/gateway"),
            issued_at_unix_ms: NOW,
            expires_at_unix_ms: NOW + MAX_LIFE_MS,
            chain: vec![],
            device: String::new(),
        }
    }

    fn judge(s: &Setup, bytes: Vec<u8>, presenter: ServiceName, now: i64) -> Result<Caller, Refused> {
        verify(&s.keys, &s.domain, presenter, Bytes::from(bytes), now).map(|(caller, _)| caller)
    }

    #[test]
    fn the_named_presenter_is_believed_until_the_end_and_no_other() {
        let s = setup();
        let bytes = sign(&s.key, "k1", &claims(&s.domain));
        let caller = judge(&s, bytes.clone(), ServiceName::Gateway, NOW).unwrap();
        assert!(caller.has(crate::Scope::Read) && !caller.has(crate::Scope::Write));
        let at = |presenter, now| judge(&s, bytes.clone(), presenter, now).unwrap_err();
        assert_eq!(at(ServiceName::Scheduler, NOW), Refused::ForeignPresenter);
        assert!(judge(&s, bytes.clone(), ServiceName::Gateway, NOW + MAX_LIFE_MS - 1).is_ok());
        assert_eq!(at(ServiceName::Gateway, NOW + MAX_LIFE_MS), Refused::Expired);
        assert_eq!(at(ServiceName::Gateway, NOW - SKEW_MS - 1), Refused::BadLifetime);
    }

    #[test]
    fn forged_assertions_are_refused() {
        let s = setup();
        let mut bytes = sign(&s.key, "k1", &claims(&s.domain));
        let stranger = SigningKey::from_bytes(&[8; 32]);
        let refused = |bytes| judge(&s, bytes, ServiceName::Gateway, NOW).unwrap_err();
        assert_eq!(
            refused(sign(&stranger, "k1", &claims(&s.domain))),
            Refused::BadSignature
        );
        assert_eq!(
            refused(sign(&s.key, "k2", &claims(&s.domain))),
            Refused::UnknownKey
        );
        assert_eq!(refused(vec![0xff; 40]), Refused::Malformed);
        assert_eq!(refused(vec![0; MAX_BYTES + 1]), Refused::Malformed);
        bytes[10] ^= 1;
        assert!(judge(&s, bytes, ServiceName::Gateway, NOW).is_err());
    }

    #[test]
    fn a_service_presents_only_its_own_kinds() {
        let s = setup();
        for presenter in ServiceName::ALL {
            for kind in 1..=6 {
                let kind = SubjectKind::try_from(kind).unwrap();
                let mut claims = claims(&s.domain);
                claims.kind = kind.into();
                claims.presenter = format!("spiffe://{}/service/{presenter}", s.domain);
                let verdict = judge(&s, sign(&s.key, "k1", &claims), *presenter, NOW);
                assert_eq!(
                    verdict.is_ok(),
                    may_present(*presenter, kind),
                    "{presenter} {kind:?}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_denied() {
        let s = setup();
        let tamper = |change: &dyn Fn(&mut AssertionClaims)| {
            let mut claims = claims(&s.domain);
            change(&mut claims);
            judge(&s, sign(&s.key, "k1", &claims), ServiceName::Gateway, NOW).unwrap_err()
        };
        assert_eq!(
            tamper(&|c| c.scopes.push("operator.root".into())),
            Refused::Malformed
        );
        assert_eq!(tamper(&|c| c.kind = 99), Refused::PresenterNotAllowed);
        assert_eq!(tamper(&|c| c.subject = "me".into()), Refused::Malformed);
        assert_eq!(tamper(&|c| c.expires_at_unix_ms += 1), Refused::BadLifetime);
    }
}
