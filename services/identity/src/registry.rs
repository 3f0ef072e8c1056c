//! The devices in memory and on disk: one writer, commits before anybody sees a change, and tells the
//! watchers of epochs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use creel_kit::{
    Deps,
    failure::store_error,
    idempotency::Slot,
    outbox::{Event, Outbox},
};
use creel_proto::identity::v1::{DeviceEpoch, DeviceEvent, DeviceEventKind, DeviceRecord, PairingRequest};
use creel_store::{Cmp, Outcome, Page, Store, Txn};
use creel_wire::{Code, DeviceId, Error, Scopes};
use prost::Message;
use tokio::sync::{Mutex, MutexGuard, broadcast};

use crate::{
    device::{self, Guard, MAX_DEVICES},
    store::Kind,
};

/// Epoch changes that a slow watcher may be behind; then it starts again with a snapshot.
const WATCH_BUFFER: usize = 256;

/// A device with the revision it was read at.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: DeviceRecord,
    pub(crate) rev: u64,
}

/// All devices. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    outbox: Outbox,
    devices: RwLock<BTreeMap<String, Entry>>,
    writing: Mutex<()>,
    epochs: broadcast::Sender<DeviceEpoch>,
    news: broadcast::Sender<Arc<DeviceEvent>>,
    sequence: AtomicU64,
}

/// The right to change devices: one at a time, so that what was judged is what is committed.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    registry: &'a Registry,
    _turn: MutexGuard<'a, ()>,
}

impl Registry {
    pub(crate) async fn open(deps: &Deps) -> Result<Self, creel_store::Error> {
        Self::load(deps.store.clone(), deps.outbox.clone()).await
    }

    pub(crate) async fn load(store: Store, outbox: Outbox) -> Result<Self, creel_store::Error> {
        let mut devices = BTreeMap::new();
        let mut range = Some(Kind::Device.range());
        while let Some(rest) = range {
            let page = store.scan(rest, Page::first(500)).await?;
            for entry in page.entries {
                match DeviceRecord::decode(entry.value.clone()) {
                    Ok(record) => {
                        devices.insert(
                            record.device_id.clone(),
                            Entry {
                                record,
                                rev: entry.mod_rev,
                            },
                        );
                    }
                    // One bad record shuts that device out, not the others.
                    Err(error) => {
                        tracing::error!(key = ?entry.key, %error, "a device's record can't be read")
                    }
                }
            }
            range = page.next;
        }
        let (epochs, _) = broadcast::channel(WATCH_BUFFER);
        let (news, _) = broadcast::channel(WATCH_BUFFER);
        let (devices, writing) = (RwLock::new(devices), Mutex::new(()));
        Ok(Self(Arc::new(Inner {
            store,
            outbox,
            devices,
            writing,
            epochs,
            news,
            sequence: AtomicU64::new(1),
        })))
    }

    /// The device of an id.
    pub(crate) fn get(&self, id: &DeviceId) -> Option<Entry> {
        self.read().get(id.as_str()).cloned()
    }

