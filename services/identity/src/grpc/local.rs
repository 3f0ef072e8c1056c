//! `LocalService`: the first operator, later local devices, recovery.

use std::{fs, path::PathBuf, sync::Arc};

use creel_kit::{
    Clock, Deps,
    failure::store_error,
    idempotency::{Begin, Idempotency, Slot},
    outbox::{Event, Outbox},
};
use creel_proto::identity::v1::{
    BootstrapRequest, DeviceRecord, IssueCertificateResponse, RecoverRequest, RecoveryRecord, Role,
    local_service_server::LocalService,
};
use creel_store::{Cmp, Store, Txn};
use creel_wire::{Caller, Code, DeviceId, Error, Scopes, authz, names::Subject};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    ca::{Authority, RequestedKey, read_request},
    device::{self, DEFAULT_CERT_LIFE_MS, Guard, NewDevice, check_name},
    grants::{self, Grant},
    recovery::{self, Guess},
    registry::{Registry, Writer},
    store::Kind,
};

#[derive(Debug)]
pub(crate) struct Local {
    authority: Arc<Authority>,
    registry: Registry,
    idempotency: Idempotency,
    store: Store,
    outbox: Outbox,
    clock: Clock,
    recovery_file: PathBuf,
}

impl Local {
    pub(crate) fn new(deps: &Deps, authority: &Arc<Authority>, registry: &Registry) -> Self {
        Self {
            authority: Arc::clone(authority),
            registry: registry.clone(),
            idempotency: deps.idempotency.clone(),
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            clock: deps.clock.clone(),
            recovery_file: deps.profile.recovery_file(),
        }
    }

