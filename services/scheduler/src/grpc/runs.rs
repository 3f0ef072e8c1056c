//! `RunService`.

use creel_kit::{failure::store_error, idempotency::Begin, page};
use creel_proto::scheduler::v1::{
    CancelRunRequest, GetRunRequest, ListRunsRequest, ListRunsResponse, ResetRunRequest, Run, RunRecord,
    RunState, TailRunsRequest, WatchRunsRequest, run_service_server::RunService,
};
use creel_store::{KeyRange, Page, Txn};
use creel_wire::{Caller, Code, Error, authz};
use futures_util::{StreamExt as _, future::ready, stream::BoxStream};
use prost::Message as _;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::{Request, Response, Status};

use super::{Api, person};
use crate::{
    id::{JobId, RunId},
    ledger::{quoted, run_finished},
    run::{has_ended, shown},
    store::{self, Kind, RunRef},
};

/// Records looked at for one page; a page may come out short, with a token to go on.
const MAX_LOOKED_AT: usize = 2_000;
/// Longest reason of a cancellation, in bytes.
const MAX_REASON_BYTES: usize = 64;

#[tonic::async_trait]
impl RunService for Api {
    type WatchStream = BoxStream<'static, Result<Run, Status>>;
    type TailStream = BoxStream<'static, Result<Run, Status>>;

    async fn list(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.list_runs(&caller, message).await?))
    }

    async fn get(&self, request: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        let (caller, message) = authz::split(request)?;
        let run = self.named_run(&caller, &message.run_id).await?;
        let record = self.run_of(&caller, run).await?;
        Ok(Response::new(shown(&record)))
    }

    async fn cancel(&self, request: Request<CancelRunRequest>) -> Result<Response<Run>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.cancel_run(&caller, message).await?))
    }

    async fn watch(&self, request: Request<WatchRunsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, message) = authz::split(request)?;
        let owner = person(&caller)?.to_owned();
        let job = match message.job.as_str() {
            "" => None,
            job => Some(self.find(&caller, job).await?.id.to_string()),
        };
        let changes = BroadcastStream::new(self.engine.watch()).filter_map(move |change| {
            ready(match change {
                Ok(record) => {
                    let wanted =
                        record.owner == owner && job.as_ref().is_none_or(|job| *job == record.job_id);
                    wanted.then(|| Ok(shown(&record)))
                }
                Err(BroadcastStreamRecvError::Lagged(lost)) => Some(Err(lagged(lost).into())),
            })
        });
        Ok(Response::new(
            changes.take_until(self.drain.clone().cancelled_owned()).boxed(),
        ))
    }

    async fn reset(&self, request: Request<ResetRunRequest>) -> Result<Response<Run>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.reset_run(&caller, message).await?))
    }

    async fn tail(&self, request: Request<TailRunsRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.tail_runs(&caller, message).await?))
    }
}

