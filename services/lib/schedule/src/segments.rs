//! A zone as stretches of constant offset, and the rule of `reference/scheduler.md` §3.2 walked over them.
//!
//! Inside a segment civil time is linear, so a search there is plain arithmetic. What daylight saving time does
//! happens at the seams: a seam that jumps forward leaves a *gap* of civil times nobody reads off a clock, one
//! that jumps back makes an *overlap* that is read twice. "Fires once" then is a statement about the high-water
//! mark of the civil clock: a fixed civil time is due at the first instant whose reading has reached it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::DstPolicy;
use crate::calendar::CYCLE_SECONDS;
use crate::fields::Fields;

/// Why an occurrence is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OccurrenceKind {
    /// The clock reads the named time once.
    Regular,
    /// The named civil time does not exist on that day; this is the first instant after the gap.
    AfterGap,
    /// The clock reads this time twice; this is the first.
    FirstPass,
    /// The clock reads this time twice; this is the second.
    SecondPass,
}

/// A gap of at most this many seconds moves a fixed time to its end; a longer one swallows it (§3.2 rule 4).
pub(crate) const LONGEST_SHIFT_SECONDS: i64 = 3 * 3_600;

/// 2102-01-01T00:00:00Z. Zone data names single transitions up to 2087 (Casablanca) and rules after that, and
/// Quartz years end in 2100, so everything from here on repeats every 400 years and is folded back.
pub(crate) const FOLD_AT: i64 = 4_165_516_800;

/// End of the table. Past the fold the longest wait is 40 years (29 February on a given weekday over a century
/// seam), so 64 years after the last folded second decide whether an expression ever comes.
const TABLE_END: i64 = FOLD_AT + CYCLE_SECONDS + 64 * 31_557_600;

/// Candidates a search may lose to gaps one after the other. Whether a rule's gap swallows a given month, day
/// and weekday is the same every time it comes, so an expression that lost this many loses them all.
const MAX_LOST: usize = 48;

/// Gaps one call of [`Segments::gaps`] reports.
const MAX_GAPS: usize = 64;

/// Segments a zone may have; zone data has below 400 before the fold and 2 a year after it.
const MAX_SEGMENTS: usize = 4_096;

/// The constant-offset segments of one zone, as parallel arrays because every search reads one of them.
#[derive(Debug)]
pub(crate) struct Segments {
    /// First second (UTC) of each segment; the first is before all time.
    starts: Box<[i64]>,
    /// Seconds east of UTC.
    offsets: Box<[i32]>,
    /// High-water mark of the civil clock at the end of each segment: the first civil second not yet read.
    reached: Box<[i64]>,
    /// The lowest civil second read in this segment or any later one.
    lowest: Box<[i64]>,
}

/// A gap between two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The second (UTC) the clock jumped.
    pub(crate) at: i64,
    /// First civil second that was never read.
    pub(crate) from: i64,
    /// First civil second read after the jump.
    pub(crate) until: i64,
    /// How far the clock jumped.
    pub(crate) seconds: i64,
}

impl Segments {
    /// Reads the transitions of a zone.
    pub(crate) fn of(zone: &TimeZone) -> Segments {
        let changes = zone
            .following(Timestamp::MIN)
            .map(|change| (change.timestamp().as_second(), change.offset().seconds()))
            .take_while(|(at, _)| *at < TABLE_END);
        Segments::new(zone.to_offset(Timestamp::MIN).seconds(), changes)
    }

    /// Builds the table from the first offset and the changes that follow, oldest first. Changes of name alone
    /// are left out.
    fn new(first: i32, changes: impl Iterator<Item = (i64, i32)>) -> Segments {
        let mut starts = vec![i64::MIN / 4];
        let mut offsets = vec![first];
        for (at, offset) in changes.take(MAX_SEGMENTS) {
            if offsets.last() != Some(&offset) {
                starts.push(at);
                offsets.push(offset);
            }
        }

        let mut high = i64::MIN;
        let ends = starts.iter().skip(1).copied().chain([i64::MAX / 4]);
        let reached = ends.zip(&offsets).map(|(end, offset)| {
            high = high.max(end + i64::from(*offset));
            high
        });
        let reached = reached.collect();
        let mut lowest: Box<[i64]> = starts
            .iter()
            .zip(&offsets)
            .map(|(start, offset)| start + i64::from(*offset))
            .collect();
        for index in (1..lowest.len()).rev() {
            lowest[index - 1] = lowest[index - 1].min(lowest[index]);
        }
        Segments {
            starts: starts.into(),
            offsets: offsets.into(),
            reached,
            lowest,
        }
    }

