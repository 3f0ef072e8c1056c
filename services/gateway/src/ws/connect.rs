//! The first request of a connection, `connect`, read and judged as far as it can be without identity:
//! protocol version, client, role, and the shape of the device's proof. Pure.
//!
//! Each refusal is a variant of [`Refusal`], in the original's words, because its clients decide by them
//! whether to come again. Fields that nothing here reads are ignored: no grant follows from them.
//!
//! A client that names Creel's own protocol proves its key for this TLS connection alone:
//!
//! ```json
//! {"type": "req", "id": "1", "method": "connect", "params": {
//!   "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
//!   "client": {"id": "gateway-client", "mode": "backend", "version": "1", "platform": "linux"},
//!   "device": {"protocol": "creel-v1", "id": "…", "publicKey": "…", "signature": "…", "nonce": "…"}}}
//! ```
//!
//! `nonce` is that of `connect.challenge`; `publicKey` and `signature` are base64url; what is signed stands at
//! `OwnProof` in identity.proto. `signedAt` is not needed: the exporter is fresh. `hello-ok` holds no token, the key
//! alone is the proof; a token from before may be shown (`auth.deviceToken`) and is signed then. Without `protocol`
//! the original's payloads are meant, and refused for a key that ever used this one.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use creel_wire::Secret;
use serde::Deserialize;
use serde_json::json;

use super::failure::{Failure, NOT_PAIRED};

/// The version spoken here.
pub(crate) const PROTOCOL: u64 = 4;
/// The version before it, which nodes and probes may still ask for.
const PROTOCOL_BEFORE: u64 = 3;

/// Programs of the original that may come. Browser surfaces are left out: pages are refused anyway.
const CLIENTS: [&str; 12] = [
    "cli",
    "gateway-client",
    "node-host",
    "openclaw-android",
    "openclaw-ios",
    "openclaw-linux",
    "openclaw-macos",
    "openclaw-probe",
    "openclaw-tui",
    "openclaw-watchos",
    "fingerprint",
    "test",
];
const MODES: [&str; 6] = ["cli", "ui", "backend", "node", "probe", "test"];

/// The role of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Operator,
    Node,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
        }
    }
}

/// A `connect` that identity can judge.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) client: Client,
    pub(crate) role: Role,
    /// In the order sent: the device signed them so.
    pub(crate) scopes: Vec<String>,
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) permissions: BTreeMap<String, bool>,
    pub(crate) device: Proof,
    /// The device's token, empty if it has none.
    pub(crate) token: Secret<String>,
    /// An invite to be redeemed, empty without.
    pub(crate) invite: Secret<String>,
}

/// The program at the other end, by its own word.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    #[serde(default)]
    pub(crate) display_name: Option<String>,
    #[serde(default)]
    pub(crate) device_family: Option<String>,
    #[serde(default)]
    pub(crate) model_identifier: Option<String>,
    #[serde(default)]
    pub(crate) instance_id: Option<String>,
}

/// What proves the device.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) id: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) nonce: String,
    pub(crate) protocol: Protocol,
}

/// Which payload the device signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Creel's own, bound to the TLS connection.
    Own,
    /// The original's.
    Legacy { signed_at_unix_ms: i64 },
}

/// The word for [`Protocol::Own`].
const OWN: &str = "creel-v1";

/// `params` of `connect` as sent. It holds secrets: no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Params {
    min_protocol: u64,
    max_protocol: u64,
    client: Client,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    commands: Option<Vec<String>>,
    #[serde(default)]
    permissions: Option<BTreeMap<String, bool>>,
    #[serde(default)]
    device: Option<Device>,
    #[serde(default)]
    auth: Option<Auth>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    id: String,
    public_key: String,
    signature: String,
    #[serde(default)]
    signed_at: Option<i64>,
    nonce: String,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Auth {
    token: Option<String>,
    device_token: Option<String>,
    bootstrap_token: Option<String>,
}

/// Why a `connect` goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not the first request there can be.
    NotConnect,
    /// The parameters can't be read.
    Params(String),
    /// No version in common.
    Protocol { min: u64, max: u64 },
    /// Neither operator nor node.
    Role,
    /// A program or mode nobody knows.
    Client,
    /// No device: a bare token opens nothing here.
    NoDevice,
    /// Not 32 bytes.
    PublicKey,
    /// Not 64 bytes.
    Signature,
}

