//! Refusals in the words that docker's users know.

use crate::error::Failure;
use axum::http::{Method, StatusCode};
use model::error::Code;
use std::fmt::Display;

/// There is no such container.
pub fn no_container(name: impl Display) -> Failure {
    Failure::new(Code::NotFound, format!("No such container: {name}"))
}

/// There is no such image here.
pub fn no_image(name: impl Display) -> Failure {
    Failure::new(Code::NotFound, format!("No such image: {name}"))
}

/// There is no such network.
pub fn no_network(name: impl Display) -> Failure {
    Failure::new(Code::NotFound, format!("network {name} not found"))
}

/// Something that the client set and holm does not honour.
pub fn not_honoured(what: &str, why: impl Display) -> Failure {
    Failure::new(Code::Invalid, format!("{what} is not honoured by holm: {why}"))
}

/// A part of the Engine API that is not served.
pub fn not_served(what: &str) -> Failure {
    Failure::new(Code::Unsupported, format!("{what}: not served by holm's Docker door"))
        .hint("docs/docker.md lists what is served, and what to use instead")
}

/// The state of a container does not allow it.
pub fn conflict(message: impl Display) -> Failure {
    Failure::new(Code::Conflict, message)
}

/// The daemon could not do what it was asked.
pub fn failed(message: impl Display) -> Failure {
    Failure::new(Code::Conflict, message).with_status(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Paths of the Engine API that this door knows of and does not serve.
const UNSERVED: [(&str, &str); 10] = [
    ("build", "this call on builds"),
    ("swarm", "swarm mode"),
    ("nodes", "swarm mode"),
    ("services", "swarm mode"),
    ("tasks", "swarm mode"),
    ("secrets", "swarm mode"),
    ("configs", "swarm mode"),
    ("plugins", "plugins"),
    ("distribution", "asking a registry about an image"),
    ("exec", "this call on a program"),
];

/// The answer to a path that is not there.
pub fn unknown(path: &str) -> Failure {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // `docker inspect` asks for one when nothing else has the name.
    if let ["plugins", name, "json"] = parts.as_slice() {
        return Failure::new(Code::NotFound, format!("plugin \"{name}\" not found"));
    }
    if let Some((_, what)) = parts.first().and_then(|first| UNSERVED.iter().find(|(known, _)| known == first))
    {
        return not_served(what);
    }
    let what = match parts.as_slice() {
        ["containers", _, "attach", "ws"] => "attaching by WebSocket",
        ["images", "search"] => "searching Docker Hub",
        _ => return Failure::new(Code::NotFound, "page not found"),
    };
    not_served(what)
}

/// The answer to a method that a path does not take.
pub fn wrong_method(method: &Method, path: &str) -> Failure {
    let failure = unknown(path);
    if failure.error.code == Code::Unsupported {
        return failure;
    }
    Failure::new(Code::Invalid, format!("{path} does not take {method}"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
