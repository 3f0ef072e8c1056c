//! A changed `creel.toml`: noticed as it is written, and whom it concerns.

use std::{collections::BTreeSet, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, thread, time::Duration};

use creel_kit::{Config, Profile};
use creel_wire::ServiceName;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, Reader, WatchFlags},
    io::Errno,
};

use crate::events::{Event, Events};

/// Editors write in steps; what they leave after this is read.
const SETTLE: Duration = Duration::from_millis(100);

/// The services whose part of the config differs. All, for what all use.
pub(crate) fn concerned(old: &Config, new: &Config) -> BTreeSet<ServiceName> {
    // Taken apart by name: a new section does not compile before it is decided whom it concerns.
    let Config {
        gateway,
        identity,
        agent,
        backends,
        exec,
        network,
        endpoints,
        log,
    } = new;
    let mut names = BTreeSet::new();
    if *gateway != old.gateway {
        names.insert(ServiceName::Gateway);
    }
    if *identity != old.identity {
        names.insert(ServiceName::Identity);
    }
    if *agent != old.agent || *backends != old.backends || *exec != old.exec {
        names.insert(ServiceName::AgentRunner);
    }
    if *network != old.network || *endpoints != old.endpoints || *log != old.log {
        names.extend(ServiceName::ALL);
    }
    names
}

/// Tells of every change of `creel.toml` as an event, from a thread that sleeps in between.
///
/// # Errors
/// What the system said; no more inotify instances, for example.
pub(crate) fn follow(profile: &Profile, events: Events) -> io::Result<()> {
    let watcher = Watcher::new(&profile.config_file())?;
    // It ends with the process: nothing else could wake it.
    thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(move || {
            loop {
                match watcher.wait() {
                    Ok(()) if events.send_blocking(Event::ConfigFile) => {}
                    Ok(()) => return,
                    Err(error) => return tracing::warn!(%error, "creel.toml is no longer watched"),
                }
            }
        })?;
    Ok(())
}

/// Watches the directory of a file, since editors replace files.
#[derive(Debug)]
struct Watcher {
    inotify: OwnedFd,
    name: Vec<u8>,
}

impl Watcher {
    fn new(file: &Path) -> io::Result<Self> {
        let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(&inotify, dir, changes)?;
        Ok(Self {
            inotify,
            name: name.as_encoded_bytes().to_vec(),
        })
    }

    /// Returns when the file was changed and has settled.
    fn wait(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.read()? {
                thread::sleep(SETTLE);
                self.read()?;
                return Ok(());
            }
        }
    }

    /// Reads all there is; whether some of it was about the file.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let mut found = false;
        loop {
            match events.next() {
                Ok(event) => found |= event.file_name().is_some_and(|name| name.to_bytes() == self.name),
                Err(Errno::WOULDBLOCK) => return Ok(found),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("creel.toml")).unwrap()
    }

    #[test]
    fn only_whom_it_concerns_starts_anew() {
        let old = Config::default();
        let names = |text| concerned(&old, &config(text)).into_iter().collect::<Vec<_>>();
        assert_eq!(names(""), []);
        assert_eq!(names("[gateway]\nmax_connections = 5\n"), [ServiceName::Gateway]);
        assert_eq!(
            names("[agent]\nmax_running_turns = 5\n"),
            [ServiceName::AgentRunner]
        );
        assert_eq!(names("[exec]\nfloor = []\n"), [ServiceName::AgentRunner]);
        assert_eq!(names("[log]\nlevel = \"debug\"\n"), ServiceName::ALL);
    }

    #[test]
    fn a_file_that_is_written_or_replaced_is_noticed_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("creel.toml");
        let watcher = Watcher::new(&file).unwrap();
        fs::write(dir.path().join("other"), "x").unwrap();
        assert!(!watcher.read().unwrap());
        fs::write(&file, "x").unwrap();
        watcher.wait().unwrap();
        assert!(!watcher.read().unwrap());
        fs::write(dir.path().join("new"), "y").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        watcher.wait().unwrap();
        fs::remove_file(&file).unwrap();
        watcher.wait().unwrap();
    }
}
