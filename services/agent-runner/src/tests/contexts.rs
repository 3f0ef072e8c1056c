use creel_proto::agent::v1::{
    DeleteContextRequest, GetContextRequest, GetTranscriptRequest, GetTurnRequest, ListContextsRequest,
    Trust, context_service_server::ContextService as _, turn_service_server::TurnService as _,
};
use creel_wire::Code;

use super::{House, MAIN, ask, of};

#[tokio::test]
async fn contexts_are_listed_by_prefix_and_page() {
    let house = House::new().await;
    for n in 0..5 {
        house.run(&format!("agent:a:person:p{n}"), "say x").await;
    }
    house.run(MAIN, "say x").await;
    let list = async |prefix: &str, size: i32, token: &str| {
        let request = ListContextsRequest {
            page_size: size,
            page_token: token.into(),
            prefix: prefix.into(),
        };
        house.contexts.list(ask(request)).await.unwrap().into_inner()
    };
    assert_eq!(list("", 0, "").await.contexts.len(), 6);
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = list("agent:a:", 2, &token).await;
        seen.extend(page.contexts.into_iter().map(|context| context.session));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(
        seen,
        (0..5).map(|n| format!("agent:a:person:p{n}")).collect::<Vec<_>>()
    );
    let main = list("agent:default", 0, "").await.contexts.remove(0);
    assert_eq!(
        (main.trust(), main.turns, main.entries, main.backend.as_str()),
        (Trust::Main, 1, 3, "echo")
    );
    for size in [-1, 501] {
        let request = ListContextsRequest {
            page_size: size,
            ..Default::default()
        };
        assert_eq!(
            of(house.contexts.list(ask(request)).await.unwrap_err())
                .field
                .as_deref(),
            Some("page_size")
        );
    }
}

#[tokio::test]
async fn transcripts_are_read_in_pages_and_from_the_end() {
    let house = House::new().await;
    for n in 0..4 {
        house.run(MAIN, &format!("say {n}")).await;
    }
    let read = async |from_index, page_size, tail| {
        let request = GetTranscriptRequest {
            session: MAIN.into(),
            from_index,
            page_size,
            tail,
        };
        let page = house
            .contexts
            .get_transcript(ask(request))
            .await
            .unwrap()
            .into_inner();
        (
            page.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
            page.next_index,
        )
    };
    assert_eq!(read(0, 5, false).await, (vec![0, 1, 2, 3, 4], 5));
    assert_eq!(read(5, 500, false).await, ((5..12).collect(), 0));
    assert_eq!(read(0, 2, true).await, (vec![10, 11], 0));
    assert_eq!(read(99, 2, false).await, (vec![], 0));
}

#[tokio::test]
async fn a_deleted_context_is_gone_with_its_turns_and_starts_anew() {
    let mut house = House::new().await;
    let old = house.run(MAIN, "say x").await.turn_id;
    house.reach("say x").await;
    let running = house.start(MAIN, "silent").await;
    let waiting = house.start(MAIN, "say never").await;
    house.reach("silent").await;
    let request = |validate_only| DeleteContextRequest {
        request_id: if validate_only { String::new() } else { "d1".into() },
        validate_only,
        session: MAIN.into(),
    };
    assert_eq!(
        house
            .contexts
            .delete(ask(request(true)))
            .await
            .unwrap()
            .into_inner()
            .entries,
        4
    );
    let deleted = house
        .contexts
        .delete(ask(request(false)))
        .await
        .unwrap()
        .into_inner();
    assert!(deleted.entries >= 6, "{deleted:?}");
    assert_eq!(
        house
            .contexts
            .delete(ask(request(false)))
            .await
            .unwrap()
            .into_inner(),
        deleted,
        "the same request"
    );
    for turn in [&old, &running, &waiting] {
        let gone = house
            .turns
            .get(ask(GetTurnRequest {
                turn_id: turn.clone(),
            }))
            .await
            .unwrap_err();
        assert_eq!(of(gone).code, Code::NotFound);
    }
    let state = house.ground.profile.state(creel_wire::ServiceName::AgentRunner);
    for dir in ["transcripts", "events"] {
        assert_eq!(std::fs::read_dir(state.join(dir)).unwrap().count(), 0, "{dir}");
    }
    let none = GetContextRequest { session: MAIN.into() };
    assert_eq!(
        of(house.contexts.get(ask(none.clone())).await.unwrap_err()).code,
        Code::NotFound
    );
    let audit = house.ground.store.scan(
        creel_kit::idempotency::FrameKind::Outbox.range(),
        creel_store::Page::first(9),
    );
    let records = audit.await.unwrap().entries;
    assert_eq!(records.len(), 1);
    assert!(String::from_utf8_lossy(&records[0].value).contains("context.deleted"));

    house.run(MAIN, "say y").await;
    let context = house.contexts.get(ask(none)).await.unwrap().into_inner();
    assert_eq!((context.turns, context.entries), (1, 3));
}
