//! What a service manager is told, when there is one (`NOTIFY_SOCKET`).

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything that can work does.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// How it goes, in one line.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The drain has begun. Nothing else need be said any more.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// We live.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say so; twice as often as is demanded.
pub(crate) fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|every| !every.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
