//! The process ends between any two steps of an act: before a commit, or after it and before anybody is told. For
//! each act every such moment is tried; what was committed is read again, and it must be whole.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use creel_proto::identity::v1::{ApproveRequest, RefusedReason, RotateTokenRequest, WithdrawInviteRequest};
use creel_store::{Entry, Error as StoreError, Fate, KeyRange, Outcome, fated};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    clients::{Client, connected, operator_client, pending, why},
    invites::{self, redeem},
    *,
};

/// Ends the process at one commit, counted from when it was armed.
#[derive(Default)]
struct End {
    /// The commit at which it ends, and whether that one is still made.
    at: Mutex<Option<(usize, bool)>>,
    commits: AtomicUsize,
    ended: Notify,
}

#[tonic::async_trait]
impl Fate for End {
    async fn meet(&self, commit: BoxFuture<'_, Result<Outcome, StoreError>>) -> Result<Outcome, StoreError> {
        let nth = self.commits.fetch_add(1, Ordering::SeqCst);
        let armed = *self.at.lock().unwrap();
        match armed {
            Some((at, made)) if at == nth => {
                if made {
                    commit.await?;
                }
                self.ended.notify_one();
                // Nothing runs any more.
                std::future::pending().await
            }
            _ => commit.await,
        }
    }
}

/// The moment at which it ends.
#[derive(Debug, Clone, Copy)]
struct Cut {
    commit: usize,
    made: bool,
}

/// What there is before an act, and identity as it stands.
struct Stage {
    identity: Identity,
    end: Arc<End>,
    owner: Caller,
}

impl Stage {
    async fn new() -> Self {
        let end = Arc::new(End::default());
        let identity = Identity::on(fated(&end)).await;
        let owner = identity.owner().await;
        Self { identity, end, owner }
    }

    /// Acts, and ends at the cut; `None` if it did. Then identity starts again.
    async fn act<T>(&mut self, cut: Cut, act: impl AsyncFnOnce(&Identity) -> T) -> Option<T> {
        self.end.commits.store(0, Ordering::SeqCst);
        *self.end.at.lock().unwrap() = Some((cut.commit, cut.made));
        let end = Arc::clone(&self.end);
        let answer = tokio::select! {
            biased;
            answer = act(&self.identity) => Some(answer),
            () = end.ended.notified() => None,
        };
        *self.end.at.lock().unwrap() = None;
        self.identity.restart().await;
        answer
    }

    /// How many audit records of this action there are.
    async fn on_record(&self, action: &str) -> usize {
        let all = KeyRange::prefix(b"");
        let entries = self
            .identity
            .deps
            .store
            .scan_all(all, 1_000)
            .await
            .unwrap()
            .entries;
        let says = |entry: &&Entry| {
            entry
                .value
                .windows(action.len())
                .any(|part| part == action.as_bytes())
        };
        entries.iter().filter(says).count()
    }

    fn device(&self, name: &str) -> Vec<creel_proto::identity::v1::DeviceRecord> {
        let all = self
            .identity
            .registry
            .list()
            .into_iter()
            .map(|entry| entry.record);
        all.filter(|record| record.name == name).collect()
    }
}

/// Tries an act with each of its cuts, until there is none left. How many there were.
async fn at_every_cut(mut act: impl AsyncFnMut(Cut) -> bool) {
    let mut cuts = 0;
    for commit in 0.. {
        let mut was_cut = false;
        for made in [false, true] {
            was_cut |= act(Cut { commit, made }).await;
        }
        if !was_cut {
            break;
        }
        cuts += 2;
    }
    assert!(cuts >= 2, "nothing was cut");
}

fn approve(owner: &Caller, pairing: &str) -> Request<ApproveRequest> {
    let request = ApproveRequest {
        request_id: "once".into(),
        pairing: pairing.into(),
        name: "tablet".into(),
        ..Default::default()
    };
    as_caller(owner.clone(), request)
}

