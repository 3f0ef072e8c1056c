//! Live connections of devices: counted, bounded, and closed when their device is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use creel_wire::DeviceId;
use tokio_util::sync::CancellationToken;

/// The live connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_per_device: u32,
    live: Mutex<BTreeMap<DeviceId, BTreeMap<u64, CancellationToken>>>,
}

/// One live connection; dropping it takes it out of the count.
#[derive(Debug)]
pub(crate) struct Live {
    connections: Connections,
    device: DeviceId,
    id: u64,
}

impl Connections {
    pub(crate) fn new(max_per_device: u32) -> Self {
        Self(Arc::new(Inner {
            max_per_device,
            live: Mutex::default(),
        }))
    }

    /// Takes a connection in; `None` when its device has too many.
    pub(crate) fn open(&self, device: &DeviceId, id: u64, close: CancellationToken) -> Option<Live> {
        let mut live = self.lock();
        let own = live.entry(device.clone()).or_default();
        if own.len() >= self.0.max_per_device as usize {
            return None;
        }
        own.insert(id, close);
        Some(Live {
            connections: self.clone(),
            device: device.clone(),
            id,
        })
    }

    /// Closes all connections of a device; how many there were.
    pub(crate) fn close(&self, device: &DeviceId) -> usize {
        let live = self.lock();
        let Some(own) = live.get(device) else { return 0 };
        own.values().for_each(CancellationToken::cancel);
        own.len()
    }

    /// Closes all connections of all devices.
    pub(crate) fn close_all(&self) -> usize {
        let live = self.lock();
        let all = live.values().flat_map(BTreeMap::values);
        all.map(CancellationToken::cancel).count()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().values().map(BTreeMap::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, BTreeMap<u64, CancellationToken>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = self.connections.lock();
        if let Some(own) = live.get_mut(&self.device) {
            own.remove(&self.id);
            if own.is_empty() {
                live.remove(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_per_device_counted_while_they_live_and_closed_together() {
        let connections = Connections::new(2);
        let (a, b) = (
            DeviceId::of_public_key(&[1; 32]),
            DeviceId::of_public_key(&[2; 32]),
        );
        let token = CancellationToken::new;
        let (first, second, other) = (token(), token(), token());
        let one = connections.open(&a, 1, first.clone()).unwrap();
        let _two = connections.open(&a, 2, second.clone()).unwrap();
        assert!(connections.open(&a, 3, token()).is_none(), "n + 1");
        let _three = connections.open(&b, 4, other.clone()).unwrap();
        assert_eq!(connections.count(), 3);
        drop(one);
        assert_eq!(connections.count(), 2);
        assert_eq!(connections.close(&a), 1);
        assert!(second.is_cancelled() && !first.is_cancelled() && !other.is_cancelled());
        assert_eq!(connections.close_all(), 2);
        assert!(other.is_cancelled());
    }
}
