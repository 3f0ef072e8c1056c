//! `SenderService`: who may write to the agent from outside.

use creel_kit::{
    Deps,
    idempotency::{Begin, Idempotency},
    page,
};
use creel_proto::identity::v1::{
    AllowSenderRequest, AllowedSender, ApproveSenderRequest, ListAllowedSendersRequest,
    ListAllowedSendersResponse, ListPendingSendersRequest, ListPendingSendersResponse, RemoveSenderRequest,
    ResolveSenderRequest, ResolveSenderResponse, sender_service_server::SenderService,
};
use creel_wire::{Caller, Error, authz};
use tonic::{Request, Response, Status};

use crate::{sender_pairing::is_word, senders::Senders};

#[derive(Debug)]
pub(crate) struct SenderRpc {
    senders: Senders,
    idempotency: Idempotency,
}

impl SenderRpc {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            senders: Senders::new(deps),
            idempotency: deps.idempotency.clone(),
        }
    }

    async fn do_approve(
        &self,
        caller: &Caller,
        request: &ApproveSenderRequest,
    ) -> Result<AllowedSender, Error> {
        check_channel(&request.channel)?;
        let slot = match self
            .idempotency
            .begin(caller, "ApproveSender", &request.request_id, request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let principal = caller.principal().to_string();
        self.senders
            .approve(
                &principal,
                &device_of(caller),
                &request.channel,
                &request.code,
                &slot,
            )
            .await
    }
}

fn device_of(caller: &Caller) -> String {
    caller.device().map(ToString::to_string).unwrap_or_default()
}

fn check_channel(channel: &str) -> Result<(), Error> {
    if is_word(channel) {
        return Ok(());
    }
    Err(Error::invalid(
        "channel",
        "a channel is needed: its lower-case name, for example `telegram`",
    ))
}

#[tonic::async_trait]
impl SenderService for SenderRpc {
    async fn resolve(
        &self,
        request: Request<ResolveSenderRequest>,
    ) -> Result<Response<ResolveSenderResponse>, Status> {
        let (_, request) = authz::split(request)?;
        let outcome = Some(self.senders.resolve(&request).await?);
        Ok(Response::new(ResolveSenderResponse { outcome }))
    }

    async fn list_pending(
        &self,
        request: Request<ListPendingSendersRequest>,
    ) -> Result<Response<ListPendingSendersResponse>, Status> {
        let (_, request) = authz::split(request)?;
        if !request.channel.is_empty() {
            check_channel(&request.channel)?;
        }
        let senders = self.senders.list_pending(&request.channel).await?;
        Ok(Response::new(ListPendingSendersResponse { senders }))
    }

    async fn approve(
        &self,
        request: Request<ApproveSenderRequest>,
    ) -> Result<Response<AllowedSender>, Status> {
        let (caller, request) = authz::split(request)?;
        Ok(Response::new(self.do_approve(&caller, &request).await?))
    }

    async fn allow(&self, request: Request<AllowSenderRequest>) -> Result<Response<AllowedSender>, Status> {
        let (caller, request) = authz::split(request)?;
        let key = self.senders.key(request.sender.as_ref())?;
        let begun = self
            .idempotency
            .begin(&caller, "AllowSender", &request.request_id, &request)
            .await?;
        let slot = match begun {
            Begin::Done(answer) => return Ok(Response::new(answer)),
            Begin::Go(slot) => slot,
        };
        let principal = caller.principal().to_string();
        let allowed = self
            .senders
            .allow(
                &principal,
                &device_of(&caller),
                &key,
                request.validate_only,
                &slot,
            )
            .await?;
        Ok(Response::new(allowed))
    }

    async fn remove(&self, request: Request<RemoveSenderRequest>) -> Result<Response<AllowedSender>, Status> {
        let (caller, request) = authz::split(request)?;
        let key = self.senders.key(request.sender.as_ref())?;
        let begun = self
            .idempotency
            .begin(&caller, "RemoveSender", &request.request_id, &request)
            .await?;
        let slot = match begun {
            Begin::Done(answer) => return Ok(Response::new(answer)),
            Begin::Go(slot) => slot,
        };
        let principal = caller.principal().to_string();
        let removed = self
            .senders
            .remove(&principal, &key, request.validate_only, &slot)
            .await?;
        Ok(Response::new(removed))
    }

    async fn list_allowed(
        &self,
        request: Request<ListAllowedSendersRequest>,
    ) -> Result<Response<ListAllowedSendersResponse>, Status> {
        let (_, request) = authz::split(request)?;
        if !request.channel.is_empty() {
            check_channel(&request.channel)?;
        }
        let size = page::size("page_size", request.page_size, page::DEFAULT)?;
        let (senders, next_page_token) = self
            .senders
            .list_allowed(&request.channel, size, &request.page_token)
            .await?;
        Ok(Response::new(ListAllowedSendersResponse {
            senders,
            next_page_token,
        }))
    }
}
