//! Making containers.

use super::{
    environment::{self, Environment},
    extra_host, found,
    health::Healthcheck,
    host_config::{HostConfig, refuse_rest},
    memory,
    publish::{self, PortKey},
};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        id, image, network,
        query::{Json as Body, Query},
        refusal::{conflict, not_honoured},
        volume,
    },
    error::{Failure, Result},
    v1::audit::{deed, note},
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{
    Caller, Error,
    instance::{ContainerAsked, NewInstance, NicAsked},
};
use model::{
    error::Code,
    id::InstanceId,
    instance::{Access, ContainerSpec, Instance, Kind, pod::Shared},
    meta::Labels,
    plan::Accelerator,
    publish::Publish,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Longest host name (RFC 1123; sethostname(2) takes 64 bytes).
const HOSTNAME_BYTES_MAX: usize = 63;

/// What a client sends. What is not named here must be empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NewContainer {
    hostname: String,
    user: String,
    #[serde(rename = "AttachStdin")]
    _attach_stdin: bool,
    #[serde(rename = "AttachStdout")]
    _attach_stdout: bool,
    #[serde(rename = "AttachStderr")]
    _attach_stderr: bool,
    exposed_ports: Option<BTreeMap<String, Value>>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Words>,
    entrypoint: Option<Words>,
    image: String,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: String,
    network_disabled: bool,
    labels: Option<Labels>,
    stop_signal: Option<String>,
    stop_timeout: Option<i64>,
    healthcheck: Option<Healthcheck>,
    #[serde(rename = "OnBuild")]
    _on_build: Option<Value>,
    host_config: Option<HostConfig>,
    networking_config: Option<network::NetworkingConfig>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Words, or one text that stands for one word.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Words {
    Several(Vec<String>),
    One(String),
}

impl Words {
    fn list(&self) -> Vec<String> {
        match self {
            Self::Several(words) => words.clone(),
            Self::One(word) => vec![word.clone()],
        }
    }
}

/// POST of a new one.
pub async fn create(
    State(door): State<Door>,
    Asker(caller): Asker,
    query: Query,
    Body(asked): Body<NewContainer>,
) -> Result<Response> {
    image::check_platform(query.text("platform"))?;
    let name = name_asked(query.text("name"), &asked.image)?;
    let local = image::found::find(&door, &caller, &asked.image)?;
    let host = asked.host_config.clone().unwrap_or_default();
    check(&asked, &host)?;
    let exposed = exposed(&asked, &local.oci.exposed_ports)?;
    let (publish, within) = publish::asked(&host, &exposed)?;
    let networking = asked.networking_config.clone().unwrap_or_default();
    let nics = network::nics(&door, &caller, &host.network_mode, &networking, asked.network_disabled)?;
    if nics.as_ref().is_some_and(Vec::is_empty) && !publish.is_empty() {
        let message = "conflicting options: port publishing and the container type network mode";
        return Err(Failure::new(Code::Invalid, message));
    }
    let mut extra_hosts = extra_host::asked(&door, &caller, &host)?;
    let links: BTreeSet<&String> = host.links.iter().flatten().chain(networking.links()).collect();
    extra_hosts.extend(extra_host::linked(&door, &caller, &links, nics.as_deref().unwrap_or_default())?);
    let spec = spec(&asked, &host, &local.oci.env)?;
    let succeeds = succeeds(&door, &caller, &asked);
    let volumes = volume::asked(&door, &caller, &host, succeeds, asked.volumes.as_ref()).await?;
    let made = make(
        &door,
        &caller,
        &name,
        |groups| {
            let image = local.image().meta.id.to_string();
            let container = ContainerAsked { image, spec: spec.clone(), ..Default::default() };
            let mut new = request(&asked, &host, &name, container)?;
            (new.nics, new.security_groups) = (nics.clone(), groups);
            new.extra_hosts.clone_from(&extra_hosts);
            new.succeeds = succeeds;
            (new.volumes, new.publish) = (volumes.clone(), publish.clone());
            new.publish_within.clone_from(&within);
            Ok(new)
        },
        &publish,
    )
    .await?;
    let body = json!({ "Id": id::of(made.meta.id), "Warnings": [] });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// The container whose place the new one takes. Compose makes the next container of a service while the last one still
/// has its ports and volumes, and says so by this label; then it removes the last one and starts the next.
fn succeeds(door: &Door, caller: &Caller, asked: &NewContainer) -> Option<InstanceId> {
    let replaced = asked.labels.as_ref()?.get("com.docker.compose.replace")?;
    found::find(door, caller, replaced).ok().map(|found| found.id())
}

async fn make(
    door: &Door,
    caller: &Caller,
    name: &str,
    request: impl Fn(Option<Vec<String>>) -> Result<NewInstance>,
    publish: &[Publish],
) -> Result<Instance> {
    // A group that nobody has yet may be swept away by another call: then it is made again.
    for is_last in [false, true] {
        let outcome = match publish::groups(door, caller, publish).await {
            Ok(groups) => door.control().create_instance(caller, request(groups)?).await,
            Err(error) => Err(error),
        };
        let is_lost = outcome.as_ref().is_err_and(|e| e.field.as_deref() == Some("security_groups"));
        if is_lost && !is_last {
            continue;
        }
        let outcome = match outcome {
            Err(error) => {
                publish::sweep(door, caller).await;
                Err(error)
            }
            made => made,
        };
        let refused = outcome.as_ref().err().map(|error| refusal(door, caller, name, publish, error));
        return match (note(door.app(), caller, deed("create", "instance", name), outcome).await, refused) {
            (Ok(made), _) => Ok(made),
            (Err(_), Some(refused)) => Err(refused),
            (Err(failure), None) => Err(failure),
        };
    }
    unreachable!("the second try returns")
}

/// A refusal of the cloud in docker's words.
fn refusal(door: &Door, caller: &Caller, name: &str, publish: &[Publish], error: &Error) -> Failure {
    // Docker takes names before ports.
    let is_named = || found::all(door, caller).iter().any(|other| other.name() == name);
    match (error.code, error.field.as_deref()) {
        (Code::Taken, Some("publish")) if is_named() => name_taken(door, caller, name, error),
        (Code::Taken, Some("publish")) => publish::allocated(name, publish, error),
        (Code::Taken, Some("name")) => name_taken(door, caller, name, error),
        _ => error.clone().into(),
    }
}

/// The name belongs to another instance, which docker shows if it is a container.
pub fn name_taken(door: &Door, caller: &Caller, name: &str, error: &Error) -> Failure {
    match found::find(door, caller, name) {
        Ok(other) => conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
            id::of(other.id())
        )),
        Err(_) => conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by an instance that is no container: {}",
            error.message
        )),
    }
}

