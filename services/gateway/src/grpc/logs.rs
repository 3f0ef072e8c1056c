//! `LogService`: the log files of all services, their end first, then what is added.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use creel_kit::{Deps, Profile};
use creel_proto::gateway::v1::{LogLine, TailLogsRequest, log_service_server::LogService};
use creel_wire::{Error, ServiceName, authz};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const MAX_LINES: i32 = 10_000;
/// The end of a file that is searched for its last lines, in bytes.
const TAIL_BYTES: u64 = 4 << 20;
/// Files are looked at so often while somebody follows.
const POLL: Duration = Duration::from_millis(250);
/// A line is never longer, in bytes: the rest is cut off.
const MAX_LINE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Logs {
    profile: Profile,
    drain: CancellationToken,
}

impl Logs {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            profile: deps.profile.clone(),
            drain: deps.drain.clone(),
        }
    }
}

/// How far a file was read.
#[derive(Debug, Default)]
struct Position {
    inode: u64,
    offset: u64,
}

#[tonic::async_trait]
impl LogService for Logs {
    type TailStream = ReceiverStream<Result<LogLine, Status>>;

    async fn tail(&self, request: Request<TailLogsRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (_, request) = authz::split(request)?;
        let count = match request.lines {
            0 => 100,
            lines @ 1..=MAX_LINES => usize::try_from(lines).unwrap_or(100),
            _ => return Err(Error::invalid("lines", format!("from 1 to {MAX_LINES}")).into()),
        };
        let services: Vec<ServiceName> = if request.service.is_empty() {
            ServiceName::ALL.to_vec()
        } else {
            vec![
                request
                    .service
                    .parse()
                    .map_err(|error| Error::invalid("service", format!("{error}")))?,
            ]
        };
        let files: BTreeMap<ServiceName, PathBuf> = services
            .iter()
            .map(|service| (*service, self.profile.log_file(*service)))
            .collect();
        let (sender, receiver) = mpsc::channel(64);
        let (follow, drain) = (request.follow, self.drain.clone());
        tokio::spawn(async move {
            let reading = send_lines(files, count, follow, &sender);
            tokio::select! {
                () = drain.cancelled() => {}
                () = sender.closed() => {}
                outcome = reading => if let Err(error) = outcome {
                    tracing::warn!(%error, "log can't be read");
                    let _ = sender.send(Err(Error::internal("reading the log").into())).await;
                },
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn send_lines(
    files: BTreeMap<ServiceName, PathBuf>,
    count: usize,
    follow: bool,
    sender: &mpsc::Sender<Result<LogLine, Status>>,
) -> io::Result<()> {
    let mut positions: BTreeMap<ServiceName, Position> = BTreeMap::new();
    let mut last = Vec::new();
    for (service, path) in &files {
        let (lines, position) = tail(path, count)?;
        positions.insert(*service, position);
        last.extend(lines.into_iter().map(|json| (stamp(&json), *service, json)));
    }
    // Of several files: in order of time.
    last.sort();
    let skip = last.len().saturating_sub(count);
    for (_, service, json) in last.into_iter().skip(skip) {
        if sender
            .send(Ok(LogLine {
                service: service.to_string(),
                json,
            }))
            .await
            .is_err()
        {
            return Ok(());
        }
    }
    if !follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(POLL).await;
        for (service, path) in &files {
            for json in added(path, positions.entry(*service).or_default())? {
                if sender
                    .send(Ok(LogLine {
                        service: service.to_string(),
                        json,
                    }))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

fn stamp(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .ok()
        .and_then(|line| {
            line.get("timestamp")
                .and_then(|stamp| stamp.as_str().map(str::to_owned))
        })
        .unwrap_or_default()
}

/// The last lines of a file, and where it ends. A file that isn't there has none.
fn tail(path: &Path, count: usize) -> io::Result<(Vec<String>, Position)> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((vec![], Position::default())),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let start = metadata.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let (lines, used) = whole_lines(&bytes);
    let skip = lines.len().saturating_sub(count);
    let position = Position {
        inode: metadata.ino(),
        offset: start + used as u64,
    };
    Ok((lines.into_iter().skip(skip).collect(), position))
}

/// What was added since; a rotated file is read from its start.
fn added(path: &Path, position: &mut Position) -> io::Result<Vec<String>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.ino() != position.inode || metadata.len() < position.offset {
        *position = Position {
            inode: metadata.ino(),
            offset: 0,
        };
    }
    if metadata.len() == position.offset {
        return Ok(vec![]);
    }
    file.seek(SeekFrom::Start(position.offset))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let (lines, used) = whole_lines(&bytes);
    // A line longer than all that is read at once would never end: it is passed over.
    let used = if used == 0 && bytes.len() as u64 == TAIL_BYTES {
        bytes.len()
    } else {
        used
    };
    position.offset += used as u64;
    Ok(lines)
}

/// The lines that end with a newline, and how many bytes they take.
fn whole_lines(bytes: &[u8]) -> (Vec<String>, usize) {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = bytes[..end]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]).into_owned())
        .collect();
    (lines, end)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_end_is_read_then_what_is_added_and_a_rotated_file_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        assert_eq!(tail(&path, 5).unwrap().0.len(), 0);
        fs::write(&path, "1\n2\n3\nunfinished").unwrap();
        let (lines, mut position) = tail(&path, 2).unwrap();
        assert_eq!(lines, ["2", "3"]);
        assert!(added(&path, &mut position).unwrap().is_empty());
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b" line\n5\n")
            .unwrap();
        assert_eq!(added(&path, &mut position).unwrap(), ["unfinished line", "5"]);
        fs::rename(&path, dir.path().join("a.jsonl.1")).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(added(&path, &mut position).unwrap(), ["new"]);
    }
}
