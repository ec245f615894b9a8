//! `holm inspect`: all about containers, images, networks and volumes in docker's JSON; of what docker has no word for, in
//! holm's own.

use super::{
    columns,
    engine::{self, image_path, path, query},
};
use crate::cli::{
    failure::{Failure, Result},
    output,
    session::Session,
};
use api::v1::types::instance::Instance;
use model::error::Code;
use serde::Serialize;
use serde_json::Value;

/// What is looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct InspectArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "NAME", add = crate::cli::completion::names("instances"))]
    pub names: Vec<String>,
    /// A template like '{{.State.Status}}', or json
    #[arg(long, short, value_name = "TEMPLATE")]
    pub format: Option<String>,
    /// Sizes of containers, too
    #[arg(long, short)]
    pub size: bool,
    /// Only what is of this kind
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image", "network", "volume"])]
    pub kind: Option<String>,
}

/// Looks.
///
/// # Errors
/// There is nothing of that name; the template cannot be filled in. What was found before is printed all the same.
pub async fn run(session: &Session, args: &InspectArgs) -> Result {
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(columns::understood(text)?),
    };
    let (mut found, mut missing) = (vec![], None);
    for name in &args.names {
        match find(session, args, name).await {
            Ok(value) => found.push(value),
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    match (&template, args.format.is_some()) {
        (Some(template), _) => {
            for value in &found {
                output::write((columns::filled(template, value)? + "\n").as_bytes())?;
            }
        }
        (None, true) => {
            let lines: String = found.iter().map(|value| format!("{value}\n")).collect();
            output::write(lines.as_bytes())?;
        }
        (None, false) => output::write(indented(&found).as_bytes())?,
    }
    missing.map_or(Ok(()), Err)
}

async fn find(session: &Session, args: &InspectArgs, name: &str) -> Result<Value> {
    let size = query(&[("size", engine::flag(args.size))]);
    let places = [
        ("container", format!("{}{size}", path(&["containers", name, "json"]))),
        ("image", image_path(name, "/json")),
        ("network", path(&["networks", name])),
        ("volume", path(&["volumes", name])),
    ];
    for (_, place) in
        places.iter().filter(|(kind, _)| args.kind.as_deref().is_none_or(|asked| asked == *kind))
    {
        match engine::get(session, place).await {
            // A name that is none of an image is one of something else.
            Err(failure) if [Code::NotFound, Code::Invalid].map(Code::exit_code).contains(&failure.exit) => {}
            other => return other,
        }
    }
    if args.kind.is_none()
        && let Ok(instance) = session.client.get::<Instance>(name).await
    {
        return serde_json::to_value(instance).map_err(|e| Failure::usage(format!("cannot write JSON: {e}")));
    }
    let kind = args.kind.as_deref().unwrap_or("object");
    Err(Failure::new(Code::NotFound, format!("No such {kind}: {name}"))
        .hint("`holm ps -a` shows containers, `holm images` images, `holm ls` all instances"))
}

/// JSON with four spaces for each level, as docker writes it.
fn indented(found: &[Value]) -> String {
    let mut bytes = vec![];
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, form);
    // Values of JSON are written to memory: nothing of that can fail.
    let _ = found.serialize(&mut writer);
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}
