//! Expressions and instants drawn from a seed.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// SplitMix64: small, good enough, and the same for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// A valid five-field expression in the default syntax; it may never fire.
    pub(crate) fn expression(&mut self) -> String {
        let minute = self.field(0, 59, &[]);
        let hour = self.field(0, 23, &["1", "2", "3", "0", "2-3", "1-4", "23"]);
        let date = self.field(1, 31, &["*", "*", "L", "LW", "31", "29-31", "25-31", "l,1"]);
        let month = self.field(1, 12, &["*", "*", "*", "mar,OCT", "JAN-jun/2", "2"]);
        let weekday = self.field(
            0,
            7,
            &[
                "*", "*", "SUN", "5L", "5#3", "mon-FRI", "SAT-SUN", "7#2,MONL", "0-7",
            ],
        );
        format!("{minute} {hour} {date} {month} {weekday}")
    }

    fn field(&mut self, min: u64, max: u64, special: &[&str]) -> String {
        if !special.is_empty() && self.below(2) == 0 {
            return self.pick(special).to_owned();
        }
        let items = 1 + self.below(6) / 4;
        // A `*` among other items is legal but drowns them.
        let stars = items == 1 || self.below(16) == 0;
        let list: Vec<String> = (0..items).map(|_| self.item(min, max, stars)).collect();
        list.join(",")
    }

    fn item(&mut self, min: u64, max: u64, stars: bool) -> String {
        let start = min + self.below(max - min + 1);
        let end = start + self.below(max - start + 1);
        let step = 1 + self.below(max + 4);
        match self.below(7) {
            0 | 1 if stars => "*".to_owned(),
            2 => format!("*/{step}"),
            3 => format!("{start}-{end}"),
            4 => format!("{start}-{end}/{step}"),
            _ => start.to_string(),
        }
    }

    /// An instant from 1980 to 2060, in half of the cases within three days of a change of the zone's clocks.
    pub(crate) fn instant(&mut self, zone: &TimeZone) -> Timestamp {
        const FROM_1980: i64 = 315_532_800;
        const TO_2060: u64 = 80 * 31_556_952;
        let second = FROM_1980 + self.below(TO_2060) as i64;
        let any = Timestamp::from_second(second).unwrap();
        let near = if self.below(2) == 0 {
            zone.following(any).next()
        } else {
            None
        };
        match near {
            Some(change) => Timestamp::from_second(
                change.timestamp().as_second() + self.below(6 * 86_400) as i64 - 3 * 86_400,
            )
            .unwrap(),
            None => any,
        }
    }
}