    /// The device of an id, of a prefix that fits one alone, or of a name among those not revoked.
    pub(crate) fn find(&self, text: &str) -> Result<Entry, Error> {
        let devices = self.read();
        if let Some(entry) = devices.get(text) {
            return Ok(entry.clone());
        }
        let named = devices
            .values()
            .find(|entry| entry.record.name == text && !device::is_revoked(&entry.record));
        if let Some(entry) = named {
            return Ok(entry.clone());
        }
        let mut fitting = devices
            .values()
            .filter(|entry| text.len() >= 8 && entry.record.device_id.starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) => Ok(entry.clone()),
            (Some(_), Some(_)) => Err(Error::invalid("device", "this prefix fits more than one device")),
            // A revoked device is still found by its name, so that revoking twice is no error.
            (None, _) => devices
                .values()
                .find(|entry| entry.record.name == text)
                .cloned()
                .ok_or_else(|| Error::not_found("device", text).hint("creel devices list")),
        }
    }

    /// All devices in order of id.
    pub(crate) fn list(&self) -> Vec<Entry> {
        self.read().values().cloned().collect()
    }

    /// What a person holds now: the scopes of its devices together; `None` when it has no device.
    pub(crate) fn grant_of(&self, person: &str) -> Option<Scopes> {
        let devices = self.read();
        let mut own = devices
            .values()
            .filter(|entry| entry.record.person == person && !device::is_revoked(&entry.record))
            .peekable();
        own.peek()?;
        Some(own.flat_map(|entry| device::scopes(&entry.record)).collect())
    }

    /// Changes of epochs from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<DeviceEpoch> {
        self.0.epochs.subscribe()
    }

    /// Changes of devices and requests from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<Arc<DeviceEvent>> {
        self.0.news.subscribe()
    }

    /// Tells those who watch.
    pub(crate) fn tell(
        &self,
        kind: DeviceEventKind,
        request: Option<PairingRequest>,
        device: Option<&Entry>,
    ) {
        let event = DeviceEvent {
            sequence: self.0.sequence.fetch_add(1, Ordering::Relaxed),
            kind: kind.into(),
            request,
            device: device.map(|entry| device::to_proto(&entry.record, entry.rev)),
        };
        // Nobody watching is fine.
        let _ = self.0.news.send(Arc::new(event));
    }

    /// Devices of a person that are not revoked.
    pub(crate) fn count_of(&self, person: &str) -> usize {
        let devices = self.read();
        let own = |entry: &&Entry| entry.record.person == person && !device::is_revoked(&entry.record);
        devices.values().filter(own).count()
    }

    /// Waits for the turn to change something.
    pub(crate) async fn write(&self) -> Writer<'_> {
        Writer {
            registry: self,
            _turn: self.0.writing.lock().await,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Entry>> {
        self.0.devices.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer<'_> {
    /// Whether no operator was ever let in here.
    pub(crate) fn is_empty(&self) -> bool {
        self.registry.read().is_empty()
    }

    /// Guards of a new device.
    pub(crate) fn admit(&self, id: &DeviceId, name: &str) -> Result<(), Guard> {
        let devices = self.registry.read();
        if let Some(entry) = devices.get(id.as_str()) {
            return Err(if device::is_revoked(&entry.record) {
                Guard::Revoked
            } else {
                Guard::KeyInUse
            });
        }
        let mut live = devices
            .values()
            .filter(|entry| !device::is_revoked(&entry.record));
        if live.clone().count() >= MAX_DEVICES {
            return Err(Guard::Full);
        }
        if live.any(|entry| entry.record.name == name) {
            return Err(Guard::NameInUse(name.to_owned()));
        }
        Ok(())
    }

    /// `name`, or with a number behind it, as is free.
    pub(crate) fn free_name(&self, name: &str) -> String {
        let devices = self.registry.read();
        let taken = |name: &str| {
            devices
                .values()
                .any(|e| e.record.name == name && !device::is_revoked(&e.record))
        };
        let numbered = |n: usize| {
            if n == 1 {
                name.to_owned()
            } else {
                format!("{name}-{n}")
            }
        };
        (1..=devices.len() + 1)
            .map(numbered)
            .find(|name| !taken(name))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Guards of a revocation.
    pub(crate) fn may_revoke(&self, id: &str) -> Result<(), Guard> {
        let devices = self.registry.read();
        let administers = |entry: &Entry| device::is_administrator(&entry.record);
        let others = devices
            .values()
            .any(|entry| entry.record.device_id != id && administers(entry));
        if devices.get(id).is_some_and(administers) && !others {
            Err(Guard::LastAdministrator)
        } else {
            Ok(())
        }
    }

    /// Commits a device with its audit record and, if there is a slot, its answer; then shows it. The
    /// answer is made of the entry as it will be (its revision is not known before, so etags in stored
    /// answers are empty).
    pub(crate) async fn commit<R: Message>(
        &self,
        after: DeviceRecord,
        event: Event,
        slot: &Slot,
        response: &R,
        more: impl FnOnce(&mut Txn),
    ) -> Result<Entry, Error> {
        let inner = &self.registry.0;
        let before = self.registry.read().get(&after.device_id).cloned();
        let key = Kind::Device.key([after.device_id.as_bytes()]);
        let mut txn = Txn::new();
        txn.push_cmp(match &before {
            Some(entry) => Cmp::ModRev(key.clone(), entry.rev),
            None => Cmp::Absent(key.clone()),
        });
        txn.push_put(key, after.encode_to_vec());
        let named = |name: &str| Kind::DeviceName.key([name.as_bytes()]);
        let old_name = before
            .as_ref()
            .filter(|e| !device::is_revoked(&e.record))
            .map(|e| e.record.name.as_str());
        let new_name = (!device::is_revoked(&after)).then_some(after.name.as_str());
        if old_name != new_name {
            if let Some(name) = old_name {
                txn.push_delete(named(name));
            }
            if let Some(name) = new_name {
                txn.push_cmp(Cmp::Absent(named(name)));
                txn.push_put(named(name), after.device_id.clone());
            }
        }
        slot.record(&mut txn, response);
        inner.outbox.push(&mut txn, event)?;
        more(&mut txn);
        let rev = match inner.store.commit(txn).await.map_err(store_error)? {
            Outcome::Committed { rev } => rev,
            Outcome::Conflict { .. } => {
                return Err(Error::new(
                    Code::Conflict,
                    "changed_meanwhile",
                    "the device changed meanwhile; try again",
                ));
            }
        };
        let entry = Entry { record: after, rev };
        let record = &entry.record;
        let epoch_changed = before.is_none_or(|before| before.record.epoch != record.epoch);
        inner
            .devices
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.device_id.clone(), entry.clone());
        inner.outbox.committed();
        if epoch_changed {
            let change = DeviceEpoch {
                device_id: record.device_id.clone(),
                epoch: record.epoch,
                state: record.state,
            };
            // Nobody watching is fine.
            let _ = inner.epochs.send(change);
        }
        self.registry.tell(DeviceEventKind::Changed, None, Some(&entry));
        Ok(entry)
    }
}
