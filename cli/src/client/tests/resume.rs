//! Streams that are cut, on a clock that moves when everybody waits.

use futures_util::{StreamExt as _, stream};

use super::*;

/// Counts to what is looked for, over streams that say so much each.
struct Counting {
    said: Vec<Vec<Result<u32, Status>>>,
    opened: u32,
    taken: Vec<u32>,
}

impl Counting {
    fn of(said: impl IntoIterator<Item = Vec<Result<u32, Status>>>) -> Self {
        let mut said: Vec<_> = said.into_iter().collect();
        said.reverse();
        Self {
            said,
            opened: 0,
            taken: Vec::new(),
        }
    }
}

impl Following for &mut Counting {
    type Message = u32;
    type Found = ();

    async fn open(&mut self, _: &Client) -> Result<Messages<u32>, Failure> {
        self.opened += 1;
        match self.said.pop() {
            Some(said) => Ok(stream::iter(said).boxed()),
            None => Err(Error::new(Code::Unavailable, "not_running", "gone").into()),
        }
    }

    fn take(&mut self, message: u32) -> Result<Option<()>, Failure> {
        self.taken.push(message);
        Ok((message == 9).then_some(()))
    }
}

/// A client, and time that stands still.
async fn client() -> (Stack, Client) {
    let stack = Stack::start(Certs::new()).await;
    let client = Client::open(&mut context(&stack)).await.unwrap();
    tokio::time::pause();
    (stack, client)
}

fn cut() -> Result<u32, Status> {
    Err(Status::unavailable("the scheduler restarts"))
}

#[tokio::test]
async fn what_is_cut_goes_on_until_what_is_looked_for_came() {
    let (_stack, client) = client().await;
    let mut counting = Counting::of([vec![Ok(1), cut()], vec![], vec![Ok(2)], vec![Ok(9), Ok(10)]]);
    client.resume(&mut counting).await.unwrap();
    assert_eq!((counting.opened, counting.taken.as_slice()), (4, &[1, 2, 9][..]));
}

#[tokio::test]
async fn a_refusal_and_a_stack_that_was_ended_end_it_at_once() {
    let (_stack, client) = client().await;
    let refused = Err(Error::new(Code::PermissionDenied, "device_revoked", "x").into());
    let mut counting = Counting::of([vec![Ok(1), refused], vec![Ok(9)]]);
    assert_eq!(
        error(client.resume(&mut counting).await.unwrap_err()).1,
        "device_revoked"
    );
    assert_eq!(counting.opened, 1);
    let mut counting = Counting::of([vec![Ok(1)]]);
    assert_eq!(
        error(client.resume(&mut counting).await.unwrap_err()).1,
        "not_running"
    );
    assert_eq!(counting.opened, 2);
}

#[tokio::test]
async fn streams_that_say_nothing_are_given_up_and_those_with_news_are_not() {
    let (_stack, client) = client().await;
    let mut silent = Counting::of((0..1_000).map(|_| vec![]));
    let (exit, reason, _) = error(client.resume(&mut silent).await.unwrap_err());
    assert_eq!((exit, reason.as_str()), (5, "stream_ended"));
    assert!((10..50).contains(&silent.opened), "{}", silent.opened);

    let news = (0..100).map(|n| {
        if n % 8 == 0 {
            vec![Ok(1), cut()]
        } else {
            vec![cut()]
        }
    });
    let mut telling = Counting::of(news.chain([vec![Ok(9)]]));
    client.resume(&mut telling).await.unwrap();
    assert_eq!(telling.opened, 101);
}