/// The name that is asked for, or one made of the image's.
fn name_asked(asked: Option<&str>, image: &str) -> Result<String> {
    let Some(given) = asked else {
        let last = image.rsplit('/').next().unwrap_or(image);
        let stem = last.split(['@', ':']).next().unwrap_or(last);
        return Ok(format!("{}-{:08x}", model::name::dns_label(stem, "container"), rand::random::<u32>()));
    };
    let name = given.strip_prefix('/').unwrap_or(given);
    check_name(name)?;
    Ok(name.to_string())
}

/// Refuses names that docker does not know.
///
/// # Errors
/// `invalid`, in docker's words.
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.len() > 1 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest {
        return Ok(());
    }
    let message = format!("Invalid container name ({name:.64}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    Err(Failure::new(Code::Invalid, message))
}

fn check(asked: &NewContainer, host: &HostConfig) -> Result<()> {
    host.check()?;
    refuse_rest(&asked.rest, "")
}

/// The ports that the image and the request name.
fn exposed(asked: &NewContainer, image: &[String]) -> Result<BTreeSet<PortKey>> {
    let mut all: BTreeSet<PortKey> = image.iter().filter_map(|text| publish::read_key(text).ok()).collect();
    for key in asked.exposed_ports.iter().flat_map(BTreeMap::keys) {
        all.insert(publish::read_key(key)?);
    }
    Ok(all)
}

/// What is asked of the container itself.
fn spec(asked: &NewContainer, host: &HostConfig, image_env: &[String]) -> Result<ContainerSpec> {
    let env: Environment = environment::read(asked.env.as_deref().unwrap_or_default())?;
    if let Some(name) = env.removed_from(image_env) {
        return Err(not_honoured(
            &format!("taking {name} out of the image's environment"),
            "give it an empty value",
        ));
    }
    let hostname = Some(asked.hostname.clone()).filter(|name| !name.is_empty());
    if let Some(name) = &hostname {
        let fits = name.len() <= HOSTNAME_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
            && !name.starts_with(['-', '.']);
        if !fits {
            return Err(Failure::new(Code::Invalid, format!("invalid hostname format: {name:.64}")));
        }
    }
    let size = host.size()?;
    let (tmpfs, memory_mounts) = memory::asked(host)?;
    // An empty entrypoint takes the image's away; empty arguments leave the image's.
    let entrypoint = asked.entrypoint.as_ref().map(Words::list).filter(|words| !words.is_empty());
    let entrypoint = entrypoint.map(|words| if words == [""] { vec![] } else { words });
    Ok(ContainerSpec {
        name: "main".into(),
        entrypoint,
        args: asked.cmd.as_ref().map(Words::list).filter(|words| !words.is_empty()),
        env: env.set,
        working_dir: Some(asked.working_dir.clone()).filter(|path| !path.is_empty()),
        user: Some(asked.user.clone()).filter(|user| !user.is_empty()),
        tty: asked.tty,
        terminal_size: host.console_size.filter(|size| asked.tty && *size != (0, 0)),
        stdin_open: asked.open_stdin,
        restart: host.restart()?,
        read_only: host.readonly_rootfs,
        cap_add: host.cap_add.clone().unwrap_or_default(),
        cap_drop: host.cap_drop.clone().unwrap_or_default(),
        tmpfs,
        memory_mounts,
        mounts: volume::lent(host)?,
        shm_bytes: host.shm_bytes()?,
        groups: host.groups()?,
        init: host.init.unwrap_or(false),
        log: host.log()?,
        hostname,
        stop_signal: stop_signal(asked.stop_signal.as_deref())?,
        cpu_millis: size.cpu_millis,
        pids_max: size.pids_max,
        stdin_once: asked.stdin_once,
        ulimits: host.ulimits()?,
        health: asked.healthcheck.as_ref().map(Healthcheck::spec).transpose()?.flatten(),
        ..ContainerSpec::default()
    })
}

