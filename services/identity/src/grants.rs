//! What can be handed on: the one function for every path by which anybody comes to hold a scope, and the
//! one for what a device may offer.

use std::collections::BTreeSet;

use creel_proto::identity::v1::Role;
use creel_wire::{Code, Error, Scope, Scopes};

use crate::guard::{Guard, Guards};

/// What a device asks for, or holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Grant {
    pub(crate) scopes: Scopes,
    pub(crate) commands: BTreeSet<String>,
    pub(crate) caps: BTreeSet<String>,
}

impl Grant {
    /// Whether all of it is in `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.scopes.is_subset(&other.scopes)
            && self.commands.is_subset(&other.commands)
            && self.caps.is_subset(&other.caps)
    }

    /// Both together.
    pub(crate) fn with(&self, other: &Self) -> Self {
        Self {
            scopes: self.scopes.union(&other.scopes).copied().collect(),
            commands: self.commands.union(&other.commands).cloned().collect(),
            caps: self.caps.union(&other.caps).cloned().collect(),
        }
    }

    /// What both have.
    pub(crate) fn meet(&self, other: &Self) -> Self {
        Self {
            scopes: attenuate(&self.scopes, &other.scopes, &other.scopes),
            commands: self.commands.intersection(&other.commands).cloned().collect(),
            caps: self.caps.intersection(&other.caps).cloned().collect(),
        }
    }
}

/// What kind of device is to hold something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    pub(crate) node: bool,
    /// It speaks the original's protocol, and `creel.toml` does not say that such may hold everything.
    pub(crate) legacy: bool,
}

impl Holder {
    pub(crate) fn of(role: Role, legacy: bool) -> Self {
        Self {
            node: role != Role::Operator,
            legacy,
        }
    }

    /// The most such a device can hold (ATT-3): nodes no scope, operators no commands and no capabilities (what
    /// their programs can show is nothing to grant), legacy devices nothing that lets others in.
    pub(crate) fn most(self, wants: &Grant, guards: Guards) -> Grant {
        if !guards.on(Guard::RoleCap) {
            return wants.clone();
        }
        let mut most = wants.clone();
        if self.node {
            most.scopes.clear();
        } else {
            most.commands.clear();
            most.caps.clear();
        }
        if self.legacy {
            let all = most.scopes.clone();
            most.scopes = attenuate(&all, &local(), &all);
        }
        most
    }
}

/// The approver lacks what it takes to let a node offer a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotHeld {
    pub(crate) scope: Scope,
    pub(crate) command: String,
}

impl From<NotHeld> for Error {
    fn from(missing: NotHeld) -> Self {
        let command = creel_wire::error::printable(&missing.command, 64);
        let message = format!("letting a node offer `{command}` needs {}", missing.scope);
        Self::new(Code::PermissionDenied, "scope_not_held", message)
            .field("commands")
            .hint("choose commands without it (--command …), or let a device with that scope approve")
    }
}

