//! How many entries an answer has: `page_size` of every list.

use creel_wire::Error;

/// No page is longer, in entries.
pub const MAX: usize = 500;
/// A page of a caller who does not say, in entries.
pub const DEFAULT: usize = 100;

/// The size of a page: what was asked for in `field`, or `default` for 0.
///
/// # Errors
/// Names the field when it is negative or over [`MAX`].
pub fn size(field: &str, asked: i32, default: usize) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) if size <= MAX => Ok(size),
        _ => Err(Error::invalid(
            field,
            format!("{asked} is not between 0 and {MAX}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_was_asked_for_up_to_its_limit() {
        assert_eq!(size("last", 0, DEFAULT), Ok(100));
        assert_eq!(size("last", 1, DEFAULT), Ok(1));
        assert_eq!(size("last", 500, DEFAULT), Ok(500));
        for asked in [501, -1, i32::MIN, i32::MAX] {
            assert_eq!(
                size("last", asked, DEFAULT).map_err(|e| e.field),
                Err(Some("last".to_owned()))
            );
        }
    }
}
