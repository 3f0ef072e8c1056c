//! `AssertionService`: signed statements about a caller, each for one presenter.

use std::sync::Arc;

use creel_kit::{Clock, Deps};
use creel_proto::identity::v1::{
    AssertionClaims, AttenuateRequest, ConnectionSubject, DeviceSubject, JobSubject, MintJobsRequest,
    MintJobsResponse, MintRefusal, MintRequest, MintResponse, MintedJob, SenderSubject, SubjectKind,
    TurnSubject, assertion_service_server::AssertionService, mint_request::Subject as Asked,
    minted_job::Result as Minted,
};
use creel_wire::{
    Caller, Code, DeviceId, Error, Principal, ServiceName, assertion,
    assertion::VerifierKey,
    authz,
    names::{Subject, parse_scopes},
    tls::{self, ClientAuth},
};
use ed25519_dalek::VerifyingKey;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use tonic::{Request, Response, Status};

use crate::{
    ca::Authority,
    device,
    epochs::{self, Standing},
    grants,
    guard::Guards,
    registry::{Entry, Registry},
    seal::{kind_of, of_device, refusal, texts},
    senders::Senders,
};

/// Most subjects of one MintJobs.
pub(crate) const MAX_JOBS: usize = 1_024;

pub(crate) struct Assertions {
    authority: Arc<Authority>,
    registry: Registry,
    clock: Clock,
    keys: Vec<VerifierKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    senders: Senders,
}

impl Assertions {
    pub(crate) fn new(deps: &Deps, authority: &Arc<Authority>, registry: &Registry) -> anyhow::Result<Self> {
        let trust = deps.tls.trust();
        let key: VerifyingKey = authority.assertion_key.verifying_key();
        Ok(Self {
            authority: Arc::clone(authority),
            registry: registry.clone(),
            clock: deps.clock.clone(),
            keys: vec![VerifierKey {
                key_id: authority.assertion_key_id(),
                key,
            }],
            verifier: tls::verifier(&trust.device_issuers, ClientAuth::Required)?,
            senders: Senders::new(deps),
        })
    }

    async fn do_mint(&self, presenter: ServiceName, asked: MintRequest) -> Result<MintResponse, Error> {
        let now = self.clock.now_ms();
        let claims = match asked.subject {
            Some(Asked::Device(subject)) => self.device(&subject, now)?,
            Some(Asked::Turn(subject)) => self.turn(presenter, &subject, now)?,
            Some(Asked::Job(subject)) => job(&self.registry, &subject)?,
            Some(Asked::Connection(subject)) => self.connection(presenter, &subject, now)?,
            Some(Asked::Sender(subject)) => self.sender(&subject).await?,
            Some(Asked::Plugin(subject)) => AssertionClaims {
                kind: SubjectKind::Plugin.into(),
                subject: bounded("plugin_id", &subject.plugin_id)?,
                label: subject.plugin_id,
                ..AssertionClaims::default()
            },
            None => return Err(Error::invalid("subject", "whom to speak of")),
        };
        self.authority.seal(presenter, claims, now, None)
    }

