//! The way in, against a stack of two fakes: identity's local socket and the edge, both real TLS with
//! certificates as identity makes them.

mod fakes;
mod resume;

use creel_wire::ServiceName;
use fakes::{Certs, Stack};

use super::*;
use crate::args::Global;

fn context(stack: &Stack) -> Context {
    let mut context = Context::new(Global {
        json: true,
        ..Global::default()
    });
    context.at = Some(stack.profile.clone());
    context
}

async fn whoami(client: &Client) -> Result<String, Failure> {
    use creel_proto::gateway::v1::{WhoAmIRequest, status_service_client::StatusServiceClient};
    let call = client.call(&WhoAmIRequest {}, |channel, request| async move {
        StatusServiceClient::new(channel).who_am_i(request).await
    });
    call.await.map(|answer| answer.principal)
}

fn error(failure: Failure) -> (u8, String, String) {
    let error = failure.error().unwrap();
    (
        error.code.exit(),
        error.reason.to_string(),
        error.hint.clone().unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_first_call_makes_a_device_and_later_ones_use_it() {
    let stack = Stack::start(Certs::new()).await;
    let client = Client::open(&mut context(&stack)).await.unwrap();
    let key = client.files.load_key().unwrap().unwrap();
    let expected = format!("operator/{}", key.device_id().unwrap());
    assert_eq!(
        whoami(&client).await.unwrap(),
        expected,
        "the device key is the TLS key"
    );
    let again = Client::open(&mut context(&stack)).await.unwrap();
    assert_eq!(whoami(&again).await.unwrap(), expected);
    assert_eq!(stack.bootstraps(), 1);
    assert_eq!(stack.names(), [device_name()]);
}

#[tokio::test]
async fn a_new_stack_in_the_same_place_knows_the_same_key() {
    let first = Stack::start(Certs::new()).await;
    let before = Client::open(&mut context(&first)).await.unwrap();
    let second = Stack::start_at(Certs::new(), first.stop()).await;
    let after = Client::open(&mut context(&second)).await.unwrap();
    assert_ne!(before.device.root, after.device.root);
    let id = |client: &Client| client.files.load_key().unwrap().unwrap().device_id();
    assert_eq!(id(&before), id(&after));
    assert!(whoami(&after).await.is_ok());
}

#[tokio::test]
async fn a_certificate_past_half_its_life_is_renewed_and_one_that_ended_is_made_anew() {
    let stack = Stack::start(Certs::new()).await;
    stack.issue_for_days(20, 10);
    let old = Client::open(&mut context(&stack)).await.unwrap();
    let renewed_before = stack.renewals();
    stack.issue_for_days(0, 90);
    let renewing = Client::open(&mut context(&stack)).await.unwrap();
    assert_eq!((stack.bootstraps(), stack.renewals()), (1, renewed_before + 1));
    let new = renewing.files.load().unwrap().unwrap();
    assert!(new.until_ms > old.device.until_ms);
    assert!(whoami(&renewing).await.is_ok());

    let mut late = context(&stack);
    // Far behind: certificates end at whole seconds, so the next one may end a second later.
    late.clock = creel_kit::Clock::manual(new.until_ms + 86_400_000);
    assert!(Client::open(&mut late).await.is_ok());
    assert_eq!((stack.bootstraps(), stack.renewals()), (2, renewed_before + 1));
}

#[tokio::test]
async fn refusals_and_absences_have_their_own_exit_status_and_next_step() {
    let stack = Stack::start(Certs::new()).await;
    let client = Client::open(&mut context(&stack)).await.unwrap();
    stack.revoke();
    assert_eq!(
        error(whoami(&client).await.unwrap_err()),
        (4, "device_revoked".into(), "creel devices recover".into())
    );

    // An edge of another stack under the address of ours.
    let stranger = Stack::start(Certs::new()).await;
    std::fs::copy(stranger.profile.edge_file(), stack.profile.edge_file()).unwrap();
    let client = Client::open(&mut context(&stack)).await.unwrap();
    let (exit, reason, _) = error(whoami(&client).await.unwrap_err());
    assert_eq!((exit, reason.as_str()), (4, "server_not_trusted"));

    let profile = stranger.stop();
    std::fs::copy(profile.edge_file(), stack.profile.edge_file()).unwrap();
    let client = Client::open(&mut context(&stack)).await.unwrap();
    let (exit, reason, hint) = error(whoami(&client).await.unwrap_err());
    assert_eq!((exit, reason.as_str()), (5, "not_running"));
    assert!(hint.contains("make up"), "{hint}");
}

#[tokio::test]
async fn without_a_stack_nothing_is_made() {
    let stack = Stack::start(Certs::new()).await;
    let profile = stack.stop();
    std::fs::remove_file(profile.socket(ServiceName::Identity)).unwrap();
    let mut context = Context::new(Global::default());
    context.at = Some((*profile).clone());
    let failure = Client::open(&mut context).await.err().unwrap();
    assert_eq!(error(failure).1, "not_running");
    context.global.endpoint = Some("127.0.0.1:1".into());
    let failure = Client::open(&mut context).await.err().unwrap();
    assert_eq!(error(failure).1, "no_credentials");
    assert!(Files::of_cli(&profile).load().unwrap().is_none());
}

#[tokio::test]
async fn a_call_that_is_told_not_now_is_made_again_and_one_that_hangs_ends() {
    let stack = Stack::start(Certs::new()).await;
    let client = Client::open(&mut context(&stack)).await.unwrap();
    stack.busy(2);
    assert!(whoami(&client).await.is_ok());
    stack.busy(3);
    assert_eq!(error(whoami(&client).await.unwrap_err()).1, "busy");

    let hangs = client.call_within(Duration::from_millis(1), |_| {
        std::future::pending::<Result<Response<()>, Status>>()
    });
    assert_eq!(
        error(hangs.await.unwrap_err()),
        (
            5,
            "timeout".into(),
            "creel status; --timeout D waits longer".into()
        )
    );
}

#[tokio::test]
async fn a_certificate_the_edge_does_not_know_is_refused_with_the_way_back() {
    let stack = Stack::start(Certs::new()).await;
    let client = Client::open(&mut context(&stack)).await.unwrap();
    // Another stack's device, that trusts this stack's root.
    let other = Stack::start(Certs::new()).await;
    let theirs = Client::open(&mut context(&other)).await.unwrap();
    let device = Device {
        root: client.device.root.clone(),
        ..theirs.device.clone()
    };
    let mixed = Client::with(
        client.endpoint.clone(),
        device,
        client.files.clone(),
        (*stack.profile).clone(),
        Duration::from_secs(5),
    )
    .unwrap();
    let (exit, reason, hint) = error(whoami(&mixed).await.unwrap_err());
    assert_eq!(
        (exit, reason.as_str(), hint.as_str()),
        (4, "certificate_refused", "creel devices recover")
    );
}
