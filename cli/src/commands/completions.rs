//! `creel completions`: the words of this program for a shell, and the names of jobs, which the shell asks the
//! stack for while it completes.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, context::Context, failure::Failure};

/// Lists the names of jobs; a stack that does not answer at once has none.
const NAMES: &str = "creel cron list --names --timeout 1s 2>/dev/null";

/// Commands of `creel cron` that take a job.
const OF_JOBS: [&str; 9] = [
    "show", "run", "edit", "rm", "pause", "resume", "explain", "backfill", "tail",
];

pub(super) fn run(context: &mut Context, shell: Shell) -> Result<(), Failure> {
    let script = script(shell);
    if context.out.is_json() {
        return context
            .out
            .json(&serde_json::json!({ "shell": shell.to_string(), "script": script }));
    }
    context.out.piece(&script)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "creel", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let commands = OF_JOBS.join("|");
    match shell {
        Shell::Bash => format!(
            "{script}
# Names of jobs.
_creel_or_job() {{
    local word=\"${{COMP_WORDS[COMP_CWORD]}}\" names
    if [[ ${{COMP_WORDS[1]}} == cron && $COMP_CWORD -eq 3 && $word != -* ]]; then
        case ${{COMP_WORDS[2]}} in
            {commands})
                mapfile -t names < <({NAMES})
                local IFS=$'\\n'
                mapfile -t COMPREPLY < <(compgen -W \"${{names[*]@Q}}\" -- \"$word\")
                return
                ;;
        esac
    fi
    _creel \"$@\"
}}
complete -F _creel_or_job -o nosort -o bashdefault -o default creel
"
        ),
        Shell::Zsh => {
            let jobs = script.replace("Its name or id:_default", "Its name or id:_creel_jobs");
            let function = format!(
                "_creel_jobs() {{ local -a names; names=(${{(f)\"$({NAMES})\"}}); compadd -a names }}\n\n"
            );
            // Before the last lines, which call the completion at once where the file is autoloaded.
            match jobs.rfind("if [ \"$funcstack[1]\"") {
                Some(at) => format!("{}{function}{}", &jobs[..at], &jobs[at..]),
                None => jobs + &function,
            }
        }
        Shell::Fish => format!(
            "{script}
# Names of jobs.
complete -c creel -n '__fish_seen_subcommand_from cron; and __fish_seen_subcommand_from {}' -f -a '({NAMES})'
",
            OF_JOBS.join(" ")
        ),
        _ => script,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_that_can_asks_for_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert_eq!(script.matches(NAMES).count(), 1, "{shell}");
        }
        assert!(script(Shell::Zsh).matches(":_creel_jobs").count() >= OF_JOBS.len() - 2);
        assert!(!script(Shell::PowerShell).contains(NAMES));
    }

    #[test]
    fn the_commands_that_take_a_job_are_there() {
        let cli = Cli::command();
        let cron = cli.find_subcommand("cron").unwrap();
        for name in OF_JOBS {
            let command = cron.find_subcommand(name).unwrap_or_else(|| panic!("no {name}"));
            let first = command.get_positionals().next().unwrap();
            assert!(
                ["name", "job"].contains(&first.get_id().as_str()),
                "{name}: {first}"
            );
        }
    }
}
