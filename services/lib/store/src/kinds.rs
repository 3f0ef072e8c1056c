//! Kinds of records: an enum with fixed two-byte tags per service, and the encoding of what follows the tag.
//!
//! **Encoding.** A key is its tag, then each part escaped and closed: a zero byte in a part is written `00 FF`, and
//! each part ends with `00 01`. So parts of any bytes are told apart, keys sort as their lists of parts do (with
//! [`crate::be`] numbers sort as numbers), and the keys below a list of parts are exactly those with its encoding as
//! prefix: `["a"]` never takes in `["ab"]`.

use crate::{Key, KeyRange};

const ZERO: [u8; 2] = [0x00, 0xff];
const CLOSE: [u8; 2] = [0x00, 0x01];

/// Makes an enum of key kinds. Tags are two bytes, never change, and stay reserved when a kind retires; using one
/// twice doesn't compile.
///
/// ```
/// creel_store::kinds! {
///     /// What identity keeps.
///     pub enum Kind {
///         /// A paired device, by id.
///         Device = b"dv",
///         /// A join secret's hash, by service.
///         Join = b"jn",
///     }
///     retired { b"xx" }
/// }
/// let key = Kind::Device.key(["phone"]);
/// assert!(Kind::Device.range().contains(key.as_ref()));
/// assert_eq!(Kind::of(&key), Some(Kind::Device));
/// ```
///
/// ```compile_fail
/// creel_store::kinds! { enum Kind { A = b"aa", B = b"aa" } }
/// ```
///
/// ```compile_fail
/// creel_store::kinds! { enum Kind { A = b"aa" } retired { b"aa" } }
/// ```
#[macro_export]
macro_rules! kinds {
    (
        $(#[$meta:meta])* $vis:vis enum $name:ident {
            $( $(#[$vmeta:meta])* $variant:ident = $tag:literal ),+ $(,)?
        }
        $( retired { $( $retired:literal ),* $(,)? } )?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $( $(#[$vmeta])* $variant ),+ }

        const _: () = assert!(
            $crate::kinds::distinct(&[$( *$tag, )+ $( $( *$retired, )* )?]),
            "two kinds share a tag, or a retired tag is in use"
        );

        #[allow(dead_code, reason = "not every user needs every helper")]
        impl $name {
            /// The tags in use, so that kinds of different enums in one store can be shown distinct.
            $vis const TAGS: &'static [[u8; 2]] = &[$( *$tag ),+];

            /// The fixed two bytes every key of this kind starts with.
            #[must_use]
            $vis const fn tag(self) -> [u8; 2] {
                match self { $( Self::$variant => *$tag ),+ }
            }

            /// The key of a list of parts.
            $vis fn key<P: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = P>) -> $crate::Key {
                $crate::kinds::key(self.tag(), parts)
            }

            /// Every key of this kind.
            #[must_use]
            $vis fn range(self) -> $crate::KeyRange {
                $crate::KeyRange::prefix(&self.tag())
            }

            /// The key of these parts and every key that continues them.
            $vis fn range_of<P: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = P>) -> $crate::KeyRange {
                $crate::kinds::range_of(self.tag(), parts)
            }

            /// The kind of a key; `None` for a tag that is unknown or retired.
            #[must_use]
            $vis fn of(key: &$crate::Key) -> Option<Self> {
                let tag = key.as_ref().get(..2)?;
                $( if tag == $tag { return Some(Self::$variant); } )+
                None
            }
        }
    };
}

/// Whether no tag occurs twice. `const`, so that [`kinds!`](crate::kinds!) can refuse to compile.
#[must_use]
pub const fn distinct(tags: &[[u8; 2]]) -> bool {
    let mut i = 0;
    while i < tags.len() {
        let mut j = i + 1;
        while j < tags.len() {
            if tags[i][0] == tags[j][0] && tags[i][1] == tags[j][1] {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}

/// The key of a tag and a list of parts.
pub fn key<P: AsRef<[u8]>>(tag: [u8; 2], parts: impl IntoIterator<Item = P>) -> Key {
    encode(tag, parts).into()
}

/// The key of a tag and a list of parts, and every key that continues the list.
pub fn range_of<P: AsRef<[u8]>>(tag: [u8; 2], parts: impl IntoIterator<Item = P>) -> KeyRange {
    KeyRange::prefix(&encode(tag, parts))
}

/// The parts of a key made by a kind; `None` if it wasn't.
#[must_use]
pub fn parts(key: &Key) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = key.as_ref().get(2..)?.iter();
    while let Some(byte) = bytes.next() {
        if *byte != 0 {
            part.push(*byte);
            continue;
        }
        match [0, *bytes.next()?] {
            ZERO => part.push(0),
            CLOSE => parts.push(std::mem::take(&mut part)),
            _ => return None,
        }
    }
    part.is_empty().then_some(parts)
}

/// The last part of a key made by a kind, if it has `N` bytes. It allocates nothing: keys come in millions.
#[must_use]
pub fn last_part<const N: usize>(key: &Key) -> Option<[u8; N]> {
    let (mut part, mut len, mut last) = ([0; N], 0, None);
    let mut bytes = key.as_ref().get(2..)?.iter();
    while let Some(byte) = bytes.next() {
        if *byte == 0 {
            match [0, *bytes.next()?] {
                ZERO => {}
                CLOSE => {
                    last = (len == N).then_some(part);
                    len = 0;
                    continue;
                }
                _ => return None,
            }
        }
        // An escaped zero, or the byte itself.
        if let Some(place) = part.get_mut(len) {
            *place = *byte;
        }
        len += 1;
    }
    last.filter(|_| len == 0)
}

fn encode<P: AsRef<[u8]>>(tag: [u8; 2], parts: impl IntoIterator<Item = P>) -> Vec<u8> {
    // Most keys fit, and need no second allocation.
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&tag);
    for part in parts {
        for byte in part.as_ref() {
            match byte {
                0 => out.extend_from_slice(&ZERO),
                byte => out.push(*byte),
            }
        }
        out.extend_from_slice(&CLOSE);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    crate::kinds! {
        enum Kind { Device = b"dv", Join = b"jn" }
        retired { b"xx" }
    }

    #[test]
    fn keys_carry_their_tag_and_parts() {
        let key = Kind::Join.key([b"a".as_slice(), &crate::be(1)]);
        assert_eq!(Kind::of(&key), Some(Kind::Join));
        assert_eq!(parts(&key), Some(vec![b"a".to_vec(), crate::be(1).to_vec()]));
        assert_eq!(Kind::of(&Key::from("xx")), None);
        assert_eq!(Kind::TAGS, [*b"dv", *b"jn"]);
        assert!(distinct(Kind::TAGS) && !distinct(&[*b"aa", *b"bb", *b"aa"]));
    }

    #[test]
    fn foreign_bytes_are_not_parts() {
        for bad in ["d", "dvopen", "dv\0", "dv\0\u{2}"] {
            assert_eq!(parts(&Key::from(bad)), None, "{bad:?}");
        }
    }

    fn any_parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Few distinct bytes, among them those the encoding uses, so that near collisions are common.
        let byte = prop::sample::select(vec![0u8, 1, b'a', 0xfe, 0xff]);
        prop::collection::vec(prop::collection::vec(byte, 0..4), 0..4)
    }

    proptest! {
        #[test]
        fn encoding_is_injective_and_keeps_order(a in any_parts(), b in any_parts()) {
            let (ka, kb) = (Kind::Device.key(&a), Kind::Device.key(&b));
            prop_assert_eq!(parts(&ka), Some(a.clone()));
            let last = a.last().and_then(|part| part.as_slice().try_into().ok());
            prop_assert_eq!(last_part::<2>(&ka), last);
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
        }

        #[test]
        fn range_of_is_exactly_the_continuations(a in any_parts(), b in any_parts()) {
            let inside = Kind::Device.range_of(&a).contains(Kind::Device.key(&b).as_ref());
            prop_assert_eq!(inside, b.starts_with(&a));
        }
    }
}
