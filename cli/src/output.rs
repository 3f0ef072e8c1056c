//! What the person, or the program, sees: data on stdout, everything else on stderr, nothing from
//! outside that could steer a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width, presets};
use creel_wire::{Code, Error, error::printable};
use serde::Serialize;

use crate::failure::Failure;

/// The longest cell of a table, in characters.
const MAX_CELL: usize = 256;

/// The longest message of an error shown, in characters a line.
const MAX_ERROR: usize = 4_096;

/// Stdout and stderr, and how to write on them.
pub(crate) struct Out {
    json: bool,
    terminal: bool,
    stdout: AutoStream<io::Stdout>,
    stderr: AutoStream<io::Stderr>,
}

/// An error as JSON on stderr.
#[derive(Debug, Serialize)]
struct ErrorView<'a> {
    code: &'a str,
    reason: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Out {
    /// For a command. `json`: for programs.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal(),
            stdout: anstream::stdout(),
            stderr: anstream::stderr(),
        }
    }

    /// For arguments that could not be read, so that `--json` has to be looked for by hand.
    pub(crate) fn for_errors() -> Self {
        Self::new(
            std::env::args_os()
                .take_while(|arg| arg != "--")
                .any(|arg| arg == "--json"),
        )
    }

    /// Whether programs read it.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// One line of data.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        let shown = self.safe(text);
        writeln!(self.stdout, "{shown}").map_err(written)
    }

    /// Data as it comes, without a line's end.
    pub(crate) fn piece(&mut self, text: &str) -> Result<(), Failure> {
        let shown = self.safe(text);
        write!(self.stdout, "{shown}")
            .and_then(|()| self.stdout.flush())
            .map_err(written)
    }

    /// One JSON value, for people's eyes too.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::internal("JSON", &error))?;
        writeln!(self.stdout, "{}", ascii_controls(&text)).map_err(written)
    }

    /// One JSON value of many, on one line.
    pub(crate) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::internal("JSON", &error))?;
        writeln!(self.stdout, "{}", ascii_controls(&text))
            .and_then(|()| self.stdout.flush())
            .map_err(written)
    }

    /// A table: with a rule under its header on a terminal, aligned columns and no more elsewhere.
    pub(crate) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let width = self
            .terminal
            .then(|| rustix::termios::tcgetwinsize(io::stdout()).ok())
            .flatten();
        let text = render_table(
            header,
            rows,
            width.map(|size| size.ws_col).filter(|columns| *columns > 0),
        );
        writeln!(self.stdout, "{text}").map_err(written)
    }

    /// A remark beside the data; programs don't get it.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.json {
            // Stderr that can't be written to leaves nobody to tell.
            let _ = writeln!(self.stderr, "{}", lines(text));
        }
    }

    /// Asks before something that can't be undone.
    ///
    /// # Errors
    /// When the answer is no, or nobody is there to answer.
    pub(crate) fn confirm(&mut self, yes: bool, question: &str) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if self.json || !io::stdin().is_terminal() {
            let error = Error::new(
                Code::InvalidArgument,
                "confirmation_needed",
                format!("nobody is there to answer: {question}"),
            );
            return Err(error.hint("add --yes").into());
        }
        let _ = write!(self.stderr, "{} [y/N] ", lines(question));
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::internal("reading the answer", &error))?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Error::new(Code::Cancelled, "declined", "nothing was changed").into())
        }
    }

    /// Whether a person is there to answer.
    pub(crate) fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal()
    }

    /// Asks for leave to go on; yes unless the answer is no.
    pub(crate) fn ask(&mut self, question: &str) -> Result<bool, Failure> {
        let _ = write!(self.stderr, "{} [Y/n] ", lines(question));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        let bytes = read.map_err(|error| Failure::internal("reading the answer", &error))?;
        // The end of the input is no answer.
        Ok(bytes > 0 && !matches!(answer.trim().to_ascii_lowercase().as_str(), "n" | "no"))
    }

    /// Reads a line that is not shown while it is typed.
    pub(crate) fn ask_hidden(&mut self, question: &str) -> Result<String, Failure> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(before) = &before {
            let _ = write!(self.stderr, "{} ", lines(question));
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            // A terminal that can't be told shows the code: worse, but no reason not to go on.
            let _ = tcsetattr(&stdin, OptionalActions::Flush, &quiet);
        }
        let mut answer = String::new();
        let read = stdin.lock().read_line(&mut answer);
        if let Some(before) = &before {
            let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
            let _ = writeln!(self.stderr);
        }
        read.map_err(|error| Failure::internal("reading the answer", &error))?;
        Ok(answer.trim().to_owned())
    }

    /// Tells a failure and gives its exit status.
    pub(crate) fn report(&mut self, failure: &Failure) -> u8 {
        let told = match failure {
            Failure::Told(told) => told,
            Failure::Exit(status) => return *status,
            Failure::Closed => return 0,
        };
        let error = &told.error;
        // As above: a stderr that is gone leaves only the status.
        let _ = if self.json {
            let view = ErrorView {
                code: told.code,
                reason: &error.reason,
                message: &error.message,
                hint: error.hint.as_deref(),
                field: error.field.as_deref(),
            };
            serde_json::to_string(&view)
                .map_err(io::Error::from)
                .and_then(|text| writeln!(self.stderr, "{}", ascii_controls(&text)))
        } else {
            let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            let dim = Style::new().dimmed();
            // Most messages name it themselves.
            let field = error
                .field
                .as_ref()
                .filter(|field| !error.message.contains(field.as_str()));
            let field = field.map_or_else(String::new, |field| format!(" ({})", printable(field, 128)));
            let hint = error
                .hint
                .as_ref()
                .map(|hint| format!("\n  {dim}next:{dim:#} {}", lines(hint)));
            writeln!(
                self.stderr,
                "{red}error:{red:#} {}{field}{}",
                lines(&error.message),
                hint.unwrap_or_default()
            )
        };
        told.exit
    }

    /// Tells that arguments could not be read, or shows the help that was asked for.
    pub(crate) fn usage(&mut self, error: &clap::Error) -> u8 {
        if error.use_stderr() && self.json {
            let text = error.render().to_string();
            let text = text.trim_start_matches("error: ");
            let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
            let usage = rest
                .lines()
                .find(|line| line.starts_with("Usage:"))
                .map(str::trim);
            return self.report(&match usage {
                Some(usage) => Failure::usage_hint(message.trim(), usage),
                None => Failure::usage(message.trim()),
            });
        }
        let _ = error.print(); // a pipe that closed has seen enough
        u8::try_from(error.exit_code()).unwrap_or(1)
    }

    /// Text from outside as it may be written to stdout: unchanged for a pipe.
    fn safe<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        if self.terminal {
            lines(text).into()
        } else {
            text.into()
        }
    }
}

