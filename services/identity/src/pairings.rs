//! Those who are not in yet: devices that wait (in memory and on disk), open nonces, bad proofs.
//!
//! Requests change only with the registry's [`Writer`] in hand, so that what was judged is what is
//! committed; nonces and counts live in memory alone and die with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use creel_kit::{
    Deps,
    failure::store_error,
    outbox::{Event, Outbox},
};
use creel_proto::identity::v1::{
    Declaration, DeviceEventKind, DeviceRecord, PairingReason, PairingRecord, PairingRequest,
    PairingRequired, PairingState, Surface,
};
use creel_proto::time;
use creel_store::{Cmp, Outcome, Store, Txn};
use creel_wire::{Code, DeviceId, Error, Source, phrase};
use prost::Message as _;

use crate::{
    declared::Declared,
    device,
    device_pairing::{self, Ask, Asked, Book, Limits, Waiting},
    failures::{Failures, Verdict},
    grants::Holder,
    guard::Guards,
    nonces::{self, Nonces},
    registry::{Registry, Writer},
    seal,
    store::Kind,
};

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pairings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    outbox: Outbox,
    registry: Registry,
    limits: Limits,
    legacy_all: bool,
    root_fingerprint: [u8; 32],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    waiting: BTreeMap<String, Entry>,
    nonces: Nonces,
    failures: Failures,
}

/// A request with the revision it was read at.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: PairingRecord,
    pub(crate) rev: u64,
    pub(crate) last_asked_ms: i64,
}

/// A device asks to be let in, its key proven.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) id: &'a DeviceId,
    pub(crate) public_key: [u8; 32],
    pub(crate) declaration: &'a Declaration,
    pub(crate) declared: &'a Declared,
    pub(crate) legacy: bool,
    pub(crate) source: Source,
    /// What it is, if it is let in already.
    pub(crate) known: Option<&'a DeviceRecord>,
}

impl Pairings {
    pub(crate) async fn open(
        deps: &Deps,
        registry: &Registry,
        root_fingerprint: [u8; 32],
    ) -> Result<Self, creel_store::Error> {
        let config = &deps.config.identity;
        let mut state = State::default();
        let limits = Limits::with_life(i64::from(config.pairing_minutes) * 60_000);
        let most = 2 * (limits.strangers + limits.known);
        for entry in deps.store.scan_all(Kind::Pairing.range(), most).await?.entries {
            match PairingRecord::decode(entry.value.clone()) {
                Ok(record) => {
                    state.book.put(
                        &record.pairing_id,
                        waiting(&record, config.legacy_devices_may_administer),
                    );
                    let last_asked_ms = record.requested_at_unix_ms;
                    let id = record.pairing_id.clone();
                    let rev = entry.mod_rev;
                    state.waiting.insert(
                        id,
                        Entry {
                            record,
                            rev,
                            last_asked_ms,
                        },
                    );
                }
                // It can ask again.
                Err(error) => tracing::error!(key = ?entry.key, %error, "a pairing request can't be read"),
            }
        }
        Ok(Self(Arc::new(Inner {
            store: deps.store.clone(),
            outbox: deps.outbox.clone(),
            registry: registry.clone(),
            limits,
            legacy_all: config.legacy_devices_may_administer,
            root_fingerprint,
            state: Mutex::new(state),
        })))
    }

    /// What kind of holder a device would be.
    pub(crate) fn holder(&self, role: creel_proto::identity::v1::Role, legacy: bool) -> Holder {
        Holder::of(role, legacy && !self.0.legacy_all)
    }

    /// SHA-256 of the root certificate.
    pub(crate) fn root_fingerprint(&self) -> &[u8; 32] {
        &self.0.root_fingerprint
    }

    /// Gives a connection a nonce; when it ends.
    pub(crate) fn open_nonce(&self, connection: &str, nonce: String, now_ms: i64) -> Result<i64, Error> {
        self.lock()
            .nonces
            .open(connection, nonce, now_ms)
            .map_err(|until_ms| {
                let wait = (until_ms - now_ms).max(0);
                let message =
                    format!("too many connections prove themselves at once; try again in {wait} ms");
                Error::new(Code::ResourceExhausted, "too_many_challenges", message)
            })
    }

