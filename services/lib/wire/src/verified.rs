//! Assertions that were verified before. A caller's requests all carry the same one for minutes, so its
//! signature is checked once and not with each of them.
//!
//! A hit is the very same bytes, from the same presenter, under the same trust, within the assertion's
//! time: everything that a check would look at again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    Caller, ServiceName,
    assertion::{self, Refused, Validity},
    tls::Trust,
};

/// Most assertions that are remembered; then all are forgotten, which costs a check each.
const CAPACITY: usize = 1_024;

/// What a service remembers of its callers' assertions.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    trust: Option<Arc<Trust>>,
    callers: HashMap<Bytes, Entry>,
}

#[derive(Debug)]
struct Entry {
    presenter: ServiceName,
    validity: Validity,
    caller: Caller,
}

impl Verified {
    /// The caller that `presenter` presents with `assertion`.
    ///
    /// # Errors
    /// As [`assertion::verify`].
    pub(crate) fn caller(
        &self,
        trust: &Arc<Trust>,
        presenter: ServiceName,
        assertion: Bytes,
        now_unix_ms: i64,
    ) -> Result<Caller, Refused> {
        if let Some(caller) = self.known(trust, presenter, &assertion, now_unix_ms) {
            return Ok(caller);
        }
        // Outside the lock: it takes its time. What is refused is not remembered, so it can fill nothing.
        let (caller, validity) = assertion::verify(
            &trust.assertion_keys,
            &trust.domain,
            presenter,
            assertion.clone(),
            now_unix_ms,
        )?;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.is_under(trust) || seen.callers.len() >= CAPACITY {
            seen.callers.clear();
            seen.trust = Some(Arc::clone(trust));
        }
        let entry = Entry {
            presenter,
            validity,
            caller: caller.clone(),
        };
        seen.callers.insert(assertion, entry);
        Ok(caller)
    }

    fn known(
        &self,
        trust: &Arc<Trust>,
        presenter: ServiceName,
        assertion: &Bytes,
        now_unix_ms: i64,
    ) -> Option<Caller> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.callers.get(assertion).filter(|_| seen.is_under(trust))?;
        (entry.presenter == presenter && entry.validity.judge(now_unix_ms).is_ok())
            .then(|| entry.caller.clone())
    }
}

impl Seen {
    /// Whether what was verified was verified under this trust.
    fn is_under(&self, trust: &Arc<Trust>) -> bool {
        self.trust.as_ref().is_some_and(|known| Arc::ptr_eq(known, trust))
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::{AssertionClaims, SubjectKind};
    use ed25519_dalek::SigningKey;
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::{TrustDomain, assertion::VerifierKey};

    fn trust(key: &SigningKey) -> Arc<Trust> {
        let root = CertificateDer::from(vec![1]);
        Arc::new(Trust {
            domain: TrustDomain::of_root(&root),
            root,
            service_issuers: vec![],
            device_issuers: vec![],
            assertion_keys: vec![VerifierKey {
                key_id: "k".into(),
                key: key.verifying_key(),
            }],
        })
    }

    fn signed(key: &SigningKey, trust: &Trust, subject: u8) -> Bytes {
        let claims = AssertionClaims {
            kind: SubjectKind::Operator.into(),
            subject: format!("{subject:02x}").repeat(32),
            scopes: vec!["operator.read".into()],
            presenter: format!("spiffe://{}/service/gateway", trust.domain),
            issued_at_unix_ms: 1_000,
            expires_at_unix_ms: 61_000,
            ..AssertionClaims::default()
        };
        assertion::sign(key, "k", &claims).into()
    }

    #[test]
    fn what_was_verified_is_judged_again_in_all_but_its_signature() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let trust_now = trust(&key);
        let verified = Verified::default();
        let bytes = signed(&key, &trust_now, 1);
        let ask = |trust: &Arc<Trust>, presenter, bytes: &Bytes, now| {
            verified
                .caller(trust, presenter, bytes.clone(), now)
                .map(|caller| caller.principal().to_string())
        };
        let first = ask(&trust_now, ServiceName::Gateway, &bytes, 2_000).unwrap();
        assert_eq!(
            ask(&trust_now, ServiceName::Gateway, &bytes, 60_999).unwrap(),
            first
        );
        assert!(
            verified
                .known(&trust_now, ServiceName::Gateway, &bytes, 2_000)
                .is_some()
        );

        let refused = |trust: &Arc<Trust>, presenter, bytes: &Bytes, now| {
            ask(trust, presenter, bytes, now).unwrap_err()
        };
        let at_its_end = refused(&trust_now, ServiceName::Gateway, &bytes, 61_000);
        assert_eq!(at_its_end, Refused::Expired);
        let by_another = refused(&trust_now, ServiceName::Scheduler, &bytes, 2_000);
        assert_eq!(by_another, Refused::ForeignPresenter);
        let mut changed = bytes.to_vec();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert!(ask(&trust_now, ServiceName::Gateway, &changed.into(), 2_000).is_err());
        // The keys were replaced: what the old ones had signed is nothing any more.
        let rotated = trust(&SigningKey::from_bytes(&[8; 32]));
        let by_old_key = refused(&rotated, ServiceName::Gateway, &bytes, 2_000);
        assert_eq!(by_old_key, Refused::BadSignature);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let trust = trust(&key);
        let verified = Verified::default();
        for at in 0..=CAPACITY {
            let bytes = Bytes::from(at.to_string());
            let caller = crate::authz::anonymous();
            let validity = Validity {
                from_unix_ms: 0,
                to_unix_ms: i64::MAX,
            };
            let entry = Entry {
                presenter: ServiceName::Gateway,
                validity,
                caller,
            };
            let mut seen = verified.0.lock().unwrap();
            seen.trust = Some(Arc::clone(&trust));
            if at < CAPACITY {
                seen.callers.insert(bytes, entry);
            }
        }
        let bytes = signed(&key, &trust, 2);
        verified
            .caller(&trust, ServiceName::Gateway, bytes, 2_000)
            .unwrap();
        assert_eq!(verified.0.lock().unwrap().callers.len(), 1);
    }
}
