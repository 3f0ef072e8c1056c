//! People, and chat senders who may write to the agent.

use creel_proto::identity::v1::{
    AddPersonRequest, AllowSenderRequest, ApproveSenderRequest, LinkSenderRequest, ListAllowedSendersRequest,
    ListPendingSendersRequest, ListPeopleRequest, RemovePersonRequest, RemoveSenderRequest,
    ResolveSenderRequest, Sender, SenderSubject, UnlinkSenderRequest,
    people_service_server::PeopleService as _, resolve_sender_response::Outcome,
    sender_service_server::SenderService as _,
};

use super::*;
use crate::grpc::{people::PeopleRpc, sender::SenderRpc};

fn who(id: &str) -> Option<Sender> {
    Some(Sender {
        channel: "telegram".into(),
        account: String::new(),
        platform_id: id.into(),
    })
}

fn everything() -> Caller {
    operator(&Scope::ALL.iter().copied().collect())
}

pub(super) struct Chat<'a> {
    identity: &'a Identity,
    senders: SenderRpc,
    people: PeopleRpc,
}

impl<'a> Chat<'a> {
    pub(super) fn new(identity: &'a Identity) -> Self {
        Self {
            identity,
            senders: SenderRpc::new(&identity.deps),
            people: PeopleRpc::new(&identity.deps, &identity.registry),
        }
    }

    async fn resolve(&self, id: &str, direct: bool) -> Outcome {
        let request = ResolveSenderRequest {
            sender: who(id),
            direct,
            may_pair: true,
            display_name: "Owner".into(),
        };
        let gateway = service_caller(ServiceName::Gateway);
        reason(self.senders.resolve(as_caller(gateway, request)).await)
            .unwrap()
            .outcome
            .unwrap()
    }

    pub(super) async fn code(&self, id: &str) -> String {
        match self.resolve(id, true).await {
            Outcome::CodeIssued(issued) => issued.code,
            other => panic!("no code: {other:?}"),
        }
    }

    pub(super) async fn approve(&self, code: &str) -> Result<Sender, String> {
        let request = ApproveSenderRequest {
            request_id: String::new(),
            channel: "telegram".into(),
            code: code.into(),
        };
        let answer = reason(self.senders.approve(as_caller(everything(), request)).await)?;
        Ok(answer.sender.unwrap())
    }

    async fn link(&self, person: &str, id: &str) -> Result<usize, String> {
        let request = LinkSenderRequest {
            person: person.into(),
            sender: who(id),
            ..Default::default()
        };
        let answer = reason(self.people.link(as_caller(everything(), request)).await)?;
        Ok(answer.senders.len())
    }

    async fn mint(&self, id: &str) -> Result<AssertionClaims, String> {
        let subject = Subject::Sender(SenderSubject {
            sender: who(id),
            binding: "m".into(),
        });
        self.identity.mint(ServiceName::Gateway, subject).await
    }
}

