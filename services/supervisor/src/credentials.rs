//! The supervisor's own certificate, by which it asks services how they are.

use std::{sync::Arc, time::Duration};

use creel_kit::{Clock, Config, Profile, cert::Enrolment, metrics::Metrics};
use creel_wire::ServiceName;
use tokio_util::sync::CancellationToken;

use crate::{
    child::join_secret,
    events::{Event, Events},
};

/// Identity may be up by then, or the disk writable.
const AGAIN: Duration = Duration::from_secs(1);

/// Gets a certificate, tells of it, and keeps it fresh until the drain.
pub(crate) async fn keep(
    profile: Profile,
    config: Arc<Config>,
    clock: Clock,
    drain: CancellationToken,
    events: Events,
) {
    let name = ServiceName::Supervisor;
    let (enrolment, tls) = loop {
        // A secret is good for one use, so each try has its own.
        let outcome = match join_secret(&profile, name) {
            Err(error) => Err(format!("no join secret: {error}")),
            Ok(secret) => {
                let enrolment = Enrolment {
                    profile: profile.clone(),
                    config: Arc::clone(&config),
                    name,
                    join_secret: Some(secret),
                    clock: clock.clone(),
                };
                enrolment
                    .tls()
                    .await
                    .map_err(|error| crate::chain(&error))
                    .map(|tls| (enrolment, tls))
            }
        };
        match outcome {
            Ok(both) => break both,
            Err(why) => events.send(Event::NotCertified(why)).await,
        }
        tokio::time::sleep(AGAIN).await;
    };
    events.send(Event::Certified(Arc::clone(&tls))).await;
    enrolment.keep_fresh(tls, Metrics::new(name), drain).await;
}
