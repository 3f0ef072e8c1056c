//! An answer whose service went away in the middle ends with a status like any other, not with a broken
//! stream that no client can tell from a fault of its own. So does a watch when the gateway drains: it has no end
//! to wait for.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use creel_wire::{Code, Error, ServiceName};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// A service's answer, passed on.
pub(super) struct Answer<B> {
    inner: B,
    name: ServiceName,
    /// Ready when the answer is to end where it is.
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    over: bool,
}

impl<B> Answer<B> {
    /// `drain`: of an answer without an end of its own.
    pub(super) fn new(inner: B, name: ServiceName, drain: Option<CancellationToken>) -> Self {
        Self {
            inner,
            name,
            drain: drain.map(|drain| Box::pin(drain.cancelled_owned())),
            over: false,
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(drain) = &mut self.drain
            && drain.as_mut().poll(context).is_ready()
        {
            self.over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(ended(
                "stopping",
                "the stack is stopping",
            )))));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                self.over = true;
                tracing::warn!(service = %self.name, %error, "a service went away in the middle of an answer");
                let message = format!("{} went away before it had answered", self.name);
                Some(Ok(Frame::trailers(ended("service_gone", &message))))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn ended(reason: &'static str, message: &str) -> HeaderMap {
    let error = Error::new(Code::Unavailable, reason, message).hint("creel status");
    let mut trailers = HeaderMap::new();
    // A status of ours always fits into headers; one that did not would still end the stream.
    let _ = Status::from(error).add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, Limited, StreamBody};

    use super::*;

    fn answer(
        frames: Vec<Result<Frame<Bytes>, &'static str>>,
    ) -> Answer<impl Body<Data = Bytes, Error = &'static str> + Unpin> {
        Answer::new(
            StreamBody::new(stream::iter(frames)),
            ServiceName::Scheduler,
            None,
        )
    }

    #[expect(clippy::disallowed_methods, reason = "limited")]
    #[tokio::test]
    async fn a_service_that_goes_away_leaves_a_status_behind() {
        let data = || Ok(Frame::data(Bytes::from_static(b"x")));
        let cut = Limited::new(answer(vec![data(), Err("reset"), data()]), 64)
            .collect()
            .await
            .unwrap();
        let status = Status::from_header_map(cut.trailers().unwrap()).unwrap();
        assert_eq!(cut.to_bytes(), "x", "nothing comes after the cut");
        let error = Error::of_status(&status);
        assert_eq!(
            (error.code, error.reason.as_ref()),
            (Code::Unavailable, "service_gone")
        );
        assert!(
            error.message.contains("scheduler") && error.hint.is_some(),
            "{error}"
        );

        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let whole = Limited::new(answer(vec![data(), Ok(Frame::trailers(trailers.clone()))]), 64)
            .collect()
            .await
            .unwrap();
        assert_eq!(
            whole.trailers(),
            Some(&trailers),
            "what is whole passes untouched"
        );
    }

    #[expect(clippy::disallowed_methods, reason = "limited")]
    #[tokio::test]
    async fn a_watch_ends_when_the_gateway_drains() {
        let silent = stream::pending::<Result<Frame<Bytes>, &'static str>>();
        let drain = CancellationToken::new();
        let watch = Answer::new(
            StreamBody::new(silent),
            ServiceName::Scheduler,
            Some(drain.clone()),
        );
        drain.cancel();
        let end = Limited::new(watch, 64).collect().await.unwrap();
        let status = Status::from_header_map(end.trailers().unwrap()).unwrap();
        assert_eq!(Error::of_status(&status).reason, "stopping");
    }
}
