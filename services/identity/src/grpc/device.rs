//! `DeviceService`: operators' machines and scripts.

use std::{pin::Pin, sync::Arc, time::Duration};

use creel_kit::{
    Clock, Deps,
    idempotency::{Begin, Idempotency},
    outbox::Event,
};
use creel_proto::{
    identity::v1::{
        Device, DeviceEpoch, EpochEvent, GetDeviceRequest, IssueCertificateRequest, IssueCertificateResponse,
        ListDevicesRequest, ListDevicesResponse, RenameDeviceRequest, RenewCertificateRequest,
        RevokeDeviceRequest, Role, WatchEpochsRequest, device_service_server::DeviceService,
    },
    time,
};
use creel_store::Store;
use creel_wire::{
    Caller, Code, Error, Scopes, authz,
    names::{Subject, parse_scopes},
};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    ca::{Authority, read_request},
    device::{self, CERT_LIFE_MS, DEFAULT_CERT_LIFE_MS, Guard, NewDevice, check_name},
    grants,
    registry::{Entry, Registry},
};

/// Watchers hear at least this often, so that silence means that the watch is dead.
const HEARTBEAT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Devices {
    authority: Arc<Authority>,
    registry: Registry,
    idempotency: Idempotency,
    store: Store,
    clock: Clock,
    drain: CancellationToken,
}

impl Devices {
    pub(crate) fn new(deps: &Deps, authority: &Arc<Authority>, registry: &Registry) -> Self {
        Self {
            authority: Arc::clone(authority),
            registry: registry.clone(),
            idempotency: deps.idempotency.clone(),
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            drain: deps.drain.clone(),
        }
    }

    fn now(&self) -> i64 {
        self.store.note_time(self.clock.now_ms())
    }

