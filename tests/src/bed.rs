//! A running stack with an operator who may pair, for tests of the WebSocket door.

use std::path::PathBuf;

use creel_proto::identity::v1::{
    ApproveRequest, ListRequestsRequest, PairingRequest, device_service_client::DeviceServiceClient,
};
use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    Cluster,
    door::{Device, Socket},
    edge,
};

pub struct Bed {
    pub cluster: Cluster,
    pub address: String,
    pub ca: PathBuf,
    dir: PathBuf,
}

impl Bed {
    #[must_use]
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more in its config.
    #[must_use]
    pub fn with(config: &str) -> Self {
        Self::of(Cluster::new().config(config))
    }

    /// Of a stack that was not started yet.
    #[must_use]
    pub fn of(mut cluster: Cluster) -> Self {
        cluster.up();
        let dir = cluster.home().join("operator");
        let ca = dir.join("ca.pem");
        let address = cluster.edge().address;
        let bed = Self {
            cluster,
            address,
            ca,
            dir,
        };
        bed.certify("operator", &["read", "write", "admin", "pairing"]);
        bed
    }

    /// A certificate of a device with these scopes, in a directory of its name.
    pub fn certify(&self, name: &str, scopes: &[&str]) -> PathBuf {
        let dir = self.cluster.home().join(name);
        let out = dir.to_string_lossy().into_owned();
        let scopes: Vec<_> = scopes.iter().map(|scope| format!("operator.{scope}")).collect();
        let mut arguments = vec!["devices", "cert", "--name", name, "--out", &out];
        for scope in &scopes {
            arguments.extend(["--scope", scope.as_str()]);
        }
        self.cluster.creel(&arguments).ok();
        dir
    }

    pub async fn open(&self) -> Socket {
        Socket::open(&self.address, &self.ca).await.expect("a WebSocket")
    }

    /// Identity's devices, as the operator.
    #[must_use]
    pub fn devices(&self) -> DeviceServiceClient<Channel> {
        DeviceServiceClient::new(edge::channel(&self.address, &self.dir))
    }

    pub async fn waiting(&self) -> Vec<PairingRequest> {
        let answer = self.devices().list_requests(ListRequestsRequest {}).await;
        answer.expect("the list").into_inner().requests
    }

    pub async fn approve(&self, pairing: &str) {
        let request = ApproveRequest {
            request_id: pairing.to_owned(),
            pairing: pairing.to_owned(),
            ..ApproveRequest::default()
        };
        self.devices().approve(request).await.expect("approved");
    }

    /// Lets a device knock; the request that waits for it then.
    pub async fn asked(&self, device: &Device) -> String {
        let error = self.open().await.prove(device).await.expect_err("it waits");
        assert_eq!(error["details"]["code"], "PAIRING_REQUIRED", "{error}");
        let request = error["details"]["requestId"].as_str();
        request.expect("a request").to_owned()
    }

    /// Pairs a device and opens its connection.
    pub async fn paired(&self, device: &mut Device) -> Socket {
        let request = self.asked(device).await;
        self.approve(&request).await;
        let mut socket = self.open().await;
        let hello = socket.prove(device).await.expect("hello-ok");
        device.token = hello["auth"]["deviceToken"].as_str().map(str::to_owned);
        // By the own protocol the key alone is the proof.
        assert_eq!(device.token.is_none(), device.own, "{hello}");
        socket
    }

    /// What `creel` says of one request that waits.
    #[must_use]
    pub fn request(&self, pairing: &str) -> Value {
        let all = self.cluster.creel(&["devices", "requests", "--json"]).json();
        let list = all.as_array().expect("a list");
        let found = list.iter().find(|request| request["pairingId"] == pairing);
        found.cloned().unwrap_or_default()
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

/// A runtime of two threads.
#[must_use]
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}
