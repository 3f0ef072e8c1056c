//! Conversations whose agents may make jobs that run without a person's approval (`cron.create`). Only an operator
//! says so: no agent, plugin or job reaches the method (R7), and a run's own conversation can't be named. What such
//! an agent may make stays as narrow as ever (`grpc::agents`), and [`Ledger::may_create`] counts it.

use creel_kit::outbox::Event;
use creel_proto::{
    scheduler::v1::{AgentGrant, AgentGrantRecord, GrantAgentResponse},
    time::timestamp,
};
use creel_store::Op;
use creel_wire::{Code, Error, SessionKey};
use prost::Message as _;

use super::Ledger;
use crate::{run::Now, store::grant_key};

/// Conversations at once.
const MAX_GRANTS: usize = 1_000;

impl Ledger {
    pub(crate) fn load_grant(&mut self, record: AgentGrantRecord) {
        self.granted.insert(record.session.as_str().into(), record);
    }

    /// Grants a conversation, or revokes that. With `dry`, only says what would come of it.
    pub(crate) fn grant_agent(
        &mut self,
        session: &SessionKey,
        revoke: bool,
        dry: bool,
        principal: &str,
        now: Now,
    ) -> Result<GrantAgentResponse, Error> {
        let session = session.to_string();
        let known = self.granted.get(session.as_str());
        let answer = |record: &AgentGrantRecord, unchanged| GrantAgentResponse {
            grant: Some(shown(record)),
            jobs: self
                .contexts
                .get(session.as_str())
                .map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX)),
            unchanged,
        };
        let fresh = AgentGrantRecord {
            session: session.clone(),
            granted_by: principal.to_owned(),
            granted_at_unix_ms: now.wall_ms,
        };
        let response = match known {
            Some(known) => answer(known, !revoke),
            None if revoke => return Err(not_granted(&session)),
            None if self.granted.len() >= MAX_GRANTS => return Err(too_many()),
            None => answer(&fresh, false),
        };
        if dry || response.unchanged {
            return Ok(response);
        }
        let action = if revoke { "cron.revoked" } else { "cron.granted" };
        let audit = self.audit(Event::new(action, principal, format!("session/{session}")))?;
        let key = grant_key(&session);
        let change = if revoke {
            self.granted.remove(session.as_str());
            Op::Delete(key)
        } else {
            let record = fresh.encode_to_vec();
            self.granted.insert(session.as_str().into(), fresh);
            Op::Put(key, record.into())
        };
        self.changes.general(audit, true);
        self.changes.op(change);
        Ok(response)
    }

    pub(crate) fn agent_grants(&self) -> Vec<AgentGrant> {
        self.granted.values().map(shown).collect()
    }

    /// Whether what an agent makes in a conversation runs at once.
    pub(super) fn is_granted(&self, context: &str) -> bool {
        self.granted.contains_key(context)
    }
}

fn shown(record: &AgentGrantRecord) -> AgentGrant {
    AgentGrant {
        session: record.session.clone(),
        granted_by: record.granted_by.clone(),
        granted_at: Some(timestamp(record.granted_at_unix_ms)),
    }
}

fn not_granted(session: &str) -> Error {
    let message = format!("agents of {session} may not make jobs on their own: there is nothing to revoke");
    Error::new(Code::NotFound, "not_granted", message).hint("creel cron grant")
}

fn too_many() -> Error {
    let message = format!("{MAX_GRANTS} conversations is the most");
    Error::new(Code::ResourceExhausted, "too_many_grants", message).hint("creel cron grant SESSION --revoke")
}
