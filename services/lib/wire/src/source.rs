//! Where a connection comes from, for limits alone: an address proves nothing. Canonicalised once, here.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The metadata key by which the gateway tells identity the outside address of a call without a caller.
/// Believed from the gateway only; what comes in from outside under this name is stripped.
pub const METADATA: &str = "creel-source";

/// An outside address, mapped IPv6 as IPv4; or this machine, where there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Option<IpAddr>);

impl Source {
    /// No address: a process of this machine, over a unix socket.
    pub const LOCAL: Self = Self(None);

    /// Of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        Self(Some(address.to_canonical()))
    }

    /// Of text; what is no address counts as one source together with everything else that is none.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or(Self::LOCAL, Self::of)
    }

    /// The network that one person's requests are counted by, /24 or /64, by its first address.
    #[must_use]
    pub fn prefix(self) -> Self {
        Self(self.0.map(|address| match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() >> 8 << 8)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        }))
    }

    /// That network as text.
    #[must_use]
    pub fn network(self) -> String {
        match self.prefix().0 {
            None => "local".to_owned(),
            Some(IpAddr::V4(v4)) => format!("{v4}/24"),
            Some(IpAddr::V6(v6)) => format!("{v6}/64"),
        }
    }

    /// What a bucket is kept for: one IPv4 address, or the /64 that one host of IPv6 has.
    #[must_use]
    pub fn host(self) -> Self {
        match self.0 {
            Some(IpAddr::V6(_)) => self.prefix(),
            Some(IpAddr::V4(_)) | None => self,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// Token buckets, one per source as its user cuts them ([`Source::host`], [`Source::prefix`]): a source that asks
/// too often is slowed down, never locked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    burst: u32,
    every_ms: i64,
    most: usize,
    /// When each bucket will be full again, in milliseconds of its user's clock (the generic cell rate algorithm:
    /// one number is the whole bucket). What is full already need not be kept.
    full_at_ms: BTreeMap<Source, i64>,
}

impl Buckets {
    /// `burst` tokens at once, then one each `every_ms`; at most `most` sources are told apart, and one more makes
    /// that with the fullest bucket new again: however many flood, who comes for the first time is let in.
    #[must_use]
    pub const fn new(burst: u32, every_ms: i64, most: usize) -> Self {
        Self {
            burst,
            every_ms,
            most,
            full_at_ms: BTreeMap::new(),
        }
    }

    /// Takes a token that is there.
    ///
    /// # Errors
    /// When the next one will be there, in milliseconds from now.
    pub fn take(&mut self, source: Source, now_ms: i64) -> Result<(), i64> {
        self.take_within(source, now_ms, 0).map(drop)
    }

    /// Takes a token that is there within `patience_ms`; how long until then, in milliseconds.
    ///
    /// # Errors
    /// When it is worth asking again, in milliseconds from now.
    pub fn take_within(&mut self, source: Source, now_ms: i64, patience_ms: i64) -> Result<i64, i64> {
        self.make_room(source, now_ms);
        let full_at = self.full_at_ms.get(&source).copied().unwrap_or(now_ms);
        // An empty bucket is full again after `burst` steps; a clock set back must not lock anybody out.
        let emptied = self.every_ms.saturating_mul(i64::from(self.burst));
        let latest = now_ms + emptied + patience_ms;
        let after = full_at.clamp(now_ms, latest) + self.every_ms;
        if after > latest {
            return Err(after - latest);
        }
        self.full_at_ms.insert(source, after);
        Ok((after - now_ms - emptied).max(0))
    }

    /// Gives a token back that turned out to be well spent.
    pub fn give_back(&mut self, source: Source, now_ms: i64) {
        if let Some(full_at) = self.full_at_ms.get_mut(&source) {
            *full_at -= self.every_ms;
            if *full_at <= now_ms {
                self.full_at_ms.remove(&source);
            }
        }
    }

    fn make_room(&mut self, source: Source, now_ms: i64) {
        if self.full_at_ms.len() < self.most || self.full_at_ms.contains_key(&source) {
            return;
        }
        self.full_at_ms.retain(|_, full_at| *full_at > now_ms);
        if self.full_at_ms.len() >= self.most {
            let fullest = self.full_at_ms.iter().min_by_key(|(_, full_at)| **full_at);
            if let Some(fullest) = fullest.map(|(source, _)| *source) {
                self.full_at_ms.remove(&fullest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_their_ipv4_and_networks_are_cut() {
        let mapped = Source::parse("::ffff:192.0.2.7");
        assert_eq!(mapped, Source::parse("192.0.2.7"));
        assert_eq!(
            (mapped.to_string().as_str(), mapped.network().as_str()),
            ("192.0.2.7", "192.0.2.0/24")
        );
        let (a, b) = (
            Source::parse("2001:db8:1:2::3"),
            Source::parse("2001:db8:1:2:ffff::1"),
        );
        assert_eq!(a.network(), "2001:db8:1:2::/64");
        assert_eq!((a.network(), a.host()), (b.network(), b.host()));
        assert_ne!(a.network(), Source::parse("2001:db8:1:3::3").network());
        assert_eq!(Source::parse("nonsense"), Source::LOCAL);
    }

    #[test]
    fn a_bucket_gives_its_burst_then_one_each_step_to_the_millisecond() {
        let mut buckets = Buckets::new(3, 1_000, 2);
        let (a, b) = (Source::parse("192.0.2.1"), Source::parse("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(buckets.take(a, 5_000), Ok(()));
        }
        assert_eq!(buckets.take(a, 5_000), Err(1_000), "n + 1");
        assert_eq!(buckets.take(b, 5_000), Ok(()), "others are not slowed");
        assert_eq!(buckets.take(a, 5_999), Err(1));
        assert_eq!(buckets.take(a, 6_000), Ok(()));
        assert_eq!(
            buckets.take(a, 4_000),
            Err(1_000),
            "a clock set back locks nobody out for long"
        );
        assert_eq!(buckets.take(a, 9_000_000), Ok(()));
    }

    #[test]
    fn the_patient_wait_their_turn_and_the_others_come_again() {
        let mut buckets = Buckets::new(2, 50, 4);
        let a = Source::parse("192.0.2.1");
        let mut take = |now| buckets.take_within(a, now, 100);
        assert_eq!(
            [take(0), take(0), take(0), take(0)],
            [Ok(0), Ok(0), Ok(50), Ok(100)]
        );
        assert_eq!(take(0), Err(50), "longer than its patience");
        assert_eq!(take(50), Ok(100));
        assert_eq!(take(100_000), Ok(0));
    }

    #[test]
    fn what_is_given_back_leaves_nothing() {
        let mut buckets = Buckets::new(2, 50, 4);
        let a = Source::parse("192.0.2.1");
        for _ in 0..1_000 {
            assert_eq!(buckets.take(a, 0), Ok(()));
            buckets.give_back(a, 0);
        }
        assert!(buckets.full_at_ms.is_empty());
        buckets.give_back(a, 0);
        assert!(buckets.full_at_ms.is_empty());
    }

    #[test]
    fn a_flood_of_sources_stays_bounded_and_keeps_no_newcomer_out() {
        let mut buckets = Buckets::new(2, 1_000, 4);
        let greedy = Source::parse("192.0.2.1");
        assert_eq!(
            (buckets.take(greedy, 0), buckets.take(greedy, 0)),
            (Ok(()), Ok(()))
        );
        for last in 0..200_u8 {
            let newcomer = Source::of(IpAddr::from([10, 0, 0, last]));
            assert_eq!(buckets.take(newcomer, 0), Ok(()));
            assert!(buckets.full_at_ms.len() <= 4);
        }
        assert_eq!(
            buckets.take(greedy, 0),
            Err(1_000),
            "the emptiest is forgotten last"
        );
    }
}
