//! Images as archives: `docker save`, `docker load`, `docker import`.

use super::{
    changes, found,
    named::{adopt, wanted},
};
use crate::{
    app::Asker,
    docker::{body, door::Door, query::Query, refusal::not_honoured},
    error::{Failure, Result},
    limits::IMAGE_BYTES_MAX,
    v1::image::content::refuse_withdrawn,
};
use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use control::{Caller, Role};
use model::{error::Code, image::ImageContent, image_reference::Reference};
use serde_json::{Value, json};

/// Most images of one archive.
const IMAGES_MAX: usize = 256;

/// GET of several images as one archive.
pub async fn get_all(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Response> {
    let names: Vec<&str> = query.all("names").collect();
    save(&door, &caller, &names).await
}

/// GET of one image as an archive.
pub async fn save(door: &Door, caller: &Caller, names: &[&str]) -> Result<Response> {
    if names.is_empty() || names.len() > IMAGES_MAX {
        return Err(Failure::new(Code::Invalid, format!("name 1 to {IMAGES_MAX} images")));
    }
    let mut wanted: Vec<(ImageContent, Vec<Reference>)> = vec![];
    for name in names {
        let local = found::find(door, caller, name)?;
        refuse_withdrawn(caller, local.image())?;
        let is_name = local.reference().is_some() && found::is_name(name, &local);
        wanted
            .push((local.content.clone(), if is_name { meant(door, caller, name, &local) } else { vec![] }));
    }
    body::answer(door, caller, door.app().streams().images_out(wanted).await?)
}

/// The references that a name means: with a tag the one, without one all tags of its repository and content.
fn meant(door: &Door, caller: &Caller, name: &str, local: &found::Local) -> Vec<Reference> {
    let Some(own) = local.reference() else { return vec![] };
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if has_tag {
        return vec![own];
    }
    let same =
        |other: &Reference| (other.registry(), other.repository()) == (own.registry(), own.repository());
    let all = found::all(door, caller).into_iter().filter(|other| other.id() == local.id());
    let mut all: Vec<Reference> = all.filter_map(|other| other.reference()).filter(same).collect();
    all.sort();
    all
}

/// POST of an archive with images.
pub async fn load(State(door): State<Door>, Asker(caller): Asker, request: Request) -> Result<Response> {
    // Before a terabyte was sent.
    caller.require(Role::Member, "loading images")?;
    let _slot = door.app().stream_slot(&caller)?;
    let archive = body::reader(request.into_body(), IMAGE_BYTES_MAX);
    let loaded = door.app().streams().images_in(archive).await?;
    let mut lines = vec![];
    for one in &loaded {
        let names: Vec<String> =
            one.names.iter().filter(|name| name.digest().is_none()).map(Reference::to_string).collect();
        if names.is_empty() {
            adopt(&door, &caller, "load", &one.digest, None).await?;
            lines.push(json!({ "stream": format!("Loaded image ID: {}\n", one.config_digest) }));
        }
        for name in names {
            let local = adopt(&door, &caller, "load", &one.digest, Some(&name)).await?;
            let shown = local.tag().unwrap_or(name);
            lines.push(json!({ "stream": format!("Loaded image: {shown}\n") }));
        }
    }
    Ok(told(&lines))
}

/// POST of a root file system as an image of one layer.
pub async fn import(door: &Door, caller: &Caller, query: &Query, request: Request) -> Result<Response> {
    caller.require(Role::Member, "importing an image")?;
    super::check_platform(query.text("platform"))?;
    let source = query.text("fromSrc").unwrap_or("-");
    if source != "-" {
        let why = format!("{source}: holm fetches no root file systems; send it, `curl … | docker import -`");
        return Err(not_honoured("fromSrc", why));
    }
    let name = wanted(query)?;
    let mut run = json!({});
    changes::apply(&mut run, query.all("changes"))?;
    let now = door.control().now().to_string();
    let comment = query.text("message").unwrap_or("Imported from -");
    let config = json!({
        "created": now,
        "config": run,
        "history": [{ "created": now, "comment": comment }],
    });
    let _slot = door.app().stream_slot(caller)?;
    let root = body::reader(request.into_body(), IMAGE_BYTES_MAX);
    let made = door.app().streams().image_of_root(root, config).await?;
    adopt(door, caller, "import", &made.digest, name.as_deref()).await?;
    Ok(told(&[json!({ "status": made.config_digest })]))
}

fn told(lines: &[Value]) -> Response {
    let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
