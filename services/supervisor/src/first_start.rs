//! What a profile gets once: the recovery code, shown on the first start and kept only as a hash.

use std::io;

use creel_kit::{Profile, profile::write_private};
use rand::Rng as _;

/// RFC 4648: no 0, 1, 8 or 9, which look like letters.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Groups of five characters, five bits each.
const GROUPS: usize = 5;

/// Makes the recovery code if the profile has none, and returns it in the spelling for people.
///
/// # Errors
/// What the system said.
pub(crate) fn recovery_code(profile: &Profile) -> io::Result<Option<String>> {
    let path = profile.recovery_file();
    if path.exists() {
        return Ok(None);
    }
    let mut random = [0_u8; 16];
    rand::rng().fill_bytes(&mut random);
    let code = spell(random);
    write_private(
        &path,
        format!("{}\n", creel_identity::recovery::hash(&code)).as_bytes(),
    )?;
    Ok(Some(code))
}

/// 125 of the 128 bits, as `ABCDE-ABCDE-ABCDE-ABCDE-ABCDE`.
fn spell(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    let mut text = String::new();
    for n in 0..GROUPS * 5 {
        if n > 0 && n % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[((bits >> (123 - 5 * n)) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_use_all_bits_but_the_last_three() {
        assert_eq!(spell([0; 16]), "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA");
        assert_eq!(spell([255; 16]), "77777-77777-77777-77777-77777");
        assert_eq!(
            spell((1_u128 << 3).to_be_bytes()),
            "AAAAA-AAAAA-AAAAA-AAAAA-AAAAB"
        );
        assert_eq!(
            spell((1_u128 << 123).to_be_bytes()),
            "BAAAA-AAAAA-AAAAA-AAAAA-AAAAA"
        );
    }

    #[test]
    fn a_code_is_shown_once_and_kept_as_a_hash() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        profile.create(&[]).unwrap();
        let code = recovery_code(&profile).unwrap().unwrap();
        let kept = std::fs::read_to_string(profile.recovery_file()).unwrap();
        assert_eq!(
            kept.trim(),
            creel_wire::names::sha256_hex(code.replace('-', "").as_bytes())
        );
        assert_eq!(recovery_code(&profile).unwrap(), None);
    }
}
