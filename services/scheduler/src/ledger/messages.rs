//! What is said to workers besides their work.

use creel_proto::scheduler::v1::{
    SchedulerMessage, WorkAck, WorkBegin, WorkCancel, WorkRef, scheduler_message::Message,
};

use crate::{id::RunId, run::Run};

/// The answer to a result.
pub(crate) fn ack_message(run_id: RunId, attempt: u32, accepted: bool) -> SchedulerMessage {
    let r#ref = named(run_id, attempt);
    message(Message::Ack(WorkAck { r#ref, accepted }))
}

/// The answer to a worker that would begin.
pub(super) fn begin_message(run_id: RunId, attempt: u32) -> SchedulerMessage {
    let r#ref = named(run_id, attempt);
    message(Message::Begin(WorkBegin { r#ref }))
}

pub(super) fn cancel_message(run: &Run) -> SchedulerMessage {
    stop_message(
        run.id(),
        run.lease.attempt(),
        run.cancel.clone().unwrap_or_default(),
    )
}

/// The attempt is somebody else's, or nobody's: what its worker says is not taken.
pub(super) fn fenced_message(run_id: RunId, attempt: u32) -> SchedulerMessage {
    stop_message(run_id, attempt, "fenced".to_owned())
}

fn stop_message(run_id: RunId, attempt: u32, reason: String) -> SchedulerMessage {
    let r#ref = named(run_id, attempt);
    message(Message::Cancel(WorkCancel { r#ref, reason }))
}

fn named(run_id: RunId, attempt: u32) -> Option<WorkRef> {
    let run_id = run_id.to_string();
    Some(WorkRef { run_id, attempt })
}

const fn message(message: Message) -> SchedulerMessage {
    SchedulerMessage {
        message: Some(message),
    }
}
