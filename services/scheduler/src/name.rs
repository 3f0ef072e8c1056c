//! The name of a job as it is held: a million of them, and most are short. A short one lies where it is used, so
//! that it takes no allocation and that comparing it reads no other memory; a long one is shared.

use std::{cmp::Ordering, fmt, ops::Deref, sync::Arc};

/// Longest name held in place, in bytes: what makes a [`Name`] as big as three words.
const SHORT: usize = 22;

/// A text. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Name(Held);

#[derive(Clone)]
enum Held {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Arc<str>),
}

impl Name {
    /// Its bytes, which sort as the text does.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Short { len, bytes } => &bytes[..usize::from(*len)],
            Held::Long(text) => text.as_bytes(),
        }
    }

    /// Its first bytes as a number that sorts as the names do; names that share it have to be compared.
    pub(crate) fn prefix(&self) -> u64 {
        prefix(self)
    }
}

/// [`Name::prefix`] of a text.
pub(crate) fn prefix(text: &str) -> u64 {
    let mut start = [0; 8];
    let most = text.len().min(8);
    start[..most].copy_from_slice(&text.as_bytes()[..most]);
    u64::from_be_bytes(start)
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self(Held::Short { len, bytes })
            }
            _ => Self(Held::Long(text.into())),
        }
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        match &self.0 {
            // Always a whole text: it was made of one.
            Held::Short { .. } => std::str::from_utf8(self.bytes()).unwrap_or_default(),
            Held::Long(text) => text,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_three_words_whatever_its_length() {
        assert_eq!(size_of::<Name>(), 24);
        for text in [
            "",
            "a",
            "a-name-of-22-bytes-ok!",
            "a-name-of-23-bytes-isn't",
            "über-nächtlich",
        ] {
            assert_eq!(&*Name::from(text), text);
        }
    }

    proptest! {
        #[test]
        fn names_sort_as_their_texts_and_prefixes_never_disagree(a in ".{0,30}", b in "[ab\0]{0,10}") {
            let (x, y) = (Name::from(a.as_str()), Name::from(b.as_str()));
            prop_assert_eq!((&*x, &*y), (a.as_str(), b.as_str()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            if x.prefix() != y.prefix() {
                prop_assert_eq!(x.prefix().cmp(&y.prefix()), a.cmp(&b));
            }
        }
    }
}
