//! The command line as people meet it: its surface, its help, its examples.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

const SPEC: &str = "--at --every --cron --tz --dst --syntax --anchor --after-end --event --message --backend \
    --command --cwd --audit --target --deliver --delete-after-run --delete-after --description";

const RULES: &str = "--if-missed --window --overlap --overlap-max --jitter --timeout --expected --retries \
    --backoff --max-backoff --past-next --on-stuck --quarantine-after --alert-after --alert-to --alert-every \
    --no-alert --keep-runs --keep-for";

/// The whole surface in one list, so that a change of it is seen.
#[test]
fn the_surface() {
    fn walk(command: &clap::Command, path: &str, into: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            let path = format!("{path}{}", sub.get_name());
            let flags = sub
                .get_opts()
                .filter(|arg| !arg.is_global_set())
                .filter_map(|arg| arg.get_long());
            let mut line = path.clone();
            flags.for_each(|flag| line.push_str(&format!(" --{flag}")));
            if !sub.has_subcommands() || !line.ends_with(&path) {
                into.push(line);
            }
            walk(sub, &format!("{path} "), into);
        }
    }
    let mut surface = Vec::new();
    walk(&Cli::command(), "", &mut surface);
    let expected = "\
status
health
doctor
send --session --backend --follow --as --no-wait --request-id
sessions list --prefix
sessions show --limit
sessions abort --reason --request-id
cron add {SPEC} {RULES} --disabled --late --json-spec --dry-run --request-id
cron edit {SPEC} {RULES} --rename --enable --disable --keep-after-run --file --format --dry-run --request-id --if-match
cron list --prefix --phase --soonest --names
cron show
cron run --wait --dry-run --request-id
cron runs --job --limit --status --follow
cron calendar --days --tz --prefix
cron import --tz --late --dry-run
cron rm --dry-run --request-id --if-match
cron next --tz --dst --syntax --after
cron explain --at
cron backfill --from --to --at-once --stop --dry-run --request-id --if-match
cron cancel --reason --request-id
cron reset --retry --dry-run --request-id
cron tail --status
cron status
cron accept-clock --dry-run --request-id
cron grant --revoke --dry-run --request-id
cron pause --reason --dry-run --request-id --if-match
cron resume --dry-run --request-id --if-match
devices list --all
devices show
devices requests --follow
devices approve --name --scope --command --cap --person --dry-run --request-id --if-match
devices reject --reason --dry-run --request-id
devices rotate --scope --dry-run --request-id
devices invite --name --role --scope --command --minutes --address --person --no-qr --dry-run --request-id
devices invites
devices uninvite --dry-run --request-id
devices cert --name --scope --days --out --dry-run --request-id
devices cert renew --force
devices revoke --reason --dry-run --request-id --if-match
devices rename --dry-run --request-id --if-match
devices recover --code-file
people list
people add --display-name --dry-run --request-id
people link --dry-run --request-id --if-match
people unlink --dry-run --request-id --if-match
people rm --dry-run --request-id --if-match
pairing list
pairing approve --request-id
pairing allow --dry-run --request-id
pairing remove --dry-run --request-id
join --context --address
use
leave
contexts
nodes list
nodes describe
nodes invoke --params --request-id
connect openclaw
logs --follow --lines
config check
config schema
config get
config set --dry-run
completions
version
whoami";
    // What a job is, and its rules: the same for making and changing one.
    let expected = expected.replace("{SPEC}", SPEC).replace("{RULES}", RULES);
    assert_eq!(surface.join("\n"), expected);
}

/// All commands that do something, with their words.
fn leaves(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name());
        visit(&path, sub);
        leaves(sub, &path, visit);
    }
}

#[test]
fn every_argument_says_what_it_is_and_every_command_that_takes_some_shows_how() {
    leaves(&Cli::command(), "creel", &mut |path, command| {
        let own: Vec<_> = command
            .get_arguments()
            .filter(|arg| !arg.is_global_set())
            .collect();
        for arg in &own {
            let said = arg.get_help().is_some_and(|help| !help.to_string().is_empty());
            assert!(said, "{path}: {} has no help", arg.get_id());
        }
        let help = command
            .get_after_help()
            .map_or_else(String::new, ToString::to_string);
        assert!(
            own.is_empty() || help.contains("Example"),
            "{path} has no example"
        );
    });
}

/// A sentence that is broken by hand is broken again by a narrow terminal.
#[test]
fn paragraphs_of_help_are_one_line_each() {
    leaves(&Cli::command(), "creel", &mut |path, command| {
        let help = command
            .get_after_help()
            .map_or_else(String::new, ToString::to_string);
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let goes_on = prose(pair[0]) && prose(pair[1]) && !pair[0].ends_with(['.', ':']);
            assert!(!goes_on, "{path}: a sentence goes on after `{}`", pair[0]);
        }
    });
}

/// What an example of the help says can be typed.
#[test]
fn every_example_is_understood() {
    let check = |path: &str, command: &clap::Command| {
        let help = command
            .get_after_help()
            .map_or_else(String::new, ToString::to_string);
        for line in help.lines().filter_map(|line| line.strip_prefix("  creel ")) {
            assert!(
                line.chars().count() <= 72,
                "{path}: `creel {line}` is broken at 80 columns"
            );
            let line = line.split(" | ").next().unwrap_or_default();
            let line = line.split(" > ").next().unwrap_or_default();
            let line = line.split(" #").next().unwrap_or_default();
            let words = std::iter::once("creel".to_owned()).chain(words(line));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{path}: `creel {line}`: {error}");
            }
        }
    };
    check("creel", &Cli::command());
    leaves(&Cli::command(), "creel", &mut |path, command| {
        check(path, command)
    });
}

/// As a shell splits them: quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => (quote, begun) = (Some(c), true),
            (' ', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[test]
fn every_command_says_what_it_does() {
    fn walk(command: &clap::Command) {
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
            walk(sub);
        }
    }
    walk(&Cli::command());
    let help = Cli::command().render_help().to_string();
    for part in [
        "Examples:",
        "--profile",
        "Global options:",
        "cron",
        "78 bad config",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}

#[test]
fn scopes_may_be_short() {
    for (text, whole) in [
        ("read", "operator.read"),
        ("operator.admin", "operator.admin"),
        ("", ""),
    ] {
        assert_eq!(scope(text).unwrap(), whole);
    }
}

#[test]
fn global_flags_stand_anywhere_and_bad_ones_are_usage() {
    let cli = Cli::try_parse_from(["creel", "status", "--json", "--timeout", "2m30s"]).unwrap();
    assert!(cli.global.json);
    assert_eq!(cli.global.timeout, Some(Duration::from_secs(150)));
    for bad in [
        vec!["creel", "status", "--timeout", "5"],
        vec!["creel", "statsu"],
        vec!["creel", "send"],
    ] {
        assert_eq!(Cli::try_parse_from(bad).unwrap_err().exit_code(), 2);
    }
    assert_eq!(
        Cli::try_parse_from(["creel", "--help"]).unwrap_err().exit_code(),
        0
    );
}
