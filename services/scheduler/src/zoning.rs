//! The zone data in use, and when it is read again: governments change zones with weeks of notice, and a service
//! that has to be restarted for that fires at the wrong hour for somebody.

use std::sync::{Arc, PoisonError, RwLock};

use creel_schedule::Zones;

/// Cheap to clone; everyone sees the newest.
#[derive(Clone)]
pub(crate) struct Zoning {
    current: Arc<RwLock<Arc<Zones>>>,
    load: Arc<dyn Fn() -> Zones + Send + Sync>,
}

impl Zoning {
    /// Loads now, and later the same way.
    pub(crate) fn new(load: impl Fn() -> Zones + Send + Sync + 'static) -> Self {
        Self {
            current: Arc::new(RwLock::new(Arc::new(load()))),
            load: Arc::new(load),
        }
    }

    pub(crate) fn get(&self) -> Arc<Zones> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the sources again. `Some`: there is another version, which is in use from now on. Reads files.
    pub(crate) fn reload(&self) -> Option<Arc<Zones>> {
        let zones = Arc::new((self.load)());
        if zones.zone_data_version() == self.get().zone_data_version() {
            return None;
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&zones);
        Some(zones)
    }
}

impl std::fmt::Debug for Zoning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zoning({})", self.get().zone_data_version())
    }
}
