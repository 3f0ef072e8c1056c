//! The parts of a job's record that decide when it runs, read off its bytes without a copy of any of them: a million
//! are read at a start, and most of a record is texts that nobody asks for then.
//!
//! It reads what this service writes, and refuses whatever else the encoding allows (a field twice, groups): that is
//! for the whole decoder. `creel.scheduler.v1` names the fields; a test holds this to the decoder's answer.

use std::str::from_utf8;

/// Of a `JobRecord`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct RecordHead<'a> {
    pub(super) incarnation: u64,
    pub(super) owner: &'a str,
    pub(super) anchor_unix_ms: i64,
    pub(super) context: &'a str,
    pub(super) spec: SpecHead<'a>,
}

/// Of its `JobSpec`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct SpecHead<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) schedule: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) policy: &'a [u8],
    pub(super) delivery: &'a [u8],
    pub(super) disabled: bool,
    pub(super) delete_after_run: bool,
    pub(super) delete_after: i32,
}

impl<'a> RecordHead<'a> {
    /// `None`: not as this service writes it.
    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let mut head = Self::default();
        let mut spec = None;
        let mut fields = Fields::of(record);
        while let Some((tag, value)) = fields.next()? {
            match (tag, value) {
                // Texts that are looked at by others.
                (1 | 21, Value::Bytes(text)) if from_utf8(text).is_ok() => {}
                (2, Value::Number(number)) => head.incarnation = number,
                (3, Value::Bytes(bytes)) => spec = Some(SpecHead::read(bytes)?),
                (4, Value::Bytes(text)) => head.owner = from_utf8(text).ok()?,
                (5, Value::Bytes(scope)) if from_utf8(scope).is_ok() => fields.may_repeat(),
                (6 | 7, Value::Number(_)) => {}
                (19, Value::Number(number)) => head.anchor_unix_ms = number.cast_signed(),
                (22, Value::Bytes(text)) => head.context = from_utf8(text).ok()?,
                _ => return None,
            }
        }
        head.spec = spec?;
        Some(head)
    }
}

impl<'a> SpecHead<'a> {
    fn read(spec: &'a [u8]) -> Option<Self> {
        let mut head = Self::default();
        let mut fields = Fields::of(spec);
        while let Some((tag, value)) = fields.next()? {
            match (tag, value) {
                (1, Value::Bytes(text)) => head.name = from_utf8(text).ok()?,
                (2, Value::Bytes(text)) => head.description = from_utf8(text).ok()?,
                (3, Value::Bytes(bytes)) => head.schedule = bytes,
                (4, Value::Bytes(bytes)) => head.target = bytes,
                (5, Value::Bytes(bytes)) => head.payload = bytes,
                (6, Value::Bytes(bytes)) => head.policy = bytes,
                (7, Value::Bytes(bytes)) => head.delivery = bytes,
                (8, Value::Number(number)) => head.disabled = number != 0,
                (9, Value::Number(number)) => head.delete_after_run = number != 0,
                // An enum is the low half of its number.
                (10, Value::Number(number)) => head.delete_after = number as i32,
                _ => return None,
            }
        }
        Some(head)
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
struct Fields<'a> {
    rest: &'a [u8],
    last: u64,
}

impl<'a> Fields<'a> {
    const fn of(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            last: 0,
        }
    }

    /// The next field. Outside `None`: it can't be read, or comes before one that was; inside: there is none left.
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let key = self.number()?;
        let tag = key >> 3;
        if tag <= self.last {
            return None;
        }
        self.last = tag;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            2 => {
                let len = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(len)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some(Some((tag, value)))
    }

    /// The field that was read may come again.
    const fn may_repeat(&mut self) {
        self.last -= 1;
    }

    /// A number of seven bits a byte, lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if place == 9 && *byte > 1 {
                return None;
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(place + 1..)?;
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::scheduler::v1::{JobRecord, JobSpec};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn record() -> impl Strategy<Value = JobRecord> {
        let texts = prop::collection::vec(".{0,12}", 7);
        (
            texts,
            any::<[u64; 3]>(),
            any::<(bool, bool, i32)>(),
            prop::collection::vec(".{0,5}", 0..3),
        )
            .prop_map(
                |(mut texts, [incarnation, anchor, made], (disabled, run, delete_after), scopes)| {
                    let mut text = || texts.pop().unwrap_or_default();
                    JobRecord {
                        job_id: text(),
                        incarnation,
                        owner: text(),
                        scopes,
                        created_at_unix_ms: made.cast_signed(),
                        updated_at_unix_ms: made.cast_signed(),
                        anchor_unix_ms: anchor.cast_signed(),
                        created_by: text(),
                        context: text(),
                        spec: Some(JobSpec {
                            name: text(),
                            description: text(),
                            target: text(),
                            disabled,
                            delete_after_run: run,
                            delete_after,
                            schedule: Some(Default::default()),
                            payload: Some(Default::default()),
                            policy: Some(Default::default()),
                            delivery: Some(Default::default()),
                        }),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn it_reads_what_the_decoder_reads(record in record()) {
            let bytes = record.encode_to_vec();
            let head = RecordHead::read(&bytes).unwrap();
            let spec = record.spec.unwrap();
            prop_assert_eq!(head, RecordHead {
                incarnation: record.incarnation,
                owner: &record.owner,
                anchor_unix_ms: record.anchor_unix_ms,
                context: &record.context,
                spec: SpecHead {
                    name: &spec.name,
                    description: &spec.description,
                    target: spec.target.as_bytes(),
                    disabled: spec.disabled,
                    delete_after_run: spec.delete_after_run,
                    delete_after: spec.delete_after,
                    ..SpecHead::default()
                },
            });
        }

        #[test]
        fn what_it_reads_the_decoder_reads_too(mut bytes in record().prop_map(|record| record.encode_to_vec()),
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() * 3).max(1));
            if let Some(head) = RecordHead::read(&bytes) {
                // What it passes over is checked when it is looked at.
                if let Ok(record) = JobRecord::decode(&*bytes) {
                    prop_assert_eq!((head.owner, head.incarnation), (record.owner.as_str(), record.incarnation));
                    prop_assert_eq!(head.spec.name, record.spec.unwrap().name);
                }
            }
        }
    }

    #[test]
    fn what_this_service_never_writes_is_left_to_the_decoder() {
        let record = JobRecord {
            owner: "owner".into(),
            spec: Some(JobSpec::default()),
            ..JobRecord::default()
        };
        let bytes = record.encode_to_vec();
        assert!(RecordHead::read(&bytes).is_some());
        for more in [
            &[0x22, 0][..],
            &[0x0d, 0, 0, 0, 0],
            &[0xff],
            &[0xb8, 1, 0],
            &[0xaa, 1, 1, 0xff],
        ] {
            assert_eq!(RecordHead::read(&[&bytes, more].concat()), None, "{more:?}");
        }
        assert_eq!(
            RecordHead::read(&JobRecord::default().encode_to_vec()),
            None,
            "no spec"
        );
    }
}