    async fn issue(
        &self,
        caller: &Caller,
        request: IssueCertificateRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let name = check_name(&request.name)?;
        let requested = scopes_of(&request.scopes)?;
        let life = request
            .lifetime
            .as_ref()
            .map_or(DEFAULT_CERT_LIFE_MS, time::duration_ms);
        if !CERT_LIFE_MS.contains(&life) {
            return Err(Error::invalid("lifetime", "from 1 hour to 800 days"));
        }
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let granted = grants::attenuate(&requested, &requested, caller.scopes());
        let missing: Scopes = requested.difference(&granted).copied().collect();
        if !missing.is_empty() {
            return Err(Guard::NotHeld(missing).into());
        }
        let slot = match self
            .idempotency
            .begin(caller, "IssueCertificate", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        writer.admit(&id, name)?;
        let now = self.now();
        let certificate =
            self.authority
                .issue_device(Subject::Operator(id.clone()), name, &key, now, life)?;
        let new = NewDevice {
            id: &id,
            public_key,
            name,
            scopes: granted,
            origin: "certificate",
            approved_by: caller.device().map(ToString::to_string).unwrap_or_default(),
            certificate_expires_at_unix_ms: now + life,
        };
        let record = device::create(new, now);
        let mut answer = IssueCertificateResponse {
            device: Some(device::to_proto(&record, 0)),
            certificate: Some(certificate),
        };
        if request.validate_only {
            answer.certificate = None;
            return Ok(answer);
        }
        let event = Event::new("device.approved", caller.principal(), format!("device/{id}"))
            .with("name", name)
            .with("scopes", request.scopes.join(" "));
        let entry = writer.commit(record, event, &slot, &answer, |_| {}).await?;
        answer.device = Some(show(&entry));
        Ok(answer)
    }

    async fn renew(
        &self,
        caller: &Caller,
        request: RenewCertificateRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let key = read_request(&request.csr_der)?;
        let (_, id) = key.device_key()?;
        if caller.device() != Some(&id) {
            let message = "a device renews its own certificate, by the key it is known by";
            return Err(Error::new(Code::PermissionDenied, "foreign_key", message).field("csr_der"));
        }
        let slot = match self
            .idempotency
            .begin(caller, "RenewCertificate", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = self
            .registry
            .get(&id)
            .ok_or_else(|| Error::not_found("device", id.as_str()))?;
        if device::is_revoked(&entry.record) {
            return Err(Guard::Revoked.into());
        }
        let now = self.now();
        // As long as the one before lived, so that a short-lived script stays short-lived.
        let before = entry.record.certificate_expires_at_unix_ms - entry.record.created_at_unix_ms;
        let life = before.clamp(*CERT_LIFE_MS.start(), DEFAULT_CERT_LIFE_MS);
        let subject = if entry.record.role == i32::from(Role::Node) {
            Subject::Node(id.clone())
        } else {
            Subject::Operator(id.clone())
        };
        let certificate = self
            .authority
            .issue_device(subject, &entry.record.name, &key, now, life)?;
        let mut after = entry.record.clone();
        after.certificate_expires_at_unix_ms = now + life;
        let mut answer = IssueCertificateResponse {
            device: Some(device::to_proto(&after, 0)),
            certificate: Some(certificate),
        };
        if request.validate_only {
            answer.certificate = None;
            return Ok(answer);
        }
        let event = Event::new("device.renewed", caller.principal(), format!("device/{id}"));
        let entry = writer.commit(after, event, &slot, &answer, |_| {}).await?;
        answer.device = Some(show(&entry));
        Ok(answer)
    }

    async fn do_rename(&self, caller: &Caller, request: RenameDeviceRequest) -> Result<Device, Error> {
        let name = check_name(&request.name)?;
        let slot = match self
            .idempotency
            .begin(caller, "Rename", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = matching(self.registry.find(&request.device)?, &request.if_match)?;
        if entry.record.name == name {
            return Ok(show(&entry));
        }
        if writer.free_name(name) != name {
            return Err(Guard::NameInUse(name.to_owned()).into());
        }
        let mut after = entry.record.clone();
        name.clone_into(&mut after.name);
        let answer = device::to_proto(&after, 0);
        if request.validate_only {
            return Ok(answer);
        }
        let event = Event::new(
            "device.renamed",
            caller.principal(),
            format!("device/{}", after.device_id),
        )
        .with("from", &entry.record.name)
        .with("to", name);
        Ok(show(&writer.commit(after, event, &slot, &answer, |_| {}).await?))
    }

    async fn do_revoke(&self, caller: &Caller, request: RevokeDeviceRequest) -> Result<Device, Error> {
        if request.reason.chars().count() > 256 {
            return Err(Error::invalid("reason", "at most 256 characters"));
        }
        let slot = match self
            .idempotency
            .begin(caller, "Revoke", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = matching(self.registry.find(&request.device)?, &request.if_match)?;
        if device::is_revoked(&entry.record) {
            return Ok(show(&entry));
        }
        writer.may_revoke(&entry.record.device_id)?;
        let after = device::revoke(&entry.record, &request.reason, self.now());
        let answer = device::to_proto(&after, 0);
        if request.validate_only {
            return Ok(answer);
        }
        let event = Event::new(
            "device.revoked",
            caller.principal(),
            format!("device/{}", after.device_id),
        )
        .with("name", &after.name)
        .with("reason", &request.reason);
        Ok(show(&writer.commit(after, event, &slot, &answer, |_| {}).await?))
    }
}

fn scopes_of(texts: &[String]) -> Result<Scopes, Error> {
    let scopes = parse_scopes(texts).map_err(|error| {
        let known: Vec<_> = creel_wire::Scope::ALL
            .iter()
            .map(|scope| scope.as_str())
            .collect();
        Error::invalid("scopes", format!("{error}; there are {}", known.join(", ")))
    })?;
    if scopes.is_empty() {
        Err(Error::invalid("scopes", "at least one scope"))
    } else {
        Ok(scopes)
    }
}

fn show(entry: &Entry) -> Device {
    device::to_proto(&entry.record, entry.rev)
}

fn matching(entry: Entry, if_match: &str) -> Result<Entry, Error> {
    if if_match.is_empty() || if_match == entry.rev.to_string() {
        return Ok(entry);
    }
    Err(Error::new(
        Code::Conflict,
        "etag_mismatch",
        "the device changed since it was read",
    )
    .field("if_match"))
}

type EpochStream = Pin<Box<dyn Stream<Item = Result<EpochEvent, Status>> + Send>>;

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let (_, request) = authz::split(request)?;
        let size = page_size(request.page_size)?;
        let mut shown: Vec<_> = self
            .registry
            .list()
            .into_iter()
            .filter(|entry| request.include_revoked || !device::is_revoked(&entry.record))
            .filter(|entry| entry.record.device_id.as_str() > request.page_token.as_str())
            .collect();
        let more = shown.len() > size;
        shown.truncate(size);
        let last = shown.last().map(|entry| entry.record.device_id.clone());
        Ok(Response::new(ListDevicesResponse {
            devices: shown.iter().map(show).collect(),
            next_page_token: last.filter(|_| more).unwrap_or_default(),
        }))
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Result<Response<Device>, Status> {
        let (_, request) = authz::split(request)?;
        Ok(Response::new(show(&self.registry.find(&request.device)?)))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.issue(&caller, request).await?))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.renew(&caller, request).await?))
    }

    async fn rename(&self, request: Request<RenameDeviceRequest>) -> Result<Response<Device>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_rename(&caller, request).await?))
    }

    async fn revoke(&self, request: Request<RevokeDeviceRequest>) -> Result<Response<Device>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_revoke(&caller, request).await?))
    }

    type WatchEpochsStream = EpochStream;

    async fn watch_epochs(
        &self,
        request: Request<WatchEpochsRequest>,
    ) -> Result<Response<EpochStream>, Status> {
        let _ = authz::split(request)?;
        // Subscribed before the snapshot is taken, so that no change falls between.
        let mut changes = self.registry.watch();
        let out = self
            .registry
            .list()
            .into_iter()
            .filter(|entry| device::is_revoked(&entry.record))
            .map(|entry| DeviceEpoch {
                device_id: entry.record.device_id,
                epoch: entry.record.epoch,
                state: entry.record.state,
            })
            .collect();
        let revision = self.store.latest_rev().await;
        let snapshot = EpochEvent {
            changes: out,
            snapshot: true,
            revision,
        };
        let (store, drain) = (self.store.clone(), self.drain.clone());
        let live = async_stream(move |sender| async move {
            loop {
                let received = tokio::select! {
                    received = tokio::time::timeout(HEARTBEAT, changes.recv()) => received,
                    () = drain.cancelled() => return,
                };
                let changes = match received {
                    Err(_) => vec![],
                    Ok(Ok(change)) => vec![change],
                    // Too far behind, or identity ends: the watcher starts again with a snapshot.
                    Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return,
                };
                let event = EpochEvent {
                    changes,
                    snapshot: false,
                    revision: store.latest_rev().await,
                };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        let stream = futures_util::stream::once(async move { Ok(snapshot) }).chain(live);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A stream fed by a task; the task ends when the stream is dropped.
fn async_stream<T, F, R>(feed: F) -> impl Stream<Item = T>
where
    T: Send + 'static,
    F: FnOnce(tokio::sync::mpsc::Sender<T>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(feed(sender));
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

fn page_size(asked: i32) -> Result<usize, Error> {
    match asked {
        0 => Ok(100),
        1..=500 => Ok(usize::try_from(asked).unwrap_or(100)),
        _ => Err(Error::invalid("page_size", "from 1 to 500")),
    }
}