#[tokio::test]
async fn an_approval_lets_the_whole_device_in_or_leaves_it_waiting() {
    at_every_cut(async |cut| {
        let mut stage = Stage::new().await;
        let client = operator_client(1, false, &["operator.read", "operator.write"]);
        let asked = pending(stage.identity.prove(&client).await);
        let owner = stage.owner.clone();
        let done = stage
            .act(cut, async |identity| {
                reason(
                    identity
                        .devices()
                        .approve(approve(&owner, &asked.pairing_id))
                        .await,
                )
            })
            .await;
        let waits = stage.identity.pairings.of_device(&client.id()).is_some();
        let devices = stage.device("tablet");
        assert_eq!(waits, devices.is_empty(), "{cut:?}");
        assert_eq!(
            stage.on_record("device.approved").await,
            1 + devices.len(),
            "{cut:?}, and the owner's"
        );
        let again = stage
            .identity
            .devices()
            .approve(approve(&owner, &asked.pairing_id))
            .await;
        assert_eq!(
            reason(again).unwrap().scopes,
            ["operator.read", "operator.write"],
            "{cut:?}"
        );
        assert_eq!(stage.device("tablet").len(), 1);
        connected(stage.identity.prove(&client).await);
        done.is_none()
    })
    .await;
}

async fn invite(stage: &Stage) -> String {
    let made = invites::invite(&stage.identity, &stage.owner, |_| {}).await;
    made.unwrap().secret
}

