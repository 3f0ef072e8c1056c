//! What can be handed on: the one function for every path by which anybody comes to hold a scope.

use creel_wire::{Scope, Scopes};

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