    /// Uses up a connection's nonce.
    pub(crate) fn redeem_nonce(
        &self,
        connection: &str,
        said: &str,
        now_ms: i64,
    ) -> Result<(), nonces::Refused> {
        self.lock().nonces.redeem(connection, said, now_ms, Guards::all())
    }

    /// Counts a bad proof.
    pub(crate) fn failed(&self, device: &DeviceId, now_ms: i64) -> Verdict {
        self.lock().failures.failed(device.as_str(), now_ms)
    }

    /// Takes a request in, or finds the one that waits. Durable when it answers.
    pub(crate) async fn ask(
        &self,
        writer: &Writer<'_>,
        asking: Asking<'_>,
        now_ms: i64,
    ) -> Result<Entry, Error> {
        self.sweep(writer, now_ms).await?;
        let wants = self
            .holder(asking.declared.role, asking.legacy)
            .most(&asking.declared.wants, Guards::all());
        let ask = Ask {
            device: asking.id.to_string(),
            network: asking.source.network(),
            known: asking.known.is_some(),
            wants,
        };
        let asked = self
            .lock()
            .book
            .ask(&ask, &self.0.limits, now_ms, Guards::all())?;
        let (id, waiting, before) = match asked {
            Asked::Same(id) => {
                let mut state = self.lock();
                let entry = state
                    .waiting
                    .get_mut(&id)
                    .ok_or_else(|| Error::internal("finding the request"))?;
                entry.last_asked_ms = now_ms;
                return Ok(entry.clone());
            }
            Asked::New(waiting) => (uuid::Uuid::now_v7().to_string(), waiting, None),
            Asked::Changed(id, waiting) => {
                let before = self.lock().waiting.get(&id).cloned();
                (id, waiting, before)
            }
        };
        let record = self.record(&id, &asking, &waiting, before.as_ref());
        let key = Kind::Pairing.key([id.as_bytes()]);
        let mut txn = Txn::new();
        txn.push_cmp(match &before {
            Some(entry) => Cmp::ModRev(key.clone(), entry.rev),
            None => Cmp::Absent(key.clone()),
        });
        txn.push_put(key, record.encode_to_vec());
        let action = if before.is_some() {
            "pairing.changed"
        } else {
            "pairing.requested"
        };
        let event = Event::new(action, format!("device/{}", asking.id), format!("pairing/{id}"))
            .with("role", crate::declared::role_word(asking.declared.role))
            .with("scopes", asking.declaration.scopes.join(" "))
            .with("commands", record_commands(&record).join(" "))
            .with("from", asking.source);
        self.0.outbox.push(&mut txn, event)?;
        let rev = committed(self.0.store.commit(txn).await)?;
        self.0.outbox.committed();
        let entry = Entry {
            record,
            rev,
            last_asked_ms: now_ms,
        };
        let mut state = self.lock();
        state.book.put(&id, waiting);
        state.waiting.insert(id, entry.clone());
        drop(state);
        self.tell(DeviceEventKind::Requested, &entry, PairingState::Pending);
        Ok(entry)
    }

    fn record(
        &self,
        id: &str,
        asking: &Asking<'_>,
        waiting: &Waiting,
        before: Option<&Entry>,
    ) -> PairingRecord {
        let (nonce, phrase) = match before {
            Some(before) => (before.record.phrase_nonce.clone(), before.record.phrase.clone()),
            None => {
                let nonce: [u8; 16] = rand::random();
                let phrase = phrase::phrase(&asking.public_key, &self.0.root_fingerprint, &nonce);
                (nonce.to_vec(), phrase)
            }
        };
        let reason = match asking.known {
            None => PairingReason::NotPaired,
            Some(known) if waiting.wants.scopes.is_subset(&device::scopes(known)) => {
                PairingReason::SurfaceUpgrade
            }
            Some(_) => PairingReason::ScopeUpgrade,
        };
        let mut declaration = asking.declaration.clone();
        declaration.role = asking.declared.role.into();
        if asking.legacy {
            // Shown as it would be granted: to the original's clients one scope stands for several.
            declaration.scopes = seal::texts(&waiting.wants.scopes);
        }
        PairingRecord {
            pairing_id: id.to_owned(),
            device_id: asking.id.to_string(),
            public_key: asking.public_key.to_vec(),
            declared: Some(declaration),
            phrase,
            phrase_nonce: nonce,
            requested_at_unix_ms: waiting.requested_at_ms,
            expires_at_unix_ms: waiting.expires_at_ms,
            remote_address: asking.source.to_string(),
            source: waiting.network.clone(),
            legacy: asking.legacy,
            reason: reason.into(),
            known: asking.known.is_some(),
        }
    }

