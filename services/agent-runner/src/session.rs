//! What a session key means here: how far its context is trusted, where its files lie, who may start
//! turns in it. Pure.

use creel_proto::agent::v1::Trust;
use creel_wire::{Caller, Code, Error, Principal, SessionKey};

/// The agent that is meant when nobody names one.
pub(crate) const DEFAULT_AGENT: &str = "default";

/// Reads a session key from a request's field.
pub(crate) fn parse(field: &'static str, text: &str) -> Result<SessionKey, Error> {
    SessionKey::parse(text).map_err(|error| {
        Error::invalid(field, error.to_string()).hint("session keys are listed by: creel sessions list")
    })
}

/// The key that a job names as its target: a key, or `main` for the owner's conversation.
pub(crate) fn parse_target(text: &str) -> Result<SessionKey, Error> {
    if text == "main" {
        Ok(SessionKey::main(DEFAULT_AGENT))
    } else {
        parse("target", text)
    }
}

/// How far a context is trusted. The owner's own conversation is; a linked person and a job (its owner
/// wrote it) are partly; whoever writes in a direct or group conversation is not.
pub(crate) const fn trust(key: &SessionKey) -> Trust {
    match key {
        SessionKey::Main { .. } => Trust::Main,
        SessionKey::Person { .. } | SessionKey::Run { .. } => Trust::Trusted,
        SessionKey::Direct { .. } | SessionKey::Group { .. } => Trust::Untrusted,
    }
}

/// Whether its files end with its turns.
pub(crate) const fn is_ephemeral(key: &SessionKey) -> bool {
    matches!(key, SessionKey::Run { .. })
}

/// The directory of a context below `workspace/`. Different keys have different ones, the same key
/// always the same, so a context that was deleted and comes again finds its files.
pub(crate) fn workspace_name(key: &SessionKey) -> String {
    if *key == SessionKey::main(DEFAULT_AGENT) {
        return "main".to_owned();
    }
    let hash = creel_wire::names::sha256_hex(key.to_string().as_bytes());
    format!("{}-{}", kind(key), &hash[..24])
}

/// The kind of a session, a closed set for names and metrics.
pub(crate) const fn kind(key: &SessionKey) -> &'static str {
    match key {
        SessionKey::Main { .. } => "agent",
        SessionKey::Direct { .. } => "dm",
        SessionKey::Person { .. } => "person",
        SessionKey::Group { .. } => "group",
        SessionKey::Run { .. } => "run",
    }
}

/// Whether a caller may start a turn in a session (the method was judged before). A run's context
/// belongs to the scheduler's work alone; a sender never reaches the owner's conversation.
pub(crate) fn may_start(caller: &Caller, key: &SessionKey) -> Result<(), Error> {
    let refuse =
        |reason: &'static str, message: &str| Err(Error::new(Code::PermissionDenied, reason, message));
    match (caller.principal(), key) {
        (_, SessionKey::Run { .. }) => refuse(
            "session_of_a_run",
            "the context of a job's run takes no other turns",
        ),
        (Principal::Sender(_), SessionKey::Main { .. }) => refuse(
            "session_not_for_sender",
            "a sender has no access to the main session",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use creel_wire::{DeviceId, Scopes, authz::test_caller};

    use super::*;

    fn keys() -> Vec<SessionKey> {
        let own = str::to_owned;
        vec![
            SessionKey::main(DEFAULT_AGENT),
            SessionKey::main("other"),
            SessionKey::Person {
                agent: own("default"),
                person: own("p"),
            },
            SessionKey::Run {
                job: own("j"),
                run: own("r"),
            },
            SessionKey::Direct {
                agent: own("default"),
                channel: own("c"),
                account: own("a"),
                sender: own("s"),
            },
        ]
    }

    #[test]
    fn every_context_has_a_workspace_of_its_own() {
        let names: std::collections::BTreeSet<_> = keys().iter().map(workspace_name).collect();
        assert_eq!(names.len(), keys().len());
        assert!(names.iter().all(|name| !name.contains(['/', '.'])));
        assert_eq!(workspace_name(&keys()[0]), "main");
    }

    #[test]
    fn runs_and_the_main_session_are_closed_to_others() {
        let operator = test_caller(
            Principal::Operator(DeviceId::of_public_key(&[1; 32])),
            Scopes::new(),
            None,
        );
        let sender = test_caller(Principal::Sender("x".into()), Scopes::new(), None);
        let reason = |caller, key| may_start(caller, key).err().map(|e| e.reason.to_string());
        let [main, _, person, run, dm] = <[_; 5]>::try_from(keys()).unwrap();
        assert_eq!(reason(&operator, &main), None);
        assert_eq!(reason(&operator, &run).as_deref(), Some("session_of_a_run"));
        assert_eq!(reason(&sender, &main).as_deref(), Some("session_not_for_sender"));
        assert_eq!((reason(&sender, &dm), reason(&sender, &person)), (None, None));
        assert_eq!(
            (trust(&main), trust(&run), trust(&dm)),
            (Trust::Main, Trust::Trusted, Trust::Untrusted)
        );
    }

    #[test]
    fn targets_are_keys_or_main() {
        assert_eq!(parse_target("main").unwrap(), keys()[0]);
        assert_eq!(parse_target("agent:x:main").unwrap(), SessionKey::main("x"));
        assert_eq!(parse_target("Main").unwrap_err().field.as_deref(), Some("target"));
    }
}