impl Refusal {
    /// What is answered.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NotConnect => Failure::invalid("invalid handshake: first request must be connect"),
            Self::Params(why) => Failure::invalid(why.clone()),
            Self::Protocol { min, max } => Failure::invalid("protocol mismatch").details(json!({
                "code": "PROTOCOL_MISMATCH",
                "clientMinProtocol": min,
                "clientMaxProtocol": max,
                "expectedProtocol": PROTOCOL,
            })),
            Self::Role => Failure::invalid("invalid role"),
            Self::Client => Failure::invalid("invalid connect params: at /client: unknown id or mode"),
            Self::NoDevice => Failure::new(NOT_PAIRED, "device identity required")
                .details(json!({ "code": "DEVICE_IDENTITY_REQUIRED" })),
            Self::PublicKey => device_auth("DEVICE_AUTH_PUBLIC_KEY_INVALID", "device public key invalid"),
            Self::Signature => device_auth("DEVICE_AUTH_SIGNATURE_INVALID", "device signature invalid"),
        }
    }

    /// The close code of RFC 6455.
    pub(crate) const fn close_code(&self) -> u16 {
        match self {
            Self::Protocol { .. } => 1002,
            _ => 1008,
        }
    }
}

pub(crate) fn device_auth(code: &str, message: &str) -> Failure {
    Failure::invalid(message).details(json!({ "code": code }))
}

/// Judges the parameters of `connect`.
///
/// # Errors
/// The first guard that fails, in the original's order.
pub(crate) fn judge(params: Params) -> Result<Connect, Refusal> {
    let client = params.client;
    let range = params.min_protocol..=params.max_protocol;
    let before = range.contains(&PROTOCOL_BEFORE) && matches!(client.mode.as_str(), "node" | "probe");
    if !range.contains(&PROTOCOL) && !before {
        return Err(Refusal::Protocol {
            min: params.min_protocol,
            max: params.max_protocol,
        });
    }
    let role = match params.role.as_deref() {
        None | Some("operator") => Role::Operator,
        Some("node") => Role::Node,
        Some(_) => return Err(Refusal::Role),
    };
    if !CLIENTS.contains(&client.id.as_str()) || !MODES.contains(&client.mode.as_str()) {
        return Err(Refusal::Client);
    }
    let device = params.device.ok_or(Refusal::NoDevice)?;
    let protocol = protocol_of(&device)?;
    let auth = params.auth.unwrap_or_default();
    // As the original's client binds it: an invite only where there is no token.
    let token = auth.token.or(auth.device_token).unwrap_or_default();
    let invite = if token.is_empty() {
        auth.bootstrap_token.unwrap_or_default()
    } else {
        String::new()
    };
    Ok(Connect {
        client,
        role,
        scopes: params.scopes,
        caps: params.caps,
        commands: params.commands.unwrap_or_default(),
        permissions: params.permissions.unwrap_or_default(),
        device: Proof {
            public_key: decode(&device.public_key, 32).ok_or(Refusal::PublicKey)?,
            signature: decode(&device.signature, 64).ok_or(Refusal::Signature)?,
            id: device.id,
            nonce: device.nonce,
            protocol,
        },
        token: Secret::new(token),
        invite: Secret::new(invite),
    })
}

fn protocol_of(device: &Device) -> Result<Protocol, Refusal> {
    let wrong = |why: &str| Err(Refusal::Params(format!("invalid connect params: {why}")));
    match (device.protocol.as_deref(), device.signed_at) {
        (Some(OWN), _) => Ok(Protocol::Own),
        (Some(_), _) => wrong("at /device/protocol: must be \"creel-v1\" or left out"),
        (None, Some(signed_at_unix_ms)) => Ok(Protocol::Legacy { signed_at_unix_ms }),
        (None, None) => wrong("missing field `signedAt`"),
    }
}

