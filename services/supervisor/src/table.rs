//! What `creeld up` shows: a live table on a terminal, plain lines otherwise.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use creel_kit::profile::ChildStatus;
use jiff::{Timestamp, tz::TimeZone};

/// The memory column is looked at so often, on a terminal only.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);

/// Where it is shown.
#[derive(Debug)]
pub(crate) struct View {
    /// A terminal.
    live: bool,
    color: bool,
    /// Lines of the table that stand on the terminal, to be written over.
    standing: usize,
    /// What was shown last.
    shown: Vec<Row>,
    zone: TimeZone,
}

/// A service, and its memory if that is known.
pub(crate) type Row = (ChildStatus, Option<Memory>);

/// Memory of a process, for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Its share: what it has alone, and of what is shared its part. In KiB.
    Proportional(u64),
    /// What is resident, shared or not: the share is not told for processes that hide themselves. In KiB.
    Resident(u64),
}

impl View {
    /// A view on this process's stdout.
    pub(crate) fn new() -> Self {
        let live = io::stdout().is_terminal();
        let color = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self {
            live,
            color,
            standing: 0,
            shown: Vec::new(),
            // Only the table of a terminal has times; to find the zone costs more memory than all else here.
            zone: if live { TimeZone::system() } else { TimeZone::UTC },
        }
    }

    /// Whether there is a terminal, on which the memory is worth looking at again and again.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the terminal there was is gone.
    pub(crate) fn has_lost_terminal(&self) -> bool {
        self.live && !io::stdout().is_terminal()
    }

    /// Shows a line above the table.
    pub(crate) fn note(&mut self, line: &str) {
        let table = if self.standing == 0 {
            String::new()
        } else {
            self.table(&self.shown)
        };
        print(&format!("{}{line}\n{table}", self.erased()));
    }

    /// Shows how the services are: on a terminal all of them, else a line for each that changed.
    pub(crate) fn show(&mut self, rows: Vec<Row>) {
        if self.live {
            print(&format!("{}{}", self.erased(), self.table(&rows)));
            self.standing = rows.len() + 1;
        } else {
            let news = rows.iter().map(|(row, _)| row).filter(|row| self.is_news(row));
            print(&news.map(line_of).collect::<String>());
        }
        self.shown = rows;
    }

    /// Nobody needs a line for each start: it is followed by another, for how it went.
    fn is_news(&self, row: &ChildStatus) -> bool {
        let said = self.shown.iter().find(|(old, _)| old.name == row.name);
        let changed = said.is_none_or(|(old, _)| old.state != row.state || old.restarts != row.restarts);
        changed && row.state != "starting"
    }

    /// Takes the table away.
    pub(crate) fn close(&mut self) {
        print(&self.erased());
        self.standing = 0;
        self.live = false;
    }

    /// Moves back over the table and clears it.
    fn erased(&self) -> String {
        if self.standing == 0 {
            String::new()
        } else {
            format!("\x1b[{}A\r\x1b[J", self.standing)
        }
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut lines = vec![self.styled(
            Style::new().dimmed(),
            &format!(
                "{:<14}{:<10}{:<10}{:<10}{:<10}",
                "SERVICE", "STATE", "SINCE", "RESTARTS", "MEMORY"
            ),
        )];
        for (row, memory) in rows {
            let since = Timestamp::from_millisecond(row.since_unix_ms).unwrap_or_default();
            let since = since
                .to_zoned_datetime(self.zone.clone())
                .strftime("%H:%M:%S")
                .to_string();
            let state = self.styled(style_of(&row.state), &format!("{:<10}", row.state));
            let memory = memory.map_or_else(String::new, |memory| memory.to_string());
            lines.push(format!(
                "{:<14}{state}{since:<10}{:<10}{memory:<10}{}",
                row.name, row.restarts, row.detail
            ));
        }
        // Without wrapping: a wrapped line would take two, and moving back over the table would miss it.
        lines
            .iter()
            .map(|line| format!("\x1b[?7l{line}\x1b[?7h\n"))
            .collect()
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Proportional(kib) | Self::Resident(kib)) = *self;
        // Of a number of KiB below 2^52 every digit counts; there is no machine with more.
        let mib = format!("{}.{} MiB", kib / 1_024, kib % 1_024 * 10 / 1_024);
        match self {
            Self::Proportional(_) => f.pad(&mib),
            Self::Resident(_) => f.pad(&format!("≤{mib}")),
        }
    }
}

/// Memory of a process, if there is one.
pub(crate) fn memory_of(pid: u32) -> Option<Memory> {
    if pid == 0 {
        return None;
    }
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    if let Some(kib) = read("smaps_rollup").and_then(|text| proportional_kib(&text)) {
        return Some(Memory::Proportional(kib));
    }
    let pages: u64 = read("statm")?.split(' ').nth(1)?.parse().ok()?;
    Some(Memory::Resident(
        pages * rustix::param::page_size() as u64 / 1_024,
    ))
}

fn proportional_kib(rollup: &str) -> Option<u64> {
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}

fn line_of(row: &ChildStatus) -> String {
    let detail = if row.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", row.detail)
    };
    format!("{} {}{detail}\n", row.name, row.state)
}

fn style_of(state: &str) -> Style {
    let color = match state {
        "ready" => AnsiColor::Green,
        "failed" => AnsiColor::Red,
        "backoff" | "unready" | "waiting" => AnsiColor::Yellow,
        _ => return Style::new(),
    };
    Style::new().fg_color(Some(color.into()))
}

/// A terminal that is gone, or a pipe whose reader is, must not stop the supervisor.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: &str) -> ChildStatus {
        ChildStatus {
            name: name.to_owned(),
            state: state.to_owned(),
            detail: "because".to_owned(),
            since_unix_ms: 1_000,
            pid: 0,
            restarts: 2,
        }
    }

    #[test]
    fn a_table_has_a_line_per_service_and_never_wraps() {
        let view = View {
            live: true,
            color: false,
            standing: 0,
            shown: vec![],
            zone: TimeZone::UTC,
        };
        let text = view.table(&[
            (row("identity", "ready"), Some(Memory::Proportional(1_536))),
            (row("agent-runner", "backoff"), None),
        ]);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_start_matches("\x1b[?7l").trim_end_matches("\x1b[?7h"))
            .collect();
        assert_eq!(lines[0], "SERVICE       STATE     SINCE     RESTARTS  MEMORY    ");
        assert_eq!(
            lines[1],
            "identity      ready     00:00:01  2         1.5 MiB   because"
        );
        assert_eq!(
            lines[2],
            "agent-runner  backoff   00:00:01  2                   because"
        );
    }

    #[test]
    fn the_share_is_read_from_the_rollup() {
        assert_eq!(
            proportional_kib("00400000-7ff [rollup]\nRss:  9000 kB\nPss:  1300 kB\nPss_Dirty: 4 kB\n"),
            Some(1_300)
        );
        assert!(matches!(
            memory_of(std::process::id()),
            Some(Memory::Proportional(_) | Memory::Resident(_))
        ));
        assert_eq!(memory_of(0), None);
    }
}
