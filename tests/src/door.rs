//! A client of the WebSocket door, as a stranger would write it from the original's protocol, or from Creel's own:
//! TLS, a device key, frames. It panics where a test can't go on.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use creel_wire::tls::edge_client;
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::strangers::own_payload;

/// A device, of the original if it doesn't speak Creel's own protocol.
#[derive(Debug, Clone)]
pub struct Device {
    key: SigningKey,
    pub role: &'static str,
    pub scopes: Vec<&'static str>,
    pub commands: Vec<&'static str>,
    /// Shown when it has one.
    pub token: Option<String>,
    /// Used where there is no token.
    pub invite: Option<String>,
    /// It speaks Creel's own protocol.
    pub own: bool,
}

impl Device {
    #[must_use]
    pub fn new(seed: u8, role: &'static str, scopes: &[&'static str]) -> Self {
        Self::of_key([seed; 32], role, scopes)
    }

    /// One of many.
    #[must_use]
    pub fn numbered(n: u32, role: &'static str, scopes: &[&'static str]) -> Self {
        let mut key = [0xee; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        Self::of_key(key, role, scopes)
    }

    fn of_key(key: [u8; 32], role: &'static str, scopes: &[&'static str]) -> Self {
        Self {
            key: SigningKey::from_bytes(&key),
            role,
            scopes: scopes.to_vec(),
            commands: Vec::new(),
            token: None,
            invite: None,
            own: false,
        }
    }

    /// The same device, speaking Creel's own protocol.
    #[must_use]
    pub fn own(self) -> Self {
        Self { own: true, ..self }
    }

    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::digest(self.key.verifying_key().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The `connect` that answers a challenge over a connection with this exporter.
    #[must_use]
    pub fn connect_over(&self, challenge: &Value, exporter: &[u8; 32]) -> Value {
        let mut frame = self.connect(challenge);
        if self.own {
            let nonce = challenge["nonce"].as_str().expect("nonce");
            let said = [
                &self.id(),
                self.role,
                &self.scopes.join(","),
                nonce,
                self.secret(),
            ];
            let signature = self.key.sign(&own_payload(exporter, said)).to_bytes();
            let device = &mut frame["params"]["device"];
            device["protocol"] = json!("creel-v1");
            device["signature"] = json!(URL_SAFE_NO_PAD.encode(signature));
            device.as_object_mut().expect("an object").remove("signedAt");
        }
        frame
    }

    fn secret(&self) -> &str {
        let secret = self.token.as_deref().or(self.invite.as_deref());
        secret.unwrap_or_default()
    }

    /// The `connect` of the original that answers a challenge.
    #[must_use]
    pub fn connect(&self, challenge: &Value) -> Value {
        let (nonce, ts) = (
            challenge["nonce"].as_str().expect("nonce"),
            challenge["ts"].as_i64().expect("ts"),
        );
        let (client, mode) = if self.role == "node" {
            ("node-host", "node")
        } else {
            ("cli", "cli")
        };
        let payload = [
            "v3",
            &self.id(),
            client,
            mode,
            self.role,
            &self.scopes.join(","),
            &ts.to_string(),
            self.secret(),
            nonce,
            "linux",
            "",
        ]
        .join("|");
        let mut params = json!({
            "minProtocol": 3, "maxProtocol": 4, "role": self.role, "scopes": self.scopes, "caps": [],
            "commands": self.commands,
            "client": {"id": client, "version": "1", "platform": "linux", "mode": mode, "displayName": "tester"},
            "device": {
                "id": self.id(),
                "publicKey": URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()),
                "signature": URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes()),
                "signedAt": ts, "nonce": nonce,
            },
        });
        if let Some(token) = &self.token {
            params["auth"] = json!({ "deviceToken": token });
        } else if let Some(invite) = &self.invite {
            params["auth"] = json!({ "bootstrapToken": invite });
        }
        json!({ "type": "req", "id": "c1", "method": "connect", "params": params })
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TlsStream<TcpStream>>,
    next_id: u64,
    /// Events that came while something else was waited for.
    pub events: Vec<Value>,
}

/// A TLS connection to the edge, by its CA, that speaks HTTP/1.1.
///
/// # Errors
/// When there is no connection to be had.
pub async fn tls(address: &str, ca_pem: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    tls_over(TcpStream::connect(address).await?, ca_pem).await
}