fn decode(text: &str, bytes: usize) -> Option<Vec<u8>> {
    // No longer text can hold so few bytes; that spares decoding it.
    if text.len() > bytes * 2 {
        return None;
    }
    let decoded = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    (decoded.len() == bytes).then_some(decoded)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;

    pub(crate) fn sample() -> Value {
        json!({
            "minProtocol": 3, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
            "client": {"id": "cli", "version": "2026.9.6", "buildId": "x", "platform": "linux", "mode": "cli"},
            "caps": [], "userAgent": "x", "locale": "en-US",
            "device": {
                "id": "d", "publicKey": URL_SAFE_NO_PAD.encode([1; 32]), "signature": URL_SAFE_NO_PAD.encode([2; 64]),
                "signedAt": 5, "nonce": "n",
            },
        })
    }

    fn judged(change: impl Fn(&mut Value)) -> Result<Connect, Refusal> {
        let mut value = sample();
        change(&mut value);
        let params = serde_json::from_value(value).map_err(|error| Refusal::Params(error.to_string()))?;
        judge(params)
    }

    #[test]
    fn versions_are_met_as_the_original_meets_them() {
        let with = |min: u64, max: u64, mode: &str| {
            judged(|value| {
                value["minProtocol"] = json!(min);
                value["maxProtocol"] = json!(max);
                value["client"]["mode"] = json!(mode);
            })
            .map(|_| ())
        };
        for (min, max, mode) in [
            (4, 4, "cli"),
            (3, 4, "cli"),
            (1, 9, "cli"),
            (3, 3, "node"),
            (3, 3, "probe"),
        ] {
            assert_eq!(with(min, max, mode), Ok(()), "{min}-{max} {mode}");
        }
        for (min, max, mode) in [
            (3, 3, "cli"),
            (5, 5, "cli"),
            (1, 2, "node"),
            (5, 9, "probe"),
            (4, 3, "node"),
        ] {
            assert_eq!(
                with(min, max, mode),
                Err(Refusal::Protocol { min, max }),
                "{min}-{max} {mode}"
            );
        }
    }

    #[test]
    fn each_guard_refuses_what_it_is_for() {
        assert_eq!(
            judged(|v| v["role"] = json!("worker")).unwrap_err(),
            Refusal::Role
        );
        assert_eq!(
            judged(|v| v["client"]["id"] = json!("me")).unwrap_err(),
            Refusal::Client
        );
        assert_eq!(
            judged(|v| v["client"]["mode"] = json!("operator")).unwrap_err(),
            Refusal::Client
        );
        assert_eq!(
            judged(|v| v["device"] = Value::Null).unwrap_err(),
            Refusal::NoDevice
        );
        let short = URL_SAFE_NO_PAD.encode([1; 31]);
        assert_eq!(
            judged(|v| v["device"]["publicKey"] = json!(short)).unwrap_err(),
            Refusal::PublicKey
        );
        assert_eq!(
            judged(|v| v["device"]["signature"] = json!("!")).unwrap_err(),
            Refusal::Signature
        );
        let endless = "A".repeat(10_000);
        assert_eq!(
            judged(|v| v["device"]["signature"] = json!(endless)).unwrap_err(),
            Refusal::Signature
        );
        let mut value = sample();
        value["device"].as_object_mut().unwrap().remove("nonce");
        assert!(
            serde_json::from_value::<Params>(value).is_err(),
            "a nonce is not optional"
        );
    }

    #[test]
    fn the_own_protocol_is_named_and_no_other_is_taken_for_it() {
        let protocol =
            |change: &dyn Fn(&mut Value)| judged(|v| change(&mut v["device"])).map(|c| c.device.protocol);
        let at = |device: &mut Value| drop(device.as_object_mut().unwrap().remove("signedAt"));
        assert_eq!(protocol(&|_| {}), Ok(Protocol::Legacy { signed_at_unix_ms: 5 }));
        assert_eq!(
            protocol(&|device| device["protocol"] = Value::Null),
            Ok(Protocol::Legacy { signed_at_unix_ms: 5 })
        );
        let own = |device: &mut Value| {
            device["protocol"] = json!("creel-v1");
            at(device);
        };
        assert_eq!(protocol(&own), Ok(Protocol::Own));
        for word in ["", "creel-v2", "Creel-v1", "v3"] {
            let refused = protocol(&|device| device["protocol"] = json!(word)).unwrap_err();
            assert!(
                refused.failure().message.contains("/device/protocol"),
                "{refused:?}"
            );
        }
        let refused = protocol(&at).unwrap_err();
        assert!(
            refused.failure().message.ends_with("missing field `signedAt`"),
            "{refused:?}"
        );
    }

    #[test]
    fn absent_roles_and_scopes_grant_nothing_by_themselves() {
        let connect = judged(|value| {
            let object = value.as_object_mut().unwrap();
            object.remove("role");
            object.remove("scopes");
        })
        .unwrap();
        assert_eq!((connect.role, connect.scopes.len()), (Role::Operator, 0));
    }

    /// The original let it in, and gave it `operator.admin` when it named no scope.
    #[test]
    fn a_token_without_a_device_opens_nothing() {
        let secret = "t".repeat(43);
        for key in ["token", "deviceToken", "bootstrapToken", "password"] {
            for scopes in [Value::Null, json!([]), json!(["operator.admin"])] {
                let refused = judged(|value| {
                    let object = value.as_object_mut().unwrap();
                    object.remove("device");
                    object.remove("role");
                    object.remove("scopes");
                    if !scopes.is_null() {
                        object.insert("scopes".into(), scopes.clone());
                    }
                    object.insert("auth".into(), json!({ key: secret }));
                });
                let refused = refused.unwrap_err();
                assert_eq!(refused, Refusal::NoDevice, "{key} {scopes}");
                assert_eq!(refused.failure().code, NOT_PAIRED);
            }
        }
    }

    #[test]
    fn the_token_is_the_one_that_the_client_signs() {
        let auth = |auth: Value| {
            let connect = judged(|value| value["auth"] = auth.clone()).unwrap();
            (connect.token.expose().clone(), connect.invite.expose().clone())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            auth(json!({"token":"a","deviceToken":"b","bootstrapToken":"c"})),
            pair("a", "")
        );
        assert_eq!(
            auth(json!({"deviceToken":"b","bootstrapToken":"c"})),
            pair("b", "")
        );
        assert_eq!(auth(json!({"bootstrapToken":"c"})), pair("", "c"));
        assert_eq!(auth(Value::Null), pair("", ""));
    }
}
