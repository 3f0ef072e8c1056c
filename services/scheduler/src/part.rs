//! A part of a record that most have none of: it takes a word until it is changed.

/// Reads of a part that is not there see its `NONE`; the first change makes it.
macro_rules! part {
    ($whole:ident.$field:ident: $part:ident) => {
        impl std::ops::Deref for $whole {
            type Target = $part;
            fn deref(&self) -> &$part {
                static NONE: $part = $part::NONE;
                self.$field.as_deref().unwrap_or(&NONE)
            }
        }

        impl std::ops::DerefMut for $whole {
            fn deref_mut(&mut self) -> &mut $part {
                self.$field.get_or_insert_with(|| Box::new($part::NONE))
            }
        }
    };
}

pub(crate) use part;
