//! What every call of the OpenStack door shares, and the services behind it.

use super::console::Tickets;
use crate::App;
use control::Control;
use std::sync::Arc;

/// A service of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Keystone.
    Identity,
    /// Nova.
    Compute,
    /// Glance.
    Image,
    /// Neutron.
    Network,
    /// Cinder.
    Volume,
    /// Placement.
    Placement,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Identity, Self::Compute, Self::Image, Self::Network, Self::Volume, Self::Placement];

    /// Where it is on the port.
    pub fn path(self) -> &'static str {
        match self {
            Self::Identity => "/identity",
            Self::Compute => "/compute",
            Self::Image => "/image",
            Self::Network => "/network",
            Self::Volume => "/volume",
            Self::Placement => "/placement",
        }
    }

    /// Its type in the catalog.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Compute => "compute",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "block-storage",
            Self::Placement => "placement",
        }
    }

    /// Its name in the catalog: OpenStack's own.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "keystone",
            Self::Compute => "nova",
            Self::Image => "glance",
            Self::Network => "neutron",
            Self::Volume => "cinder",
            Self::Placement => "placement",
        }
    }

    /// Path of its endpoint in the catalog, below [`Self::path`].
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Identity | Self::Volume => "/v3",
            Self::Compute => "/v2.1",
            Self::Image | Self::Network | Self::Placement => "",
        }
    }
}

/// What the operator decided about the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address under which clients reach the door, like `https://cloud.example:5000`, if it is not the one that
    /// they call: behind a proxy.
    pub public_url: Option<String>,
    /// Whether the listener speaks TLS.
    pub is_tls: bool,
    /// Name of the region in the catalog.
    pub region: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { public_url: None, is_tls: false, region: "RegionOne".into() }
    }
}

/// What every call shares. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    app: App,
    control: Control,
    settings: Arc<Settings>,
    tickets: Arc<Tickets>,
}

impl Door {
    /// A door to the same cloud as the native one.
    pub fn new(app: App, settings: Settings) -> Self {
        let control = app.control().with_shared_names();
        Self { app, control, settings: Arc::new(settings), tickets: Arc::default() }
    }

    /// What the native door shares: streams into guests, places for streams, the end of the server.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The cloud. Clients of this door name things by id, so new ones may share a name with others.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Tickets for consoles.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
