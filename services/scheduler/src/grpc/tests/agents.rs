//! Jobs that agents make.

use creel_proto::{
    scheduler::v1::{
        Delivery, Every, GrantAgentRequest, GrantAgentResponse, Payload, SessionDelivery, SystemEventPayload,
        admin_service_server::AdminService as _, delivery, payload,
    },
    time::duration,
};
use creel_wire::{Code, authz::test_turn};

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
    stack.resume("check").await;
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

async fn grant(stack: &Stack, session: &str, revoke: bool) -> Result<GrantAgentResponse, Error> {
    let request = GrantAgentRequest {
        session: session.into(),
        revoke,
        ..Default::default()
    };
    let answer = stack.api.grant_agent(asked(request)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| Error::of_status(&status))
}

#[tokio::test(start_paused = true)]
async fn in_a_granted_conversation_an_agents_job_runs_at_once_and_nowhere_else() {
    let world = World::coarse();
    let stack = world.start().await;
    let granted = grant(&stack, "main", false).await.unwrap();
    assert_eq!(
        (granted.grant.unwrap().session.as_str(), granted.unchanged),
        (MAIN, false)
    );
    assert!(grant(&stack, MAIN, false).await.unwrap().unchanged);
    // It outlives a crash of ours.
    stack.crash().await;
    let stack = world.start().await;
    let job = make(&stack, MAIN, every("check", 300))
        .await
        .unwrap()
        .job
        .unwrap();
    assert_eq!(job.phase(), Phase::Scheduled);
    assert!(job.scopes.is_empty(), "no more than the turn has");
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(worker.succeed().await.job_name, "check");

    // Another conversation is none, however much like it, and the limits hold.
    let reason = async |session: &str, spec: JobSpec| match make(&stack, session, spec).await {
        Ok(made) => made.job.unwrap().phase_reason,
        Err(error) => error.reason.to_string(),
    };
    for (n, other) in ["agent:default:person:main", "agent:main:main", "agent:other:main"]
        .iter()
        .enumerate()
    {
        assert_eq!(reason(other, every(&format!("other {n}"), 300)).await, "approval");
    }
    assert_eq!(reason(MAIN, every("often", 299)).await, "agent_limit");
    assert_eq!(reason("cron:a:run:b", every("inside", 300)).await, "inside_job");
    // A run's conversation can't be granted, so a job's turn can't come by it.
    assert_eq!(
        grant(&stack, "cron:a:run:b", false).await.unwrap_err().code,
        Code::InvalidArgument
    );
    for n in 1..10 {
        assert_eq!(reason(MAIN, every(&format!("more {n}"), 300)).await, "");
    }
    assert_eq!(reason(MAIN, every("too many", 300)).await, "agent_limit");

    // Revoked: what was made goes on, what is made now waits.
    assert_eq!(grant(&stack, MAIN, true).await.unwrap().jobs, 10);
    assert_eq!(grant(&stack, MAIN, true).await.unwrap_err().reason, "not_granted");
    stack.delete("more 1").await;
    assert_eq!(reason(MAIN, every("late", 300)).await, "approval");
    assert_eq!(stack.job("check").await.phase_reason, "");
    stack.stop().await;
}
