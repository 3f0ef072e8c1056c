//! Identity on a stack of its own: certificates through the edge, and assertions as a service asks for them, by mutual
//! TLS on identity's socket. Each certificate makes a device, and a person has a thousand: so many are issued.

use std::{fs, path::Path, time::Instant};

use anyhow::ensure;
use creel_kit::cert::request_for;
use creel_proto::identity::v1::{
    IssueCertificateRequest, JobSubject, MintJobsRequest, MintRequest, MintedJob, RenewRequest,
    assertion_service_client::AssertionServiceClient, ca_service_client::CaServiceClient,
    device_service_client::DeviceServiceClient, mint_request::Subject, minted_job::Result as Minted,
};
use creel_store::{KeyRange, Page, limits};
use creel_wire::ServiceName;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{KeyPair, PKCS_ED25519};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{
    Row, disk,
    load::Figure,
    number, percentile,
    stack::{Stack, cpu_ticks, written_bytes},
};

/// Calls at once, where it is not one.
const AT_ONCE: usize = 32;
/// Certificates issued one at a time, and at once; fewer together than a person may have devices.
const ISSUED: [u64; 2] = [200, 600];
/// Calls of what writes nothing.
const CALLS: u64 = 2_000;
/// The most jobs that one call mints for.
const JOBS: u64 = 1_024;
/// Calls for so many jobs.
const BATCHES: u64 = 40;

/// A number of calls, and what they cost.
struct Calls {
    figure: Figure,
    /// CPU of identity and gateway, a call.
    cpu_us: f64,
}

impl Calls {
    fn shown(&self) -> String {
        let Figure {
            per_second,
            p50_ms,
            p99_ms,
        } = self.figure;
        format!(
            "{per_second:.0}/s; p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms; {:.0} µs of CPU each",
            self.cpu_us
        )
    }
}

pub(crate) async fn measure(bin: &Path) -> anyhow::Result<Vec<Row>> {
    let stack = Stack::start(bin)?;
    // The owner of the jobs, and who issues.
    stack.script_cert()?;
    let mut rows = disk::measure()?;
    rows.extend(minted(&stack).await?);
    rows.extend(signed(&stack).await?);
    rows.extend(issued(&stack).await?);
    stack.stop()?;
    Ok(rows)
}

/// Assertions for runs of jobs, as the scheduler asks for them.
async fn minted(stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let channel = stack.as_service(ServiceName::Scheduler, ServiceName::Identity)?;
    let mint = |n| {
        let mut client = AssertionServiceClient::new(channel.clone());
        async move {
            let subject = Some(Subject::Job(job(n)));
            client.mint(MintRequest { subject }).await?;
            Ok(())
        }
    };
    // Dialling is no part of it.
    mint(0).await?;
    let one = timed(stack, CALLS, 1, mint).await?;
    let many = timed(stack, CALLS, AT_ONCE, mint).await?;
    let batch = |_| {
        let mut client = AssertionServiceClient::new(channel.clone());
        async move {
            let subjects = (0..JOBS).map(job).collect();
            let answer = client.mint_jobs(MintJobsRequest { subjects }).await?.into_inner();
            let good = |one: &&MintedJob| matches!(one.result, Some(Minted::Assertion(_)));
            let good = answer.results.iter().filter(good).count();
            ensure!(good as u64 == JOBS, "{good} of {JOBS} were minted");
            Ok(())
        }
    };
    let batches = timed(stack, BATCHES, 1, batch).await?;
    Ok(vec![
        Row::new(
            format!("`Mint` for a job by mutual TLS, one at a time ({CALLS} calls)"),
            one.shown(),
            "nothing is written",
        ),
        Row::new(format!("the same, {AT_ONCE} at once"), many.shown(), ""),
        Row::new(
            format!("`MintJobs`, {JOBS} jobs a call, one call at a time"),
            format!(
                "{:.0} assertions/s; {:.1} µs of CPU each",
                batches.figure.per_second * number(JOBS),
                batches.cpu_us / number(JOBS)
            ),
            "",
        ),
    ])
}

fn job(number: u64) -> JobSubject {
    JobSubject {
        job_id: Uuid::now_v7().to_string(),
        run_id: format!("bench-{number}"),
        owner: "owner".to_owned(),
        scopes: vec!["operator.read".to_owned(), "operator.write".to_owned()],
    }
}