/// What it takes to let a node offer a command: those that run programs, or drive a browser that is
/// logged in everywhere, are for administrators.
pub(crate) fn scope_for(command: &str) -> Scope {
    let runs = ["system.run", "system.which", "browser"];
    let is = |name: &str| {
        command == name
            || command
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    if runs.into_iter().any(is) {
        Scope::Admin
    } else {
        Scope::Write
    }
}

/// What a device gets when `own`, the approver, hands on `chosen` of `requested`: by approval, upgrade or
/// invite, by RPC, command line or chat alike.
pub(crate) fn hand_on(
    holder: Holder,
    requested: &Grant,
    chosen: &Grant,
    own: &Scopes,
    guards: Guards,
) -> Result<Grant, NotHeld> {
    let requested = if guards.on(Guard::Requested) {
        requested
    } else {
        chosen
    };
    let chosen = if guards.on(Guard::Chosen) {
        chosen
    } else {
        requested
    };
    let everything = all();
    let own = if guards.on(Guard::Own) { own } else { &everything };
    let mut granted = requested.meet(chosen);
    granted.scopes = attenuate(&requested.scopes, &chosen.scopes, own);
    let granted = holder.most(&granted, guards);
    for command in &granted.commands {
        let scope = scope_for(command);
        if !own.contains(&scope) {
            let command = command.clone();
            return Err(NotHeld { scope, command });
        }
    }
    Ok(granted)
}

/// Requested ∩ chosen by the approver ∩ the approver's own (ATT-1).
pub(crate) fn attenuate(requested: &Scopes, chosen: &Scopes, own: &Scopes) -> Scopes {
    requested
        .iter()
        .filter(|scope| chosen.contains(scope) && own.contains(scope))
        .copied()
        .collect()
}

/// All scopes: of the first operator, and of recovery.
pub(crate) fn all() -> Scopes {
    Scope::ALL.iter().copied().collect()
}

/// Of local devices after the first: at once, without anybody's word.
pub(crate) fn local() -> Scopes {
    [Scope::Read, Scope::Write].into()
}

/// What an agent's turn can hold at most (ATT-3): never admin, approvals, pairing.
pub(crate) fn of_turn(cause: &Scopes) -> Scopes {
    attenuate(cause, &local(), &all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsets() -> Vec<Scopes> {
        (0_u32..32)
            .map(|bits| {
                Scope::ALL
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| bits >> i & 1 == 1)
                    .map(|(_, s)| *s)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn no_grant_exceeds_any_of_the_three() {
        for requested in subsets() {
            for chosen in subsets() {
                for own in subsets() {
                    let granted = attenuate(&requested, &chosen, &own);
                    assert!(
                        granted.is_subset(&requested)
                            && granted.is_subset(&chosen)
                            && granted.is_subset(&own)
                    );
                    let lost = requested
                        .iter()
                        .filter(|s| chosen.contains(s) && own.contains(s))
                        .count();
                    assert_eq!(granted.len(), lost, "nothing else is taken away");
                }
            }
        }
    }

    fn commands(list: &[&str]) -> Grant {
        Grant {
            commands: list.iter().map(|c| (*c).to_owned()).collect(),
            ..Grant::default()
        }
    }

    #[test]
    fn commands_that_run_programs_need_an_administrator_others_the_right_to_write() {
        let node = Holder::of(Role::Node, false);
        let hand_on = |wants: &Grant, own: &Scopes| hand_on(node, wants, wants, own, Guards::all());
        for (command, scope) in [
            ("system.run", Scope::Admin),
            ("system.run.prepare", Scope::Admin),
            ("system.which", Scope::Admin),
            ("browser.proxy", Scope::Admin),
            ("browser", Scope::Admin),
            ("system.runner", Scope::Write),
            ("camera.snap", Scope::Write),
            ("browserless", Scope::Write),
        ] {
            let wants = commands(&[command]);
            let mut own = all();
            own.remove(&scope);
            let missing = hand_on(&wants, &own).unwrap_err();
            assert_eq!((missing.scope, missing.command.as_str()), (scope, command));
            assert_eq!(hand_on(&wants, &Scopes::from([scope])).unwrap(), wants);
        }
    }

    #[test]
    fn a_role_caps_what_can_be_held() {
        for scopes in subsets() {
            let wants = Grant {
                scopes,
                ..commands(&["camera.snap"])
            };
            let get = |node, legacy| {
                let holder = Holder { node, legacy };
                hand_on(holder, &wants, &wants, &all(), Guards::all()).unwrap()
            };
            assert!(get(true, false).scopes.is_empty() && get(false, false).commands.is_empty());
            assert_eq!(get(true, false).commands, wants.commands);
            let legacy = get(false, true).scopes;
            assert!(legacy.is_subset(&local()) && legacy.is_subset(&wants.scopes));
        }
    }

    #[test]
    fn a_turn_never_holds_what_is_for_people() {
        for cause in subsets() {
            let turn = of_turn(&cause);
            assert!(turn.is_subset(&cause));
            assert!(
                ![Scope::Admin, Scope::Approvals, Scope::Pairing]
                    .iter()
                    .any(|scope| turn.contains(scope))
            );
        }
    }
}