#[tokio::test]
async fn an_unknown_sender_gets_a_code_once_and_is_let_in_by_it() {
    let identity = Identity::new().await;
    let chat = Chat::new(&identity);
    assert_eq!(chat.mint("7").await.unwrap_err(), "sender_unknown");
    let code = chat.code("7").await;
    assert_eq!(code.len(), 8);
    assert!(
        matches!(chat.resolve("7", true).await, Outcome::Waiting(_)),
        "the same request"
    );
    let listed = ListPendingSendersRequest::default();
    let listed = reason(chat.senders.list_pending(as_caller(everything(), listed)).await).unwrap();
    assert_eq!(listed.senders.len(), 1);
    let raw = identity
        .deps
        .store
        .scan_all(creel_store::KeyRange::prefix(b""), 1_000)
        .await
        .unwrap();
    let shown = |bytes: &[u8]| bytes.windows(8).any(|w| w == code.as_bytes());
    assert!(
        !raw.entries.iter().any(|entry| shown(&entry.value)),
        "only its hash is kept"
    );

    assert_eq!(chat.approve("WRONGONE").await.unwrap_err(), "code_unknown");
    let let_in = chat
        .approve(&format!("  {}\n", code.to_lowercase()))
        .await
        .unwrap();
    assert_eq!(let_in.platform_id, "7");
    assert_eq!(chat.approve(&code).await.unwrap_err(), "code_unknown", "used");
    assert!(matches!(chat.resolve("7", true).await, Outcome::Known(_)));
    assert!(
        matches!(chat.resolve("7", false).await, Outcome::Denied(_)),
        "nothing gained in groups"
    );
    let claims = chat.mint("7").await.unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.scopes.len()),
        ("telegram:default:7", 0)
    );
    // A name is nobody.
    assert!(matches!(
        chat.resolve("Owner", true).await,
        Outcome::CodeIssued(_)
    ));
    let remove = RemoveSenderRequest {
        sender: who("7"),
        ..Default::default()
    };
    reason(chat.senders.remove(as_caller(everything(), remove.clone())).await).unwrap();
    assert_eq!(
        reason(chat.senders.remove(as_caller(everything(), remove)).await).unwrap_err(),
        "not_found"
    );
    assert_eq!(chat.mint("7").await.unwrap_err(), "sender_unknown");
}

#[tokio::test]
async fn three_wait_the_oldest_gives_way_and_a_code_ends_at_an_hour() {
    let identity = Identity::new().await;
    let chat = Chat::new(&identity);
    let first = chat.code("1").await;
    chat.code("2").await;
    let third = chat.code("3").await;
    assert!(matches!(chat.resolve("4", true).await, Outcome::Full(_)));
    identity.deps.clock.advance(600_000);
    assert!(matches!(chat.resolve("4", true).await, Outcome::Full(_)));
    identity.deps.clock.advance(1);
    chat.code("4").await;
    assert_eq!(
        chat.approve(&first).await.unwrap_err(),
        "code_unknown",
        "it gave way"
    );
    identity.deps.clock.advance(3_600_000 - 600_001 - 1);
    chat.approve(&third).await.unwrap();
    let second_life = chat.code("5").await;
    identity.deps.clock.advance(3_600_000);
    assert_eq!(chat.approve(&second_life).await.unwrap_err(), "code_unknown");
    chat.code("5").await;
}

#[tokio::test]
async fn guesses_are_counted_per_approver_over_restarts() {
    let identity = Identity::new().await;
    let code = Chat::new(&identity).code("1").await;
    for _ in 0..10 {
        assert_eq!(
            Chat::new(&identity).approve("AAAAAAAA").await.unwrap_err(),
            "code_unknown"
        );
    }
    let chat = Chat::new(&identity);
    assert_eq!(chat.approve(&code).await.unwrap_err(), "too_many_guesses");
    let other = test_caller(
        Principal::Operator(DeviceId::of_public_key(&[8; 32])),
        [Scope::Pairing].into(),
        None,
    );
    let request = ApproveSenderRequest {
        request_id: String::new(),
        channel: "telegram".into(),
        code: code.clone(),
    };
    let by_other = reason(chat.senders.approve(as_caller(other, request)).await);
    assert!(by_other.is_ok(), "another approver is not held up: {by_other:?}");
    let next = chat.code("2").await;
    identity.deps.clock.advance(crate::guesses::PAUSE_MS - 1);
    assert_eq!(chat.approve(&next).await.unwrap_err(), "too_many_guesses");
    identity.deps.clock.advance(1);
    chat.approve(&next).await.unwrap();
}

