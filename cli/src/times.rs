//! Instants and durations as people read them: local times with their zone, rounded durations.

use jiff::{Timestamp, tz::TimeZone};

/// The clocks of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) zone: TimeZone,
    pub(crate) now: Timestamp,
}

impl Local {
    /// The zone of this machine; UTC where none is set.
    pub(crate) fn system(now: Timestamp) -> Self {
        Self {
            zone: TimeZone::system(),
            now,
        }
    }

    /// Its IANA name, or `None` where the machine has only rules (`TZ=CET-1CEST`, a copied file).
    pub(crate) fn zone_name(&self) -> Option<String> {
        if self.zone.is_unknown() {
            return Some("UTC".to_owned());
        }
        self.zone.iana_name().map(str::to_owned)
    }

    /// `Mon 23 Nov 07:00 CET`; with the year when it is not this one.
    pub(crate) fn show(&self, unix_ms: i64) -> String {
        self.format(unix_ms, "%H:%M %Z")
    }

    /// The same with seconds, for what happened.
    pub(crate) fn show_seconds(&self, unix_ms: i64) -> String {
        self.format(unix_ms, "%H:%M:%S %Z")
    }

    /// Of something that may never have been.
    pub(crate) fn show_opt(&self, unix_ms: Option<i64>) -> String {
        unix_ms.map_or_else(|| "-".to_owned(), |ms| self.show(ms))
    }

    /// How long ago, or how long until: `3m ago`, `in 2d`.
    pub(crate) fn distance(&self, unix_ms: i64) -> String {
        let ms = unix_ms.saturating_sub(self.now.as_millisecond());
        match ms {
            -999..=999 => "now".to_owned(),
            ..-999 => format!("{} ago", coarse(ms.unsigned_abs())),
            _ => format!("in {}", coarse(ms.unsigned_abs())),
        }
    }

    fn format(&self, unix_ms: i64, clock: &str) -> String {
        let Ok(instant) = Timestamp::from_millisecond(unix_ms) else {
            return "beyond the year 9999".to_owned();
        };
        let at = instant.to_zoned_datetime(self.zone.clone());
        let this_year = self.now.to_zoned_datetime(self.zone.clone()).year() == at.year();
        let date = if this_year { "%a %-d %b" } else { "%a %-d %b %Y" };
        let zone = if self.zone.is_unknown() {
            clock.replace("%Z", "UTC")
        } else {
            clock.to_owned()
        };
        at.strftime(&format!("{date} {zone}")).to_string()
    }
}

/// RFC 3339 in UTC, for programs.
pub(crate) fn rfc3339(unix_ms: i64) -> Option<String> {
    Timestamp::from_millisecond(unix_ms)
        .ok()
        .map(|instant| instant.to_string())
}

/// How long something took: `850ms`, `1.2s`, `3m10s`, `2h05m`, `3d04h`.
pub(crate) fn took(ms: i64) -> String {
    let ms = ms.max(0);
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A period in whole units, as it would be typed: `24 h`, `90 s`.
pub(crate) fn period(ms: i64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        // Days only from two on: "24 h" is what people say.
        if ms % size == 0 && ms >= size && (unit != "d" || ms >= 2 * size) {
            return format!("{} {unit}", ms / size);
        }
    }
    format!("{ms} ms")
}

/// One unit is enough for a distance.
fn coarse(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A Sunday morning in Berlin.
    pub(crate) fn berlin() -> Local {
        Local {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            now: "2026-11-22T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn instants_are_shown_on_the_clocks_of_the_machine() {
        let local = berlin();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        assert_eq!(local.show(at("2026-11-23T06:00:00Z")), "Mon 23 Nov 07:00 CET");
        assert_eq!(
            local.show(at("2027-07-01T06:00:00Z")),
            "Thu 1 Jul 2027 08:00 CEST"
        );
        assert_eq!(local.distance(at("2026-11-22T09:57:00Z")), "3m ago");
        assert_eq!(local.distance(at("2026-11-25T10:00:00Z")), "in 3d");
        assert_eq!(local.zone_name().as_deref(), Some("Europe/Berlin"));
        assert_eq!(
            rfc3339(at("2026-11-23T06:00:00.25Z")).as_deref(),
            Some("2026-11-23T06:00:00.25Z")
        );
        let nowhere = Local {
            zone: TimeZone::unknown(),
            ..local
        };
        assert_eq!(nowhere.zone_name().as_deref(), Some("UTC"));
        assert_eq!(nowhere.show(at("2026-11-23T06:00:00Z")), "Mon 23 Nov 06:00 UTC");
    }

    #[test]
    fn durations_are_short() {
        let cases = [
            (0, "0ms"),
            (850, "850ms"),
            (1_250, "1.2s"),
            (190_000, "3m10s"),
            (7_500_000, "2h05m"),
            (172_799_000, "47h59m"),
            (273_600_000, "3d04h"),
        ];
        for (ms, text) in cases {
            assert_eq!(took(ms), text);
        }
        let cases = [
            (86_400_000, "24 h"),
            (172_800_000, "2 d"),
            (1_800_000, "30 min"),
            (90_000, "90 s"),
            (5, "5 ms"),
        ];
        for (ms, text) in cases {
            assert_eq!(period(ms), text);
        }
    }
}
