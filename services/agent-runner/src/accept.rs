//! Taking turns in: durable before it is answered, and counted before it is durable.

use creel_kit::idempotency::Slot;
use creel_proto::agent::v1::{Provenance, QueuedEventRecord, TurnRecord, TurnState, WorkRecord};
use creel_store::{Outcome, Txn};
use creel_wire::{Code, Error, SessionKey};

use crate::{
    contexts::{Context, Contexts, Locked, blocking},
    convert, course,
    inbox::{Inbox, Put},
    queue::Ticket,
    runner::{Progress, Runner},
    store,
};

/// Longer texts lie in files, in bytes.
const INLINE_TEXT: usize = 64 << 10;

/// A turn that somebody wants.
pub(crate) struct NewTurn {
    pub(crate) key: SessionKey,
    pub(crate) text: String,
    pub(crate) backend: String,
    /// 0 for the config's.
    pub(crate) timeout_ms: i64,
    pub(crate) provenance: Provenance,
    pub(crate) owner: String,
    pub(crate) slot: Option<Slot>,
    /// An event that arrives with it.
    pub(crate) event: Option<QueuedEventRecord>,
    /// The run that it is; its `turn_id` is set.
    pub(crate) work: Option<WorkRecord>,
}

/// What is settled of a turn before its context is locked.
struct Fixed {
    id: String,
    backend: String,
    timeout_ms: i64,
    now_ms: i64,
}

struct Extra {
    slot: Option<Slot>,
    event: Option<QueuedEventRecord>,
    work: Option<WorkRecord>,
}

impl Runner {
    /// Takes a turn in: durable when this answers. `None` when its slot was answered by another request
    /// meanwhile.
    ///
    /// # Errors
    /// Which limit is reached, and what store and files said.
    pub(crate) async fn accept(&self, new: NewTurn) -> Result<Option<TurnRecord>, Error> {
        if self.drain.is_cancelled() {
            return Err(
                Error::new(Code::Unavailable, "draining", "agent-runner is stopping").hint("try again"),
            );
        }
        let backend = if new.backend.is_empty() {
            self.settings.backend.clone()
        } else {
            new.backend.clone()
        };
        if !self.settings.backends.contains(&backend) {
            let known: Vec<_> = self.settings.backends.iter().map(String::as_str).collect();
            let message = format!("no backend `{}`", creel_wire::error::printable(&backend, 64));
            return Err(Error::invalid("backend", message).hint(format!("one of: {}", known.join(", "))));
        }
        let timeout_ms = if new.timeout_ms > 0 {
            new.timeout_ms
        } else {
            self.settings.timeout_ms
        };
        let id = self.new_id();
        let now_ms = self.clock.now_ms();
        let mut locked = self.contexts.open(&new.key, &id, now_ms).await?;
        let accepted = self
            .accept_locked(
                &mut locked,
                new,
                Fixed {
                    id,
                    backend,
                    timeout_ms,
                    now_ms,
                },
            )
            .await;
        if !matches!(accepted, Ok(Some(_))) {
            Contexts::discard(&mut locked);
        }
        accepted
    }

