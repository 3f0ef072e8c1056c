//! `CaService`: certificates of services.

use std::{fs, io, path::PathBuf, sync::Arc};

use creel_kit::{
    Clock, Deps,
    failure::store_error,
    outbox::{Event, Outbox},
};
use creel_proto::identity::v1::{
    EnrollRequest, EnrolledServiceRecord, GetTrustBundleRequest, IssueEdgeCertificateRequest,
    IssuedCertificate, RenewRequest, TrustBundle, ca_service_server::CaService,
};
use creel_store::{Store, Txn};
use creel_wire::{Code, Error, ServiceName, authz};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::{Request, Response, Status};

use crate::{
    ca::{Authority, read_request},
    store::Kind,
};

/// Length of a join secret, in bytes.
const JOIN_SECRET: usize = 32;

#[derive(Debug)]
pub(crate) struct Ca {
    authority: Arc<Authority>,
    store: Store,
    outbox: Outbox,
    clock: Clock,
    join_dir: PathBuf,
}

impl Ca {
    pub(crate) fn new(deps: &Deps, authority: &Arc<Authority>) -> Self {
        Self {
            authority: Arc::clone(authority),
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            clock: deps.clock.clone(),
            join_dir: deps.profile.join_dir(),
        }
    }

    async fn enrolled(&self, service: ServiceName) -> Result<Option<EnrolledServiceRecord>, Error> {
        let key = Kind::Service.key([service.as_str().as_bytes()]);
        let entry = self.store.get(&key).await.map_err(store_error)?;
        entry
            .map(|entry| EnrolledServiceRecord::decode(entry.value))
            .transpose()
            .map_err(|_| Error::internal("reading the enrolment"))
    }

    async fn do_enroll(&self, request: EnrollRequest) -> Result<IssuedCertificate, Error> {
        let refused = || {
            Error::new(
                Code::PermissionDenied,
                "join_secret_wrong",
                "this join secret is not valid (any more)",
            )
            .hint("restart the stack: creeld down, creeld up")
        };
        let service: ServiceName = request
            .service
            .parse()
            .map_err(|error| Error::invalid("service", format!("{error}")))?;
        if service == ServiceName::Identity || request.join_secret.len() != JOIN_SECRET {
            return Err(refused());
        }
        let key = read_request(&request.csr_der)?;
        let hash = Sha256::digest(&request.join_secret);
        let path = self.join_dir.join(service.as_str());
        let stored = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused()),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "join secret can't be read");
                return Err(Error::internal("reading the join secret"));
            }
        };
        let given = creel_wire::names::hex(&hash);
        if !bool::from(given.as_bytes().ct_eq(stored.trim().as_bytes())) {
            return Err(refused());
        }
        // Used before: only the same key may come again, for an answer that was lost.
        let before = self.enrolled(service).await?;
        if before.is_some_and(|one| one.join_secret_hash == hash.to_vec() && one.public_key_der != key.spki())
        {
            return Err(refused());
        }
        let now = self.store.note_time(self.clock.now_ms());
        let record = EnrolledServiceRecord {
            service: service.to_string(),
            public_key_der: key.spki(),
            enrolled_at_unix_ms: now,
            revoked: false,
            join_secret_hash: hash.to_vec(),
        };
        let issued = self
            .authority
            .issue_service_for(service, &key, self.clock.now_ms())?;
        let mut txn = Txn::new().put(
            Kind::Service.key([service.as_str().as_bytes()]),
            record.encode_to_vec(),
        );
        let event = Event::new("service.enrolled", "join secret", format!("service/{service}"));
        self.outbox.push(&mut txn, event)?;
        self.store.commit(txn).await.map_err(store_error)?;
        self.outbox.committed();
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "used join secret not removed");
        }
        Ok(issued)
    }

    async fn do_renew(&self, request: RenewRequest) -> Result<IssuedCertificate, Error> {
        let key = read_request(&request.csr_der)?;
        let spki = key.spki();
        for service in ServiceName::ALL {
            let Some(record) = self.enrolled(*service).await? else {
                continue;
            };
            if record.public_key_der == spki && !record.revoked {
                return self
                    .authority
                    .issue_service_for(*service, &key, self.clock.now_ms());
            }
        }
        Err(Error::new(
            Code::PermissionDenied,
            "not_enrolled",
            "no service is enrolled with this key",
        )
        .hint("restart the stack: creeld down, creeld up"))
    }
}

#[tonic::async_trait]
impl CaService for Ca {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<IssuedCertificate>, Status> {
        let (_, request) = authz::split(request)?;
        Ok(Response::new(self.do_enroll(request).await?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<IssuedCertificate>, Status> {
        let (_, request) = authz::split(request)?;
        Ok(Response::new(self.do_renew(request).await?))
    }

    async fn get_trust_bundle(
        &self,
        request: Request<GetTrustBundleRequest>,
    ) -> Result<Response<TrustBundle>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(self.authority.bundle()))
    }

    async fn issue_edge_certificate(
        &self,
        request: Request<IssueEdgeCertificateRequest>,
    ) -> Result<Response<IssuedCertificate>, Status> {
        let (caller, request) = authz::split(request)?;
        let key = read_request(&request.csr_der)?;
        let issued = self
            .authority
            .issue_edge(&key, &request.names, self.clock.now_ms())?;
        let mut txn = Txn::new();
        let event =
            Event::new("edge.certified", caller.principal(), "edge").with("names", request.names.join(" "));
        self.outbox.push(&mut txn, event)?;
        self.store.commit(txn).await.map_err(store_error)?;
        self.outbox.committed();
        Ok(Response::new(issued))
    }
}
