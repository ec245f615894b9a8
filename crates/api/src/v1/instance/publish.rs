//! Published ports between the wire and control.

use crate::v1::types::{
    instance::UpdateInstance,
    publish::{PublishedPort, UnpublishPort},
};
use control::{
    Error,
    instance::publish::{PublishChange, Unpublish},
};
use model::{publish::Publish, security_group::Protocol};

/// What a request asks to be published.
///
/// # Errors
/// An unknown protocol.
pub fn asked(ports: &[PublishedPort]) -> control::Result<Vec<Publish>> {
    let one = |asked: &PublishedPort| {
        Ok(Publish {
            address: asked.address,
            host_port: asked.host_port,
            port: asked.port,
            protocol: protocol(&asked.protocol)?,
        })
    };
    ports.iter().map(one).collect()
}

/// The change that a request asks for, if it asks for one.
///
/// # Errors
/// An unknown protocol.
pub fn change(input: &UpdateInstance) -> control::Result<Option<PublishChange>> {
    if input.publish.is_none() && input.publish_add.is_empty() && input.publish_remove.is_empty() {
        return Ok(None);
    }
    let gone = |asked: &UnpublishPort| {
        Ok(Unpublish {
            address: asked.address,
            host_port: asked.host_port,
            protocol: protocol(&asked.protocol)?,
        })
    };
    Ok(Some(PublishChange {
        set: input.publish.as_deref().map(asked).transpose()?,
        remove: input.publish_remove.iter().map(gone).collect::<control::Result<_>>()?,
        add: asked(&input.publish_add)?,
    }))
}

/// As clients see it.
pub fn view(publish: &Publish) -> PublishedPort {
    PublishedPort {
        address: publish.address,
        host_port: publish.host_port,
        port: publish.port,
        protocol: publish.protocol.to_string(),
    }
}

fn protocol(text: &str) -> control::Result<Protocol> {
    text.parse().map_err(|e| Error::invalid("publish", e))
}
