//! What one owner has waiting, and what that costs another.

use creel_proto::scheduler::v1::{CreateJobRequest, job_service_server::JobService as _};
use creel_wire::{Scope, authz::test_acting_for};

use super::*;
use crate::testing::{asked_by, operator};

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_owner_holds_up_no_other_owner() {
    let world = World::new();
    let stack = world.start().await;
    for n in 0..300 {
        stack.create(once(&format!("flood {n}"), 60_000)).await;
    }
    // Due last of all.
    let spec = Some(once("alone", 90_000));
    let request = CreateJobRequest {
        spec,
        ..Default::default()
    };
    let other = test_acting_for(operator(&[Scope::Read, Scope::Write]), "other");
    stack.api.create(asked_by(other, request)).await.unwrap();
    sleep(100 * SECOND).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut works = vec![worker.received().await, worker.received().await];
    let mut owners: Vec<_> = works.iter().map(|work| work.owner.clone()).collect();
    owners.sort();
    assert_eq!(owners, ["other", "owner"], "they take turns");
    // Nobody else waits: the flood has all the room.
    let mut acked = 0;
    while acked < 301 {
        for work in works.drain(..) {
            worker.finish(&of(&work), RunState::Succeeded).await;
        }
        match worker.hear().await {
            Down::Work(work) => works.push(work),
            Down::Ack(ack) => acked += u32::from(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    stack.stop().await;
}