impl Api {
    pub(super) async fn list_runs(
        &self,
        caller: &Caller,
        message: ListRunsRequest,
    ) -> Result<ListRunsResponse, Error> {
        let owner = person(caller)?;
        let size = page::size("page_size", message.page_size, 50)?;
        let state = match message.state() {
            RunState::Unspecified if message.state == 0 => None,
            RunState::Unspecified => {
                return Err(Error::invalid("state", format!("{} is no state", message.state)));
            }
            state => Some(state),
        };
        let job = match message.job.as_str() {
            "" => None,
            job => Some(self.job_of_runs(caller, job).await?),
        };
        let mut range = Some(start(job, &message.page_token)?);
        let before = parsed(&message.page_token)?;
        // Those that wait and have no record of their own yet belong between those that have.
        let waiting = match state {
            None | Some(RunState::Pending) => {
                let owner = owner.to_owned();
                let look =
                    move |ledger: &mut crate::ledger::Ledger, _| ledger.unwritten(&owner, job, before, size);
                self.engine.ask(look).await?
            }
            Some(_) => Vec::new(),
        };
        let mut rows = Rows::new(size, waiting);
        let mut looked_at = 0;
        while let Some(rest) = range.take_if(|_| looked_at < MAX_LOOKED_AT && !rows.is_full()) {
            let page = self
                .store
                .scan(rest, Page::last(size.max(50)))
                .await
                .map_err(store_error)?;
            range = page.next;
            let at: Vec<_> = page
                .entries
                .iter()
                .filter_map(|entry| RunRef::of_key(&entry.key))
                .collect();
            let ids: Vec<_> = at.iter().map(|at| at.run).collect();
            let mut live = self.engine.ask(move |ledger, _| ledger.live(&ids)).await?;
            for (at, entry) in at.into_iter().zip(page.entries) {
                rows.waiting_before(at);
                if rows.is_full() {
                    // Something may follow on this page already.
                    range = Some(start(job, &rows.token().unwrap_or_default())?);
                    break;
                }
                let stored = match job {
                    None => RunRecord::decode(entry.value).ok(),
                    Some(_) => store::run_at(&self.store, at).await.map_err(store_error)?,
                };
                looked_at += 1;
                let record = live.remove(&at.run).or(stored);
                let fits = |record: &RunRecord| {
                    record.owner == owner && state.is_none_or(|state| record.state == i32::from(state))
                };
                rows.add(at, record.filter(fits).as_ref());
            }
        }
        if range.is_none() {
            rows.waiting_rest();
        }
        let next_page_token = if range.is_some() || rows.has_more() {
            rows.token().unwrap_or_default()
        } else {
            String::new()
        };
        Ok(ListRunsResponse {
            runs: rows.runs,
            next_page_token,
        })
    }

