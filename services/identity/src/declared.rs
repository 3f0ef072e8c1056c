//! What a device says of itself, checked: bounded, printable, and of known words.

use creel_proto::identity::v1::{Declaration, Role, Surface};
use creel_wire::{Error, Scope, Scopes, error::printable, names::parse_scopes};

use crate::{device::MAX_NAME, grants::Grant};

/// Capabilities and permissions, at most.
const MAX_CAPS: usize = 64;
/// Commands, at most.
const MAX_COMMANDS: usize = 256;
/// Scopes, at most: more than there are, for those that only the original knows.
const MAX_SCOPES: usize = 32;
/// A name or a word, in bytes.
const MAX_WORD: usize = 64;

/// A checked declaration.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) role: Role,
    pub(crate) wants: Grant,
    /// The scopes without which it can't do what it came for.
    pub(crate) needs: Scopes,
}

/// Checks a declaration. `role`: what counts when it names none. `lenient`: scopes that only the original
/// knows are left out, not refused; they are never granted either way. Those it knows mean there what they
/// mean to its clients ([`implied`]).
pub(crate) fn check(declaration: &Declaration, role: Option<Role>, lenient: bool) -> Result<Declared, Error> {
    let role = match (declaration.role(), role) {
        (Role::Unspecified, Some(role)) => role,
        (Role::Unspecified, None) => return Err(Error::invalid("role", "`operator` or `node`")),
        (said, _) => said,
    };
    let name = &declaration.display_name;
    if name.chars().count() > MAX_NAME || !is_plain(name) {
        let why = format!("a name has at most {MAX_NAME} printable characters");
        return Err(Error::invalid("display_name", why));
    }
    let one_word = [
        ("platform", &declaration.platform),
        ("version", &declaration.version),
        ("client_id", &declaration.client_id),
        ("client_mode", &declaration.client_mode),
        ("device_family", &declaration.device_family),
    ];
    for (field, text) in one_word {
        if text.len() > MAX_WORD || !is_plain(text) {
            return Err(Error::invalid(
                field,
                format!("at most {MAX_WORD} printable bytes"),
            ));
        }
    }
    let nothing = Surface::default();
    let surface = declaration.surface.as_ref().unwrap_or(&nothing);
    words("scopes", &declaration.scopes, MAX_SCOPES)?;
    words("caps", &surface.caps, MAX_CAPS)?;
    words("commands", &surface.commands, MAX_COMMANDS)?;
    let permissions: Vec<String> = surface.permissions.clone().into_keys().collect();
    words("permissions", &permissions, MAX_CAPS)?;
    let (scopes, needs) = if lenient {
        let said = declaration.scopes.iter().filter_map(|scope| scope.parse().ok());
        (
            said.clone().flat_map(implied).collect::<Scopes>(),
            said.flat_map(needed).collect(),
        )
    } else {
        let scopes = parse_scopes(&declaration.scopes);
        let scopes = scopes.map_err(|error| Error::invalid("scopes", error.to_string()))?;
        (scopes.clone(), scopes)
    };
    Ok(Declared {
        role,
        wants: Grant {
            scopes,
            commands: surface.commands.iter().cloned().collect(),
            caps: surface.caps.iter().cloned().collect(),
        },
        needs,
    })
}

/// What a client of the original asks for by a scope: there admin is all of them, and write reads. Its
/// command line names the widest one alone (`operator.admin` for `cron add`). Approvals it has to name.
fn implied(scope: Scope) -> impl Iterator<Item = Scope> {
    let all: &[Scope] = match scope {
        Scope::Admin => &[Scope::Admin, Scope::Pairing, Scope::Write, Scope::Read],
        Scope::Write => &[Scope::Write, Scope::Read],
        Scope::Read => &[Scope::Read],
        Scope::Approvals => &[Scope::Approvals],
        Scope::Pairing => &[Scope::Pairing],
    };
    all.iter().copied()
}

/// What it takes here to do what a client of the original asks a scope for: no method of its protocol takes
/// admin.
fn needed(scope: Scope) -> impl Iterator<Item = Scope> {
    let asked = if scope == Scope::Admin {
        Scope::Write
    } else {
        scope
    };
    implied(asked)
}