    async fn accept_locked(
        &self,
        locked: &mut Locked,
        new: NewTurn,
        fixed: Fixed,
    ) -> Result<Option<TurnRecord>, Error> {
        let Fixed {
            id,
            backend,
            timeout_ms,
            now_ms,
        } = fixed;
        // It was opened, so there is one.
        let Some(context) = locked.as_mut() else {
            return Err(Error::internal("opening a context"));
        };
        if self.closing().contains(&new.key) {
            let message = "the session is being deleted";
            return Err(Error::new(Code::FailedPrecondition, "context_closing", message));
        }
        let ticket = Ticket {
            turn: id.clone(),
            context: new.key.to_string(),
            owner: new.owner.clone(),
        };
        let plan = course::Plan {
            key: new.key.clone(),
            backend: backend.clone(),
            timeout_ms,
        };
        // Known before it is in the queue: from then on anybody's dispatch may take it.
        let durable = self.insert_live(&id, plan, Progress::default());
        let behind = self.admit(ticket)?;
        // The worker starts beside the commit. It gets no word before the turn is durable.
        self.dispatch();
        let record = TurnRecord {
            turn_id: id.clone(),
            session: context.record.session.clone(),
            state: TurnState::Accepted.into(),
            backend,
            text: new.text,
            provenance: Some(new.provenance),
            accepted_at_unix_ms: now_ms,
            timeout_ms,
            last_sequence: 1,
            number: context.record.turns + 1,
            owner: new.owner,
            folder: context.record.folder.clone(),
            queued_behind: behind,
            run_id: new
                .work
                .as_ref()
                .map(|work| work.run_id.clone())
                .unwrap_or_default(),
            attempt: new.work.as_ref().map_or(0, |work| work.attempt),
            ..TurnRecord::default()
        };
        let extra = Extra {
            slot: new.slot,
            event: new.event,
            work: new.work,
        };
        match self.accept_durably(context, record, extra).await {
            Ok(Some(record)) => {
                self.show(
                    &id,
                    Progress {
                        visible: 1,
                        ended: false,
                    },
                );
                // The task may have gone only after a breakdown.
                let _ = durable.send(record.clone());
                Ok(Some(record))
            }
            other => {
                drop(durable);
                self.take_back(&id, &new.key);
                other
            }
        }
    }

    async fn accept_durably(
        &self,
        context: &mut Context,
        mut record: TurnRecord,
        extra: Extra,
    ) -> Result<Option<TurnRecord>, Error> {
        let before = context.transcript.len();
        let mut inbox = context.inbox.clone();
        let mut txn = Txn::new();
        let mut next = context.record.clone();
        if let Some(event) = extra.event {
            let put = inbox.put(event.clone())?;
            store_event(&mut txn, &record.folder, &inbox, &put);
            context.append(vec![convert::event(&event)])?;
            context.sync().await.inspect_err(|_| context.cut(before))?;
            next.entries = context.transcript.len();
        }
        let long = record.text.len() > INLINE_TEXT;
        if long {
            let (dirs, id, text) = (
                self.dirs.clone(),
                record.turn_id.clone(),
                std::mem::take(&mut record.text),
            );
            blocking(move || dirs.keep_input(&id, &text))
                .await
                .inspect_err(|_| context.cut(before))?;
            record.text_in_file = true;
        }
        next.turns = record.number;
        next.last_active_at_unix_ms = record.accepted_at_unix_ms;
        store::put_context(&mut txn, &next);
        store::put_new_turn(&mut txn, &record);
        if let Some(work) = &extra.work {
            let work = WorkRecord {
                turn_id: record.turn_id.clone(),
                ..work.clone()
            };
            store::put_work(&mut txn, &work);
        }
        if let Some(slot) = &extra.slot {
            slot.record(&mut txn, &convert::turn(&record, 1, String::new()));
        }
        let committed = self.commit(&txn).await;
        if !matches!(committed, Ok(Outcome::Committed { .. })) {
            context.cut(before);
            if long {
                let _ = std::fs::remove_file(self.dirs.input(&record.turn_id));
            }
            return committed.map(|_| None);
        }
        context.record = next;
        context.inbox = inbox;
        context.exists = true;
        if let Some(work) = extra.work {
            self.works.put(WorkRecord {
                turn_id: record.turn_id.clone(),
                ..work
            });
        }
        if let Err(error) = self.open_log(&record) {
            // It is durable; after the restart it runs.
            self.break_down("writing events", &error);
            return Err(error);
        }
        Ok(Some(record))
    }
}

/// Writes down what an event did to an inbox; it is its newest.
pub(crate) fn store_event(txn: &mut Txn, folder: &str, inbox: &Inbox, put: &Put) {
    if let Put::Replaced(earlier) = put {
        txn.push_delete(store::queued(folder, earlier));
    }
    if let Some(event) = inbox.events().last() {
        store::put_queued(txn, folder, event);
    }
}
