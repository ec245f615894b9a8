//! Images of containers: `docker commit`.

use super::{found, view};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        image::{adopt, apply_changes, wanted_name},
        query::{Json as Body, Query},
    },
    error::{Failure, Result},
    streams::CommitAsked,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::Role;
use model::error::Code;
use serde_json::{Value, json};

/// What a container's config has and an image's does not.
const CONTAINERS_OWN: [&str; 11] = [
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "StopTimeout",
    "NetworkDisabled",
];

/// POST: makes an image of what a container changed.
pub async fn commit(
    State(door): State<Door>,
    Asker(caller): Asker,
    query: Query,
    Body(asked): Body<Value>,
) -> Result<Response> {
    caller.require(Role::Member, "making an image of a container")?;
    let name = query.text("container").ok_or_else(|| Failure::new(Code::Invalid, "container is missing"))?;
    let found = found::find(&door, &caller, name)?;
    let reference = wanted_name(&query)?;
    let content = found.content(&door).ok_or_else(|| {
        Failure::new(Code::Conflict, format!("the image of container {} is not here", found.name()))
    })?;
    let base = door.app().streams().image_details(&content).await?;
    let mut run = image_part(view::config(&door, &found), &asked);
    apply_changes(&mut run, query.all("changes"))?;
    let config = with_history(base.config, run, &query, &door.control().now().to_string());
    let _slot = door.app().stream_slot(&caller)?;
    let pauses = query.flag_or_on("pause") && found.is_alive() && !found.is_paused();
    let how = CommitAsked { pauses, newest_s: None };
    let made = door.app().streams().commit(found.instance(), &content, config, how).await?;
    adopt(&door, &caller, "commit", &made.digest, reference.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": made.config_digest }))).into_response())
}

/// What of a container's config is an image's, with what the client set itself instead.
fn image_part(mut config: Value, asked: &Value) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|name, value| !CONTAINERS_OWN.contains(&name.as_str()) && !value.is_null());
        let set = asked.as_object().into_iter().flatten();
        let set = set.filter(|(name, value)| !CONTAINERS_OWN.contains(&name.as_str()) && !value.is_null());
        fields.extend(set.map(|(name, value)| (name.clone(), value.clone())));
        // A host name that was made up for the container is no image's.
        if let Some(env) = fields.get_mut("Env").and_then(Value::as_array_mut) {
            env.retain(|one| !one.as_str().is_some_and(|one| one.starts_with("HOSTNAME=")));
        }
    }
    config
}

/// The image's own config with one step more.
fn with_history(mut config: Value, run: Value, query: &Query, now: &str) -> Value {
    if !config.is_object() {
        config = json!({});
    }
    let created_by = run["Cmd"]
        .as_array()
        .map_or(String::new(), |words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let text = |name: &str| query.text(name).unwrap_or("").to_string();
    let step = json!({
        "created": now, "created_by": created_by, "author": text("author"), "comment": text("comment"),
    });
    match config["history"].as_array_mut() {
        Some(steps) => steps.push(step),
        None => config["history"] = json!([step]),
    }
    config["config"] = run;
    config["created"] = json!(now);
    config["author"] = json!(text("author"));
    config["comment"] = json!(text("comment"));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_what_is_not_its_containers() {
        let config = json!({
            "Hostname": "a", "Tty": true, "Cmd": ["sh"], "User": "", "OnBuild": null, "Env": ["A=1", "HOSTNAME=a"],
        });
        let part = image_part(config, &json!({"User": "web", "Tty": false, "Cmd": null}));
        assert_eq!(part, json!({"Cmd": ["sh"], "User": "web", "Env": ["A=1"]}));
        let query = Query::parse("author=me&comment=why").unwrap();
        let base = json!({"history": [{"created_by": "first"}], "config": {"Cmd": ["old"]}});
        let whole = with_history(base, part, &query, "2026-01-01T00:00:00Z");
        assert_eq!(whole["history"].as_array().unwrap().len(), 2);
        assert_eq!((&whole["history"][1]["created_by"], &whole["author"]), (&json!("sh"), &json!("me")));
        assert_eq!(whole["config"]["Cmd"], json!(["sh"]));
    }
}
