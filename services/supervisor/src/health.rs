//! Whether a service serves, by `grpc.health.v1` over its own port, with mutual TLS.
//!
//! One `Watch` per process tells changes as they happen; a stuck process is found by the keep-alive of
//! its connection. Nothing is polled once a service was ready.

use std::{process::ExitCode, sync::Arc, time::Duration};

use creel_kit::{Clock, Config, Profile, cert::Enrolment, peers::Peers};
use creel_wire::{Error, ServiceName};
use tokio::time::{Instant, sleep, timeout};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    events::{Event, Events},
    services::SERVICES,
};

/// A lost service is called so after this: its connections end once an hour and are made anew.
const LOST: Duration = Duration::from_secs(2);
/// The answer of `creeld health` comes within this.
const ANSWER: Duration = Duration::from_secs(5);

/// Tells the health of one process as events, until it is aborted.
pub(crate) async fn follow(peers: Peers, name: ServiceName, generation: u64, events: Events) {
    let tell = async |trouble| {
        events
            .send(Event::Health {
                name,
                generation,
                trouble,
            })
            .await
    };
    let channel = match peers.channel(name) {
        Ok(channel) => channel,
        Err(error) => return tell(Some(error.to_string())).await,
    };
    let mut client = HealthClient::new(channel);
    let mut retry = Retry::default();
    loop {
        let why = match client.watch(HealthCheckRequest::default()).await {
            Err(status) => Error::of_status(&status).message,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(state)) if state.status == ServingStatus::Serving as i32 => {
                            tell(None).await;
                            retry = Retry::after_readiness();
                        }
                        // An open request would hold up its drain, so this one ends here.
                        Ok(Some(_)) => {
                            tell(Some("it says that it does not serve".to_owned())).await;
                            break "it does not serve".to_owned();
                        }
                        Ok(None) => break "its answer ended".to_owned(),
                        Err(status) => break Error::of_status(&status).message,
                    }
                }
            }
        };
        let (wait, lost) = retry.failed(Instant::now());
        if lost {
            tell(Some(format!("it does not answer: {why}"))).await;
        }
        sleep(wait).await;
    }
}

/// How soon the next dial follows: at once while a service comes up, since everybody waits for it;
/// slower when it takes long.
#[derive(Debug, Clone, Default)]
struct Retry {
    /// When it was first not to be reached.
    since: Option<Instant>,
    tries: u32,
    was_ready: bool,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(2);
    const QUICK: Duration = Duration::from_millis(50);
    const SLOW: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn after_readiness() -> Self {
        Self {
            was_ready: true,
            ..Self::default()
        }
    }

    /// The wait after a failure, and whether a service that was there is now lost.
    fn failed(&mut self, now: Instant) -> (Duration, bool) {
        let span = now.duration_since(*self.since.get_or_insert(now));
        let most = if span < Self::PATIENCE {
            Self::QUICK
        } else {
            Self::SLOW
        };
        let wait = Self::FIRST.saturating_mul(1 << self.tries.min(16)).min(most);
        self.tries = self.tries.saturating_add(1);
        (wait, self.was_ready && span >= LOST)
    }
}

/// `creeld health [SERVICE]`: 0 if it serves. By the service's own certificate, so that it works in its
/// container; without a name, all services by the supervisor's.
pub(crate) fn check(profile: &Profile, service: Option<ServiceName>) -> ExitCode {
    creel_wire::install_crypto();
    let config = match Config::load(&profile.config_file()) {
        Ok(config) => Arc::new(config),
        Err(error) => return crate::fail(creel_kit::service::EXIT_CONFIG, &crate::chain(&error)),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::fail(1, &error.to_string()),
    };
    let names = service.map_or_else(
        || SERVICES.iter().map(|one| one.name).collect(),
        |name| vec![name],
    );
    let asking = service.unwrap_or(ServiceName::Supervisor);
    let answers = runtime.block_on(async {
        let enrolment = Enrolment {
            profile: profile.clone(),
            config: Arc::clone(&config),
            name: asking,
            join_secret: None,
            clock: Clock::system(),
        };
        let tls = timeout(ANSWER, enrolment.tls()).await;
        let tls = match tls {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return Err(format!("{asking} has no certificate: {}", crate::chain(&error))),
            Err(_) => return Err(format!("{asking} has no certificate yet")),
        };
        let peers = Peers::new(profile.clone(), config, tls);
        let mut answers = Vec::new();
        for name in names {
            answers.push((name, ask(&peers, name).await));
        }
        Ok(answers)
    });
    match answers {
        Err(why) => crate::fail(1, &why),
        Ok(answers) => {
            let mut code = ExitCode::SUCCESS;
            for (name, answer) in answers {
                match answer {
                    Ok(()) => crate::say(&format!("{name}: serving")),
                    Err(why) => code = crate::fail(1, &format!("{name}: {why}")),
                }
            }
            code
        }
    }
}

async fn ask(peers: &Peers, name: ServiceName) -> Result<(), String> {
    let channel = peers.channel(name).map_err(|error| error.to_string())?;
    let mut client = HealthClient::new(channel);
    match timeout(ANSWER, client.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) if answer.get_ref().status == ServingStatus::Serving as i32 => Ok(()),
        Ok(Ok(_)) => Err("not serving".to_owned()),
        Ok(Err(status)) => Err(Error::of_status(&status).message),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_are_quick_at_first_and_rare_when_it_takes_long() {
        let now = Instant::now();
        let mut retry = Retry::default();
        let waits: Vec<_> = (0..6).map(|_| retry.failed(now).0.as_millis()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 50]);
        for _ in 0..10 {
            retry.failed(now + Retry::PATIENCE);
        }
        assert_eq!(
            retry.failed(now + Retry::PATIENCE),
            (Duration::from_secs(1), false),
            "it never was there"
        );
    }

    #[test]
    fn a_connection_that_ends_is_no_loss_yet() {
        let now = Instant::now();
        let mut retry = Retry::after_readiness();
        assert_eq!(retry.failed(now), (Duration::from_millis(2), false));
        assert!(!retry.failed(now + LOST - Duration::from_millis(1)).1);
        assert!(retry.failed(now + LOST).1);
    }
}