#[tokio::test]
async fn wildcards_and_blanks_are_nobody() {
    let identity = Identity::new().await;
    let chat = Chat::new(&identity);
    for bad in ["*", "", " 1", "a\u{202e}"] {
        let request = AllowSenderRequest {
            sender: who(bad),
            ..Default::default()
        };
        let answer = reason(chat.senders.allow(as_caller(everything(), request)).await);
        assert_eq!(answer.unwrap_err(), "invalid_argument", "{bad:?}");
    }
    let allow = |id: &str| AllowSenderRequest {
        sender: who(id),
        ..Default::default()
    };
    for id in ["1", "2", "3"] {
        reason(chat.senders.allow(as_caller(everything(), allow(id))).await).unwrap();
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAllowedSendersRequest {
            channel: "telegram".into(),
            page_size: 2,
            page_token,
        };
        let page = reason(chat.senders.list_allowed(as_caller(everything(), request)).await).unwrap();
        seen.extend(
            page.senders
                .into_iter()
                .map(|one| one.sender.unwrap().platform_id),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_sender_speaks_for_one_person_and_a_person_goes_only_without_devices() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let chat = Chat::new(&identity);
    let add = |name: &str| {
        let request = AddPersonRequest {
            person: name.into(),
            ..Default::default()
        };
        let answer = chat.people.add(as_caller(everything(), request));
        async move { reason(answer.await) }
    };
    add("anna").await.unwrap();
    assert_eq!(add("anna").await.unwrap_err(), "name_in_use");
    assert_eq!(add("owner").await.unwrap_err(), "name_in_use");
    assert_eq!(add("Anna").await.unwrap_err(), "invalid_argument");
    assert_eq!(chat.link("anna", "7").await.unwrap(), 1);
    assert_eq!(chat.link("anna", "7").await.unwrap(), 1, "again changes nothing");
    assert_eq!(chat.link("owner", "7").await.unwrap_err(), "sender_linked");
    assert_eq!(chat.link("bert", "8").await.unwrap_err(), "not_found");
    let known = Outcome::Known(creel_proto::identity::v1::KnownSender {
        person: "anna".into(),
    });
    assert_eq!(chat.resolve("7", true).await, known);
    assert_eq!(
        chat.resolve("7", false).await,
        known,
        "a link counts in groups, too"
    );
    assert_eq!(chat.mint("7").await.unwrap().person, "anna");

    let asked = super::clients::pending(
        identity
            .prove(&super::clients::operator_client(1, true, &["operator.read"]))
            .await,
    );
    let request = creel_proto::identity::v1::ApproveRequest {
        pairing: asked.pairing_id,
        person: "anna".into(),
        ..Default::default()
    };
    let device = reason(
        identity
            .devices()
            .approve(as_caller(owner.clone(), request))
            .await,
    )
    .unwrap();
    assert_eq!(device.person, "anna");
    let remove = |name: &str| {
        let request = RemovePersonRequest {
            person: name.into(),
            ..Default::default()
        };
        let answer = chat.people.remove(as_caller(everything(), request));
        async move { reason(answer.await) }
    };
    assert_eq!(remove("anna").await.unwrap_err(), "person_has_devices");
    assert_eq!(remove("owner").await.unwrap_err(), "owner_stays");
    identity.revoke(&device.name).await.unwrap();
    let invite = creel_proto::identity::v1::CreateInviteRequest {
        name: "late".into(),
        person: "anna".into(),
        ..Default::default()
    };
    let invite = identity.devices().create_invite(as_caller(owner, invite)).await;
    let invite = reason(invite).unwrap();
    remove("anna").await.unwrap();
    let late = super::invites::redeem(&identity, &invite.secret, &device_key()).await;
    assert_eq!(
        late.unwrap_err(),
        "not_found",
        "an invite does not bring a person back"
    );
    assert!(
        matches!(chat.resolve("7", false).await, Outcome::Denied(_)),
        "its links went with it"
    );
    let list = reason(
        chat.people
            .list(as_caller(everything(), ListPeopleRequest {}))
            .await,
    )
    .unwrap();
    assert_eq!(list.people.len(), 1);
    chat.link("owner", "7").await.unwrap();
    let unlink = UnlinkSenderRequest {
        person: "owner".into(),
        sender: who("7"),
        ..Default::default()
    };
    reason(chat.people.unlink(as_caller(everything(), unlink)).await).unwrap();
    assert!(matches!(chat.resolve("7", false).await, Outcome::Denied(_)));
}
