//! The parameters of each method: the fields that the original's schemas know, and what becomes of each here.
//!
//! A frame is held against them before anything of it is read, and without a tree of it: what a method takes
//! is of its type and within bounds; what a method can't do here is refused by name, never left out silently.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use creel_wire::error::printable;

/// The longest id or name, in bytes.
pub(crate) const MAX_ID: usize = 256;
/// Ids in one list.
pub(crate) const MAX_IDS: usize = 64;
/// The largest whole number: the last instant that the original's clock knows, in milliseconds.
pub(crate) const MAX_COUNT: u64 = 8_640_000_000_000_000;

/// The parameters of a method, or an object within.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) fields: &'static [Field],
    /// There are no others; else others make no difference.
    pub(crate) closed: bool,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
}

/// What a field holds. `null` is as good as nothing where it isn't required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An id or a name: 1 to [`MAX_ID`] bytes that can be printed.
    Id,
    Ids,
    Text,
    Flag,
    /// A whole number from 0 to [`MAX_COUNT`].
    Count,
    /// One of these.
    Word(&'static [&'static str]),
    Within(&'static Params),
    /// Any JSON.
    Any,
    /// Nothing here depends on it.
    Moot,
    /// The original can; here it may only say that it isn't wanted: `false`, `0` or `""`.
    Lacking,
}

pub(crate) const fn closed(fields: &'static [Field]) -> Params {
    Params { fields, closed: true }
}

pub(crate) const fn open(fields: &'static [Field]) -> Params {
    Params {
        fields,
        closed: false,
    }
}

pub(crate) const fn must(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: true,
    }
}

pub(crate) const fn may(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
    }
}

/// Whether a text is an id.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && printable(text, MAX_ID) == text
}

/// Holds the parameters of a frame against what its method knows.
///
/// # Errors
/// The first that is wrong, in the original's words.
pub(crate) fn check(frame: &str, params: &'static Params) -> Result<(), serde_json::Error> {
    let mut frame = serde_json::Deserializer::from_str(frame);
    Frame(params).deserialize(&mut frame)
}

