//! What every call of the Docker door shares.

use super::{buildkit::Buildkit, exec::Execs, process::Named};
use crate::App;
use control::Control;
use std::sync::Arc;

/// The door's shared part. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    app: App,
    execs: Arc<Execs>,
    buildkit: Arc<Buildkit>,
    named: Arc<Named>,
}

impl Door {
    /// A door to the same cloud as the native one.
    pub fn new(app: App) -> Self {
        Self { app, execs: Arc::default(), buildkit: Arc::default(), named: Arc::default() }
    }

    /// What the native door shares: streams into guests, places for streams, the end of the server.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The cloud.
    pub fn control(&self) -> &Control {
        self.app.control()
    }

    /// Programs that were asked to run beside containers.
    pub(super) fn execs(&self) -> &Execs {
        &self.execs
    }

    /// Builds and sessions of BuildKit's clients.
    pub(super) fn buildkit(&self) -> &Buildkit {
        &self.buildkit
    }

    /// Projects that clients' processes named.
    pub(super) fn named(&self) -> &Named {
        &self.named
    }
}