/// The signal that asks it to end, by number: images know more names than one.
fn stop_signal(asked: Option<&str>) -> Result<Option<String>> {
    let Some(text) = asked.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = super::action::signal_number(text);
    let number = number.ok_or_else(|| Failure::new(Code::Invalid, format!("invalid signal: {text:.32}")))?;
    Ok(Some(number.to_string()))
}

fn request(
    asked: &NewContainer,
    host: &HostConfig,
    name: &str,
    container: ContainerAsked,
) -> Result<NewInstance> {
    let size = host.size()?;
    let grace = asked.stop_timeout.map(super::action::grace);
    Ok(NewInstance {
        name: name.to_string(),
        description: String::new(),
        labels: labels(asked.labels.as_ref())?,
        tags: BTreeSet::new(),
        access: Access::default(),
        user: None,
        kind: Kind::Container,
        image: None,
        root: None,
        flavor: None,
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        cpu_weight: size.cpu_weight,
        disk_gib: size.disk_gib,
        thick: false,
        nics: None::<Vec<NicAsked>>,
        security_groups: None,
        keypairs: vec![],
        user_data_base64: None,
        config_drive: false,
        accelerator: Accelerator::Auto,
        restart: container.spec.restart,
        containers: vec![container],
        volumes: vec![],
        server_group: None,
        floating_ip: None,
        publish: vec![],
        autostart: false,
        start_after: vec![],
        extra_hosts: vec![],
        files: vec![],
        schedule: None,
        shared: Shared { processes: false, dns: host.dns()? },
        isolation: host.isolation()?,
        publish_within: vec![],
        succeeds: None,
        grace_s: grace,
        remove_on_exit: host.auto_remove,
        start: false,
    })
}

fn labels(asked: Option<&Labels>) -> Result<Labels> {
    let labels = asked.cloned().unwrap_or_default();
    control::change::check_labels(&labels)?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> NewContainer {
        serde_json::from_value(value).expect("a container")
    }

    #[test]
    fn names_are_dockers() {
        for name in ["web", "my_Apache.1", "0a"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "-web", "we b", "w/b", "ü1"] {
            let failure = check_name(name).expect_err(name);
            assert!(failure.error.message.contains("only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
        }
        assert_eq!(name_asked(Some("/web"), "x").unwrap(), "web");
        assert!(name_asked(None, "localhost:5000/team/App@sha256:00").unwrap().starts_with("app-"));
    }

    #[test]
    fn programs_are_put_together_as_docker_does() {
        let host = HostConfig::default();
        for (value, entrypoint, args) in [
            (json!({}), None, None),
            (json!({"Cmd": [], "Entrypoint": null}), None, None),
            (json!({"Cmd": ["ls", "-l"]}), None, Some(vec!["ls", "-l"])),
            (json!({"Cmd": "ls"}), None, Some(vec!["ls"])),
            (json!({"Entrypoint": [""], "Cmd": ["ls"]}), Some(vec![]), Some(vec!["ls"])),
            (json!({"Entrypoint": ["sh", "-c"], "Cmd": ["ls"]}), Some(vec!["sh", "-c"]), Some(vec!["ls"])),
        ] {
            let spec = spec(&read(value.clone()), &host, &[]).unwrap();
            let words =
                |all: Option<Vec<&str>>| all.map(|w| w.into_iter().map(str::to_string).collect::<Vec<_>>());
            assert_eq!((spec.entrypoint, spec.args), (words(entrypoint), words(args)), "{value}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        let host = HostConfig::default();
        for (value, word) in [
            (json!({"Domainname": "example.org"}), "Domainname"),
            (json!({"MacAddress": "02:00:00:00:00:01"}), "MacAddress"),
            (json!({"Shell": ["/bin/sh"]}), "Shell"),
        ] {
            let failure = check(&read(value), &host).expect_err(word);
            assert!(failure.error.message.contains(word), "{}", failure.error.message);
        }
        check(
            &read(json!({"Healthcheck": {"Test": ["NONE"]}, "Domainname": "", "ArgsEscaped": false})),
            &host,
        )
        .unwrap();
        assert!(spec(&read(json!({"Hostname": "a_b"})), &host, &[]).is_err());
        assert!(spec(&read(json!({"Env": ["PATH"]})), &host, &["PATH=/bin".into()]).is_err());
        assert!(spec(&read(json!({"Env": ["NOT_THERE"]})), &host, &["PATH=/bin".into()]).is_ok());
    }
}