#[tokio::test]
async fn an_invite_lets_exactly_one_in() {
    at_every_cut(async |cut| {
        let mut stage = Stage::new().await;
        let secret = invite(&stage).await;
        let (first, second) = (device_key(), device_key());
        let done = stage
            .act(cut, async |identity| redeem(identity, &secret, &first).await)
            .await;
        let used = stage.device("phone").len();
        assert_eq!(used, usize::from(done.is_some() || cut.made), "{cut:?}");
        let other = redeem(&stage.identity, &secret, &second).await;
        let same = redeem(&stage.identity, &secret, &first).await;
        assert_eq!((same.is_ok(), other.is_ok()), (used == 1, used == 0), "{cut:?}");
        assert_eq!(stage.device("phone").len(), 1);
        done.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_invite_is_gone_or_still_lets_one_in() {
    at_every_cut(async |cut| {
        let mut stage = Stage::new().await;
        let secret = invite(&stage).await;
        let owner = stage.owner.clone();
        let withdraw = async |identity: &Identity| {
            let request = WithdrawInviteRequest {
                request_id: "once".into(),
                invite: "phone".into(),
                ..Default::default()
            };
            let request = as_caller(owner.clone(), request);
            reason(identity.devices().withdraw_invite(request).await)
        };
        let done = stage.act(cut, withdraw).await;
        let gone = done.is_some() || cut.made;
        assert_eq!(
            stage.on_record("invite.withdrawn").await,
            usize::from(gone),
            "{cut:?}"
        );
        if gone {
            assert_eq!(
                redeem(&stage.identity, &secret, &device_key()).await.unwrap_err(),
                "invite_invalid"
            );
            assert_eq!(withdraw(&stage.identity).await.unwrap().name, "phone", "{cut:?}");
        } else {
            redeem(&stage.identity, &secret, &device_key()).await.unwrap();
        }
        done.is_none()
    })
    .await;
}

/// A device of the original with its token.
async fn tokened(stage: &Stage) -> Client {
    let mut client = operator_client(1, true, &["operator.read"]);
    let asked = pending(stage.identity.prove(&client).await);
    let request = approve(&stage.owner, &asked.pairing_id);
    reason(stage.identity.devices().approve(request).await).unwrap();
    client.token = connected(stage.identity.prove(&client).await).new_token;
    client
}

async fn rotate(identity: &Identity, owner: &Caller, id: &str) -> Result<String, String> {
    let request = RotateTokenRequest {
        request_id: id.into(),
        device: "tablet".into(),
        ..Default::default()
    };
    let request = as_caller(owner.clone(), request);
    reason(identity.devices().rotate_token(request).await).map(|answer| answer.token)
}

#[tokio::test]
async fn of_the_old_token_and_the_new_one_exactly_one_is_good() {
    at_every_cut(async |cut| {
        let mut stage = Stage::new().await;
        let mut client = tokened(&stage).await;
        let owner = stage.owner.clone();
        let done = stage
            .act(cut, async |identity| rotate(identity, &owner, "once").await)
            .await;
        let was_cut = done.is_none();
        let rotated = !was_cut || cut.made;
        let old = client.token.clone();
        let outcome = stage.identity.prove(&client).await;
        if rotated {
            assert_eq!(why(outcome), RefusedReason::TokenMismatch, "{cut:?}");
        } else {
            connected(outcome);
        }
        assert_eq!(
            stage.on_record("device.token_rotated").await,
            usize::from(rotated)
        );
        assert_eq!(
            stage.device("tablet")[0].epoch,
            1 + u64::from(rotated),
            "connections by the old one end"
        );
        client.token = match done {
            Some(answer) => answer.unwrap(),
            // Asked again: it was done, and its token was shown to nobody; or it is done now.
            None => match rotate(&stage.identity, &owner, "once").await {
                Ok(token) => {
                    assert!(!rotated, "{cut:?}");
                    token
                }
                Err(reason) => {
                    assert_eq!((reason.as_str(), rotated), ("shown_once", true), "{cut:?}");
                    rotate(&stage.identity, &owner, "twice").await.unwrap()
                }
            },
        };
        connected(stage.identity.prove(&client).await);
        client.token = old;
        assert_eq!(
            why(stage.identity.prove(&client).await),
            RefusedReason::TokenMismatch
        );
        was_cut
    })
    .await;
}

#[tokio::test]
async fn a_revoked_device_never_gets_in_again() {
    at_every_cut(async |cut| {
        let mut stage = Stage::new().await;
        let client = tokened(&stage).await;
        let owner = stage.owner.clone();
        let revoke = async |identity: &Identity| {
            let request = RevokeDeviceRequest {
                request_id: "once".into(),
                device: "tablet".into(),
                ..Default::default()
            };
            reason(identity.devices().revoke(as_caller(owner.clone(), request)).await)
        };
        let done = stage.act(cut, revoke).await;
        let revoked = done.is_some() || cut.made;
        assert_eq!(
            stage.on_record("device.revoked").await,
            usize::from(revoked),
            "{cut:?}"
        );
        if !revoked {
            connected(stage.identity.prove(&client).await);
        }
        revoke(&stage.identity).await.unwrap();
        assert_eq!(stage.on_record("device.revoked").await, 1, "{cut:?}");
        for _ in 0..2 {
            assert_eq!(
                why(stage.identity.prove(&client).await),
                RefusedReason::DeviceRevoked
            );
            stage.identity.restart().await;
        }
        done.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_recovery_gives_all_scopes_or_none_and_a_wrong_code_counts_once() {
    let recover = async |identity: &Identity, key: &KeyPair, code: &str| {
        let request = RecoverRequest {
            recovery_code: code.into(),
            csr_der: request_for(key).unwrap(),
            name: "rescued".into(),
            ..Default::default()
        };
        reason(identity.local().recover(as_caller(local(), request)).await)
    };
    let prepared = async || {
        let stage = Stage::new().await;
        let hash = creel_wire::names::hex(&Sha256::digest("ABCDE12345"));
        fs::write(stage.identity.deps.profile.recovery_file(), hash).unwrap();
        stage
    };
    at_every_cut(async |cut| {
        let (mut stage, key) = (prepared().await, device_key());
        let done = stage
            .act(cut, async |identity| recover(identity, &key, "ABCDE12345").await)
            .await;
        let there = stage.device("rescued");
        assert_eq!(there.len(), usize::from(done.is_some() || cut.made), "{cut:?}");
        assert!(there.iter().all(|record| record.scopes.len() == 5), "{cut:?}");
        assert_eq!(stage.on_record("device.recovered").await, there.len());
        let again = recover(&stage.identity, &key, "ABCDE12345").await.unwrap();
        assert_eq!(scopes_of(&again).len(), 5);
        assert_eq!(stage.device("rescued").len(), 1, "{cut:?}");
        done.is_none()
    })
    .await;
    at_every_cut(async |cut| {
        let (mut stage, key) = (prepared().await, device_key());
        let done = stage
            .act(cut, async |identity| recover(identity, &key, "WRONG").await)
            .await;
        if let Some(answer) = &done {
            assert_eq!(answer.as_ref().unwrap_err(), "recovery_code_wrong");
        }
        let counted = usize::from(done.is_some() || cut.made);
        assert_eq!(stage.on_record("recovery.refused").await, counted, "{cut:?}");
        for _ in counted..crate::guesses::MAX_FAILURES as usize {
            recover(&stage.identity, &key, "WRONG").await.unwrap_err();
        }
        let right = recover(&stage.identity, &key, "ABCDE12345").await;
        assert_eq!(
            right.unwrap_err(),
            "too_many_guesses",
            "{cut:?}: an ended process frees no guess"
        );
        done.is_none()
    })
    .await;
}