/// A pipe that closed is no failure.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn written(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Closed
    } else {
        Failure::internal("writing the output", &error)
    }
}

/// Text of several lines, made safe: lines and tabs stay, nothing else that is not shown.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n')
        .map(|line| {
            line.split('\t')
                .map(|part| printable(part, MAX_ERROR.max(part.len())))
                .collect::<Vec<_>>()
                .join("\t")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// JSON with the control and bidirectional characters that JSON leaves as they are (beyond ASCII, so only
/// ever inside strings) written as escapes: the same value, and no terminal is steered by it.
fn ascii_controls(json: &str) -> String {
    let steers = |c: char| {
        !c.is_ascii() && c.is_control()
            || c == '\u{7f}'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    json.chars()
        .fold(String::with_capacity(json.len()), |mut out, c| {
            if steers(c) {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            } else {
                out.push(c)
            }
            out
        })
}

/// Rows as lines, their columns aligned.
pub(crate) fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// `width`: of the terminal, if it is one.
fn render_table(header: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let mut table = Table::new();
    match width {
        Some(columns) => {
            let rule = LineStyle::none().fill('─').junction('─');
            table.load_style(TableStyle::new().header_separator(rule));
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(columns);
        }
        None => {
            table.load_style(presets::NOTHING);
        }
    }
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(
            row.iter()
                .map(|cell| printable(cell, MAX_CELL))
                .collect::<Vec<_>>(),
        );
    }
    // A terminal's style has a blank of its own between columns.
    let padding = if width.is_some() { 1 } else { 2 };
    let words = width.map(|columns| whole_words(header, rows, columns));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, padding));
        if let Some(word) = words.as_ref().and_then(|words| words.get(index)) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(word + padding)));
        }
    }
    table.trim_fmt()
}

