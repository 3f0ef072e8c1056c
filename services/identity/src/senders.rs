//! Chat senders on disk: who is let in, who speaks for whom, who waits with a code.

use std::sync::Arc;

use creel_kit::{
    Clock, Deps,
    failure::store_error,
    idempotency::Slot,
    outbox::{Event, Outbox},
};
use creel_proto::{
    identity::v1::{
        AllowedSender, AllowedSenderRecord, KnownSender, PendingSender, PendingSenderRecord, PersonRecord,
        RecoveryRecord, ResolveSenderRequest, Sender, SenderCode, SenderDenied, SenderWaiting, SendersFull,
        resolve_sender_response::Outcome,
    },
    time,
};
use creel_store::{Key, Page, Store, Txn};
use creel_wire::{Code, Error, error::printable};
use prost::Message;
use tokio::sync::Mutex;

use crate::{
    guard::Guards,
    guesses,
    pairings::committed,
    sender_pairing::{self, Asked, CODE_LENGTH, LIFE_MS, MAX_PENDING, Pending, SenderKey},
    store::Kind,
};

/// (channel, account) pairs in which senders wait; adapters are ours, so this is for memory alone.
const MAX_WAITING: usize = 256 * MAX_PENDING;
/// A display name that is kept, in characters.
const MAX_DISPLAY: usize = 64;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Senders {
    store: Store,
    outbox: Outbox,
    clock: Clock,
    /// One decision at a time, so that what was counted is what is committed.
    turn: Arc<Mutex<()>>,
}

