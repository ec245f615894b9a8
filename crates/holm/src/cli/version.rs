//! `holm version`: this program, and the daemon that answers.

use super::{
    failure::Result,
    output::{self, Format},
    session::Session,
};
use serde_json::json;

/// Runs the command. Without a daemon it tells this program's version all the same.
///
/// # Errors
/// The daemon refuses.
pub async fn run(session: &Session) -> Result {
    let own = env!("CARGO_PKG_VERSION");
    let answer = session.client.version().await;
    let value = json!({ "client": own, "server": answer.as_ref().ok() });
    match session.printer.format {
        Some(Format::Json) => output::write(output::json(&value)?.as_bytes())?,
        Some(Format::Yaml) => output::write(output::yaml(&value)?.as_bytes())?,
        _ => output::write(format!("holm {own}\n").as_bytes())?,
    }
    let version = answer?;
    if version.version != own {
        session.warn(format!(
            "the daemon is version {}: restart it after an upgrade; no guest stops by that",
            version.version
        ));
    }
    let (caller, address) = (&version.caller, session.client.address());
    session.say(format!(
        "daemon {} at {address}: you are {} ({}) in project {}",
        version.version, caller.actor, caller.role, caller.project.name
    ));
    Ok(())
}