    async fn do_bootstrap(
        &self,
        caller: &Caller,
        request: BootstrapRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let name = check_name(&request.name)?;
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let slot = match self
            .idempotency
            .begin(caller, "Bootstrap", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        if let Some(entry) = self.registry.get(&id) {
            // Known: a new certificate for what it has, no more.
            if device::is_revoked(&entry.record) {
                return Err(Guard::Revoked.into());
            }
            operator_only(&entry.record)?;
            let scopes = device::scopes(&entry.record);
            let seat = Seat {
                name: &entry.record.name,
                scopes,
                action: "device.renewed",
                first: false,
            };
            return self
                .seat(&writer, caller, &id, public_key, &key, seat, &slot)
                .await;
        }
        let first = writer.is_empty();
        let name = writer.free_name(name);
        writer.admit(&id, &name)?;
        let scopes = if first { grants::all() } else { grants::local() };
        let seat = Seat {
            name: &name,
            scopes,
            action: "device.approved",
            first,
        };
        self.seat(&writer, caller, &id, public_key, &key, seat, &slot)
            .await
    }

    async fn do_recover(
        &self,
        caller: &Caller,
        request: RecoverRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let name = check_name(&request.name)?;
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let writer = self.registry.write().await;
        self.check_code(&request.recovery_code).await?;
        if self
            .registry
            .get(&id)
            .is_some_and(|entry| device::is_revoked(&entry.record))
        {
            return Err(Guard::Revoked.into());
        }
        if let Some(entry) = self.registry.get(&id) {
            operator_only(&entry.record)?;
        }
        let known = self.registry.get(&id).map(|entry| entry.record.name);
        let name = known.unwrap_or_else(|| writer.free_name(name));
        let seat = Seat {
            name: &name,
            scopes: grants::all(),
            action: "device.recovered",
            first: false,
        };
        self.seat(&writer, caller, &id, public_key, &key, seat, &Slot::none())
            .await
    }

    async fn check_code(&self, code: &str) -> Result<(), Error> {
        let record_key = Kind::Recovery.key::<&[u8]>([]);
        let record = match self.store.get(&record_key).await.map_err(store_error)? {
            Some(entry) => {
                RecoveryRecord::decode(entry.value).map_err(|_| Error::internal("reading the guesses"))?
            }
            None => RecoveryRecord::default(),
        };
        let stored = fs::read_to_string(&self.recovery_file).map_err(|_| {
            let message = "this profile has no recovery code";
            Error::new(Code::FailedPrecondition, "no_recovery_code", message)
        })?;
        let now = self.store.note_time(self.clock.now_ms());
        match recovery::judge(&stored, code, &record, now) {
            Guess::Right => Ok(()),
            Guess::Paused(ms) => {
                let message = format!("too many wrong codes; try again in {} s", ms / 1_000 + 1);
                Err(Error::new(Code::ResourceExhausted, "too_many_guesses", message))
            }
            Guess::Wrong(after) => {
                let mut txn = Txn::new().put(record_key, after.encode_to_vec());
                let event =
                    Event::new("recovery.refused", "local", "recovery code").with("failures", after.failures);
                self.outbox.push(&mut txn, event)?;
                self.store.commit(txn).await.map_err(store_error)?;
                self.outbox.committed();
                Err(Error::new(
                    Code::PermissionDenied,
                    "recovery_code_wrong",
                    "this is not the recovery code",
                )
                .hint("it was printed when `creeld up` first ran"))
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one act, all of different types"
    )]
    async fn seat(
        &self,
        writer: &Writer<'_>,
        caller: &Caller,
        id: &DeviceId,
        public_key: [u8; 32],
        key: &RequestedKey,
        seat: Seat<'_>,
        slot: &Slot,
    ) -> Result<IssueCertificateResponse, Error> {
        let now = self.store.note_time(self.clock.now_ms());
        let subject = Subject::Operator(id.clone());
        let certificate = self.authority.issue_device(
            subject,
            seat.name,
            key,
            self.clock.now_ms(),
            DEFAULT_CERT_LIFE_MS,
        )?;
        let record = match self.registry.get(id) {
            Some(entry) => {
                let mut after = entry.record;
                let before = std::mem::take(&mut after.scopes);
                after.scopes = seat.scopes.iter().map(ToString::to_string).collect();
                if after.scopes != before {
                    // A token that it may have is for what it is given now, too.
                    after.token_scopes.clone_from(&after.scopes);
                    device::move_epoch(&mut after);
                }
                device::certified(&mut after, DEFAULT_CERT_LIFE_MS, now);
                after.own_protocol = true;
                after.legacy = false;
                after
            }
            None => {
                let new = NewDevice {
                    id,
                    public_key,
                    name: seat.name,
                    person: crate::people::OWNER,
                    role: Role::Operator,
                    grant: Grant {
                        scopes: seat.scopes.clone(),
                        ..Grant::default()
                    },
                    origin: if seat.action == "device.recovered" {
                        "recovery"
                    } else {
                        "local"
                    },
                    approved_by: String::new(),
                    certificate_life_ms: DEFAULT_CERT_LIFE_MS,
                    legacy: false,
                };
                device::create(new, now)
            }
        };
        let mut answer = IssueCertificateResponse {
            device: Some(device::to_proto(&record, 0)),
            certificate: Some(certificate),
        };
        let granted: Vec<_> = seat.scopes.iter().map(|scope| scope.as_str()).collect();
        let event = Event::new(seat.action, caller.principal(), format!("device/{id}"))
            .with("name", seat.name)
            .with("scopes", granted.join(" "));
        let first = seat.first;
        let entry = writer
            .commit(record, event, slot, &answer, |txn| {
                if first {
                    // At most one first operator, whatever happens to the list in memory.
                    let mark = Kind::Mark.key(["first-operator"]);
                    txn.push_cmp(Cmp::Absent(mark.clone()));
                    txn.push_put(mark, id.to_string());
                }
            })
            .await?;
        answer.device = Some(device::to_proto(&entry.record, entry.rev));
        Ok(answer)
    }
}

/// A device is an operator or a node, never both: a node's key can't become an operator's here.
fn operator_only(record: &DeviceRecord) -> Result<(), Error> {
    if record.role == i32::from(Role::Operator) {
        return Ok(());
    }
    let message = "this key belongs to a node; an operator needs another key";
    Err(Error::new(Code::FailedPrecondition, "role_mismatch", message).field("csr_der"))
}

/// What a local device is given.
struct Seat<'a> {
    name: &'a str,
    scopes: Scopes,
    action: &'static str,
    first: bool,
}

#[tonic::async_trait]
impl LocalService for Local {
    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_bootstrap(&caller, request).await?))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_recover(&caller, request).await?))
    }
}
