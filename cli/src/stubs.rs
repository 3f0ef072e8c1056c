//! Clients of the stack's services as every command uses them: with one limit on what an answer may be.

use creel_proto::{
    agent::v1::{context_service_client::ContextServiceClient, turn_service_client::TurnServiceClient},
    gateway::v1::{
        log_service_client::LogServiceClient, message_service_client::MessageServiceClient,
        node_service_client::NodeServiceClient, status_service_client::StatusServiceClient,
    },
    identity::v1::{
        device_service_client::DeviceServiceClient, people_service_client::PeopleServiceClient,
        sender_service_client::SenderServiceClient,
    },
    scheduler::v1::{
        admin_service_client::AdminServiceClient as SchedulerAdminClient,
        job_service_client::JobServiceClient, run_service_client::RunServiceClient,
    },
};
use tonic::transport::Channel;

/// The largest answer taken, in bytes: a page of rows with a text of 64 KiB each, and some.
const MAX_ANSWER: usize = 64 << 20;

macro_rules! stubs {
    ($($name:ident -> $client:ident),+ $(,)?) => {
        $(pub(crate) fn $name(channel: Channel) -> $client<Channel> {
            $client::new(channel).max_decoding_message_size(MAX_ANSWER)
        })+
    };
}

stubs! {
    contexts -> ContextServiceClient,
    devices -> DeviceServiceClient,
    jobs -> JobServiceClient,
    logs -> LogServiceClient,
    messages -> MessageServiceClient,
    people -> PeopleServiceClient,
    nodes -> NodeServiceClient,
    runs -> RunServiceClient,
    scheduler -> SchedulerAdminClient,
    senders -> SenderServiceClient,
    status -> StatusServiceClient,
    turns -> TurnServiceClient,
}
