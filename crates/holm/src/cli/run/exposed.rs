//! `holm run -P`: a port of the host for each one that the image says it listens on. The image has to be here for that, so
//! it is pulled first, as docker does.

use super::RunArgs;
use crate::cli::{
    failure::{Failure, Result},
    publish,
    session::Session,
    wait,
};
use api::v1::types::{
    image::{CreateImage, Image, ImageState},
    instance::CreateInstance,
    list::WaitQuery,
};
use model::{error::Code, image_reference::Reference};

/// Adds the ports of the image that are not published by themselves.
///
/// # Errors
/// The image cannot be had, or is a VM's.
pub async fn publish_all(session: &Session, args: &RunArgs, request: &mut CreateInstance) -> Result {
    let image = image(session, args).await?;
    let Some(oci) = image.content.as_ref().and_then(|content| content.oci.as_ref()) else {
        let message =
            format!("image {} does not say what it listens on: -P is for containers", image.head.name);
        return Err(Failure::usage(message).hint("name the ports: -p PORT"));
    };
    for text in &oci.exposed_ports {
        for port in publish::parse(text)? {
            let is_same = |other: &api::v1::types::publish::PublishedPort| {
                (&other.protocol, other.port) == (&port.protocol, port.port)
            };
            if !request.publish.iter().any(is_same) {
                request.publish.push(port);
            }
        }
    }
    if oci.exposed_ports.is_empty() {
        session.say(format!("image {} says of no port that it listens on it", image.head.name));
    }
    Ok(())
}

/// The image, pulled if it is not here.
async fn image(session: &Session, args: &RunArgs) -> Result<Image> {
    let whole = args.image.parse::<Reference>().ok().map(|reference| reference.to_string());
    for name in [Some(&args.image), whole.as_ref()].into_iter().flatten() {
        match session.client.get::<Image>(name).await {
            Ok(found) if found.state == ImageState::Ready => return Ok(found),
            Ok(_) => {}
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let request = CreateImage::of_registry(&args.image);
    let made = session.client.create::<Image>(&request, &WaitQuery::default()).await?;
    let (id, name) = (made.head.id.to_string(), made.head.name.clone());
    wait::settle::<Image>(session, &id, &name, None, &args.wait).await
}