    /// The instant an expression is due next, strictly after the second `after`.
    pub(crate) fn next(&self, fields: &Fields, dst: DstPolicy, after: i64) -> Option<(i64, OccurrenceKind)> {
        let folded = folded(after);
        let found = if fields.wildcard || dst == DstPolicy::Both {
            self.next_reading(fields, after - folded)
        } else {
            self.next_reached(fields, dst, after - folded)
        };
        found
            .filter(|(at, _)| *at < TABLE_END)
            .map(|(at, kind)| (at + folded, kind))
    }

    /// The first second (UTC) at which the clock has reached a civil second: its first reading, or the end of the
    /// gap that swallowed it.
    pub(crate) fn instant_of(&self, civil: i64) -> (i64, OccurrenceKind) {
        let folded = folded(civil);
        let (_, at, kind) = self.locate(civil - folded);
        (at + folded, kind)
    }

    /// The gaps whose jump lies in `after < at <= until`, oldest first, at most [`MAX_GAPS`].
    pub(crate) fn gaps(&self, after: i64, until: i64) -> Vec<Gap> {
        let folded = folded(after);
        let first = self.holding(after - folded) + 1;
        let starts = self.starts.iter().enumerate().skip(first);
        starts
            .take_while(|(_, start)| **start <= until - folded)
            .filter_map(|(index, start)| {
                let from = self.reached[index - 1];
                let until = self.begin(index);
                let seconds = self.offset(index) - self.offset(index - 1);
                (from < until).then_some(Gap {
                    at: start + folded,
                    from: from + folded,
                    until: until + folded,
                    seconds,
                })
            })
            .take(MAX_GAPS)
            .collect()
    }

    /// Fixed times: each is due once, when the civil clock first reaches it.
    fn next_reached(&self, fields: &Fields, dst: DstPolicy, after: i64) -> Option<(i64, OccurrenceKind)> {
        let index = self.holding(after);
        let mut from = after + self.offset(index) + 1;
        if index > 0 {
            from = from.max(self.reached[index - 1]);
        }
        for _ in 0..MAX_LOST {
            let (index, at, kind) = self.locate(fields.next(from)?);
            let shifts = || self.offset(index) - self.offset(index - 1) <= LONGEST_SHIFT_SECONDS;
            if kind != OccurrenceKind::AfterGap || (dst == DstPolicy::Vixie && shifts()) {
                return Some((at, kind));
            }
            from = self.begin(index);
        }
        None
    }

    /// Wildcard times: due whenever the clock reads one, so twice in an overlap and never in a gap.
    fn next_reading(&self, fields: &Fields, after: i64) -> Option<(i64, OccurrenceKind)> {
        let mut index = self.holding(after);
        let mut from = after + self.offset(index) + 1;
        for _ in 0..MAX_LOST {
            let found = fields.next(from);
            if let Some(civil) = found.filter(|civil| *civil < self.end(index)) {
                return Some((civil - self.offset(index), self.pass(index, civil)));
            }
            index += 1;
            if *self.lowest.get(index)? < from {
                from = self.begin(index);
            } else {
                // Nothing before the candidate is ever read again: go straight to where it is read.
                let civil = found?;
                index = index.max(self.reaching(civil));
                from = self.begin(index).max(civil);
            }
        }
        None
    }

    /// The segment, second (UTC) and manner in which the clock first reaches a civil second.
    fn locate(&self, civil: i64) -> (usize, i64, OccurrenceKind) {
        let index = self.reaching(civil);
        if civil < self.begin(index) {
            (index, self.starts[index], OccurrenceKind::AfterGap)
        } else {
            (index, civil - self.offset(index), self.pass(index, civil))
        }
    }

    /// Which reading of a civil second the one in this segment is.
    fn pass(&self, index: usize, civil: i64) -> OccurrenceKind {
        if index > 0 && civil < self.reached[index - 1] {
            OccurrenceKind::SecondPass
        } else if self.lowest.get(index + 1).is_some_and(|lowest| *lowest <= civil) {
            OccurrenceKind::FirstPass
        } else {
            OccurrenceKind::Regular
        }
    }

    /// The segment that holds a second (UTC).
    fn holding(&self, second: i64) -> usize {
        self.starts
            .partition_point(|start| *start <= second)
            .saturating_sub(1)
    }

