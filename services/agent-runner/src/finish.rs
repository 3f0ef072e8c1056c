//! The end of a turn: log, transcript, outcome, audit and the run of a job, made durable in this order
//! and only then shown.

use creel_proto::agent::v1::{TurnState, WorkRecord, turn_event::Event};
use creel_store::{Outcome as Committed, Txn};
use creel_wire::{Code, Error};

use crate::{
    contexts::{blocking, storage},
    convert,
    course::{Course, gone},
    runner::{AbortOrder, Progress},
    store,
    turn::{Failure, Outcome},
};

/// Replies up to this length lie in the record, in bytes.
const INLINE_REPLY: usize = 16 << 10;
/// Turns of a context whose records and events are kept.
const KEPT_TURNS: u64 = 1_000;

impl Course {
    /// Makes the outcome durable, then visible.
    pub(crate) async fn finish(
        &mut self,
        last: Option<Event>,
        outcome: Outcome,
        mut order: Option<AbortOrder>,
    ) -> Result<(), Error> {
        let runner = self.runner.clone();
        let now_ms = runner.clock.now_ms();
        if let Some(event) = last {
            self.log.append(event, now_ms).map_err(|error| storage(&error))?;
        }
        let mut locked = runner.contexts.find(&self.key).await?;
        let context = locked.as_mut().ok_or_else(gone)?;
        let before = context.transcript.len();
        let ran = convert::state(&self.record) == TurnState::Running;
        let mut entries = Vec::new();
        if !(ran && before > self.record.input_index) {
            let text = self.text().await?;
            if !text.is_empty() {
                entries.push(convert::user(&self.record, text, now_ms));
            }
        }
        entries.extend(convert::end(&self.record, &outcome, now_ms));
        context.append(entries)?;
        let (events, transcript) = (self.log.unsynced(), context.transcript.unsynced());
        blocking(move || events.sync().and_then(|()| transcript.sync())).await?;

        let text_in_file = std::mem::take(&mut self.record.text_in_file);
        self.record.state = outcome.end.state().into();
        self.record.finished_at_unix_ms = now_ms;
        self.record.error = outcome.failure.as_ref().map(Failure::to_proto);
        self.record.last_sequence = self.log.sequence();
        self.record.reply_in_events = outcome.reply.len() > INLINE_REPLY;
        if !self.record.reply_in_events {
            self.record.reply.clone_from(&outcome.reply);
        }
        // The transcript has them now.
        self.record.text.clear();
        self.record.events.clear();
        context.record.last_active_at_unix_ms = now_ms;
        let work = runner.works.ended(&self.record, &outcome);
        let reply = outcome.reply.len();
        let told = convert::turn(&self.record, self.record.last_sequence, outcome.reply.clone());
        loop {
            let mut txn = order.as_ref().map_or_else(Txn::new, |order| order.txn.clone());
            store::put_context(&mut txn, &context.record);
            store::put_turn(&mut txn, &self.record, false);
            if let Some(work) = &work {
                store::put_work(&mut txn, work);
            }
            if let Some(order) = &order {
                order.slot.record(&mut txn, &told);
            }
            match (runner.commit(&txn).await?, order.take()) {
                (Committed::Committed { .. }, taken) => {
                    order = taken;
                    break;
                }
                (Committed::Conflict { .. }, Some(raced)) => {
                    let why = "the same request was answered meanwhile; ask again";
                    let _ = raced
                        .answer
                        .send(Err(Error::new(Code::Conflict, "request_raced", why)));
                }
                (Committed::Conflict { .. }, None) => return Err(gone()),
            }
        }
        drop(locked);
        let took_ms = now_ms.saturating_sub(self.record.accepted_at_unix_ms);
        runner.figures.ended(&self.record.backend, outcome.end, took_ms);
        runner.show(
            &self.record.turn_id,
            Progress {
                visible: self.record.last_sequence,
                ended: true,
            },
        );
        if let Some(order) = order {
            runner.outbox.committed();
            let _ = order.answer.send(Ok(told));
        }
        self.after(text_in_file, reply, work).await;
        Ok(())
    }

    /// What is not part of the outcome: the job's summary, and making room.
    async fn after(&self, text_in_file: bool, reply: usize, work: Option<WorkRecord>) {
        if text_in_file {
            let path = self.runner.dirs.input(&self.record.turn_id);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "an input stays until the next start");
            }
        }
        if let Some(work) = work {
            self.runner.works.put(work.clone());
            let (runner, session) = (self.runner.clone(), self.key.clone());
            self.runner.spawn(async move {
                runner.deliver(&work.run_id).await;
                runner.prune_runs(&session).await;
            });
        }
        self.runner.keep(self.log.bytes() + reply as u64).await;
        if let Some(old) = self
            .record
            .number
            .checked_sub(KEPT_TURNS)
            .filter(|number| *number > 0)
            && let Err(error) = self.runner.forget_turn(&self.record.folder, old).await
        {
            tracing::warn!(%error, "an old turn was not forgotten");
        }
    }
}
