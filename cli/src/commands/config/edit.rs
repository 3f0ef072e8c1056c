//! One value of a TOML text changed, everything else left as a person wrote it.

use std::path::Path;

use creel_kit::{Config, config::ConfigError};
use creel_wire::error::printable;
use toml_edit::{DocumentMut, Item, Key, Table, Value};

use crate::failure::Failure;

/// Lines shown around a change.
const AROUND: usize = 2;

/// The parts of a dotted key; quoted parts may hold dots.
///
/// # Errors
/// Exit 2.
pub(super) fn parts(key: &str) -> Result<Vec<String>, Failure> {
    let keys = Key::parse(key).map_err(|_| {
        let message = format!("`{}` is not a key", printable(key, 128));
        Failure::usage_hint(message, "write it dotted, for example gateway.listen")
    })?;
    Ok(keys.iter().map(|key| key.get().to_owned()).collect())
}

/// The text with one value changed, checked as a config. The value is TOML; what is none, or what fits
/// only as text, is taken as text.
///
/// # Errors
/// Exit 2 for a key that can't be, exit 78 when the text before or the one after is no config.
pub(super) fn set(text: &str, path: &Path, key: &str, value: &str) -> Result<String, Failure> {
    let parts = parts(key)?;
    // What is wrong already has a place; it should not be blamed on the change.
    Config::parse(text, path)?;
    let literal = value.trim().parse::<Value>().ok();
    let as_text = Value::from(value);
    let with = |value: Value| -> Result<String, Failure> {
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error| Failure::internal("the file", &error))?;
        put(document.as_table_mut(), key, &parts, value)?;
        Ok(document.to_string())
    };
    let checked = |text: String| Config::parse(&text, path).map(|_| text);
    let outcome = match literal {
        None => checked(with(as_text)?),
        Some(literal) => match checked(with(literal)?) {
            Ok(text) => Ok(text),
            // The first error is told: whoever writes 5 for a text is rarer than whoever writes a wrong number.
            Err(error) => checked(with(as_text)?).map_err(|_: ConfigError| error),
        },
    };
    outcome.map_err(|error| {
        Failure::from(error).with_hint("nothing was written; creel config get shows what is there")
    })
}

fn put(root: &mut Table, key: &str, parts: &[String], mut value: Value) -> Result<(), Failure> {
    let in_the_way = || {
        Failure::usage(format!(
            "`{}` leads through a value that is no table",
            printable(key, 128)
        ))
    };
    let (last, above) = parts
        .split_last()
        .ok_or_else(|| Failure::usage("the key is empty"))?;
    let mut table: &mut dyn toml_edit::TableLike = root;
    for part in above {
        if !table.contains_key(part) {
            let mut new = Table::new();
            // `[a]` alone says nothing when only `[a.b]` has values.
            new.set_implicit(true);
            table.insert(part, Item::Table(new));
        }
        table = table
            .get_mut(part)
            .and_then(Item::as_table_like_mut)
            .ok_or_else(in_the_way)?;
    }
    match table.get_mut(last) {
        Some(Item::Value(old)) => {
            // Blanks and the comment behind it belong to the line, not to the value.
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        Some(Item::None) | None => {
            table.insert(last, Item::Value(value));
        }
        Some(_) => {
            return Err(Failure::usage(format!(
                "`{}` is a table: name one of its keys",
                printable(key, 128)
            )));
        }
    }
    Ok(())
}

/// What changed, as lines with `-`, `+` and a little around them. One place: one value was set.
pub(super) fn diff(before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let shorter = old.len().min(new.len());
    let same = (0..shorter).take_while(|&i| old[i] == new[i]).count();
    let end = (0..shorter - same)
        .take_while(|&i| old[old.len() - 1 - i] == new[new.len() - 1 - i])
        .count();
    let mut out = format!("@@ line {} @@\n", same + 1);
    let mut add = |mark: char, lines: &[&str]| {
        for line in lines {
            out.push_str(&format!("{mark}{line}\n"));
        }
    };
    add(' ', &old[same.saturating_sub(AROUND)..same]);
    add('-', &old[same..old.len() - end]);
    add('+', &new[same..new.len() - end]);
    add(
        ' ',
        &old[old.len() - end..(old.len() - end + AROUND).min(old.len())],
    );
    out
}

#[cfg(test)]
mod tests {
    use creel_wire::Code;

    use super::*;

    const TEXT: &str = "\
# mine
[gateway] # the edge
listen = \"127.0.0.1:1\"   # not the usual one
max_connections = 10

# turns
[agent]
backend = \"echo\"
";

    fn changed(key: &str, value: &str) -> Result<String, Failure> {
        set(TEXT, Path::new("creel.toml"), key, value)
    }

    #[test]
    fn comments_and_order_stay() {
        let after = changed("gateway.listen", "127.0.0.1:2").unwrap();
        assert_eq!(after, TEXT.replace("127.0.0.1:1", "127.0.0.1:2"));
        let diff = diff(TEXT, &after);
        assert_eq!(
            diff,
            "@@ line 3 @@\n # mine\n [gateway] # the edge\n-listen = \"127.0.0.1:1\"   # not the usual one\n\
             +listen = \"127.0.0.1:2\"   # not the usual one\n max_connections = 10\n \n"
        );
    }

    #[test]
    fn new_keys_and_tables_are_added() {
        let after = changed("log.level", "debug").unwrap();
        assert!(
            after.starts_with(TEXT) && after.ends_with("[log]\nlevel = \"debug\"\n"),
            "{after}"
        );
        let after = changed("gateway.names", "[\"box.example.net\"]").unwrap();
        assert!(
            after.contains("max_connections = 10\nnames = [\"box.example.net\"]\n\n# turns"),
            "{after}"
        );
        let after = set(
            "",
            Path::new("x"),
            "backends.py",
            "{ kind = \"command\", argv = [\"python3\"] }",
        )
        .unwrap();
        assert_eq!(Config::parse(&after, Path::new("x")).unwrap().backends.len(), 1);
        assert_eq!(
            set(&after, Path::new("x"), "agent.backend", "py")
                .unwrap()
                .matches("py")
                .count(),
            3
        );
    }

    #[test]
    fn what_would_not_be_a_config_is_never_returned() {
        for (key, value) in [
            ("gateway.max_connections", "0"),
            ("gateway.max_connections", "many"),
            ("gateway.max_conections", "5"),
            ("agent.backend", "ecko"),
            ("gateway", "5"),
            ("gateway.listen.port", "5"),
            ("", "5"),
        ] {
            assert!(changed(key, value).is_err(), "{key} = {value}");
        }
        let failure = changed("agent.backend", "ecko").unwrap_err();
        assert!(failure.error().unwrap().message.contains("did you mean `echo`"));
        let failure = set("[gatway]\n", Path::new("creel.toml"), "agent.backend", "echo").unwrap_err();
        assert_eq!(
            failure.code(),
            Some(Code::FailedPrecondition),
            "the file was bad before"
        );
    }

    #[test]
    fn text_that_looks_like_a_number_is_text_where_only_text_fits() {
        let after = changed("log.level", "5").unwrap();
        assert!(after.ends_with("level = \"5\"\n"), "{after}");
        assert!(
            changed("agent.max_running_turns", "7")
                .unwrap()
                .ends_with("max_running_turns = 7\n")
        );
    }
}
