//! The WebSocket under a session: its limits, and writes and a goodbye that end in time.

use std::time::Duration;

use creel_wire::accept::Connection;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role as Side, WebSocketConfig},
    },
};

use super::{figures::Figures, frame, gate::Gate, machine::Ending};

/// A message that the peer does not take in so long ends the connection.
const WRITE: Duration = Duration::from_secs(20);
/// The peer gets so long to answer our close.
const CLOSE: Duration = Duration::from_secs(1);
/// What a connection holds while nothing is said, in bytes: most requests fit, and longer ones make their own.
const READ_BUFFER: usize = 512;

pub(super) type Socket = WebSocketStream<Gate<TokioIo<Upgraded>>>;

/// Of a peer that has proven nothing yet.
pub(super) async fn narrow(upgraded: Upgraded) -> Socket {
    let gate = Gate::new(TokioIo::new(upgraded));
    let config = Some(config(frame::PRE_AUTH_BYTES));
    WebSocketStream::from_raw_socket(gate, Side::Server, config).await
}

/// The small limit gives way to the large one, and what `hello-ok` was written in goes.
pub(super) async fn wide(narrow: Socket) -> Socket {
    let gate = narrow.into_inner().open();
    let config = Some(config(frame::MAX_BYTES));
    WebSocketStream::from_raw_socket(gate, Side::Server, config).await
}

fn config(max_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * frame::MAX_BYTES)
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes))
}

/// Writes, unless the connection is to end or the peer takes too long.
pub(super) async fn send(
    socket: &mut Socket,
    message: Message,
    connection: &Connection,
    figures: &Figures,
) -> bool {
    let sent = tokio::select! {
        biased;
        () = connection.close.cancelled() => {
            close(socket, 1008, "device standing changed").await;
            return false;
        }
        sent = tokio::time::timeout(WRITE, socket.send(message)) => sent,
    };
    if sent.is_err() {
        figures.closed(Ending::Slow);
    }
    matches!(sent, Ok(Ok(())))
}

/// Says why, and waits a moment for the peer to hear it.
pub(super) async fn close(socket: &mut Socket, code: u16, reason: &str) {
    let frame = CloseFrame {
        code: code.into(),
        reason: frame::close_reason(reason).into(),
    };
    let closing = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE, closing).await;
}

/// Answers the peer's close. The answer was made by the reading, and waits to be sent (RFC 6455 §5.5.1).
pub(super) async fn closed(socket: &mut Socket) {
    let _ = tokio::time::timeout(CLOSE, socket.flush()).await;
}
