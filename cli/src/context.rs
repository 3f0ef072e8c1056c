//! What every command is given: the global flags, the outputs, the clock.

use std::time::Duration;

use creel_kit::{Clock, Profile};

use crate::{
    args::{Global, Repeatable},
    failure::Failure,
    output::Out,
    times::Local,
};

/// How long one call takes at most, unless `--timeout` says otherwise.
const CALL_TIME: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Out,
    pub(crate) clock: Clock,
    /// Instead of what the flags and the environment say; for tests.
    #[cfg(test)]
    pub(crate) at: Option<Profile>,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self {
            out: Out::new(global.json),
            clock: Clock::system(),
            global,
            #[cfg(test)]
            at: None,
        }
    }

    /// The profile of `--profile`, or the one the environment names.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        #[cfg(test)]
        if let Some(profile) = &self.at {
            return Ok(profile.clone());
        }
        Ok(Profile::resolve(self.global.profile.as_deref())?)
    }

    /// The clocks of this machine.
    pub(crate) fn local(&self) -> Local {
        Local::system(self.clock.now())
    }

    /// The limit of one call.
    pub(crate) fn call_time(&self) -> Duration {
        self.global.timeout.unwrap_or(CALL_TIME)
    }
}

/// The id of a mutation: the one given, or a new one, so that a repeat after a lost answer changes nothing.
pub(crate) fn request_id(given: &Repeatable) -> String {
    given
        .request_id
        .clone()
        .unwrap_or_else(|| uuid::Uuid::now_v7().to_string())
}