/// How narrow each column may become on a terminal so that no word of it is broken; where there is no room for that,
/// no word but the longest.
fn whole_words(header: &[&str], rows: &[Vec<String>], columns: u16) -> Vec<u16> {
    let longest = |index: usize, most: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(String::as_str);
        let words = cells
            .chain(header.get(index).copied())
            .flat_map(str::split_whitespace);
        let chars = words.map(|word| word.chars().count().min(most)).max();
        u16::try_from(chars.unwrap_or(1)).unwrap_or(u16::MAX)
    };
    for most in [MAX_CELL, 32, 24, 16, 12, 8] {
        let words: Vec<u16> = (0..header.len()).map(|index| longest(index, most)).collect();
        // Two blanks stand between columns.
        let sum: usize = words.iter().map(|word| usize::from(*word) + 2).sum();
        if sum <= usize::from(columns) {
            return words;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_foreign_cells_stay_in_their_line() {
        let rows = vec![
            vec!["a".to_owned(), "one".to_owned()],
            vec!["longer".to_owned(), "t\u{1b}[2Jwo\n".to_owned()],
        ];
        let text = render_table(&["NAME", "X"], &rows, None);
        assert_eq!(text, "NAME    X\na       one\nlonger  t\\u{1b}[2Jwo\\u{a}");
        let wide = render_table(&["NAME", "X"], &rows, Some(80));
        assert_eq!(wide.lines().count(), 4, "{wide}");
        assert!(wide.lines().nth(1).unwrap().chars().all(|c| c == '─'), "{wide}");
    }

    #[test]
    fn letters_that_take_two_columns_are_counted_as_two() {
        let row = |name: &str| vec!["a".to_owned(), name.to_owned(), "x".to_owned()];
        let lines = aligned(&[row("朝会"), row("long")]);
        assert_eq!(lines, ["a  朝会  x", "a  long  x"]);
        assert!(aligned(&[]).is_empty());
    }

    #[test]
    fn a_narrow_terminal_breaks_lines_between_words() {
        let header = ["NAME", "ID", "SCOPES", "STATE", "CERTIFICATE UNTIL", "CAME BY"];
        let row = [
            "uid0@vm *",
            "d1e068f9c6e6",
            "read write admin approvals pairing",
            "approved",
            "Fri 26 Feb 2027 05:12 UTC",
            "certificate",
        ];
        let rows = vec![row.map(str::to_owned).to_vec()];
        for columns in [80, 72] {
            let text = render_table(&header, &rows, Some(columns));
            assert!(
                text.lines()
                    .all(|line| line.chars().count() <= usize::from(columns)),
                "{text}"
            );
            for word in header.iter().chain(&row).flat_map(|cell| cell.split_whitespace()) {
                assert!(text.contains(word), "`{word}` is broken in\n{text}");
            }
        }
        // No room for all words: only what is too long for any terminal is broken.
        let rows = vec![vec!["tick".to_owned(), "f".repeat(90)]];
        let text = render_table(&["JOB", "RUN"], &rows, Some(40));
        assert!(
            text.contains("tick") && text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
    }

    #[test]
    fn json_keeps_its_value_and_loses_what_steers() {
        let value = serde_json::json!({ "a": "x\u{9b}2J\u{202e}\u{7f}\n\u{1b}ä" });
        let text = ascii_controls(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            !text
                .chars()
                .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{text:?}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn lines_and_tabs_are_kept_and_nothing_else() {
        assert_eq!(
            lines("a\n\tb\u{1b}]0;x\u{7}\u{202e}"),
            "a\n\tb\\u{1b}]0;x\\u{7}\\u{202e}"
        );
    }
}