    /// Those that wait now, oldest first.
    pub(crate) fn list(&self, now_ms: i64) -> Vec<Entry> {
        let state = self.lock();
        let live = |entry: &&Entry| now_ms < entry.record.expires_at_unix_ms;
        let mut list: Vec<_> = state.waiting.values().filter(live).cloned().collect();
        list.sort_by_key(|entry| (entry.record.requested_at_unix_ms, entry.record.pairing_id.clone()));
        list
    }

    /// The request of an id, of an end of it that fits one alone, of a device's id, or of a phrase; it must be
    /// open to a decision now.
    pub(crate) fn find(&self, text: &str, now_ms: i64) -> Result<(Entry, Waiting), Error> {
        let words = phrase::normalise(text);
        let state = self.lock();
        let fits = |entry: &&Entry| {
            let record = &entry.record;
            let device = text.len() >= SHORTEST_END && record.device_id.starts_with(text);
            is_end_of(text, &record.pairing_id) || device || record.phrase == words
        };
        let mut fitting = state.waiting.values().filter(fits);
        let entry = match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("pairing", "this fits more than one request")
                    .hint("creel devices requests; give more of the id"));
            }
            (Some(entry), None) => entry.clone(),
            (None, _) => return Err(device_pairing::Refused::Gone.into()),
        };
        let waiting = state
            .book
            .decide(&entry.record.pairing_id, now_ms, Guards::all())?;
        Ok((entry, waiting.clone()))
    }

    /// Adds a request's end to the transaction of its decision. Whoever was faster makes it conflict.
    pub(crate) fn close(&self, txn: &mut Txn, entry: &Entry) {
        let key = Kind::Pairing.key([entry.record.pairing_id.as_bytes()]);
        txn.push_cmp(Cmp::ModRev(key.clone(), entry.rev));
        txn.push_delete(key);
    }

    /// Forgets a request whose end is durable, and tells it.
    pub(crate) fn closed(&self, entry: &Entry, kind: DeviceEventKind, state: PairingState) {
        let mut inner = self.lock();
        inner.book.remove(&entry.record.pairing_id);
        inner.waiting.remove(&entry.record.pairing_id);
        drop(inner);
        self.tell(kind, entry, state);
    }

    /// The request that a device has, over or not; for whoever lets it in another way.
    pub(crate) fn of_device(&self, id: &DeviceId) -> Option<Entry> {
        let state = self.lock();
        let pairing = state.book.of_device(id.as_str())?;
        state.waiting.get(pairing).cloned()
    }

    /// Ends requests that waited too long.
    pub(crate) async fn sweep(&self, _writer: &Writer<'_>, now_ms: i64) -> Result<usize, Error> {
        let ended: Vec<Entry> = {
            let state = self.lock();
            let ids = state.book.ended(now_ms);
            ids.iter()
                .filter_map(|id| state.waiting.get(id).cloned())
                .collect()
        };
        for entry in &ended {
            let mut txn = Txn::new();
            self.close(&mut txn, entry);
            let object = format!("pairing/{}", entry.record.pairing_id);
            self.0.outbox.push(
                &mut txn,
                Event::new("pairing.expired", "service/identity", object),
            )?;
            committed(self.0.store.commit(txn).await)?;
            self.0.outbox.committed();
            self.closed(entry, DeviceEventKind::Expired, PairingState::Expired);
        }
        Ok(ended.len())
    }

    /// A request as it is shown.
    pub(crate) fn show(&self, entry: &Entry, state: PairingState) -> PairingRequest {
        let record = &entry.record;
        let held = record
            .known
            .then(|| record.device_id.parse().ok())
            .flatten()
            .and_then(|id| self.0.registry.get(&id));
        PairingRequest {
            pairing_id: record.pairing_id.clone(),
            device_id: record.device_id.clone(),
            declared: record.declared.clone(),
            phrase: record.phrase.clone(),
            requested_at: Some(time::timestamp(record.requested_at_unix_ms)),
            expires_at: Some(time::timestamp(record.expires_at_unix_ms)),
            last_asked_at: Some(time::timestamp(entry.last_asked_ms)),
            state: state.into(),
            remote_address: record.remote_address.clone(),
            legacy: record.legacy,
            reason: record.reason,
            held_scopes: held
                .as_ref()
                .map(|held| held.record.scopes.clone())
                .unwrap_or_default(),
            held_surface: held.map(|held| Surface {
                caps: held.record.caps,
                commands: held.record.commands,
                permissions: held.record.permissions,
            }),
            etag: entry.rev.to_string(),
        }
    }

    fn tell(&self, kind: DeviceEventKind, entry: &Entry, state: PairingState) {
        let device = entry
            .record
            .device_id
            .parse()
            .ok()
            .and_then(|id| self.0.registry.get(&id));
        self.0
            .registry
            .tell(kind, Some(self.show(entry, state)), device.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a device that waits is told.
pub(crate) fn required(entry: &Entry) -> PairingRequired {
    PairingRequired {
        pairing_id: entry.record.pairing_id.clone(),
        phrase: entry.record.phrase.clone(),
        expires_at: Some(time::timestamp(entry.record.expires_at_unix_ms)),
        reason: entry.record.reason,
        phrase_nonce: entry.record.phrase_nonce.clone(),
    }
}

/// The revision of a commit that must not lose a race: the writer's turn rules them out.
pub(crate) fn committed(outcome: Result<Outcome, creel_store::Error>) -> Result<u64, Error> {
    match outcome.map_err(store_error)? {
        Outcome::Committed { rev } => Ok(rev),
        Outcome::Conflict { .. } => {
            let message = "it changed meanwhile; try again";
            Err(Error::new(Code::Conflict, "changed_meanwhile", message))
        }
    }
}

fn record_commands(record: &PairingRecord) -> Vec<String> {
    let surface = record
        .declared
        .as_ref()
        .and_then(|declared| declared.surface.as_ref());
    surface
        .map(|surface| surface.commands.clone())
        .unwrap_or_default()
}

/// What the machine keeps of a stored request.
fn waiting(record: &PairingRecord, legacy_all: bool) -> Waiting {
    let declaration = record.declared.clone().unwrap_or_default();
    let holder = Holder::of(declaration.role(), record.legacy && !legacy_all);
    // It was checked before it was stored; what can't be read any more is not granted.
    let wants = crate::declared::check(&declaration, None, true)
        .map(|declared| holder.most(&declared.wants, Guards::all()))
        .unwrap_or_default();
    Waiting {
        device: record.device_id.clone(),
        network: record.source.clone(),
        known: record.known,
        wants,
        requested_at_ms: record.requested_at_unix_ms,
        expires_at_ms: record.expires_at_unix_ms,
    }
}
/// The fewest characters that name an id.
const SHORTEST_END: usize = 8;

/// Whether a text is the beginning or the end of an id: those made within a minute begin alike, so that what is shown
/// for short is their end.
pub(crate) fn is_end_of(text: &str, id: &str) -> bool {
    text.len() >= SHORTEST_END && (id.starts_with(text) || id.ends_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_by_either_end() {
        let id = "01a22095-f514-7188-a637-3b10ff1b462f";
        for text in [id, "01a22095", "3b10ff1b462f", "ff1b462f"] {
            assert!(is_end_of(text, id), "{text}");
        }
        // Too short to be meant, in the middle, of another one.
        for text in ["", "f1b462f", "7188-a637", "3b10ff1b4620"] {
            assert!(!is_end_of(text, id), "{text}");
        }
    }
}