impl Senders {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            clock: deps.clock.clone(),
            turn: Arc::default(),
        }
    }

    /// The checked parts of a sender.
    #[expect(clippy::unused_self, reason = "beside what takes its answer")]
    pub(crate) fn key(&self, sender: Option<&Sender>) -> Result<SenderKey, Error> {
        let sender = sender
            .ok_or_else(|| Error::invalid("sender", "a sender is needed: its channel and platform_id"))?;
        SenderKey::new(&sender.channel, &sender.account, &sender.platform_id)
    }

    /// Whether a sender is known: linked to a person, or let in for direct messages.
    pub(crate) async fn known(&self, key: &SenderKey, direct: bool) -> Result<Option<KnownSender>, Error> {
        if let Some(person) = self.person_of(key).await? {
            return Ok(Some(KnownSender { person }));
        }
        if direct && self.get(&Kind::AllowedSender.key(key.parts())).await?.is_some() {
            return Ok(Some(KnownSender::default()));
        }
        Ok(None)
    }

    /// The person a sender speaks for.
    pub(crate) async fn person_of(&self, key: &SenderKey) -> Result<Option<String>, Error> {
        let link = self.get(&Kind::SenderLink.key(key.parts())).await?;
        Ok(link.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Who wrote; an unknown one may be given a code.
    pub(crate) async fn resolve(&self, request: &ResolveSenderRequest) -> Result<Outcome, Error> {
        let key = self.key(request.sender.as_ref())?;
        if let Some(known) = self.known(&key, request.direct).await? {
            return Ok(Outcome::Known(known));
        }
        if !request.direct || !request.may_pair {
            return Ok(Outcome::Denied(SenderDenied {}));
        }
        let _turn = self.turn.lock().await;
        let now = self.store.note_time(self.clock.now_ms());
        let here = self.pending(&[&key.channel, &key.account]).await?;
        let pending: Vec<Pending> = here.iter().map(machine).collect();
        let (remove, until_ms) = match sender_pairing::ask(&pending, &key.platform_id, now, Guards::all()) {
            Asked::Waiting { until_ms } => {
                let expires_at = Some(time::timestamp(until_ms));
                return Ok(Outcome::Waiting(SenderWaiting { expires_at }));
            }
            Asked::Full { retry_at_ms } => {
                let retry_at = Some(time::timestamp(retry_at_ms));
                return Ok(Outcome::Full(SendersFull { retry_at }));
            }
            Asked::New { remove, until_ms } => (remove, until_ms),
        };
        let code = sender_pairing::code(rand::random::<[u8; CODE_LENGTH]>());
        let salt: [u8; 16] = rand::random();
        let record = PendingSenderRecord {
            sender: Some(to_proto(&key)),
            display_name: printable(request.display_name.trim(), MAX_DISPLAY),
            salt: salt.to_vec(),
            code_hash: sender_pairing::hash(&salt, &code).to_vec(),
            requested_at_unix_ms: now,
        };
        let mut txn = Txn::new();
        for platform_id in &remove {
            let parts = [key.channel.as_str(), &key.account, platform_id];
            txn.push_delete(Kind::PendingSender.key(parts));
        }
        txn.push_put(Kind::PendingSender.key(key.parts()), record.encode_to_vec());
        let event = Event::new(
            "sender.requested",
            format!("sender/{key}"),
            format!("sender/{key}"),
        )
        .with("gave_way", remove.len());
        self.commit(txn, event).await?;
        Ok(Outcome::CodeIssued(SenderCode {
            code,
            expires_at: Some(time::timestamp(until_ms)),
        }))
    }

    /// Those that wait on a channel, or on all.
    pub(crate) async fn list_pending(&self, channel: &str) -> Result<Vec<PendingSender>, Error> {
        let now = self.store.note_time(self.clock.now_ms());
        let parts: Vec<&str> = if channel.is_empty() { vec![] } else { vec![channel] };
        let mut list: Vec<_> = self.pending(&parts).await?;
        list.retain(|one| now < one.requested_at_unix_ms + LIFE_MS);
        list.sort_by_key(|one| one.requested_at_unix_ms);
        Ok(list
            .into_iter()
            .map(|one| PendingSender {
                sender: one.sender,
                display_name: one.display_name,
                requested_at: Some(time::timestamp(one.requested_at_unix_ms)),
                expires_at: Some(time::timestamp(one.requested_at_unix_ms + LIFE_MS)),
                last_seen_at: None,
            })
            .collect())
    }

    /// Lets in whom a code was made for. Wrong codes of one principal are counted.
    pub(crate) async fn approve(
        &self,
        principal: &str,
        approver: &str,
        channel: &str,
        code: &str,
        slot: &Slot,
    ) -> Result<AllowedSender, Error> {
        let _turn = self.turn.lock().await;
        let now = self.store.note_time(self.clock.now_ms());
        let guesses_key = Kind::Guesses.key([principal]);
        let guesses = match self.get(&guesses_key).await? {
            Some(bytes) => decoded::<RecoveryRecord>(&bytes, "reading the guesses")?,
            None => RecoveryRecord::default(),
        };
        if let Err(wait_ms) = guesses::admit(&guesses, now, Guards::all()) {
            let message = format!("too many wrong codes; try again in {} s", wait_ms / 1_000 + 1);
            return Err(Error::new(Code::ResourceExhausted, "too_many_guesses", message)
                .hint("creel pairing allow CHANNEL ID needs no code"));
        }
        let waiting = self.pending(&[channel]).await?;
        let pending: Vec<Pending> = waiting.iter().map(machine).collect();
        let found = sender_pairing::find(&pending, code, now, Guards::all());
        let Some(record) = found.and_then(|found| {
            let at = pending.iter().position(|one| std::ptr::eq(one, found))?;
            waiting.get(at)
        }) else {
            let after = guesses::failed(&guesses, now);
            let event = Event::new("sender.code_refused", principal, format!("channel/{channel}"))
                .with("failures", after.failures);
            self.commit(Txn::new().put(guesses_key, after.encode_to_vec()), event)
                .await?;
            return Err(Error::new(
                Code::NotFound,
                "code_unknown",
                "no sender waits with this code (any more)",
            )
            .field("code")
            .hint("creel pairing list"));
        };
        let key = self.key(record.sender.as_ref())?;
        let mut txn = Txn::new().delete(Kind::PendingSender.key(key.parts()));
        let allowed = allow(&mut txn, &key, approver, now);
        let answer = shown(allowed, self.person_of(&key).await?);
        slot.record(&mut txn, &answer);
        let event = Event::new("sender.approved", principal, format!("sender/{key}"));
        self.commit(txn, event).await?;
        Ok(answer)
    }

    /// Lets a sender in without a code; letting in again changes nothing.
    pub(crate) async fn allow(
        &self,
        principal: &str,
        approver: &str,
        key: &SenderKey,
        check_only: bool,
        slot: &Slot,
    ) -> Result<AllowedSender, Error> {
        let _turn = self.turn.lock().await;
        let person = self.person_of(key).await?;
        if let Some(bytes) = self.get(&Kind::AllowedSender.key(key.parts())).await? {
            let record = decoded::<AllowedSenderRecord>(&bytes, "reading the sender")?;
            return Ok(shown(record, person));
        }
        let now = self.store.note_time(self.clock.now_ms());
        let mut txn = Txn::new();
        let allowed = allow(&mut txn, key, approver, now);
        // Whoever is let in waits no more.
        txn.push_delete(Kind::PendingSender.key(key.parts()));
        let answer = shown(allowed, person);
        if check_only {
            return Ok(answer);
        }
        slot.record(&mut txn, &answer);
        let event = Event::new("sender.allowed", principal, format!("sender/{key}"));
        self.commit(txn, event).await?;
        Ok(answer)
    }

    /// Takes back that a sender may write, and the code it may have.
    pub(crate) async fn remove(
        &self,
        principal: &str,
        key: &SenderKey,
        check_only: bool,
        slot: &Slot,
    ) -> Result<AllowedSender, Error> {
        let _turn = self.turn.lock().await;
        let person = self.person_of(key).await?;
        let allowed = self.get(&Kind::AllowedSender.key(key.parts())).await?;
        let pending = self.get(&Kind::PendingSender.key(key.parts())).await?;
        let answer = match (&allowed, &pending) {
            (Some(bytes), _) => shown(decoded(bytes, "reading the sender")?, person.clone()),
            (None, Some(_)) => AllowedSender {
                sender: Some(to_proto(key)),
                person: person.clone().unwrap_or_default(),
                ..AllowedSender::default()
            },
            (None, None) => {
                let mut error = Error::not_found("sender", &key.to_string());
                error.hint = Some(match person {
                    Some(person) => {
                        format!("creel people unlink {person} {}:{}", key.channel, key.platform_id)
                    }
                    None => "creel pairing list".to_owned(),
                });
                return Err(error);
            }
        };
        if check_only {
            return Ok(answer);
        }
        let mut txn = Txn::new()
            .delete(Kind::AllowedSender.key(key.parts()))
            .delete(Kind::PendingSender.key(key.parts()));
        slot.record(&mut txn, &answer);
        let event = Event::new("sender.removed", principal, format!("sender/{key}"));
        self.commit(txn, event).await?;
        Ok(answer)
    }

    /// Those that are let in, in order of key; and the token of the next page.
    pub(crate) async fn list_allowed(
        &self,
        channel: &str,
        size: usize,
        after: &str,
    ) -> Result<(Vec<AllowedSender>, String), Error> {
        let parts: Vec<&str> = if channel.is_empty() { vec![] } else { vec![channel] };
        let mut range = Some(Kind::AllowedSender.range_of(parts));
        let mut list = Vec::new();
        while let Some(rest) = range {
            let page = self
                .store
                .scan(rest, Page::default())
                .await
                .map_err(store_error)?;
            for entry in page.entries {
                let record = decoded::<AllowedSenderRecord>(&entry.value, "reading the sender")?;
                let key = self.key(record.sender.as_ref())?;
                if key.to_string().as_str() <= after {
                    continue;
                }
                if list.len() == size {
                    let last: Option<&AllowedSender> = list.last();
                    let last = last.and_then(|one| one.sender.as_ref());
                    return Ok((
                        list.clone(),
                        last.map(|s| format!("{}:{}:{}", s.channel, s.account, s.platform_id))
                            .unwrap_or_default(),
                    ));
                }
                let person = self.person_of(&key).await?;
                list.push(shown(record, person));
            }
            range = page.next;
        }
        Ok((list, String::new()))
    }

    async fn pending(&self, parts: &[&str]) -> Result<Vec<PendingSenderRecord>, Error> {
        let range = Kind::PendingSender.range_of(parts);
        let page = self
            .store
            .scan_all(range, MAX_WAITING)
            .await
            .map_err(store_error)?;
        page.entries
            .iter()
            .map(|entry| decoded(&entry.value, "reading who waits"))
            .collect()
    }

    async fn get(&self, key: &Key) -> Result<Option<creel_store::Bytes>, Error> {
        let entry = self.store.get(key).await.map_err(store_error)?;
        Ok(entry.map(|entry| entry.value))
    }

    async fn commit(&self, mut txn: Txn, event: Event) -> Result<(), Error> {
        self.outbox.push(&mut txn, event)?;
        committed(self.store.commit(txn).await)?;
        self.outbox.committed();
        Ok(())
    }
}

/// A person's senders as their record has them.
pub(crate) fn senders_of(record: &PersonRecord) -> Vec<SenderKey> {
    let key = |sender: &Sender| SenderKey::new(&sender.channel, &sender.account, &sender.platform_id).ok();
    record.senders.iter().filter_map(key).collect()
}

/// A sender as it is shown and kept.
pub(crate) fn to_proto(key: &SenderKey) -> Sender {
    Sender {
        channel: key.channel.clone(),
        account: key.account.clone(),
        platform_id: key.platform_id.clone(),
    }
}

fn allow(txn: &mut Txn, key: &SenderKey, approver: &str, now: i64) -> AllowedSenderRecord {
    let record = AllowedSenderRecord {
        sender: Some(to_proto(key)),
        allowed_at_unix_ms: now,
        allowed_by: approver.to_owned(),
    };
    txn.push_put(Kind::AllowedSender.key(key.parts()), record.encode_to_vec());
    record
}

fn shown(record: AllowedSenderRecord, person: Option<String>) -> AllowedSender {
    AllowedSender {
        sender: record.sender,
        allowed_at: time::timestamp_opt(record.allowed_at_unix_ms),
        allowed_by: record.allowed_by,
        person: person.unwrap_or_default(),
    }
}

/// What the machine sees of a record. A hash that can't be read fits no code.
fn machine(record: &PendingSenderRecord) -> Pending {
    Pending {
        platform_id: record
            .sender
            .as_ref()
            .map(|sender| sender.platform_id.clone())
            .unwrap_or_default(),
        salt: record.salt.as_slice().try_into().unwrap_or_default(),
        code_hash: record.code_hash.as_slice().try_into().unwrap_or_default(),
        requested_at_ms: record.requested_at_unix_ms,
    }
}

fn decoded<T: Message + Default>(bytes: &[u8], what: &str) -> Result<T, Error> {
    T::decode(bytes).map_err(|_| Error::internal(what))
}
