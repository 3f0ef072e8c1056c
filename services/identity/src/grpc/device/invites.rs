//! Invites that are open: how many there may be, which there are, and their end before they are used.

use creel_kit::{failure::store_error, idempotency::Begin, outbox::Event};
use creel_proto::{
    identity::v1::{Invite, InviteRecord, ListInvitesResponse, WithdrawInviteRequest},
    time,
};
use creel_store::{Cmp, Entry, Page, Txn};
use creel_wire::{Caller, Code, Error};
use prost::Message as _;

use super::{Devices, invite::role_of};
use crate::{
    pairings::{committed, is_end_of},
    store::Kind,
};

/// Invites that are open at once, of all operators: a quota of their own, strangers can't touch it.
const MAX_OPEN: usize = 50;
/// A used invite is remembered so long after its end, for an answer that was lost.
const KEEP_MS: i64 = 3_600_000;

impl Devices {
    /// Forgets what is long over, and refuses when too many are open.
    pub(super) async fn room_for_one(&self, now: i64) -> Result<(), Error> {
        let mut txn = Txn::new();
        let (mut open, mut first) = (0, i64::MAX);
        for (entry, record) in self.invites().await? {
            if record.expires_at_unix_ms + KEEP_MS <= now {
                txn.push_delete(entry.key);
            } else if is_open(&record, now) {
                open += 1;
                first = first.min(record.expires_at_unix_ms);
            }
        }
        if !txn.then.is_empty() {
            self.store.commit(txn).await.map_err(store_error)?;
        }
        if open >= MAX_OPEN {
            let minutes = (first - now) / 60_000 + 1;
            let message = format!("{MAX_OPEN} invites are open already; the first ends in {minutes} min");
            return Err(Error::new(Code::ResourceExhausted, "too_many_invites", message)
                .hint("creel devices invites, then creel devices uninvite NAME"));
        }
        Ok(())
    }

    pub(super) async fn do_list_invites(&self) -> Result<ListInvitesResponse, Error> {
        let now = self.now();
        let mut invites: Vec<_> = self
            .invites()
            .await?
            .into_iter()
            .map(|(_, record)| record)
            .filter(|record| is_open(record, now))
            .collect();
        invites.sort_by_key(|record| (record.expires_at_unix_ms, record.invite_id.clone()));
        Ok(ListInvitesResponse {
            invites: invites.into_iter().map(show).collect(),
        })
    }

    pub(super) async fn do_withdraw_invite(
        &self,
        caller: &Caller,
        request: WithdrawInviteRequest,
    ) -> Result<Invite, Error> {
        let slot = match self
            .idempotency
            .begin(caller, "WithdrawInvite", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        // Nobody comes in by it meanwhile.
        let _writer = self.registry.write().await;
        let (entry, record) = self.open_invite(&request.invite).await?;
        let object = format!("invite/{}", record.invite_id);
        let event = Event::new("invite.withdrawn", caller.principal(), object).with("name", &record.name);
        let answer = show(record);
        if request.validate_only {
            return Ok(answer);
        }
        let mut txn = Txn::new();
        txn.push_cmp(Cmp::ModRev(entry.key.clone(), entry.mod_rev));
        txn.push_delete(entry.key);
        slot.record(&mut txn, &answer);
        self.outbox.push(&mut txn, event)?;
        committed(self.store.commit(txn).await)?;
        self.outbox.committed();
        Ok(answer)
    }

    /// The open invite of an id, of an end of it that fits one alone, or of a name that one alone was made for.
    async fn open_invite(&self, text: &str) -> Result<(Entry, InviteRecord), Error> {
        let now = self.now();
        let fits = |record: &InviteRecord| {
            is_open(record, now) && (is_end_of(text, &record.invite_id) || record.name == text)
        };
        let mut fitting = self
            .invites()
            .await?
            .into_iter()
            .filter(|(_, record)| fits(record));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(Error::invalid("invite", "this fits more than one invite")
                .hint("creel devices invites; give its id")),
            (None, _) => Err(Error::not_found("open invite", text).hint("creel devices invites")),
        }
    }

    /// All that are kept, used and over ones included.
    async fn invites(&self) -> Result<Vec<(Entry, InviteRecord)>, Error> {
        let page = self
            .store
            .scan(Kind::Invite.range(), Page::default())
            .await
            .map_err(store_error)?;
        let mut all = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            match InviteRecord::decode(entry.value.clone()) {
                Ok(record) => all.push((entry, record)),
                Err(error) => tracing::error!(key = ?entry.key, %error, "an invite can't be read"),
            }
        }
        Ok(all)
    }
}

fn is_open(record: &InviteRecord, now: i64) -> bool {
    now < record.expires_at_unix_ms && record.used_by.is_empty()
}

fn show(record: InviteRecord) -> Invite {
    Invite {
        role: role_of(&record).into(),
        invite_id: record.invite_id,
        name: record.name,
        scopes: record.scopes,
        commands: record.commands,
        caps: record.caps,
        person: record.person,
        inviter: record.inviter,
        created_at: Some(time::timestamp(record.created_at_unix_ms)),
        expires_at: Some(time::timestamp(record.expires_at_unix_ms)),
    }
}
