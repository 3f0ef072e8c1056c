//! `AdminService`: the service itself.

use creel_kit::{failure::store_error, idempotency::Begin};
use creel_proto::{
    scheduler::v1::{
        AcceptClockRequest, AcceptClockResponse, GrantAgentRequest, GrantAgentResponse, JobRecord,
        ListAgentGrantsRequest, ListAgentGrantsResponse, PruneRequest, PruneResponse, SchedulerStatus,
        SnapshotEnd, SnapshotHeader, SnapshotRecord, SnapshotRequest, StatusRequest,
        admin_service_server::AdminService, snapshot_record::Record,
    },
    time::{timestamp, unix_ms},
};
use creel_store::{Page, Txn};
use creel_wire::{Caller, Error, authz};
use futures_util::{StreamExt as _, stream::BoxStream};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, shown};
use crate::{
    prune, run,
    spec::session,
    store::{Kind, job_of_key},
};

/// Records of a snapshot that wait for its reader.
const MAX_WAITING: usize = 64;
/// Jobs read together for a snapshot.
const PAGE: usize = 256;

#[tonic::async_trait]
impl AdminService for Api {
    type SnapshotStream = BoxStream<'static, Result<SnapshotRecord, Status>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<SchedulerStatus>, Status> {
        authz::split(request)?;
        let zones = self.zones.get();
        let status = self
            .engine
            .ask(move |ledger, now| ledger.status(&zones, now))
            .await?;
        Ok(Response::new(status))
    }

    async fn accept_clock(
        &self,
        request: Request<AcceptClockRequest>,
    ) -> Result<Response<AcceptClockResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.accept(&caller, message).await?))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.prune_now(&caller, message).await?))
    }

    async fn grant_agent(
        &self,
        request: Request<GrantAgentRequest>,
    ) -> Result<Response<GrantAgentResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.grant(&caller, message).await?))
    }

    async fn list_agent_grants(
        &self,
        request: Request<ListAgentGrantsRequest>,
    ) -> Result<Response<ListAgentGrantsResponse>, Status> {
        authz::split(request)?;
        let grants = self.engine.ask(|ledger, _| ledger.agent_grants()).await?;
        Ok(Response::new(ListAgentGrantsResponse { grants }))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        authz::split(request)?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let api = self.clone();
        tokio::spawn(async move {
            if let Err(error) = api.copy(&sender).await {
                // Whoever reads it may be gone.
                drop(sender.send(Err(error.into())).await);
            }
        });
        let stream = ReceiverStream::new(receiver).take_until(self.drain.clone().cancelled_owned());
        Ok(Response::new(stream.boxed()))
    }
}

impl Api {
    async fn accept(
        &self,
        caller: &Caller,
        message: AcceptClockRequest,
    ) -> Result<AcceptClockResponse, Error> {
        let _turn = self.busy.enter(caller, "AcceptClock", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "AcceptClock", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        if message.validate_only {
            self.engine.ask(|ledger, _| ledger.may_accept_clock()).await??;
            return Ok(AcceptClockResponse::default());
        }
        let principal = caller.principal().to_string();
        self.engine
            .change(move |ledger, now| {
                let response = AcceptClockResponse {
                    jobs_moved: ledger.accept_clock(&principal, now)?,
                };
                let mut answer = Txn::new();
                slot.record(&mut answer, &response);
                ledger.attach_general(answer);
                Ok(response)
            })
            .await
    }

    async fn grant(&self, caller: &Caller, message: GrantAgentRequest) -> Result<GrantAgentResponse, Error> {
        let _turn = self.busy.enter(caller, "GrantAgent", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "GrantAgent", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        if message.session.is_empty() {
            return Err(Error::invalid("session", "name a conversation")
                .hint("`main`, or a session key as `creel sessions list` shows it"));
        }
        let session = session(&message.session, "session")?;
        let principal = caller.principal().to_string();
        self.engine
            .change(move |ledger, now| {
                let (revoke, dry) = (message.revoke, message.validate_only);
                let response = ledger.grant_agent(&session, revoke, dry, &principal, now)?;
                if !dry {
                    let mut answer = Txn::new();
                    slot.record(&mut answer, &response);
                    ledger.attach_general(answer);
                }
                Ok(response)
            })
            .await
    }

    /// Not remembered by its request id: done twice, it does nothing the second time.
    async fn prune_now(&self, caller: &Caller, message: PruneRequest) -> Result<PruneResponse, Error> {
        let job = match message.job.as_str() {
            "" => None,
            job => Some(self.find(caller, job).await?.id),
        };
        let now_ms = self.now_ms().await?;
        let before_ms = message.before.as_ref().map(unix_ms);
        if before_ms.is_some_and(|before| before > now_ms) {
            return Err(Error::invalid("before", "that is yet to come"));
        }
        if message.validate_only {
            return Ok(PruneResponse::default());
        }
        let done = prune::now(&self.store, &self.engine, &self.config, now_ms, job, before_ms)
            .await
            .map_err(store_error)?;
        tracing::info!(
            by = %caller.principal(),
            runs = done.runs,
            jobs = done.tombstones,
            "old records are removed on request"
        );
        Ok(PruneResponse {
            runs_removed: done.runs,
            tombstones_removed: done.tombstones,
        })
    }

    /// Job after job, each as of one moment.
    async fn copy(&self, sender: &mpsc::Sender<Result<SnapshotRecord, Status>>) -> Result<(), Error> {
        let send = async |record| {
            let record = SnapshotRecord { record: Some(record) };
            let gone = |_| Error::internal("sending a copy to a reader who is gone");
            sender.send(Ok(record)).await.map_err(gone)
        };
        // What was changed before the copy is in it.
        self.engine.settle().await?;
        let header = SnapshotHeader {
            taken_at: Some(timestamp(self.clock.now_ms())),
            zone_data_version: self.zones.get().zone_data_version().to_string(),
        };
        send(Record::Header(header)).await?;
        let mut end = SnapshotEnd::default();
        let mut range = Some(Kind::Job.range());
        while let Some(rest) = range {
            let page = self
                .store
                .scan(rest, Page::first(PAGE))
                .await
                .map_err(store_error)?;
            let ids: Vec<_> = page
                .entries
                .iter()
                .filter_map(|entry| job_of_key(&entry.key))
                .collect();
            let mut copies = self
                .engine
                .ask(move |ledger, now| ledger.copies(&ids, now))
                .await?;
            for entry in page.entries {
                let Some((view, runs)) = job_of_key(&entry.key).and_then(|id| copies.remove(&id)) else {
                    continue;
                };
                let record = JobRecord::decode(entry.value).ok();
                end.jobs += 1;
                end.runs += runs.len() as u64;
                send(Record::Job(shown(record.as_ref(), &view))).await?;
                for run in runs {
                    send(Record::Run(run::shown(&run))).await?;
                }
            }
            range = page.next;
        }
        send(Record::End(end)).await
    }
}