    /// The first segment whose clock gets past a civil second; the last one gets past all.
    fn reaching(&self, civil: i64) -> usize {
        self.reached
            .partition_point(|reached| *reached <= civil)
            .min(self.reached.len() - 1)
    }

    fn offset(&self, index: usize) -> i64 {
        i64::from(self.offsets[index])
    }

    /// First civil second read in a segment.
    fn begin(&self, index: usize) -> i64 {
        self.starts[index] + self.offset(index)
    }

    /// First civil second no longer read in a segment.
    fn end(&self, index: usize) -> i64 {
        self.starts
            .get(index + 1)
            .map_or(i64::MAX, |next| next + self.offset(index))
    }
}

/// The seconds, a multiple of 400 years, by which a time past the table's rule-only part is folded back.
fn folded(second: i64) -> i64 {
    if second < FOLD_AT {
        0
    } else {
        (second - FOLD_AT) / CYCLE_SECONDS * CYCLE_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{CronExpr, Syntax};
    use proptest::prelude::*;

    /// The rule by definition, second by second is not needed: every offset here is of whole minutes.
    fn by_definition(zone: &Segments, fields: &Fields, dst: DstPolicy, after: i64, end: i64) -> Option<i64> {
        let start = zone.starts.get(1).copied().unwrap_or(0) - 3 * 86_400;
        let mut high = i64::MIN;
        let mut before = None;
        for at in (start..end).step_by(60) {
            let offset = zone.offset(zone.holding(at));
            let civil = at + offset;
            let shows = fields.next(civil) == Some(civil);
            let first = civil > high;
            let jump = before.map_or(0, |before| offset - before);
            let lost = high + 60..civil;
            let missed = first
                && before.is_some()
                && !lost.is_empty()
                && fields.next(lost.start).is_some_and(|next| next < lost.end);
            let reading = fields.wildcard || dst == DstPolicy::Both;
            let due = if reading {
                shows
            } else {
                (shows && first) || (missed && dst == DstPolicy::Vixie && jump <= LONGEST_SHIFT_SECONDS)
            };
            if due && at > after {
                return Some(at);
            }
            high = high.max(civil);
            before = Some(offset);
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        /// Zones that no government has thought of: changes hours apart, overlaps within overlaps.
        #[test]
        fn any_clock_follows_the_rule(
            changes in prop::collection::vec((1i64..24, -50i32..50), 1..12),
            expr in prop::sample::select(vec!["30 2 * * *", "15,45 1-4 * * *", "*/30 * * * *", "0 */3 * * *", "0 12 * * 0-3"]),
            dst in prop::sample::select(vec![DstPolicy::Vixie, DstPolicy::Skip, DstPolicy::Both]),
            asked in prop::collection::vec(0i64..6 * 24 * 60, 8),
        ) {
            let mut at = 1_000_000_020;
            let changes = changes.into_iter().map(|(half_hours, offset)| {
                at += half_hours * 1_800;
                (at, offset * 1_800)
            });
            let zone = Segments::new(0, changes.collect::<Vec<_>>().into_iter());
            let expr = CronExpr::parse(expr, Syntax::Unix).unwrap();
            for minutes in asked {
                let after = 999_900_000 + minutes * 60;
                let end = after + 3 * 86_400;
                let expected = by_definition(&zone, expr.fields(), dst, after, end);
                let found = zone.next(expr.fields(), dst, after).map(|(at, _)| at).filter(|at| *at < end);
                prop_assert_eq!(found, expected, "{:?} after {}: {:?}", expr, after, zone);
            }
        }
    }

    #[test]
    fn times_of_the_far_future_are_those_400_years_before() {
        let zone = Segments::of(&TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        for text in ["30 2 * * *", "*/30 2 * 10 *", "0 0 29 2 */7"] {
            let expr = CronExpr::parse(text, Syntax::Unix).unwrap();
            for day in 0..4_000 {
                let after = FOLD_AT + day * 3 * 86_400 + 5;
                let later = after + CYCLE_SECONDS * 3;
                let (next, kind) = zone.next(expr.fields(), DstPolicy::Vixie, after).unwrap();
                let expected = Some((next + CYCLE_SECONDS * 3, kind));
                assert_eq!(zone.next(expr.fields(), DstPolicy::Vixie, later), expected);
                assert_eq!(
                    zone.gaps(later, later + 400 * 86_400).len(),
                    zone.gaps(after, after + 400 * 86_400).len()
                );
            }
        }
    }
}
