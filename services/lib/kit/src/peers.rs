//! How this process reaches the other services.

use std::sync::Arc;

use creel_wire::{
    ServiceName,
    channel::{Dialler, Target},
    tls::Tls,
};
use tonic::transport::Channel;

use crate::{
    Config, Profile,
    config::{SERVICE_PORT, Transport},
};

/// Dials services by name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    profile: Profile,
    config: Arc<Config>,
    tls: Arc<Tls>,
}

impl Peers {
    /// Peers as the config places them, dialled with this process's certificate.
    #[must_use]
    pub const fn new(profile: Profile, config: Arc<Config>, tls: Arc<Tls>) -> Self {
        Self { profile, config, tls }
    }

    /// A dialler for a service, with this process's certificate.
    ///
    /// # Errors
    /// Never for the names there are; kept so that nothing panics.
    pub fn dialler(&self, service: ServiceName) -> Result<Dialler, creel_wire::channel::BadServerName> {
        let tls = Arc::clone(&self.tls);
        self.make(service, Arc::new(move || tls.client()))
    }

    /// A channel for generated clients, with this process's certificate.
    ///
    /// # Errors
    /// As [`Self::dialler`].
    pub fn channel(&self, service: ServiceName) -> Result<Channel, creel_wire::channel::BadServerName> {
        Ok(self.dialler(service)?.channel())
    }

    /// A channel without a certificate, for the ways to get one.
    ///
    /// # Errors
    /// As [`Self::dialler`].
    pub fn anonymous_channel(
        &self,
        service: ServiceName,
    ) -> Result<Channel, creel_wire::channel::BadServerName> {
        let tls = Arc::clone(&self.tls);
        Ok(self
            .make(service, Arc::new(move || tls.anonymous_client()))?
            .channel())
    }

    fn make(
        &self,
        service: ServiceName,
        tls: creel_wire::channel::TlsSource,
    ) -> Result<Dialler, creel_wire::channel::BadServerName> {
        let name = self.tls.trust().domain.dns_name(service);
        Dialler::new(target(&self.profile, &self.config, service), &name, tls)
    }
}

/// Where a service is reached.
#[must_use]
pub fn target(profile: &Profile, config: &Config, service: ServiceName) -> Target {
    match config.endpoints.get(service.as_str()) {
        Some(text) => text
            .strip_prefix("unix:")
            .map_or_else(|| Target::Tcp(text.clone()), |path| Target::Unix(path.into())),
        None => match config.network.transport {
            Transport::Unix => Target::Unix(profile.socket(service)),
            Transport::Tcp => Target::Tcp(format!("{service}:{SERVICE_PORT}")),
        },
    }
}