    /// A device as the edge saw it: its certificate is judged here again, and so is its standing.
    fn device(&self, asked: &DeviceSubject, now: i64) -> Result<AssertionClaims, Error> {
        let refused = |why: &str| {
            Error::new(
                Code::Unauthenticated,
                "certificate_refused",
                format!("the client certificate {why}"),
            )
            .hint("creel devices cert renew DIR, or creel devices cert --name NAME --out DIR for a new one")
        };
        let leaf = CertificateDer::from(asked.certificate_der.as_slice());
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.max(0).unsigned_abs()));
        self.verifier
            .verify_client_cert(&leaf, &[], at)
            .map_err(|_| refused("is not valid here (any more)"))?;
        let (kind, id) = match tls::subject_of(&leaf, &self.authority.domain) {
            Some(Subject::Operator(id)) => (SubjectKind::Operator, id),
            Some(Subject::Node(id)) => (SubjectKind::Node, id),
            Some(Subject::Service(_)) | None => return Err(refused("names no device")),
        };
        let entry = self
            .registry
            .get(&id)
            .ok_or_else(|| refused("names an unknown device"))?;
        epochs::vouch(Some(Standing::of(&entry.record)), Guards::all())?;
        if kind != kind_of(&entry.record) {
            return Err(refused("names another kind of device"));
        }
        let connection = bounded("connection_id", &asked.connection_id)?;
        Ok(of_device(
            &entry.record,
            &device::usable(&entry.record),
            connection,
        ))
    }

    /// A connection that proved its device without a certificate: as before, while nothing changed.
    fn connection(
        &self,
        presenter: ServiceName,
        asked: &ConnectionSubject,
        now: i64,
    ) -> Result<AssertionClaims, Error> {
        let before = assertion::open(&self.keys, &asked.assertion, now).map_err(refusal)?;
        let is_device = matches!(before.kind(), SubjectKind::Operator | SubjectKind::Node);
        if !is_device || before.presenter != self.authority.uri_of(presenter) {
            return Err(refusal(assertion::Refused::ForeignPresenter));
        }
        if before.binding != asked.connection_id {
            let message = "the assertion is another connection's";
            return Err(Error::new(Code::PermissionDenied, "foreign_connection", message));
        }
        let entry = self.still(&before.subject, before.epoch)?;
        let scopes = parse_scopes(&before.scopes).map_err(|_| refusal(assertion::Refused::Malformed))?;
        let held = device::scopes(&entry.record);
        let kept = grants::attenuate(&scopes, &scopes, &held);
        Ok(of_device(&entry.record, &kept, before.binding))
    }

    /// The device that something was said of at `epoch`, if it may be said again.
    fn still(&self, device: &str, epoch: u64) -> Result<Entry, Error> {
        let id: DeviceId = device
            .parse()
            .map_err(|_| refusal(assertion::Refused::Malformed))?;
        let entry = self.registry.get(&id);
        let standing = entry.as_ref().map(|entry| Standing::of(&entry.record));
        epochs::vouch_again(standing, epoch, Guards::all())?;
        entry.ok_or_else(|| epochs::Refused::Unknown.into())
    }

    /// The device that claims rest on, if any, still as it was when they were made.
    fn still_rests_on(&self, claims: &AssertionClaims) -> Result<String, Error> {
        let device = match claims.kind() {
            SubjectKind::Operator | SubjectKind::Node => &claims.subject,
            _ => &claims.device,
        };
        if !device.is_empty() {
            self.still(device, claims.epoch)?;
        }
        Ok(device.clone())
    }

    /// A chat sender that is let in now. It holds no scope.
    async fn sender(&self, asked: &SenderSubject) -> Result<AssertionClaims, Error> {
        let key = self.senders.key(asked.sender.as_ref())?;
        let Some(known) = self.senders.known(&key, true).await? else {
            let message = "nobody let this sender in";
            return Err(Error::new(Code::PermissionDenied, "sender_unknown", message));
        };
        Ok(AssertionClaims {
            kind: SubjectKind::Sender.into(),
            subject: key.to_string(),
            person: known.person,
            label: key.to_string(),
            binding: bounded("binding", &asked.binding)?,
            ..AssertionClaims::default()
        })
    }

    /// A turn holds no more than its cause, no more than its person has now, and never what is for people.
    fn turn(&self, presenter: ServiceName, asked: &TurnSubject, now: i64) -> Result<AssertionClaims, Error> {
        let cause = assertion::open(&self.keys, &asked.cause, now).map_err(refusal)?;
        let own = self.authority.uri_of(presenter);
        let refresh = cause.kind() == SubjectKind::AgentTurn;
        if refresh && (cause.subject != asked.turn_id || cause.presenter != own) {
            return Err(refusal(assertion::Refused::ForeignPresenter));
        }
        let scopes = parse_scopes(&cause.scopes).map_err(|_| refusal(assertion::Refused::Malformed))?;
        let device = self.still_rests_on(&cause)?;
        let now_held = self.registry.grant_of(&cause.person).unwrap_or_default();
        let mut chain = cause.chain;
        if !refresh {
            chain.push(cause.presenter);
        }
        Ok(AssertionClaims {
            kind: SubjectKind::AgentTurn.into(),
            subject: bounded("turn_id", &asked.turn_id)?,
            person: cause.person,
            scopes: texts(&grants::attenuate(&grants::of_turn(&scopes), &scopes, &now_held)),
            label: bounded("session", &asked.session)?,
            epoch: cause.epoch,
            binding: asked.turn_id.clone(),
            chain,
            device,
            ..AssertionClaims::default()
        })
    }

    /// Signatures take time: on a thread of their own, since this one serves everybody.
    async fn do_mint_jobs(
        &self,
        presenter: ServiceName,
        asked: MintJobsRequest,
    ) -> Result<MintJobsResponse, Error> {
        if asked.subjects.is_empty() || asked.subjects.len() > MAX_JOBS {
            return Err(Error::invalid("subjects", format!("1 to {MAX_JOBS}")));
        }
        let now = self.clock.now_ms();
        let (authority, registry) = (Arc::clone(&self.authority), self.registry.clone());
        let minting = tokio::task::spawn_blocking(move || {
            let mint = |subject: &JobSubject| {
                let claims = job(&registry, subject)?;
                authority.seal(presenter, claims, now, None)
            };
            asked
                .subjects
                .iter()
                .map(|subject| minted(mint(subject)))
                .collect()
        });
        let results = minting.await.map_err(|error| {
            tracing::error!(%error, "minting for jobs was cut off");
            Error::internal("minting")
        })?;
        Ok(MintJobsResponse { results })
    }

    /// Narrower, for the service that was called, the chain kept.
    fn do_attenuate(&self, presenter: ServiceName, asked: &AttenuateRequest) -> Result<MintResponse, Error> {
        let now = self.clock.now_ms();
        let mut claims = assertion::open(&self.keys, &asked.assertion, now).map_err(refusal)?;
        self.still_rests_on(&claims)?;
        let held = parse_scopes(&claims.scopes).map_err(|_| refusal(assertion::Refused::Malformed))?;
        let kept =
            parse_scopes(&asked.scopes).map_err(|error| Error::invalid("scopes", error.to_string()))?;
        claims.scopes = texts(&grants::attenuate(&held, &kept, &held));
        if claims.chain.len() >= 8 {
            return Err(Error::new(
                Code::PermissionDenied,
                "chain_too_long",
                "the caller came through too many hops",
            ));
        }
        claims.chain.push(std::mem::take(&mut claims.presenter));
        let until = claims.expires_at_unix_ms;
        self.authority.seal(presenter, claims, now, Some(until))
    }
}

