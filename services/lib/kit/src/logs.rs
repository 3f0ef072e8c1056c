//! Logs: JSON lines to the service's file, rotated by size; human text when stderr is a terminal.

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    Layer as _, filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::Log;

/// Starts logging to `file`. Call once per process.
///
/// # Errors
/// When the file can't be opened or the filter can't be read.
pub fn init(config: &Log, file: &Path) -> anyhow::Result<()> {
    let writer = RotatingFile::open(file, u64::from(config.rotate_mib) << 20, config.keep)?;
    let filter: Targets = config.level.parse()?;
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
        .with_filter(filter.clone());
    let human = io::stderr().is_terminal().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_filter(filter)
    });
    tracing_subscriber::registry().with(json).with(human).try_init()?;
    Ok(())
}

/// A file that is renamed to `NAME.1` (and so on) when it is full.
#[derive(Debug, Clone)]
pub struct RotatingFile(Arc<Mutex<Rotating>>);

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: fs::File,
    size: u64,
    limit: u64,
    keep: u32,
}

impl RotatingFile {
    /// Opens `path` for appending, mode 0600.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path, limit: u64, keep: u32) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Rotating {
            path: path.to_owned(),
            file,
            size,
            limit,
            keep,
        }))))
    }
}

fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

impl Rotating {
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            let _ = fs::rename(numbered(n), numbered(n + 1)); // absent is fine
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?
        } else {
            fs::rename(&self.path, numbered(1))?
        }
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.size > 0 && inner.size + line.len() as u64 > inner.limit {
            inner.rotate()?;
        }
        inner.file.write_all(line)?;
        inner.size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_gives_way_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut file = RotatingFile::open(&path, 10, 2).unwrap();
        for line in ["one......\n", "two......\n", "three....\n", "four.....\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("a.jsonl").as_str(), read("a.jsonl.1").as_str()),
            ("four.....\n", "three....\n")
        );
        assert_eq!(read("a.jsonl.2"), "two......\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
