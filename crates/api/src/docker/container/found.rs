//! Finding the container that a client means, and what is known of it.

use crate::{
    docker::{door::Door, id, image, refusal},
    error::{Failure, Result},
};
use control::Caller;
use jiff::Timestamp;
use model::{
    error::Code,
    health::status::Health,
    id::InstanceId,
    image::{Image, ImageContent},
    instance::{ContainerSpec, Instance, InstanceStatus, Kind, State, phase::Phase},
};
use std::sync::Arc;
use store::Stored;

/// A container: an instance of one container.
#[derive(Clone)]
pub struct Found {
    stored: Arc<Stored<Instance>>,
    status: Option<Arc<Stored<InstanceStatus>>>,
    phase: Phase,
    health: Option<Health>,
}

/// Whether an instance is a container on this door. Pods of several containers are not docker's.
pub fn is_container(instance: &Instance) -> bool {
    instance.kind == Kind::Container && instance.containers.len() == 1
}

/// All containers that the caller may see, newest first.
pub fn all(door: &Door, caller: &Caller) -> Vec<Found> {
    let mut all = door.control().list::<Instance>(caller);
    all.retain(|stored| is_container(&stored.record));
    all.sort_by_key(|stored| std::cmp::Reverse(stored.record.meta.created_at));
    all.into_iter().map(|stored| Found::new(door, stored)).collect()
}

/// The container that a name, an id or the unique beginning of an id means.
///
/// # Errors
/// `not_found`, or `invalid` if several ids begin so.
pub fn find(door: &Door, caller: &Caller, reference: &str) -> Result<Found> {
    let name = reference.strip_prefix('/').unwrap_or(reference);
    let missing = || match image::found::find(door, caller, name) {
        Ok(_) => refusal::no_container(name)
            .hint(format!("that is an image: `docker run {name}` makes a container of it")),
        Err(_) => refusal::no_container(name),
    };
    if let Some(id) = id::parse(name) {
        return by_id(door, caller, InstanceId(id)).map_err(|_| missing());
    }
    let containers = |all: Vec<Arc<Stored<Instance>>>| {
        all.into_iter().filter(|stored| is_container(&stored.record)).map(|stored| Found::new(door, stored))
    };
    if let Some(found) = containers(door.control().named(caller, name)).next() {
        return Ok(found);
    }
    if !id::is_prefix(name) {
        return Err(missing());
    }
    let starting = door.control().starting(caller, id::own_digits(name));
    let mut fitting = containers(starting).filter(|found| id::of(found.id()).starts_with(name));
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => {
            Err(Failure::new(Code::Invalid, format!("multiple IDs found with provided prefix: {name}")))
        }
        (None, _) => Err(missing()),
    }
}

/// The container with this id.
///
/// # Errors
/// `not_found`.
pub fn by_id(door: &Door, caller: &Caller, id: InstanceId) -> Result<Found> {
    let found = door.control().find::<Instance>(caller, &id.to_string());
    match found {
        Ok(stored) if is_container(&stored.record) => Ok(Found::new(door, stored)),
        _ => Err(refusal::no_container(id::of(id))),
    }
}

/// Why a program could not be started.
pub struct NotStarted {
    /// In docker's words.
    pub message: String,
}

impl Found {
    fn new(door: &Door, stored: Arc<Stored<Instance>>) -> Self {
        let status = door.control().instance_status(stored.record.meta.id);
        let phase = door.control().phase(&stored.record);
        let health = door.control().health(&stored.record, &stored.record.containers[0]);
        Self { stored, status, phase, health }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.stored.record
    }

    /// Its id.
    pub fn id(&self) -> InstanceId {
        self.instance().meta.id
    }

    /// Its name, without docker's slash.
    pub fn name(&self) -> &str {
        self.instance().meta.name.as_str()
    }

    /// What the user asked for.
    pub fn spec(&self) -> &ContainerSpec {
        &self.instance().containers[0]
    }

    /// What its node says of it.
    pub fn status(&self) -> Option<&InstanceStatus> {
        self.status.as_deref().map(|stored| &stored.record)
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What is said of its health, if that is checked.
    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// What was last seen of it.
    pub fn state(&self) -> &State {
        self.status().map_or(&State::Absent, |status| &status.state)
    }

    /// It runs, frozen or not.
    pub fn is_alive(&self) -> bool {
        matches!(self.state(), State::Running { .. } | State::Paused { .. })
    }

    /// It is frozen.
    pub fn is_paused(&self) -> bool {
        matches!(self.state(), State::Paused { .. })
    }

    /// It waits for its restart policy to start it again.
    pub fn is_restarting(&self) -> bool {
        self.is_alive() && self.fact("status").and_then(|v| v.as_str()) == Some("restarting")
    }

    /// A fact that the node tells of its container.
    pub fn fact(&self, name: &str) -> Option<&serde_json::Value> {
        self.status()?.facts.get("containers")?.get(0)?.get(name)
    }

    /// Start of its last run, once that has ended.
    pub fn last_start(&self) -> Option<Timestamp> {
        let ms = self.status()?.facts.get("started_ms")?.as_i64()?;
        Timestamp::from_millisecond(ms).ok()
    }

    /// Why its program did not run, if its last start failed for that.
    pub fn not_started(&self) -> Option<NotStarted> {
        not_started(self.instance(), self.state())
    }

    /// Its image's record.
    pub fn image(&self, door: &Door) -> Option<Arc<Stored<Image>>> {
        door.control().get::<Image>(self.spec().image?)
    }

    /// What its image holds now.
    pub fn content(&self, door: &Door) -> Option<ImageContent> {
        let status = door.control().image_status(self.spec().image?)?;
        status.record.content().cloned()
    }

    /// # Errors
    /// `conflict` in docker's words, if it does not run or is frozen.
    pub fn require_running(&self) -> Result<()> {
        let id = id::of(self.id());
        if self.is_restarting() {
            return Err(refusal::conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            )));
        }
        match self.state() {
            State::Running { .. } => Ok(()),
            State::Paused { .. } => Err(refusal::conflict(format!(
                "container {} is paused, unpause the container first",
                self.name()
            ))),
            State::Absent | State::Stopped { .. } => {
                Err(refusal::conflict(format!("container {id} is not running")))
            }
        }
    }
}

/// Whether and why the last start of a container never ran its program.
pub fn not_started(instance: &Instance, state: &State) -> Option<NotStarted> {
    let State::Stopped { code: Some(code @ 125..=127), cause, .. } = state else {
        return None;
    };
    // A program that ran and ended with such a code is told by these words of the node.
    if cause.starts_with("exited with code") {
        return None;
    }
    let asked = &instance.containers[0];
    let argv = asked.entrypoint.iter().chain(&asked.args).flatten();
    let program = argv.map(String::as_str).next().unwrap_or("the image's program");
    let begin = "failed to create task for container: failed to start the container's program";
    let message = match code {
        127 => format!("{begin}: exec: \"{program}\": executable file not found in $PATH"),
        126 => format!("{begin}: exec: \"{program}\": permission denied ({cause})"),
        _ => format!("{begin}: {cause}"),
    };
    Some(NotStarted { message })
}