/// A job holds what was frozen into it and its owner still has (ATT-2).
fn job(registry: &Registry, asked: &JobSubject) -> Result<AssertionClaims, Error> {
    let Some(now_held) = registry.grant_of(&asked.owner) else {
        let message = "the job's owner has no device any more";
        return Err(Error::new(Code::FailedPrecondition, "owner_revoked", message));
    };
    let frozen = parse_scopes(&asked.scopes).map_err(|error| Error::invalid("scopes", error.to_string()))?;
    Ok(AssertionClaims {
        kind: SubjectKind::Job.into(),
        subject: bounded("job_id", &asked.job_id)?,
        person: asked.owner.clone(),
        scopes: texts(&grants::attenuate(&frozen, &frozen, &now_held)),
        label: asked.job_id.clone(),
        binding: bounded("run_id", &asked.run_id)?,
        ..AssertionClaims::default()
    })
}

/// One of many answers.
fn minted(answer: Result<MintResponse, Error>) -> MintedJob {
    let result = match answer {
        Ok(response) => Minted::Assertion(response.assertion),
        Err(error) => Minted::Refusal(MintRefusal {
            code: error.code.grpc().into(),
            reason: error.reason.into_owned(),
            message: error.message,
        }),
    };
    MintedJob { result: Some(result) }
}

fn bounded(field: &str, text: &str) -> Result<String, Error> {
    if text.is_empty() || text.len() > 1_024 {
        return Err(Error::invalid(field, "1 to 1024 bytes"));
    }
    Ok(text.to_owned())
}

/// The service that asks, as its certificate says.
fn presenter(caller: &Caller) -> Result<ServiceName, Error> {
    match caller.principal() {
        Principal::Service(name) => Ok(*name),
        _ => Err(Error::new(
            Code::PermissionDenied,
            "principal_not_admitted",
            "only services present callers",
        )),
    }
}

impl std::fmt::Debug for Assertions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assertions").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl AssertionService for Assertions {
    async fn mint(&self, request: Request<MintRequest>) -> Result<Response<MintResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_mint(presenter(&caller)?, request).await?))
    }

    async fn mint_jobs(
        &self,
        request: Request<MintJobsRequest>,
    ) -> Result<Response<MintJobsResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(
            self.do_mint_jobs(presenter(&caller)?, request).await?,
        ))
    }

    async fn attenuate(&self, request: Request<AttenuateRequest>) -> Result<Response<MintResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_attenuate(presenter(&caller)?, &request)?))
    }
}
