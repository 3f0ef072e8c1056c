//! `DeviceService`: operators' machines, scripts, nodes, and those that ask to be one.

mod bound;
mod change;
mod invite;
mod invites;
mod pairing;
mod prove;
mod token;
mod watch;

use std::sync::Arc;

use creel_kit::{Clock, Deps, idempotency::Idempotency, outbox::Outbox, page};
use creel_proto::identity::v1::{
    ApproveRequest, ChallengeRequest, ChallengeResponse, CreateInviteRequest, CreateInviteResponse, Device,
    GetDeviceRequest, Invite, IssueCertificateRequest, IssueCertificateResponse, ListDevicesRequest,
    ListDevicesResponse, ListInvitesRequest, ListInvitesResponse, ListRequestsRequest, ListRequestsResponse,
    PairingRequest, ProveRequest, ProveResponse, RedeemInviteRequest, RejectRequest, RenameDeviceRequest,
    RenewCertificateRequest, RequestPairingRequest, RequestPairingResponse, RevokeDeviceRequest,
    RotateTokenRequest, RotateTokenResponse, WatchDevicesRequest, WatchEpochsRequest, WithdrawInviteRequest,
    device_service_server::DeviceService,
};
use creel_store::Store;
use creel_wire::{Caller, authz};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use watch::{EpochStream, EventStream};

use self::bound::Arrival;
use crate::{
    ca::Authority,
    device,
    pairings::Pairings,
    registry::{Entry, Registry},
};

#[derive(Debug)]
pub(crate) struct Devices {
    authority: Arc<Authority>,
    registry: Registry,
    pairings: Pairings,
    idempotency: Idempotency,
    store: Store,
    outbox: Outbox,
    clock: Clock,
    drain: CancellationToken,
}

impl Devices {
    pub(crate) fn new(
        deps: &Deps,
        authority: &Arc<Authority>,
        registry: &Registry,
        pairings: &Pairings,
    ) -> Self {
        Self {
            authority: Arc::clone(authority),
            registry: registry.clone(),
            pairings: pairings.clone(),
            idempotency: deps.idempotency.clone(),
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            clock: deps.clock.clone(),
            drain: deps.drain.clone(),
        }
    }

    fn now(&self) -> i64 {
        self.store.note_time(self.clock.now_ms())
    }
}

/// A device as it is shown.
fn show(entry: &Entry) -> Device {
    device::to_proto(&entry.record, entry.rev)
}

/// Whose devices this caller makes.
fn person_of(caller: &Caller) -> &str {
    if caller.person().is_empty() {
        "owner"
    } else {
        caller.person()
    }
}

/// The device id of the caller, for records.
fn approver(caller: &Caller) -> String {
    caller.device().map(ToString::to_string).unwrap_or_default()
}

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let (_, request) = authz::split(request)?;
        let size = page::size("page_size", request.page_size, page::DEFAULT)?;
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

    async fn challenge(
        &self,
        request: Request<ChallengeRequest>,
    ) -> Result<Response<ChallengeResponse>, Status> {
        let (_, request) = authz::split(request)?;
        Ok(Response::new(self.do_challenge(&request)?))
    }

    async fn prove(&self, request: Request<ProveRequest>) -> Result<Response<ProveResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_prove(&caller, request).await?))
    }

    async fn request_pairing(
        &self,
        request: Request<RequestPairingRequest>,
    ) -> Result<Response<RequestPairingResponse>, Status> {
        let arrival = Arrival::of(&request);
        let (_, request) = authz::split(request)?;
        Ok(Response::new(self.do_request_pairing(arrival, request).await?))
    }

    async fn list_requests(
        &self,
        request: Request<ListRequestsRequest>,
    ) -> Result<Response<ListRequestsResponse>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(self.do_list_requests()))
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<Device>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_approve(&caller, request).await?))
    }

    async fn reject(&self, request: Request<RejectRequest>) -> Result<Response<PairingRequest>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_reject(&caller, request).await?))
    }

    async fn rotate_token(
        &self,
        request: Request<RotateTokenRequest>,
    ) -> Result<Response<RotateTokenResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_rotate(&caller, request).await?))
    }

    async fn create_invite(
        &self,
        request: Request<CreateInviteRequest>,
    ) -> Result<Response<CreateInviteResponse>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_create_invite(&caller, request).await?))
    }

    async fn list_invites(
        &self,
        request: Request<ListInvitesRequest>,
    ) -> Result<Response<ListInvitesResponse>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(self.do_list_invites().await?))
    }

    async fn withdraw_invite(
        &self,
        request: Request<WithdrawInviteRequest>,
    ) -> Result<Response<Invite>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_withdraw_invite(&caller, request).await?))
    }

    async fn redeem_invite(
        &self,
        request: Request<RedeemInviteRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let arrival = Arrival::of(&request);
        let (_, request) = authz::split(request)?;
        Ok(Response::new(self.do_redeem_invite(arrival, request).await?))
    }

    type WatchStream = EventStream;

    async fn watch(&self, request: Request<WatchDevicesRequest>) -> Result<Response<EventStream>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(self.events()))
    }

    type WatchEpochsStream = EpochStream;

    async fn watch_epochs(
        &self,
        request: Request<WatchEpochsRequest>,
    ) -> Result<Response<EpochStream>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(self.epochs().await))
    }
}