/// A request read and its certificate signed, and nothing else: a service that renews.
async fn signed(stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let channel = stack.as_service(ServiceName::Scheduler, ServiceName::Identity)?;
    let key = stack.profile.credentials(ServiceName::Scheduler).join("key.pem");
    let csr_der = request_for(&KeyPair::from_pem(&fs::read_to_string(key)?)?)?;
    let renew = |_| {
        let mut client = CaServiceClient::new(channel.clone());
        let csr_der = csr_der.clone();
        async move {
            client.renew(RenewRequest { csr_der }).await?;
            Ok(())
        }
    };
    renew(0).await?;
    let one = timed(stack, CALLS, 1, renew).await?;
    let many = timed(stack, CALLS, AT_ONCE, renew).await?;
    Ok(vec![
        Row::new(
            format!("a CSR checked and its certificate signed (`Renew`), one at a time ({CALLS} calls)"),
            one.shown(),
            "nothing is written",
        ),
        Row::new(format!("the same, {AT_ONCE} at once"), many.shown(), ""),
    ])
}

/// Devices and their certificates, as `creel devices cert` asks for them; and what of them is kept.
async fn issued(stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let before = kept(stack).await?;
    stack.up()?;
    let channel = stack.script()?;
    let identity = stack.pid_of(ServiceName::Identity)?.to_string();
    let on_disk = written_bytes(&identity)?;
    let one = issue(stack, &channel, ISSUED[0], 1).await?;
    let many = issue(stack, &channel, ISSUED[1], AT_ONCE).await?;
    let on_disk = written_bytes(&identity)? - on_disk;
    let after = kept(stack).await?;
    let each = |bytes: u64| number(bytes) / number(ISSUED.iter().sum());
    Ok(vec![
        Row::new(
            format!(
                "`IssueCertificate` through the edge, one at a time ({} devices)",
                ISSUED[0]
            ),
            one.shown(),
            "a durable commit each, with its audit record and its answer",
        ),
        Row::new(
            format!("the same, {AT_ONCE} at once ({} devices)", ISSUED[1]),
            many.shown(),
            "",
        ),
        Row::new(
            "kept of one certificate",
            format!(
                "{:.1} entries, {:.0} bytes of keys and values; {:.0} bytes written to disk",
                each(after.entries - before.entries),
                each(after.bytes - before.bytes),
                each(on_disk)
            ),
            "",
        ),
    ])
}

async fn issue(stack: &Stack, channel: &Channel, count: u64, at_once: usize) -> anyhow::Result<Calls> {
    let mut requests = Vec::new();
    for n in 0..count {
        requests.push(IssueCertificateRequest {
            request_id: Uuid::now_v7().to_string(),
            csr_der: request_for(&KeyPair::generate_for(&PKCS_ED25519)?)?,
            name: format!("bench-{at_once}-{n}"),
            scopes: vec!["operator.read".to_owned()],
            ..IssueCertificateRequest::default()
        });
    }
    let call = |n| {
        let mut client = DeviceServiceClient::new(channel.clone());
        let request = usize::try_from(n).ok().and_then(|n| requests.get(n)).cloned();
        async move {
            client.issue_certificate(request.unwrap_or_default()).await?;
            Ok(())
        }
    };
    timed(stack, count, at_once, call).await
}

/// What identity's store holds.
struct Kept {
    entries: u64,
    /// Of keys and values.
    bytes: u64,
}

/// Stops the stack: a store is one process's.
async fn kept(stack: &Stack) -> anyhow::Result<Kept> {
    stack.stop()?;
    let path = stack.profile.state(ServiceName::Identity).join("db");
    let store = creel_store_rocksdb::open(&path, creel_store_rocksdb::Options::default())?;
    let mut kept = Kept { entries: 0, bytes: 0 };
    let mut range = Some(KeyRange::all());
    while let Some(rest) = range {
        let page = store.scan(rest, Page::first(limits::PAGE_ENTRIES)).await?;
        for entry in &page.entries {
            kept.entries += 1;
            kept.bytes += (entry.key.to_bytes().len() + entry.value.len()) as u64;
        }
        range = page.next;
    }
    Ok(kept)
}

/// Makes so many calls, so many at once.
async fn timed<R>(stack: &Stack, count: u64, at_once: usize, call: impl Fn(u64) -> R) -> anyhow::Result<Calls>
where
    R: Future<Output = anyhow::Result<()>>,
{
    let pids = [
        stack.pid_of(ServiceName::Identity)?,
        stack.pid_of(ServiceName::Gateway)?,
    ];
    let calls = (0..count).map(|n| {
        let call = call(n);
        async move {
            let asked = Instant::now();
            call.await?;
            anyhow::Ok(asked.elapsed().as_secs_f64() * 1e3)
        }
    });
    let (ticks, began) = (cpu_ticks(&pids), Instant::now());
    let mut times: Vec<f64> = stream::iter(calls)
        .buffer_unordered(at_once)
        .try_collect()
        .await?;
    let (ticks, took) = (cpu_ticks(&pids) - ticks, began.elapsed());
    Ok(Calls {
        figure: Figure {
            per_second: number(count) / took.as_secs_f64(),
            p50_ms: percentile(&mut times, 50.0),
            p99_ms: percentile(&mut times, 99.0),
        },
        cpu_us: number(ticks) * 10_000.0 / number(count),
    })
}
