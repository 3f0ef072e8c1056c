//! One answer per (principal, method, `request_id`), committed with the change it answers.

use std::sync::Arc;

use creel_proto::kit::v1::IdempotencyRecord;
use creel_store::{Key, Page, Store, Txn, be, kinds::parts};
use creel_wire::{Caller, Code, Error};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::{Clock, failure::store_error};

creel_store::kinds! {
    /// What the frame keeps in every service's store.
    pub enum FrameKind {
        /// An answer, by hash of (principal, method, request id).
        Answer = b"~i",
        /// Answers by age: (creation, hash).
        AnswerAge = b"~j",
        /// An audit record that waits to be shipped, by number.
        Outbox = b"~o",
    }
    retired { b"~s" }
}

/// Answers are kept so long, in milliseconds.
pub const KEEP_MS: i64 = 24 * 3_600 * 1_000;

/// A request id is never longer, in bytes.
pub const MAX_REQUEST_ID: usize = 128;

/// Remembers answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Idempotency {
    store: Store,
    clock: Clock,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Begin<T> {
    /// Do it, and pass the slot to [`Slot::record`] in the same transaction.
    Go(Slot),
    /// It was done: this was the answer.
    Done(T),
}

/// Where the answer of a request goes.
#[derive(Debug, Clone)]
pub struct Slot(Option<Arc<SlotInner>>);

#[derive(Debug)]
struct SlotInner {
    hash: [u8; 32],
    request_hash: [u8; 32],
    now_ms: i64,
}

impl Idempotency {
    /// Answers kept in a service's store.
    #[must_use]
    pub const fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Looks a request up. `request` must not hold anything random; an empty id remembers nothing.
    ///
    /// # Errors
    /// `Conflict` when the id was used for another request, and what the store said.
    pub async fn begin<T: Message + Default>(
        &self,
        caller: &Caller,
        method: &str,
        request_id: &str,
        request: &impl Message,
    ) -> Result<Begin<T>, Error> {
        if request_id.is_empty() {
            return Ok(Begin::Go(Slot(None)));
        }
        if request_id.len() > MAX_REQUEST_ID {
            return Err(Error::invalid(
                "request_id",
                format!("at most {MAX_REQUEST_ID} bytes"),
            ));
        }
        let mut hasher = Sha256::new();
        for part in [caller.principal().to_string().as_str(), method, request_id] {
            hasher.update(be(part.len() as u64));
            hasher.update(part);
        }
        let slot = SlotInner {
            hash: hasher.finalize().into(),
            request_hash: Sha256::digest(request.encode_to_vec()).into(),
            now_ms: self.clock.now_ms(),
        };
        let Some(entry) = self.store.get(&slot.key()).await.map_err(store_error)? else {
            return Ok(Begin::Go(Slot(Some(Arc::new(slot)))));
        };
        let record = IdempotencyRecord::decode(entry.value)
            .map_err(|_| Error::internal("reading an earlier answer"))?;
        if record.request_hash != slot.request_hash {
            let message = "this request_id was used for another request";
            return Err(Error::new(Code::Conflict, "request_id_reused", message)
                .field("request_id")
                .hint("use a new request_id for a new request"));
        }
        let answer = T::decode(record.response.as_slice())
            .map_err(|_| Error::internal("reading an earlier answer"))?;
        Ok(Begin::Done(answer))
    }

    /// Forgets answers that are old enough; a bounded number at a time. Returns how many.
    ///
    /// # Errors
    /// What the store said.
    pub async fn sweep(&self) -> Result<usize, creel_store::Error> {
        let limit = self.clock.now_ms().saturating_sub(KEEP_MS).max(0).unsigned_abs();
        let mut swept = 0;
        loop {
            let page = self
                .store
                .scan(FrameKind::AnswerAge.range(), Page::first(40))
                .await?;
            let old: Vec<_> = page
                .entries
                .iter()
                .filter_map(|entry| {
                    let parts = parts(&entry.key)?;
                    let created = creel_store::from_be(parts.first()?)?;
                    (created <= limit).then(|| (entry.key.clone(), parts.get(1).cloned().unwrap_or_default()))
                })
                .collect();
            if old.is_empty() {
                return Ok(swept);
            }
            let mut txn = Txn::new();
            for (age, hash) in &old {
                txn.push_delete(age.clone());
                txn.push_delete(FrameKind::Answer.key([hash]));
            }
            self.store.commit(txn).await?;
            swept += old.len();
        }
    }
}

impl SlotInner {
    fn key(&self) -> Key {
        FrameKind::Answer.key([self.hash])
    }
}

impl Slot {
    /// Remembers nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Adds the answer to the transaction of the change. If another one with the same id was faster,
    /// the transaction conflicts and the caller looks again.
    pub fn record(&self, txn: &mut Txn, response: &impl Message) {
        let Some(slot) = &self.0 else { return };
        let record = IdempotencyRecord {
            request_hash: slot.request_hash.to_vec(),
            response: response.encode_to_vec(),
            created_at_unix_ms: slot.now_ms,
        };
        txn.push_cmp(creel_store::Cmp::Absent(slot.key()));
        txn.push_put(slot.key(), record.encode_to_vec());
        let age = be(slot.now_ms.max(0).unsigned_abs());
        txn.push_put(
            FrameKind::AnswerAge.key([age.as_slice(), slot.hash.as_slice()]),
            Vec::new(),
        );
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::{Device, RenameDeviceRequest};
    use creel_wire::{Principal, Scopes, authz::test_caller};

    use super::*;

    fn caller(id: u8) -> Caller {
        test_caller(Principal::Job(id.to_string()), Scopes::new(), None)
    }

    #[tokio::test]
    async fn the_same_request_has_one_answer_per_principal_for_a_day() {
        let (store, clock) = (Store::memory(), Clock::manual(1_000));
        let idempotency = Idempotency::new(store.clone(), clock.clone());
        let request = RenameDeviceRequest {
            name: "a".into(),
            ..Default::default()
        };
        let begin = |caller: Caller, request: RenameDeviceRequest| {
            let idempotency = idempotency.clone();
            async move {
                idempotency
                    .begin::<Device>(&caller, "Rename", "r1", &request)
                    .await
            }
        };
        let Begin::Go(slot) = begin(caller(1), request.clone()).await.unwrap() else {
            panic!("new")
        };
        let mut txn = Txn::new();
        slot.record(
            &mut txn,
            &Device {
                name: "a".into(),
                ..Default::default()
            },
        );
        assert!(store.commit(txn).await.unwrap().is_committed());

        let Begin::Done(answer) = begin(caller(1), request.clone()).await.unwrap() else {
            panic!("known")
        };
        assert_eq!(answer.name, "a");
        let other = RenameDeviceRequest {
            name: "b".into(),
            ..Default::default()
        };
        assert_eq!(
            begin(caller(1), other).await.unwrap_err().reason,
            "request_id_reused"
        );
        assert!(
            matches!(begin(caller(2), request.clone()).await.unwrap(), Begin::Go(_)),
            "another's answer"
        );

        // A second transaction under the same slot conflicts: two racing requests have one effect.
        let mut again = Txn::new();
        slot.record(&mut again, &Device::default());
        assert!(!store.commit(again).await.unwrap().is_committed());

        clock.advance(KEEP_MS - 1);
        assert_eq!(idempotency.sweep().await.unwrap(), 0);
        clock.advance(1);
        assert_eq!(idempotency.sweep().await.unwrap(), 1);
        assert!(matches!(begin(caller(1), request).await.unwrap(), Begin::Go(_)));
    }
}
