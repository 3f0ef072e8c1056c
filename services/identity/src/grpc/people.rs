//! `PeopleService`: who owns devices and speaks through senders.

use std::sync::Arc;

use creel_kit::{
    Clock, Deps,
    idempotency::{Begin, Idempotency, Slot},
    outbox::Event,
};
use creel_proto::identity::v1::{
    AddPersonRequest, LinkSenderRequest, ListPeopleRequest, ListPeopleResponse, Person, RemovePersonRequest,
    UnlinkSenderRequest, people_service_server::PeopleService,
};
use creel_store::Store;
use creel_wire::{Caller, Error, authz};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use crate::{
    people::{Entry, People},
    registry::Registry,
    senders::Senders,
};

#[derive(Debug)]
pub(crate) struct PeopleRpc {
    people: People,
    registry: Registry,
    senders: Senders,
    idempotency: Idempotency,
    store: Store,
    clock: Clock,
    turn: Arc<Mutex<()>>,
}

impl PeopleRpc {
    pub(crate) fn new(deps: &Deps, registry: &Registry) -> Self {
        Self {
            people: People::new(deps, registry),
            registry: registry.clone(),
            senders: Senders::new(deps),
            idempotency: deps.idempotency.clone(),
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            turn: Arc::default(),
        }
    }

    async fn do_add(
        &self,
        caller: &Caller,
        request: &AddPersonRequest,
        slot: &Slot,
    ) -> Result<Person, Error> {
        let now = self.store.note_time(self.clock.now_ms());
        let new = self
            .people
            .add(&request.person, &request.display_name, now)
            .await?;
        if request.validate_only {
            return Ok(self.people.show(&new));
        }
        let event = event("person.added", caller, &new);
        self.people.commit(&new, Some(&new), event, slot).await
    }

    async fn do_link(
        &self,
        caller: &Caller,
        request: &LinkSenderRequest,
        slot: &Slot,
    ) -> Result<Person, Error> {
        let key = self.senders.key(request.sender.as_ref())?;
        let before = self.people.find(&request.person, &request.if_match).await?;
        let speaks_for = self.senders.person_of(&key).await?;
        let after = self.people.linked(&before, &key, speaks_for.as_deref())?;
        if request.validate_only || after.record == before.record {
            return Ok(self.people.show(&after));
        }
        let event = event("person.linked", caller, &before).with("sender", &key);
        self.people.commit(&before, Some(&after), event, slot).await
    }

    async fn do_unlink(
        &self,
        caller: &Caller,
        request: &UnlinkSenderRequest,
        slot: &Slot,
    ) -> Result<Person, Error> {
        let key = self.senders.key(request.sender.as_ref())?;
        let before = self.people.find(&request.person, &request.if_match).await?;
        let after = self.people.unlinked(&before, &key)?;
        if request.validate_only {
            return Ok(self.people.show(&after));
        }
        let event = event("person.unlinked", caller, &before).with("sender", &key);
        self.people.commit(&before, Some(&after), event, slot).await
    }

    async fn do_remove(
        &self,
        caller: &Caller,
        request: &RemovePersonRequest,
        slot: &Slot,
    ) -> Result<Person, Error> {
        // With the registry's turn in hand, no device can become this person's meanwhile.
        let _writer = self.registry.write().await;
        let before = self.people.find(&request.person, &request.if_match).await?;
        self.people.may_remove(&before)?;
        if request.validate_only {
            return Ok(self.people.show(&before));
        }
        let event = event("person.removed", caller, &before);
        self.people.commit(&before, None, event, slot).await
    }
}

fn event(action: &str, caller: &Caller, person: &Entry) -> Event {
    Event::new(
        action,
        caller.principal(),
        format!("person/{}", person.record.person),
    )
}

/// A mutation: one at a time, once per request id.
macro_rules! once {
    ($self:ident, $request:ident, $method:literal, $act:ident) => {{
        let (caller, request) = authz::split($request)?;
        let _turn = $self.turn.lock().await;
        let begun = $self
            .idempotency
            .begin(&caller, $method, &request.request_id, &request)
            .await?;
        let answer = match begun {
            Begin::Done(answer) => answer,
            Begin::Go(slot) => $self.$act(&caller, &request, &slot).await?,
        };
        Ok(Response::new(answer))
    }};
}

#[tonic::async_trait]
impl PeopleService for PeopleRpc {
    async fn list(
        &self,
        request: Request<ListPeopleRequest>,
    ) -> Result<Response<ListPeopleResponse>, Status> {
        let _ = authz::split(request)?;
        let people = self.people.list().await?;
        Ok(Response::new(ListPeopleResponse { people }))
    }

    async fn add(&self, request: Request<AddPersonRequest>) -> Result<Response<Person>, Status> {
        once!(self, request, "AddPerson", do_add)
    }

    async fn link(&self, request: Request<LinkSenderRequest>) -> Result<Response<Person>, Status> {
        once!(self, request, "LinkSender", do_link)
    }

    async fn unlink(&self, request: Request<UnlinkSenderRequest>) -> Result<Response<Person>, Status> {
        once!(self, request, "UnlinkSender", do_unlink)
    }

    async fn remove(&self, request: Request<RemovePersonRequest>) -> Result<Response<Person>, Status> {
        once!(self, request, "RemovePerson", do_remove)
    }
}
