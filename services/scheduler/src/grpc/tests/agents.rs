//! Jobs that agents make.

use creel_proto::{
    scheduler::v1::{Delivery, Every, Payload, SessionDelivery, SystemEventPayload, delivery, payload},
    time::duration,
};
use creel_wire::authz::test_turn;

use super::*;

const MAIN: &str = "agent:default:main";

async fn make(stack: &Stack, session: &str, spec: JobSpec) -> Result<CreateJobResponse, Error> {
    let answer = stack.api.create(asked_by(test_turn(session), new(spec))).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| Error::of_status(&status))
}

#[tokio::test(start_paused = true)]
async fn an_agents_job_sleeps_until_a_person_approves_it() {
    let world = World::coarse();
    let stack = world.start().await;
    let job = make(&stack, MAIN, every("check", 300))
        .await
        .unwrap()
        .job
        .unwrap();
    assert_eq!(
        (job.phase(), job.phase_reason.as_str(), job.next_run_at),
        (Phase::Paused, "approval", None)
    );
    assert_eq!(
        (job.created_by.as_str(), job.context.as_str()),
        ("turn/turn", MAIN)
    );
    assert!(job.scopes.is_empty(), "no more than the turn has");
    let mut worker = stack.worker("one", &[]).await;
    worker.no_work_for(std::time::Duration::from_secs(1_000)).await;
    // Neither a restart nor the agent itself changes that.
    stack.crash().await;
    let stack = world.start().await;
    assert_eq!(stack.job("check").await.phase_reason, "approval");
    let resume = ResumeJobRequest {
        job: "check".into(),
        ..Default::default()
    };
    stack.api.resume(asked(resume)).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(worker.succeed().await.target, MAIN);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn agents_make_only_narrow_jobs_and_only_a_few() {
    let world = World::new();
    let stack = world.start().await;
    let refused = async |session: &str, change: &dyn Fn(&mut JobSpec)| {
        let mut spec = every("job", 300);
        change(&mut spec);
        let error = make(&stack, session, spec).await.unwrap_err();
        (error.reason.to_string(), error.field.unwrap_or_default())
    };
    let is = |reason: &str, field: &str| (reason.to_owned(), field.to_owned());
    let within = |_: &mut JobSpec| {};
    assert_eq!(refused("cron:a:run:b", &within).await, is("inside_job", ""));
    assert_eq!(refused("", &within).await, is("inside_job", ""));
    let elsewhere = |spec: &mut JobSpec| spec.target = "agent:other:main".into();
    assert_eq!(refused(MAIN, &elsewhere).await, is("agent_limit", "spec.target"));
    let event = |spec: &mut JobSpec| {
        spec.payload = Some(Payload {
            kind: Some(payload::Kind::SystemEvent(SystemEventPayload {
                text: "x".into(),
            })),
        });
    };
    assert_eq!(refused(MAIN, &event).await, is("agent_limit", "spec.payload"));
    let often = |spec: &mut JobSpec| {
        spec.schedule = Some(Schedule {
            kind: Some(schedule::Kind::Every(Every {
                period: Some(duration(299_999)),
                ..Default::default()
            })),
        });
    };
    assert_eq!(refused(MAIN, &often).await, is("agent_limit", "spec.schedule"));
    let bursts = |spec: &mut JobSpec| {
        spec.schedule = Some(Schedule {
            kind: Some(schedule::Kind::Cron(Cron {
                expression: "0,4 7 * * *".into(),
                zone: "UTC".into(),
                ..Default::default()
            })),
        });
    };
    assert_eq!(refused(MAIN, &bursts).await, is("agent_limit", "spec.schedule"));
    let report = |spec: &mut JobSpec| {
        spec.delivery = Some(Delivery {
            to: Some(delivery::To::Session(SessionDelivery {
                session: "agent:other:main".into(),
            })),
        });
    };
    assert_eq!(refused(MAIN, &report).await, is("agent_limit", "spec.delivery"));
    for n in 0..10 {
        make(&stack, MAIN, every(&format!("job-{n}"), 300)).await.unwrap();
    }
    let error = make(&stack, MAIN, every("one more", 300)).await.unwrap_err();
    assert_eq!(error.reason, "agent_limit");
    // A person's jobs do not count, and one that is gone makes room.
    create(&stack, new(every("a person's", 300))).await.unwrap();
    stack.delete("job-3").await;
    make(&stack, MAIN, every("one more", 300)).await.unwrap();
    stack.stop().await;
}
