//! A time zone under its IANA name, with its transitions at hand.

use std::fmt;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::calendar::civil_second;
use crate::segments::Segments;

/// A zone that exists under exactly this name. Made by [`crate::Zones::get`]; cloning shares it.
///
/// It is a snapshot: new zone data means new `Zones` and new `Zone`s, and schedules resolved again.
#[derive(Clone)]
pub struct Zone(Arc<Inner>);

struct Inner {
    name: Box<str>,
    zone: TimeZone,
    segments: Segments,
}

impl Zone {
    pub(crate) fn new(name: &str, zone: TimeZone) -> Zone {
        let segments = Segments::of(&zone);
        Zone(Arc::new(Inner {
            name: name.into(),
            zone,
            segments,
        }))
    }

    /// The IANA name, as `Europe/Berlin`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The zone for jiff.
    pub fn time_zone(&self) -> &TimeZone {
        &self.0.zone
    }

    /// An instant as the clocks of this zone show it.
    pub fn at(&self, instant: Timestamp) -> ZonedDateTime {
        instant.to_zoned_datetime(self.0.zone.clone())
    }

    /// The first instant at which a clock here has reached a reading: its first pass, or the first instant after
    /// the gap it lies in. Fractions of a second are dropped. `None` at the ends of time.
    pub fn instant(&self, reading: DateTime) -> Option<Timestamp> {
        let (second, _) = self.0.segments.instant_of(civil_second(reading));
        Timestamp::from_second(second).ok()
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.0.segments
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.0.zone == other.0.zone && self.0.name == other.0.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