/// The `params` of a frame; none are as `{}`.
struct Frame(&'static Params);

impl<'de> DeserializeSeed<'de> for Frame {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Frame {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "params" {
                seen = true;
                map.next_value_seed(Judge::root(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if seen {
            return Ok(());
        }
        Judge::root(self.0).complete(0)
    }
}

/// Judges one value.
struct Judge {
    kind: Kind,
    required: bool,
    /// As the original names it: `/patch/name`, nothing for the root.
    at: String,
}

impl Judge {
    fn root(params: &'static Params) -> Self {
        Self {
            kind: Kind::Within(params),
            required: false,
            at: String::new(),
        }
    }

    fn wrong<E: serde::de::Error>(&self, why: impl fmt::Display) -> E {
        E::custom(format_args!("{}{why}", self.place()))
    }

    fn place(&self) -> String {
        if self.at.is_empty() {
            String::new()
        } else {
            format!("at {}: ", self.at)
        }
    }

    /// It isn't what it should be.
    fn not<E: serde::de::Error>(&self) -> E {
        match self.kind {
            Kind::Id => self.wrong(format_args!("must be a string of 1 to {MAX_ID} printable bytes")),
            Kind::Ids => self.wrong(format_args!("must be an array of at most {MAX_IDS} ids")),
            Kind::Text => self.wrong("must be string"),
            Kind::Flag => self.wrong("must be boolean"),
            Kind::Count => self.wrong(format_args!("must be an integer from 0 to {MAX_COUNT}")),
            Kind::Word(words) => self.wrong(format_args!("must be one of: {}", words.join(", "))),
            Kind::Within(_) => self.wrong("must be object"),
            Kind::Lacking => self.wrong("not supported here"),
            Kind::Any | Kind::Moot => self.wrong("must be JSON"),
        }
    }

    fn one_of<E: serde::de::Error>(&self, good: bool) -> Result<(), E> {
        if good || matches!(self.kind, Kind::Any | Kind::Moot) {
            Ok(())
        } else {
            Err(self.not())
        }
    }

    /// Whether an object that had these fields, by their bits, has all it must have.
    fn complete<E: serde::de::Error>(&self, seen: u64) -> Result<(), E> {
        let Kind::Within(params) = self.kind else {
            return Ok(());
        };
        let missing = params
            .fields
            .iter()
            .enumerate()
            .find(|(index, field)| field.required && seen & (1 << index) == 0);
        match missing {
            Some((_, field)) => Err(self.wrong(format_args!("must have required property '{}'", field.name))),
            None => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Judge {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if matches!(self.kind, Kind::Any | Kind::Moot) {
            deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Judge {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.required {
            return Err(self.not());
        }
        if self.at.is_empty() {
            self.complete(0)
        } else {
            Ok(())
        }
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.one_of(match self.kind {
            Kind::Flag => true,
            Kind::Lacking => !flag,
            _ => false,
        })
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.one_of(match self.kind {
            Kind::Count => number <= MAX_COUNT,
            Kind::Lacking => number == 0,
            _ => false,
        })
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.one_of(false)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.one_of(false)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.one_of(match self.kind {
            Kind::Id => is_id(text),
            Kind::Text => true,
            Kind::Word(words) => words.contains(&text),
            Kind::Lacking => text.is_empty(),
            _ => false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !matches!(self.kind, Kind::Ids) {
            return Err(self.not());
        }
        let mut count = 0;
        let judge = || Judge {
            kind: Kind::Id,
            required: true,
            at: self.at.clone(),
        };
        while list.next_element_seed(judge())?.is_some() {
            count += 1;
            if count > MAX_IDS {
                return Err(self.not());
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Kind::Within(params) = self.kind else {
            return Err(self.not());
        };
        let mut seen = 0_u64;
        while let Some(key) = map.next_key::<String>()? {
            let known = params
                .fields
                .iter()
                .enumerate()
                .find(|(_, field)| field.name == key);
            let Some((index, field)) = known else {
                if params.closed {
                    let at = if self.at.is_empty() { "root" } else { &self.at };
                    let key = printable(&key, 64);
                    return Err(A::Error::custom(format_args!(
                        "at {at}: unexpected property '{key}'"
                    )));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            seen |= 1 << index;
            map.next_value_seed(Judge {
                kind: field.kind,
                required: field.required,
                at: format!("{}/{}", self.at, field.name),
            })?;
        }
        self.complete(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Params = closed(&[must("word", Kind::Word(&["a", "b"]))]);
    static SAMPLE: Params = closed(&[
        must("id", Kind::Id),
        may("n", Kind::Count),
        may("ids", Kind::Ids),
        may("in", Kind::Within(&INNER)),
        may("any", Kind::Any),
        may("later", Kind::Lacking),
    ]);

    fn said(params: &str) -> Option<String> {
        let frame = format!(r#"{{"type":"req","params":{params},"more":[1]}}"#);
        let error = check(&frame, &SAMPLE).err()?.to_string();
        Some(error.split(" at line ").next().unwrap_or_default().to_owned())
    }

    #[test]
    fn each_kind_takes_what_it_is_and_nothing_else() {
        let good = [
            r#"{"id":"x"}"#,
            r#"{"id":"x","n":8640000000000000,"ids":["a"],"in":{"word":"b"},"any":{"deep":[1.5]},"later":false}"#,
            r#"{"id":"x","n":null,"ids":[],"in":null,"any":null,"later":null}"#,
        ];
        for params in good {
            assert_eq!(said(params), None, "{params}");
        }
        let bad = [
            (r"{}", "must have required property 'id'"),
            ("null", "must have required property 'id'"),
            ("[]", "must be object"),
            (
                r#"{"id":null}"#,
                "at /id: must be a string of 1 to 256 printable bytes",
            ),
            (
                r#"{"id":"a\u0007"}"#,
                "at /id: must be a string of 1 to 256 printable bytes",
            ),
            (
                r#"{"id":"x","n":-1}"#,
                "at /n: must be an integer from 0 to 8640000000000000",
            ),
            (
                r#"{"id":"x","n":1.5}"#,
                "at /n: must be an integer from 0 to 8640000000000000",
            ),
            (
                r#"{"id":"x","n":8640000000000001}"#,
                "at /n: must be an integer from 0 to 8640000000000000",
            ),
            (
                r#"{"id":"x","ids":["a",""]}"#,
                "at /ids: must be a string of 1 to 256 printable bytes",
            ),
            (
                r#"{"id":"x","in":{}}"#,
                "at /in: must have required property 'word'",
            ),
            (
                r#"{"id":"x","in":{"word":"c"}}"#,
                "at /in/word: must be one of: a, b",
            ),
            (
                r#"{"id":"x","in":{"word":"a","z":1}}"#,
                "at /in: unexpected property 'z'",
            ),
            (
                r#"{"id":"x","z\u001b":1}"#,
                "at root: unexpected property 'z\\u{1b}'",
            ),
            (r#"{"id":"x","later":true}"#, "at /later: not supported here"),
            (r#"{"id":"x","later":{}}"#, "at /later: not supported here"),
        ];
        for (params, why) in bad {
            assert_eq!(said(params).as_deref(), Some(why), "{params}");
        }
        let ids = |n: usize| format!(r#"{{"id":"x","ids":{:?}}}"#, vec!["a"; n]);
        assert_eq!(said(&ids(MAX_IDS)), None);
        assert!(said(&ids(MAX_IDS + 1)).is_some());
        let id = |n: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(n));
        assert_eq!(said(&id(MAX_ID)), None);
        assert!(said(&id(MAX_ID + 1)).is_some());
    }

    #[test]
    fn no_parameters_are_judged_as_empty_ones() {
        assert!(check(r#"{"type":"req"}"#, &SAMPLE).is_err());
        assert!(check(r#"{"type":"req"}"#, &INNER).is_err());
        static NONE: Params = closed(&[]);
        assert!(check(r#"{"type":"req"}"#, &NONE).is_ok());
    }
}
