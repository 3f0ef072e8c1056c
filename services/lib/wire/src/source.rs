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

/// Token buckets, one per source: a source that asks too often is slowed down, never locked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    burst: u32,
    every_ms: i64,
    most: usize,
    /// When each bucket will be full again, Unix milliseconds. What is full already is not kept.
    full_at_ms: BTreeMap<Source, i64>,
}

impl Buckets {
    /// `burst` calls at once, then one each `every_ms`; at most `most` sources are told apart, the others
    /// share one bucket.
    #[must_use]
    pub const fn new(burst: u32, every_ms: i64, most: usize) -> Self {
        Self {
            burst,
            every_ms,
            most,
            full_at_ms: BTreeMap::new(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When the next one will be there, in milliseconds from now.
    pub fn take(&mut self, source: Source, now_ms: i64) -> Result<(), i64> {
        let mut source = source.host();
        if self.full_at_ms.len() >= self.most && !self.full_at_ms.contains_key(&source) {
            self.full_at_ms.retain(|_, full_at| *full_at > now_ms);
            if self.full_at_ms.len() >= self.most {
                source = Source::LOCAL;
            }
        }
        let full_at = self
            .full_at_ms
            .get(&source)
            .copied()
            .unwrap_or(now_ms)
            .max(now_ms);
        // An empty bucket is full again after `burst` steps; a clock set back must not lock anybody out.
        let longest = self.every_ms.saturating_mul(i64::from(self.burst));
        let after = full_at.min(now_ms + longest) + self.every_ms;
        if after - now_ms > longest {
            return Err(after - now_ms - longest);
        }
        self.full_at_ms.insert(source, after);
        Ok(())
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
    fn a_flood_of_sources_shares_one_bucket_and_memory_stays_bounded() {
        let mut buckets = Buckets::new(2, 1_000, 4);
        let mut let_in = 0;
        for last in 0..200_u8 {
            let_in += usize::from(
                buckets
                    .take(Source::of(IpAddr::from([10, 0, 0, last])), 0)
                    .is_ok(),
            );
        }
        assert!(buckets.full_at_ms.len() <= 5, "{}", buckets.full_at_ms.len());
        assert_eq!(let_in, 4 + 2);
        assert_eq!(
            buckets.take(Source::of(IpAddr::from([10, 0, 1, 1])), 60_000),
            Ok(())
        );
    }
}
