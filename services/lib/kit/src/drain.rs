//! When to stop: a signal, or the end of whoever started us.

use tokio::{io::AsyncReadExt as _, signal::unix::SignalKind};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at SIGTERM or SIGINT; a second SIGINT exits at once with status 130.
///
/// # Errors
/// When signals can't be received.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut term = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut int = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => cancel.cancel(),
                _ = int.recv() => {
                    if cancel.is_cancelled() {
                        std::process::exit(130);
                    }
                    cancel.cancel();
                }
            }
        }
    });
    Ok(token)
}

/// Cancels `token` when stdin ends: the supervisor holds the other end, so it is gone.
pub fn on_parent_gone(token: CancellationToken) {
    tokio::spawn(async move {
        let mut byte = [0_u8; 64];
        let mut stdin = tokio::io::stdin();
        while matches!(stdin.read(&mut byte).await, Ok(n) if n > 0) {}
        // At a normal stop it closes this, too, after its signal.
        if !token.is_cancelled() {
            tracing::warn!("the supervisor is gone: stopping");
        }
        token.cancel();
    });
}
