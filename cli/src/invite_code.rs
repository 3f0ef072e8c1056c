//! The code of an invite: where the stack is, by which fingerprint it is known, and the one-use secret.
//! `creel1-` and base64url of: root's SHA-256 (32 bytes), the secret (32 bytes), `host:port`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use creel_wire::Secret;
use serde_json::json;

use crate::{failure::Failure, reach::Endpoint};

const PREFIX: &str = "creel1-";
/// A code, in characters.
const MAX: usize = 512;

/// What a code holds.
#[derive(Debug)]
pub(crate) struct Invite {
    pub(crate) endpoint: Endpoint,
    pub(crate) root_fingerprint: [u8; 32],
    /// As identity made it: base64url, 43 characters.
    pub(crate) secret: Secret<String>,
}

impl Invite {
    /// As text; `None` when the secret is none of identity's.
    pub(crate) fn code(&self) -> Option<String> {
        let secret = URL_SAFE_NO_PAD.decode(self.secret.expose()).ok()?;
        if secret.len() != 32 {
            return None;
        }
        let mut bytes = self.root_fingerprint.to_vec();
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(self.endpoint.to_string().as_bytes());
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The original's setup code: base64url of JSON with the address, the one-use token, its end, and the
    /// SHA-256 of the edge's certificate, by which its clients know this server: they don't trust its root.
    pub(crate) fn setup_code(&self, certificate_sha256: &str, expires_at_unix_ms: i64) -> String {
        let setup = json!({
            "url": self.url(),
            "bootstrapToken": self.secret.expose(),
            "expiresAtMs": expires_at_unix_ms,
            "tlsFingerprint": certificate_sha256,
        });
        URL_SAFE_NO_PAD.encode(setup.to_string())
    }

    /// As WHATWG's URL writes it: the original refuses a code whose address it would write another way.
    fn url(&self) -> String {
        let address = self.endpoint.to_string().to_ascii_lowercase();
        format!("wss://{}", address.strip_suffix(":443").unwrap_or(&address))
    }

    /// Reads a code.
    pub(crate) fn parse(code: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage_hint(
                "this is not the code of an invite",
                "copy all of it, from `creel1-` on; creel devices invite --name NAME makes another",
            )
        };
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if code.len() > MAX {
            return Err(wrong());
        }
        let encoded = code.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| wrong())?;
        let (root_fingerprint, rest) = bytes.split_first_chunk::<32>().ok_or_else(wrong)?;
        let (secret, address) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
        let address = std::str::from_utf8(address).map_err(|_| wrong())?;
        Ok(Self {
            endpoint: Endpoint::parse(address).map_err(|_| wrong())?,
            root_fingerprint: *root_fingerprint,
            secret: Secret::new(URL_SAFE_NO_PAD.encode(secret)),
        })
    }
}

/// A QR code of half blocks, light on dark as terminals are; `None` when the text does not fit one.
pub(crate) fn qr(text: &str) -> Option<String> {
    use qrcodegen::{QrCode, QrCodeEcc};
    /// Modules of light around it: what the standard asks for.
    const QUIET: i32 = 4;
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let size = code.size();
    let dark = |x: i32, y: i32| code.get_module(x, y);
    let mut out = String::new();
    let mut y = -QUIET;
    while y < size + QUIET {
        for x in -QUIET..size + QUIET {
            // A block of the terminal's own colour is light: most are light on dark.
            out.push(match (dark(x, y), dark(x, y + 1)) {
                (false, false) => '█',
                (false, true) => '▀',
                (true, false) => '▄',
                (true, true) => ' ',
            });
        }
        out.push('\n');
        y += 2;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(address: &str) -> Invite {
        Invite {
            endpoint: Endpoint::parse(address).unwrap(),
            root_fingerprint: [7; 32],
            secret: Secret::new(URL_SAFE_NO_PAD.encode([9; 32])),
        }
    }

    #[test]
    fn a_code_is_read_as_it_was_written_and_nothing_else_is() {
        for address in ["127.0.0.1:18789", "[::1]:7", "box.example.net:443"] {
            let code = invite(address).code().unwrap();
            let (start, end) = code.split_at(20);
            let read = Invite::parse(&format!(" {start}\n  {end}\n")).unwrap();
            assert_eq!(read.endpoint.to_string(), address);
            assert_eq!(read.root_fingerprint, [7; 32]);
            assert_eq!(read.secret.expose(), invite(address).secret.expose());
        }
        let code = invite("box:1").code().unwrap();
        for bad in [
            "",
            "creel1-",
            "creel2-AAAA",
            &code[..60],
            &format!("{code}!"),
            &"a".repeat(600),
        ] {
            assert!(Invite::parse(bad).is_err(), "{bad}");
        }
        let odd = Invite {
            secret: Secret::new("short".into()),
            ..invite("box:1")
        };
        assert!(odd.code().is_none());
    }

    #[test]
    fn the_setup_code_is_the_originals_json() {
        for (address, url) in [
            ("box:1", "wss://box:1"),
            ("Box.example.net:443", "wss://box.example.net"),
            ("[::1]:18789", "wss://[::1]:18789"),
        ] {
            let code = invite(address).setup_code("ab", 7);
            let json: serde_json::Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(code).unwrap()).unwrap();
            assert_eq!(json["url"], url);
            assert_eq!(json["bootstrapToken"].as_str().unwrap().len(), 43);
            assert_eq!(
                (&json["tlsFingerprint"], &json["expiresAtMs"]),
                (&json!("ab"), &json!(7))
            );
        }
    }

    #[test]
    fn a_qr_code_is_square_with_its_finders_in_three_corners() {
        let text = qr("creel1-abc").unwrap();
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        assert!(lines.iter().all(|line| line.len() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
        // Two lines of quiet zone, then the dark top edge of a finder over its light ring.
        assert!(lines[..2].iter().flatten().all(|c| *c == '█'));
        let finder: String = lines[2][4..11].iter().collect();
        assert_eq!(finder, " ▄▄▄▄▄ ");
        let right: String = lines[2][width - 11..width - 4].iter().collect();
        assert_eq!(right, finder);
    }
}