    /// The job whose runs are asked for; a deleted one by its id.
    pub(super) async fn job_of_runs(&self, caller: &Caller, job: &str) -> Result<JobId, Error> {
        match self.find(caller, job).await {
            Ok(view) => Ok(view.id),
            Err(error) if error.code == Code::NotFound => job.parse().map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    /// A run of the caller's, as it is.
    async fn run_of(&self, caller: &Caller, run: RunId) -> Result<RunRecord, Error> {
        let owner = person(caller)?;
        let live = self
            .engine
            .ask(move |ledger, _| ledger.live(&[run]).remove(&run))
            .await?;
        let record = match live {
            Some(record) => Some(record),
            None => store::run(&self.store, run).await.map_err(store_error)?,
        };
        let found = record.filter(|record| record.owner == owner);
        found.ok_or_else(|| {
            Error::not_found("run", &run.to_string())
                .field("run_id")
                .hint("creel cron runs")
        })
    }

    async fn cancel_run(&self, caller: &Caller, message: CancelRunRequest) -> Result<Run, Error> {
        if message.reason.len() > MAX_REASON_BYTES {
            return Err(Error::invalid(
                "reason",
                format!("at most {MAX_REASON_BYTES} bytes"),
            ));
        }
        let _turn = self.busy.enter(caller, "Cancel", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Cancel", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let run = self.named_run(caller, &message.run_id).await?;
        let (owner, principal) = (person(caller)?.to_owned(), caller.principal().to_string());
        let done = self.engine.change(move |ledger, now| {
            let (job, record) = ledger.cancel(&owner, run, &message.reason, &principal, now)?;
            let answer = shown(&record);
            let mut kept = Txn::new();
            slot.record(&mut kept, &answer);
            ledger.attach(job, kept);
            Ok(answer)
        });
        match done.await {
            Err(error) if error.code == Code::NotFound => {
                let record = self.run_of(caller, run).await?;
                // Cancelled twice is cancelled.
                if record.state == i32::from(RunState::Cancelled) {
                    Ok(shown(&record))
                } else {
                    Err(run_finished())
                }
            }
            done => done,
        }
    }
}

impl Api {
    async fn reset_run(&self, caller: &Caller, message: ResetRunRequest) -> Result<Run, Error> {
        let _turn = self.busy.enter(caller, "Reset", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Reset", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let run = self.named_run(caller, &message.run_id).await?;
        let record = self.run_of(caller, run).await?;
        if has_ended(&record) {
            let job = quoted(&record.job_name);
            return Err(run_finished().hint(format!("creel cron run {job} runs the job now")));
        }
        if message.validate_only {
            return Ok(shown(&record));
        }
        let (owner, principal) = (person(caller)?.to_owned(), caller.principal().to_string());
        self.engine
            .change(move |ledger, now| {
                let (job, record) = ledger.reset(&owner, run, message.retry, &principal, now)?;
                let answer = shown(&record);
                let mut kept = Txn::new();
                slot.record(&mut kept, &answer);
                ledger.attach(job, kept);
                Ok(answer)
            })
            .await
    }
}

/// A page of runs, newest first: those of the store, and between them those that only the ledger has.
struct Rows {
    size: usize,
    runs: Vec<Run>,
    /// Oldest first.
    waiting: Vec<(RunRef, RunRecord)>,
    /// There may be more of them than were asked for.
    waiting_cut: bool,
    last: Option<RunRef>,
}

impl Rows {
    fn new(size: usize, mut waiting: Vec<(RunRef, RunRecord)>) -> Self {
        waiting.reverse();
        Self {
            size,
            runs: Vec::new(),
            waiting_cut: waiting.len() == size,
            waiting,
            last: None,
        }
    }

    fn is_full(&self) -> bool {
        self.runs.len() >= self.size
    }

    /// Those that are newer than one of the store's.
    fn waiting_before(&mut self, at: RunRef) {
        while !self.is_full()
            && let Some((newer, record)) = self.waiting.pop_if(|(newer, _)| *newer > at)
        {
            self.add(newer, Some(&record));
        }
        // It got its record while the others were read.
        self.waiting.pop_if(|(one, _)| *one == at);
    }

    /// Those that are older than all of the store's.
    fn waiting_rest(&mut self) {
        while !self.is_full()
            && let Some((at, record)) = self.waiting.pop()
        {
            self.add(at, Some(&record));
        }
    }

    /// One that was looked at, and is shown if it fits.
    fn add(&mut self, at: RunRef, record: Option<&RunRecord>) {
        self.last = Some(at);
        self.runs.extend(record.map(shown));
    }

    fn has_more(&self) -> bool {
        self.is_full() && (self.waiting_cut || !self.waiting.is_empty())
    }

    fn token(&self) -> Option<String> {
        self.last.map(token)
    }
}

fn token(at: RunRef) -> String {
    format!("{}.{}", at.admitted_ms, at.run)
}

/// The runs of a job, or all, that are older than a token says.
fn start(job: Option<JobId>, token: &str) -> Result<KeyRange, Error> {
    let range = match job {
        Some(job) => Kind::RunByJob.range_of([job.bytes()]),
        None => Kind::Run.range(),
    };
    let at = parsed(token)?;
    Ok(match at {
        Some(at) => range.ending_at(job.map_or_else(|| at.key(), |job| at.by_job(job))),
        None => range,
    })
}

/// The run a token names; `None` for no token.
fn parsed(token: &str) -> Result<Option<RunRef>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid("page_token", "not a token of this list");
    let (admitted, run) = token.split_once('.').ok_or_else(wrong)?;
    Ok(Some(RunRef {
        admitted_ms: admitted.parse().map_err(|_| wrong())?,
        run: run.parse().map_err(|_| wrong())?,
    }))
}

pub(super) fn lagged(lost: u64) -> Error {
    Error::new(
        Code::Unavailable,
        "lagged",
        format!("{lost} changes were not read in time"),
    )
    .hint("list the runs, and watch again")
}
