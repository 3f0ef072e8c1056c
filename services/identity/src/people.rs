//! People on disk: whose devices and senders are whose. The first is `owner`, who is always there.

use std::collections::BTreeMap;

use creel_kit::{
    Deps,
    failure::store_error,
    idempotency::Slot,
    outbox::{Event, Outbox},
};
use creel_proto::{
    identity::v1::{Person, PersonRecord},
    time,
};
use creel_store::{Cmp, Store, Txn};
use creel_wire::{Code, Error, error::printable};
use prost::Message as _;

use crate::{
    device::MAX_NAME,
    pairings::committed,
    registry::Registry,
    sender_pairing::{SenderKey, is_word},
    senders::{senders_of, to_proto},
    store::Kind,
};

/// The first person.
pub(crate) const OWNER: &str = "owner";
/// People, at most.
const MAX_PEOPLE: usize = 100;
/// Senders that speak for one person, at most.
const MAX_SENDERS: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct People {
    store: Store,
    outbox: Outbox,
    registry: Registry,
}

/// A person with the revision it was read at; 0: `owner`, of whom nothing was written yet.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: PersonRecord,
    pub(crate) rev: u64,
}

impl People {
    pub(crate) fn new(deps: &Deps, registry: &Registry) -> Self {
        Self {
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            registry: registry.clone(),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Person>, Error> {
        let page = self
            .store
            .scan_all(Kind::Person.range(), MAX_PEOPLE + 1)
            .await
            .map_err(store_error)?;
        let mut people = BTreeMap::from([(OWNER.to_owned(), owner())]);
        for entry in page.entries {
            let record = decoded(&entry.value)?;
            let rev = entry.mod_rev;
            people.insert(record.person.clone(), Entry { record, rev });
        }
        Ok(people.values().map(|entry| self.show(entry)).collect())
    }

    pub(crate) fn show(&self, entry: &Entry) -> Person {
        let record = &entry.record;
        Person {
            person: record.person.clone(),
            display_name: record.display_name.clone(),
            created_at: time::timestamp_opt(record.created_at_unix_ms),
            senders: record.senders.clone(),
            devices: u32::try_from(self.registry.count_of(&record.person)).unwrap_or(u32::MAX),
            etag: entry.rev.to_string(),
        }
    }

    pub(crate) async fn find(&self, person: &str, if_match: &str) -> Result<Entry, Error> {
        let entry = get(&self.store, person)
            .await?
            .ok_or_else(|| Error::not_found("person", person).hint("creel people list"))?;
        if !if_match.is_empty() && if_match != entry.rev.to_string() {
            let message = "the person changed since it was read";
            return Err(Error::new(Code::Conflict, "etag_mismatch", message).field("if_match"));
        }
        Ok(entry)
    }

    /// A new person, to be committed.
    pub(crate) async fn add(&self, person: &str, display_name: &str, now_ms: i64) -> Result<Entry, Error> {
        if !is_word(person) {
            let why =
                "a person is named by a letter, then letters, digits, `_`, `-`, at most 64, all lower-case";
            return Err(Error::invalid("person", why));
        }
        if display_name.chars().count() > MAX_NAME || printable(display_name, usize::MAX) != display_name {
            return Err(Error::invalid(
                "display_name",
                format!("a name has at most {MAX_NAME} printable characters"),
            ));
        }
        if get(&self.store, person).await?.is_some() {
            let message = format!("there is a person `{person}` already");
            return Err(Error::new(Code::Conflict, "name_in_use", message).field("person"));
        }
        if self.list().await?.len() >= MAX_PEOPLE {
            let message = format!("there are {MAX_PEOPLE} people already");
            return Err(
                Error::new(Code::ResourceExhausted, "too_many_people", message).hint("creel people rm NAME")
            );
        }
        let record = PersonRecord {
            person: person.to_owned(),
            display_name: display_name.to_owned(),
            created_at_unix_ms: now_ms,
            senders: Vec::new(),
        };
        Ok(Entry { record, rev: 0 })
    }

    /// The person with one sender more, to be committed.
    pub(crate) fn linked(
        &self,
        entry: &Entry,
        key: &SenderKey,
        speaks_for: Option<&str>,
    ) -> Result<Entry, Error> {
        if let Some(other) = speaks_for.filter(|other| *other != entry.record.person) {
            let message = format!("this sender speaks for {other} already");
            return Err(Error::new(Code::Conflict, "sender_linked", message)
                .field("sender")
                .hint(format!(
                    "creel people unlink {other} {}:{}",
                    key.channel, key.platform_id
                )));
        }
        let mut after = entry.clone();
        if !senders_of(&entry.record).contains(key) {
            if entry.record.senders.len() >= MAX_SENDERS {
                let message = format!("{} has {MAX_SENDERS} senders already", entry.record.person);
                return Err(Error::new(Code::ResourceExhausted, "too_many_senders", message));
            }
            after.record.senders.push(to_proto(key));
        }
        Ok(after)
    }

    /// The person with one sender less, to be committed.
    pub(crate) fn unlinked(&self, entry: &Entry, key: &SenderKey) -> Result<Entry, Error> {
        if !senders_of(&entry.record).contains(key) {
            return Err(Error::not_found("link", &key.to_string()).hint("creel people list"));
        }
        let mut after = entry.clone();
        let gone = to_proto(key);
        after.record.senders.retain(|sender| *sender != gone);
        Ok(after)
    }

    /// Guards of a removal.
    pub(crate) fn may_remove(&self, entry: &Entry) -> Result<(), Error> {
        let person = &entry.record.person;
        if person == OWNER {
            let message = "`owner` is always there";
            return Err(Error::new(Code::FailedPrecondition, "owner_stays", message));
        }
        let devices = self.registry.count_of(person);
        if devices > 0 {
            let message = format!("{person} has {devices} devices that are not revoked");
            return Err(
                Error::new(Code::FailedPrecondition, "person_has_devices", message)
                    .hint("creel devices list, creel devices revoke NAME"),
            );
        }
        Ok(())
    }

    /// Commits a person, or its end, with its audit record and answer.
    pub(crate) async fn commit(
        &self,
        before: &Entry,
        after: Option<&Entry>,
        event: Event,
        slot: &Slot,
    ) -> Result<Person, Error> {
        let key = Kind::Person.key([&before.record.person]);
        let mut txn = Txn::new();
        txn.push_cmp(match before.rev {
            0 => Cmp::Absent(key.clone()),
            rev => Cmp::ModRev(key.clone(), rev),
        });
        let link = |sender: &SenderKey| Kind::SenderLink.key(sender.parts());
        let now = after.map(|after| senders_of(&after.record)).unwrap_or_default();
        let then = senders_of(&before.record);
        for gone in then.iter().filter(|one| !now.contains(one)) {
            txn.push_delete(link(gone));
        }
        for new in now.iter().filter(|one| !then.contains(one)) {
            txn.push_cmp(Cmp::Absent(link(new)));
            txn.push_put(link(new), before.record.person.clone());
        }
        let mut answer = match after {
            Some(after) => {
                txn.push_put(key, after.record.encode_to_vec());
                self.show(after)
            }
            None => {
                txn.push_delete(key);
                self.show(before)
            }
        };
        answer.etag.clear();
        slot.record(&mut txn, &answer);
        self.outbox.push(&mut txn, event)?;
        let rev = committed(self.store.commit(txn).await)?;
        self.outbox.committed();
        if after.is_some() {
            answer.etag = rev.to_string();
        }
        Ok(answer)
    }
}

/// Whether there is such a person.
///
/// # Errors
/// `NotFound` when there is none.
pub(crate) async fn require(store: &Store, person: &str) -> Result<(), Error> {
    match get(store, person).await? {
        Some(_) => Ok(()),
        None => Err(Error::not_found("person", person).hint("creel people add NAME")),
    }
}

async fn get(store: &Store, person: &str) -> Result<Option<Entry>, Error> {
    let entry = store
        .get(&Kind::Person.key([person]))
        .await
        .map_err(store_error)?;
    match entry {
        Some(entry) => Ok(Some(Entry {
            record: decoded(&entry.value)?,
            rev: entry.mod_rev,
        })),
        None => Ok((person == OWNER).then(owner)),
    }
}

fn owner() -> Entry {
    let record = PersonRecord {
        person: OWNER.to_owned(),
        ..PersonRecord::default()
    };
    Entry { record, rev: 0 }
}

fn decoded(bytes: &[u8]) -> Result<PersonRecord, Error> {
    PersonRecord::decode(bytes).map_err(|_| Error::internal("reading a person"))
}