async fn tls_over(tcp: TcpStream, ca_pem: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let root = CertificateDer::from_pem_file(ca_pem).expect("ca.pem");
    let mut config = (*edge_client(&root, None).expect("TLS")).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

impl Socket {
    /// Opens a WebSocket; the challenge has not been read.
    ///
    /// # Errors
    /// What the edge answered instead.
    pub async fn open(address: &str, ca_pem: &Path) -> Result<Self, tungstenite::Error> {
        Self::open_with(address, ca_pem, &[]).await
    }

    /// The same with more headers.
    ///
    /// # Errors
    /// What the edge answered instead.
    pub async fn open_with(
        address: &str,
        ca_pem: &Path,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        Self::over(tls(address, ca_pem).await?, address, headers).await
    }

    /// The same from one of this host's addresses.
    ///
    /// # Errors
    /// What the edge answered instead.
    pub async fn open_from(
        source: Ipv4Addr,
        address: &str,
        ca_pem: &Path,
    ) -> Result<Self, tungstenite::Error> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let to = address.parse().expect("an address and a port");
        let stream = tls_over(socket.connect(to).await?, ca_pem).await?;
        Self::over(stream, address, &[]).await
    }

    async fn over(
        stream: TlsStream<TcpStream>,
        address: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("wss://{address}/").into_client_request()?;
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, value.parse().expect("a header"));
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(64 << 20))
            .max_frame_size(Some(64 << 20));
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self {
            stream,
            next_id: 1,
            events: Vec::new(),
        })
    }

    /// The next frame, or how it ended.
    pub async fn next(&mut self) -> Result<Value, Closed> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    return Err(Closed { code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Closed {
                        code: 1006,
                        reason: error.to_string(),
                    });
                }
                None => {
                    return Err(Closed {
                        code: 1006,
                        reason: String::new(),
                    });
                }
            }
        }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.send_text(frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: String) {
        // A peer that closed is seen by the next read.
        let _ = self.stream.send(Message::text(text)).await;
    }

    /// The challenge's payload.
    pub async fn challenge(&mut self) -> Value {
        let frame = self.next().await.expect("a challenge");
        assert_eq!(frame["event"], "connect.challenge");
        frame["payload"].clone()
    }

    /// RFC 9266, of this end of its TLS.
    #[must_use]
    pub fn exporter(&self) -> [u8; 32] {
        let tls = self.stream.get_ref().get_ref().1;
        tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None)
            .expect("a handshake that is done")
    }

    /// Proves a device: `hello-ok`, or the error.
    pub async fn prove(&mut self, device: &Device) -> Result<Value, Value> {
        let challenge = self.challenge().await;
        self.send(&device.connect_over(&challenge, &self.exporter()))
            .await;
        let answer = self.next().await.expect("an answer");
        assert_eq!(answer["id"], "c1");
        if answer["ok"] == true {
            Ok(answer["payload"].clone())
        } else {
            Err(answer["error"].clone())
        }
    }

    /// Sends a request and waits for its answer; events are kept.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        self.send(&json!({ "type": "req", "id": id, "method": method, "params": params }))
            .await;
        loop {
            let frame = self.next().await.expect("an answer");
            if frame["type"] == "event" {
                self.events.push(frame);
            } else if frame["id"] == id.as_str() {
                return if frame["ok"] == true {
                    Ok(frame["payload"].clone())
                } else {
                    Err(frame["error"].clone())
                };
            }
        }
    }

    /// Waits for an event of this name, kept or to come.
    pub async fn event(&mut self, name: &str) -> Value {
        if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
            return self.events.remove(at)["payload"].clone();
        }
        loop {
            let frame = self.next().await.expect("an event");
            if frame["event"] == name {
                return frame["payload"].clone();
            }
            if frame["type"] == "event" {
                self.events.push(frame);
            }
        }
    }

    /// Says goodbye.
    pub async fn goodbye(&mut self) {
        let frame = CloseFrame {
            code: 1000.into(),
            reason: "".into(),
        };
        let _ = self.stream.send(Message::Close(Some(frame))).await;
    }

    /// Reads to the end.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }
}
