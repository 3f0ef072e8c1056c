//! Identity as the door asks it: a nonce, a verdict on a proof, a fresh assertion. A trait, so that the
//! door is tested without the service.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use creel_kit::Clock;
use creel_proto::{
    identity::v1::{
        ChallengeRequest, Connected, Declaration, LegacyProof, OwnProof, PairingReason, ProveRequest,
        Refused, RefusedReason, Role as WireRole, Surface, device_service_client::DeviceServiceClient,
        prove_request::Protocol as Proof, prove_response::Outcome,
    },
    time,
};
use creel_wire::{Code, Error, Secret, accept::Connection, names::parse_scopes};
use tonic::transport::Channel;

use super::{
    connect::{Connect, Protocol, Role},
    machine::{Pairing, Verdict, Welcome},
    spares::{Challenge, Spares},
};
use crate::callers::{Callers, Memory, Proven, unanswered};

/// A connection as identity knows it.
#[derive(Debug, Clone)]
pub(crate) struct Knocking {
    pub(crate) connection_id: String,
    pub(crate) remote: Option<IpAddr>,
    /// Of its TLS, by this end of it: no client is asked.
    pub(crate) exporter: [u8; 32],
}

/// What the shell keeps of a device that was let in.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) proven: Proven,
    /// The device's name, as operators see it.
    pub(crate) name: String,
    /// Of what it declared, what was approved.
    pub(crate) surface: Surface,
}

/// Identity.
#[async_trait]
pub(crate) trait Prover: Send + Sync + std::fmt::Debug {
    /// A name for a connection, and its nonce.
    async fn challenge(&self, connection: &Connection) -> Result<(Knocking, String), Error>;

    /// A connection ended before its nonce was used.
    fn unused(&self, knocking: Knocking);

    /// Judges a `connect`; `nonce` is what the connection was given.
    async fn prove(
        &self,
        knocking: &Knocking,
        nonce: &str,
        connect: &Connect,
    ) -> (Verdict, Option<Admission>);

    /// Renews the assertion of a proven connection, `force`d or when it nears its end.
    async fn renew(&self, knocking: &Knocking, memory: &Memory, force: bool) -> Result<(), Error>;
}

/// Identity over gRPC.
#[derive(Debug)]
pub(crate) struct GrpcProver {
    devices: DeviceServiceClient<Channel>,
    callers: Callers,
    clock: Clock,
    spares: Mutex<Spares>,
}

impl GrpcProver {
    pub(crate) fn new(devices: DeviceServiceClient<Channel>, callers: Callers, clock: Clock) -> Self {
        Self {
            devices,
            callers,
            clock,
            spares: Mutex::default(),
        }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a nonce, and for some to spare.
    async fn ask(&self, remote: Option<IpAddr>) -> Result<Challenge, Error> {
        let (connection_id, further) = self.spares().names();
        let request = ChallengeRequest {
            connection_id: connection_id.clone(),
            remote_address: remote_text(remote),
            further_connection_ids: further.clone(),
        };
        let answer = self.devices.clone().challenge(request).await;
        let answer = answer.map_err(|status| unanswered(&status))?.into_inner();
        let expires_at_ms = answer.expires_at.as_ref().map_or(0, time::unix_ms);
        let spare = |(connection_id, nonce)| Challenge {
            connection_id,
            nonce,
            expires_at_ms,
        };
        let further = further.into_iter().zip(answer.further_nonces);
        self.spares().keep(further.map(spare));
        Ok(spare((connection_id, answer.nonce)))
    }
}

#[async_trait]
impl Prover for GrpcProver {
    async fn challenge(&self, connection: &Connection) -> Result<(Knocking, String), Error> {
        let remote = connection.remote.map(|remote| remote.ip());
        let spare = self.spares().take(self.clock.now_ms());
        let challenge = match spare {
            Some(challenge) => challenge,
            None => self.ask(remote).await?,
        };
        let knocking = Knocking {
            connection_id: challenge.connection_id,
            remote,
            exporter: connection.exporter,
        };
        Ok((knocking, challenge.nonce))
    }

    fn unused(&self, knocking: Knocking) {
        self.spares().free(knocking.connection_id);
    }

