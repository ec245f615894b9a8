//! Consoles of servers: where a client finds the screen or the serial line, by the forms of old (until 2.5) and by
//! `remote-consoles` (from 2.6). The bytes themselves go by [`crate::openstack::console`].

use super::{deed, find, state_of};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    body::Body,
    compute::form::Form,
    console::{Shown, screen_path, serial_path},
};
use crate::routing::{Router, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::Caller;
use model::instance::{Instance, Kind};
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new().route("/v2.1/servers/{id}/remote-consoles", post(remote))
}

/// A console that is asked for: as Nova calls its protocol and type.
struct Asked<'a> {
    protocol: &'a str,
    kind: &'a str,
}

async fn remote(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    version.require(2, 6)?;
    let form = Form::under(&body, "remote_console")?;
    form.refuse_others(&["protocol", "type"])?;
    let asked = Asked { protocol: form.needed("protocol")?, kind: form.needed("type")? };
    let known = ["vnc", "spice", "serial", "rdp"];
    let is_known = known.contains(&asked.protocol) || asked.protocol == "mks" && version.has(2, 8);
    if !is_known {
        let protocol = asked.protocol;
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute protocol. Value: {protocol}."
        )));
    }
    let found = find(&door, &session, &id)?;
    let url = open(&door, &session.caller, &base, &found.record, &asked)?;
    let shown = json!({ "protocol": asked.protocol, "type": asked.kind, "url": url });
    Ok(deed(asked.word(), &found.record).on(Json(json!({ "remote_console": shown }))))
}

/// The actions of old, like `os-getVNCConsole`.
///
/// # Errors
/// 404 from 2.6 on, 400 for consoles that there are not, 409 while there is nothing to see.
pub fn of_old(
    door: &Door,
    caller: &Caller,
    version: Microversion,
    base: &Base,
    instance: &Instance,
    (action, value): (&str, &Value),
) -> Result<Response> {
    if version.has(2, 6) {
        return Err(Fault::status(StatusCode::NOT_FOUND, "The resource could not be found."));
    }
    let form = Form::of(value, action)?;
    form.refuse_others(&["type"])?;
    let protocol = match action {
        "os-getVNCConsole" => "vnc",
        "os-getSerialConsole" => "serial",
        "os-getSPICEConsole" => "spice",
        _ => "rdp",
    };
    let asked = Asked { protocol, kind: form.needed("type")? };
    let url = open(door, caller, base, instance, &asked)?;
    let shown = json!({ "type": asked.kind, "url": url });
    Ok(deed(asked.word(), instance).on(Json(json!({ "console": shown }))))
}

impl Asked<'_> {
    /// The deed as the native door calls it.
    fn word(&self) -> &'static str {
        if self.protocol == "serial" { "console" } else { "vnc" }
    }
}

/// The address of a console, with a ticket for it.
fn open(door: &Door, holder: &Caller, base: &Base, instance: &Instance, asked: &Asked<'_>) -> Result<String> {
    let shown = match (asked.protocol, asked.kind) {
        ("vnc", "novnc") if instance.kind == Kind::Vm => Shown::Screen,
        ("serial", "serial") => Shown::Serial,
        (_, kind) => return Err(Fault::invalid(format!("Unavailable console type {kind}."))),
    };
    // Nobody is at home where nothing runs.
    if !matches!(state_of(door, instance).power, 1 | 3) {
        return Err(Fault::conflict(format!("Instance {} is not ready", instance.meta.id)));
    }
    let token = door.tickets().give(holder, instance.meta.id, shown, door.control().now());
    Ok(match shown {
        Shown::Screen => base.link_to_root(&screen_path(&token)),
        // As Nova has it, a serial line's address is a websocket's own.
        Shown::Serial => base.link_to_root(&serial_path(&token)).replacen("http", "ws", 1),
    })
}