fn words(field: &str, list: &[String], most: usize) -> Result<(), Error> {
    let good =
        |word: &String| (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
    if list.len() > most || !list.iter().all(good) {
        let why = format!("at most {most}, each of 1 to {MAX_WORD} visible ASCII characters");
        return Err(Error::invalid(field, why));
    }
    Ok(())
}

fn is_plain(text: &str) -> bool {
    printable(text, usize::MAX) == text
}

/// The word of a role, as payloads and names have it.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Operator => "operator",
        Role::Unspecified => "unspecified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Declaration, &mut Surface)) -> Result<Declared, Error> {
        let mut declaration = Declaration {
            role: Role::Node.into(),
            ..Declaration::default()
        };
        let mut surface = Surface::default();
        change(&mut declaration, &mut surface);
        declaration.surface = Some(surface);
        check(&declaration, None, false)
    }

    #[test]
    fn each_list_and_word_is_bounded_at_its_limit() {
        let many = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>();
        assert!(with(|_, s| s.caps = many(MAX_CAPS)).is_ok());
        assert!(with(|_, s| s.caps = many(MAX_CAPS + 1)).is_err());
        assert!(with(|_, s| s.commands = many(MAX_COMMANDS)).is_ok());
        assert!(with(|_, s| s.commands = many(MAX_COMMANDS + 1)).is_err());
        assert!(with(|_, s| s.commands = vec!["x".repeat(MAX_WORD)]).is_ok());
        assert!(with(|_, s| s.commands = vec!["x".repeat(MAX_WORD + 1)]).is_err());
        assert!(with(|_, s| s.commands = vec!["a b".into()]).is_err());
        assert!(with(|_, s| s.commands = vec![String::new()]).is_err());
        let permissions = |n: usize| many(n).into_iter().map(|name| (name, true)).collect();
        assert!(with(|_, s| s.permissions = permissions(MAX_CAPS + 1)).is_err());
        assert!(with(|d, _| d.display_name = "ä".repeat(MAX_NAME)).is_ok());
        assert!(with(|d, _| d.display_name = "ä".repeat(MAX_NAME + 1)).is_err());
        assert!(with(|d, _| d.display_name = "a\u{1b}[2J".into()).is_err());
        assert!(with(|d, _| d.platform = "x".repeat(MAX_WORD + 1)).is_err());
        assert!(with(|d, _| d.role = 0).is_err());
        assert!(with(|d, _| d.role = 77).is_err(), "an unknown role is none");
    }

    #[test]
    fn scopes_that_are_not_ours_are_refused_or_left_out_and_never_granted() {
        let declaration = Declaration {
            role: Role::Operator.into(),
            scopes: vec!["operator.read".into(), "operator.talk.secrets".into()],
            ..Declaration::default()
        };
        assert!(check(&declaration, None, false).is_err());
        let lenient = check(&declaration, None, true).unwrap();
        assert_eq!(lenient.wants.scopes, Scopes::from([creel_wire::Scope::Read]));
    }

    #[test]
    fn a_scope_means_to_a_client_of_the_original_what_it_means_there() {
        let wants = |scope: Scope, lenient| {
            let declaration = Declaration {
                role: Role::Operator.into(),
                scopes: vec![scope.to_string()],
                ..Declaration::default()
            };
            check(&declaration, None, lenient).unwrap().wants.scopes
        };
        let all_but_approvals: Scopes = crate::grants::all()
            .into_iter()
            .filter(|scope| *scope != Scope::Approvals)
            .collect();
        assert_eq!(wants(Scope::Admin, true), all_but_approvals);
        assert_eq!(
            wants(Scope::Write, true),
            Scopes::from([Scope::Read, Scope::Write])
        );
        for scope in Scope::ALL {
            assert_eq!(
                wants(*scope, false),
                Scopes::from([*scope]),
                "ours say what they want"
            );
            let narrow = !matches!(scope, Scope::Admin | Scope::Write);
            assert!(
                !narrow || wants(*scope, true) == Scopes::from([*scope]),
                "{scope}"
            );
        }
    }
}