    async fn prove(
        &self,
        knocking: &Knocking,
        nonce: &str,
        connect: &Connect,
    ) -> (Verdict, Option<Admission>) {
        let answer = self.devices.clone().prove(request_of(knocking, connect)).await;
        let outcome = match answer {
            Ok(answer) => answer.into_inner().outcome,
            Err(status) => return (Verdict::Failed(unanswered(&status)), None),
        };
        match outcome {
            Some(Outcome::Connected(connected)) => match admitted(connected, connect) {
                Ok((welcome, admission)) => (Verdict::Welcome(welcome), Some(admission)),
                Err(error) => (Verdict::Failed(error), None),
            },
            Some(Outcome::PairingRequired(required)) => {
                let pairing = Pairing {
                    reason: match required.reason() {
                        PairingReason::ScopeUpgrade | PairingReason::SurfaceUpgrade => "scope-upgrade",
                        PairingReason::NotPaired | PairingReason::Unspecified => "not-paired",
                    },
                    request: required.pairing_id,
                    phrase: required.phrase,
                    role: connect.role,
                    scopes: connect.scopes.clone(),
                    device: connect.device.id.clone(),
                };
                (Verdict::Pairing(pairing), None)
            }
            Some(Outcome::Refused(refused))
                if refused.reason() == RefusedReason::NonceMismatch && connect.device.nonce == nonce =>
            {
                // The client said what it was given, so identity began anew since and knows none of them.
                self.spares().clear();
                let message = "identity was started again meanwhile; connect again";
                let error = Error::new(Code::Unavailable, "identity_restarted", message);
                (Verdict::Failed(error), None)
            }
            Some(Outcome::Refused(refused)) => (refusal(refused), None),
            None => (Verdict::Failed(Error::internal("judging the proof")), None),
        }
    }

    async fn renew(&self, knocking: &Knocking, memory: &Memory, force: bool) -> Result<(), Error> {
        if force || self.callers.is_due(memory) {
            self.callers.renew(&knocking.connection_id, memory).await?;
        }
        Ok(())
    }
}

fn remote_text(remote: Option<IpAddr>) -> String {
    remote
        .map(|address| address.to_canonical().to_string())
        .unwrap_or_default()
}

fn request_of(knocking: &Knocking, connect: &Connect) -> ProveRequest {
    let client = &connect.client;
    ProveRequest {
        connection_id: knocking.connection_id.clone(),
        remote_address: remote_text(knocking.remote),
        public_key: connect.device.public_key.clone(),
        signature: connect.device.signature.clone(),
        device_id: connect.device.id.clone(),
        nonce: connect.device.nonce.clone(),
        declared: Some(Declaration {
            display_name: client.display_name.clone().unwrap_or_default(),
            role: match connect.role {
                Role::Operator => WireRole::Operator.into(),
                Role::Node => WireRole::Node.into(),
            },
            scopes: connect.scopes.clone(),
            surface: Some(Surface {
                caps: connect.caps.clone(),
                commands: connect.commands.clone(),
                permissions: connect.permissions.clone().into_iter().collect(),
            }),
            platform: client.platform.clone(),
            version: client.version.clone(),
            client_id: client.id.clone(),
            client_mode: client.mode.clone(),
            device_family: client.device_family.clone().unwrap_or_default(),
        }),
        protocol: Some(match connect.device.protocol {
            Protocol::Own => Proof::Own(OwnProof {
                tls_exporter: knocking.exporter.to_vec(),
            }),
            Protocol::Legacy { signed_at_unix_ms } => Proof::Legacy(LegacyProof { signed_at_unix_ms }),
        }),
        token: connect.token.expose().clone(),
        invite: connect.invite.expose().clone(),
    }
}

fn admitted(connected: Connected, connect: &Connect) -> Result<(Welcome, Admission), Error> {
    let device = connected.device.unwrap_or_default();
    let unreadable = || Error::internal("reading the verdict");
    let welcome = Welcome {
        device: device.device_id.parse().map_err(|_| unreadable())?,
        role: connect.role,
        scopes: parse_scopes(&connected.scopes).map_err(|_| unreadable())?,
        new_token: (!connected.new_token.is_empty()).then(|| Secret::new(connected.new_token)),
        token_issued_at_unix_ms: connected.token_issued_at.as_ref().map(time::unix_ms),
    };
    let admission = Admission {
        proven: Proven::of(connected.assertion.ok_or_else(unreadable)?)?,
        name: device.name,
        surface: connected.surface.unwrap_or_default(),
    };
    Ok((welcome, admission))
}

/// A refusal in the original's words; its clients drop a token or stop by `code`.
fn refusal(refused: Refused) -> Verdict {
    use RefusedReason as R;
    let code = match refused.reason() {
        R::PublicKeyInvalid => "DEVICE_AUTH_PUBLIC_KEY_INVALID",
        R::DeviceIdMismatch => "DEVICE_AUTH_DEVICE_ID_MISMATCH",
        R::SignatureInvalid => "DEVICE_AUTH_SIGNATURE_INVALID",
        R::SignatureExpired => "DEVICE_AUTH_SIGNATURE_EXPIRED",
        R::NonceMissing => "DEVICE_AUTH_NONCE_REQUIRED",
        R::NonceMismatch => "DEVICE_AUTH_NONCE_MISMATCH",
        R::TokenMismatch | R::DeviceRevoked => "AUTH_DEVICE_TOKEN_MISMATCH",
        R::InviteInvalid => "AUTH_BOOTSTRAP_TOKEN_INVALID",
        R::TooManyFailures | R::PairingFull => "AUTH_RATE_LIMITED",
        R::LegacyRefused
        | R::RoleMismatch
        | R::DeclarationInvalid
        | R::ChannelBindingMissing
        | R::Unspecified => "DEVICE_AUTH_INVALID",
    };
    Verdict::Refused {
        code,
        message: refused.message,
        retry_after_ms: None,
    }
}
