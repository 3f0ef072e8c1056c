//! What is told to whoever listens. The buffer for those who are slow is made for the first one: at most times
//! nobody listens, and a buffer that stands ready is as big as all else that an idle engine holds.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct News<T> {
    sender: Arc<OnceLock<broadcast::Sender<T>>>,
    /// How many a slow listener may lag behind.
    most: usize,
}

impl<T: Clone> News<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            sender: Arc::default(),
            most,
        }
    }

    /// All that is told from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<T> {
        self.sender
            .get_or_init(|| broadcast::Sender::new(self.most))
            .subscribe()
    }

    /// Whether anybody listens, so that what nobody hears need not be made.
    pub(super) fn is_heard(&self) -> bool {
        self.sender
            .get()
            .is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Tells those who listen, if anybody does.
    pub(super) fn tell(&self, news: T) {
        if let Some(sender) = self.sender.get() {
            // The last one may have left.
            drop(sender.send(news));
        }
    }
}

#[cfg(test)]
mod tests {
    use broadcast::error::TryRecvError;

    use super::*;

    #[test]
    fn whoever_listens_is_told_what_comes_and_how_much_it_missed() {
        let news = News::new(2);
        assert!(!news.is_heard());
        news.tell(1);
        let mut first = news.clone().listen();
        news.tell(2);
        let mut second = news.listen();
        news.tell(3);
        assert_eq!((first.try_recv(), first.try_recv()), (Ok(2), Ok(3)));
        assert_eq!(second.try_recv(), Ok(3));
        assert!(news.is_heard());
        for late in 4..7 {
            news.tell(late);
        }
        assert_eq!(second.try_recv(), Err(TryRecvError::Lagged(1)));
        drop((first, second));
        assert!(!news.is_heard());
    }
}
