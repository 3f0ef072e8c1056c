//! Another process on the same store and files: the one before is only left alone, as a kill leaves it.

use creel_proto::agent::v1::{TurnState, turn_event::Event};
use creel_wire::ServiceName;

use super::{Ground, MAIN, sequences, words};

#[tokio::test]
async fn a_cut_turn_is_interrupted_and_waiting_ones_run_in_order() {
    let ground = Ground::new("");
    let mut before = ground.house().await;
    let done = before.run(MAIN, "say done").await.turn_id;
    before.reach("say done").await;
    let cut = before.start(MAIN, "silent").await;
    before.reach("silent").await;
    let long = format!("say {}", "x".repeat(100_000));
    let next = before.start(MAIN, &long).await;
    let last = before.start(MAIN, "say last").await;

    let mut after = ground.house().await;
    let turn = after.wait(&cut).await;
    assert_eq!(
        (turn.state(), turn.error.unwrap().reason.as_str()),
        (TurnState::Interrupted, "interrupted")
    );
    assert_eq!(after.wait(&next).await.reply.len(), 100_000);
    assert_eq!(after.wait(&last).await.reply, "last");
    assert_eq!(after.wait(&done).await.reply, "done");
    after.reach(&long).await;
    after.reach("say last").await;

    let events = after.subscribe(&cut, 1).await.unwrap();
    assert_eq!(sequences(&events), [1, 2, 3]);
    assert!(matches!(&events[2].event, Some(Event::Error(error)) if error.reason == "interrupted"));
    let entries = words(&after.transcript(MAIN).await);
    let short: Vec<_> = entries
        .iter()
        .map(|entry| &entry[..entry.len().min(20)])
        .collect();
    assert_eq!(
        short,
        [
            "user say done",
            "assistant done",
            "Succeeded",
            "user silent",
            "turn interrupted: ag",
            "Interrupted interrup",
            "user say xxxxxxxxxxx",
            "assistant xxxxxxxxxx",
            "Succeeded",
            "user say last",
            "assistant last",
            "Succeeded",
        ]
    );
    // Once more: nothing changes.
    let again = ground.house().await;
    assert_eq!(words(&again.transcript(MAIN).await), entries);
}

#[tokio::test]
async fn an_input_that_did_not_reach_the_transcript_is_there_after_the_restart() {
    let ground = Ground::new("");
    let mut before = ground.house().await;
    before.run(MAIN, "say one").await;
    before.reach("say one").await;
    before.start(MAIN, "silent").await;
    before.reach("silent").await;
    // What a power cut may take: entries that were not synced, and a torn one.
    let dir = ground.profile.state(ServiceName::AgentRunner).join("transcripts");
    let folder = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let after = ground.house().await;
    let entries = words(&after.transcript(MAIN).await);
    assert_eq!(entries[2..4], ["Succeeded", "user silent"]);
    assert_eq!(entries.len(), 6);
}

#[tokio::test]
async fn an_end_that_only_the_log_knows_is_the_end() {
    let ground = Ground::new("");
    let mut before = ground.house().await;
    let turn = before.start(MAIN, "silent").await;
    before.reach("silent").await;
    // The last event was written and synced; the process died before its commit.
    let record = before.runner.turn_record(&turn).await.unwrap();
    let mut log = before.runner.open_log(&record).unwrap();
    let last = creel_proto::agent::v1::Final {
        text: "the answer".into(),
    };
    log.append(Event::Final(last), 5).unwrap();
    let after = ground.house().await;
    let turn = after.wait(&turn).await;
    assert_eq!(
        (turn.state(), turn.reply.as_str(), turn.last_sequence),
        (TurnState::Succeeded, "the answer", 3)
    );
    assert_eq!(
        words(&after.transcript(MAIN).await),
        ["user silent", "assistant the answer", "Succeeded"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_interrupts_what_does_not_end_and_leaves_what_waits() {
    let ground = Ground::new("");
    let mut before = ground.house().await;
    let running = before.start(MAIN, "silent").await;
    before.reach("silent").await;
    let waiting = before.start(MAIN, "say later").await;
    before.drain.cancel();
    before.runner.run().await.unwrap();
    assert_eq!(before.wait(&running).await.state(), TurnState::Interrupted);
    assert_eq!(
        before.runner.turn(&waiting).await.unwrap().state(),
        TurnState::Accepted
    );
    let after = ground.house().await;
    assert_eq!(after.wait(&waiting).await.reply, "later");
}

#[tokio::test]
async fn a_removal_that_was_cut_is_made_good() {
    let ground = Ground::new("");
    let before = ground.house().await;
    let turn = before.run(MAIN, "say x").await.turn_id;
    let key = creel_wire::SessionKey::main("default");
    let folder = before
        .runner
        .contexts
        .find(&key)
        .await
        .unwrap()
        .as_ref()
        .unwrap()
        .record
        .folder
        .clone();
    let mut txn = creel_store::Txn::new();
    txn.push_delete(crate::store::context_key(&key));
    let removal = creel_proto::agent::v1::RemovalRecord {
        session: MAIN.into(),
        folder,
    };
    crate::store::put_removal(&mut txn, &removal);
    ground.store.commit(txn).await.unwrap();
    let after = ground.house().await;
    assert!(after.runner.turn_record(&turn).await.is_err());
    let state = ground.profile.state(ServiceName::AgentRunner);
    assert_eq!(std::fs::read_dir(state.join("transcripts")).unwrap().count(), 0);
    let left = crate::store::Kind::Removal.range();
    assert!(ground.store.scan_all(left, 9).await.unwrap().entries.is_empty());
}
