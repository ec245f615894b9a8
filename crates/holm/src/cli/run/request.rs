//! From the options of `holm run` to what the API is asked for.

use super::{RunArgs, docker};
use crate::cli::{
    failure::{Failure, Result},
    port, wording,
};
use api::v1::types::instance::{ContainerRequest, CreateInstance, ExtraHost, NetworkRequest, VolumeRequest};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::port::alias::{Alias, AliasError};
use std::{collections::BTreeMap, io::Read, path::Path};

/// Most bytes of user-data that are read; the server's own limit is lower.
const USER_DATA_BYTES_MAX: u64 = 1024 * 1024;

/// A name for an instance that was given none: the image's, and four hex digits.
pub fn name_for(image: &str, random: u16) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let stem = last.split(['@', ':']).next().unwrap_or(last);
    format!("{}-{random:04x}", model::name::dns_label(stem, "instance"))
}

/// The request.
///
/// # Errors
/// An option cannot be understood, or a file cannot be read.
pub fn request(args: &RunArgs, name: String) -> Result<CreateInstance> {
    let networks = args.network.network.iter().map(|text| network(text)).collect::<Result<Vec<_>>>()?;
    let volumes = args.size.volume.iter().filter(|text| !docker::is_of_host(text));
    let volumes = volumes.map(|text| volume(text)).collect::<Result<Vec<_>>>()?;
    let mut publish = Vec::new();
    for text in &args.network.publish {
        publish.extend(crate::cli::publish::parse(text)?);
    }
    let mut request = CreateInstance {
        publish,
        name,
        description: args.about.description.clone(),
        labels: args.about.labels(),
        kind: args.kind.kind(),
        image: Some(args.image.clone()),
        flavor: args.size.flavor.clone(),
        vcpus: args.size.cpus.map(|cpus| cpus.whole),
        memory_mib: args.size.memory,
        cpu_weight: args.size.cpu_weight,
        disk_gib: args.size.disk,
        networks: (!networks.is_empty()).then(|| networks.into_iter().flatten().collect()),
        security_groups: (!args.network.security_group.is_empty())
            .then(|| args.network.security_group.clone()),
        keypairs: args.guest.key.clone(),
        user_data: args.guest.user_data.as_deref().map(user_data).transpose()?,
        config_drive: args.guest.config_drive,
        restart: args.life.restart,
        volumes,
        extra_hosts: args.container.add_host.clone(),
        isolation: args.container.isolate,
        autostart: args.life.autostart,
        start_after: args.life.start_after.clone(),
        server_group: args.life.server_group.clone(),
        accelerator: args.guest.accelerator,
        floating_ip: args.network.floating_ip.clone(),
        grace_s: args.life.grace,
        ..CreateInstance::default()
    };
    docker::of_instance(args, &mut request)?;
    container(args, &mut request)?;
    Ok(request)
}

/// What only containers have. A container of its own in the request is needed for options that an instance has not.
fn container(args: &RunArgs, request: &mut CreateInstance) -> Result {
    let c = &args.container;
    let command = c.entrypoint.as_ref().map(|program| vec![program.clone()]);
    let program_args = (!args.command.is_empty()).then(|| args.command.clone());
    let mut env = docker::env_files(&args.further.env_file, &|key| std::env::var(key).ok())?;
    env.extend(super::request_environment(&c.env)?);
    let has_part = args.size.cpus.is_some_and(|cpus| cpus.millis.is_some());
    let is_full = c.read_only || !c.cap_add.is_empty() || !c.cap_drop.is_empty() || !c.tmpfs.is_empty();
    let has_directory = args.size.volume.iter().any(|text| docker::is_of_host(text));
    if is_full || has_part || has_directory || args.further.is_container() {
        if args.kind.vm {
            return Err(Failure::usage(
                "a part of a CPU, and options of containers like --read-only, --cap-add, --init and --ulimit, are not for VMs",
            ));
        }
        let mut container = ContainerRequest {
            name: "main".into(),
            image: request.image.take().unwrap_or_default(),
            command,
            args: program_args,
            env,
            working_dir: c.workdir.clone(),
            user: c.user.clone(),
            tty: c.tty,
            stdin_open: c.interactive,
            restart: None,
            read_only: c.read_only,
            cap_add: c.cap_add.clone(),
            cap_drop: c.cap_drop.clone(),
            tmpfs: c.tmpfs.clone(),
            health: args.health.request(),
            ..ContainerRequest::default()
        };
        docker::of_container(args, &mut container)?;
        request.containers = vec![container];
        return Ok(());
    }
    request.command = command;
    request.args = program_args;
    request.env = env;
    request.working_dir.clone_from(&c.workdir);
    request.user.clone_from(&c.user);
    request.tty = c.tty;
    request.stdin_open = c.interactive;
    request.health = args.health.request();
    Ok(())
}

/// Reads `KEY=VALUE`, and `KEY` as the caller's own variable.
///
/// # Errors
/// There is no key, or the caller has no such variable.
pub fn environment(
    texts: &[String],
    own: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, value.to_string()),
            None => {
                let value = own(text).ok_or_else(|| {
                    Failure::usage(format!("-e {text}: there is no variable {text} here to pass on"))
                        .hint(format!("give a value: -e {text}=VALUE"))
                })?;
                (text.as_str(), value)
            }
        };
        if key.is_empty() {
            return Err(Failure::usage(format!("-e {text}: write KEY=VALUE")));
        }
        all.insert(key.to_string(), value);
    }
    Ok(all)
}

/// Reads `NAME=ADDRESS`.
///
/// # Errors
/// A text for people.
pub fn extra_host(text: &str) -> std::result::Result<ExtraHost, String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no address: write NAME=ADDRESS"))?;
    Ok(ExtraHost { name: name.parse().map_err(|error: AliasError| error.to_string())?, address })
}

/// `none`, `NAME`, or a list of `network=`, `subnet=`, `ip=`, `rate=`, `alias=` and `port=` with a bare name first.
fn network(text: &str) -> Result<Option<NetworkRequest>> {
    if text == "none" {
        return Ok(None);
    }
    let mut request = NetworkRequest::default();
    for (number, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if number == 0 && !part.is_empty() => request.network = Some(part.to_string()),
            Some(("network", value)) => request.network = Some(value.to_string()),
            Some(("subnet", value)) => request.subnet = Some(value.to_string()),
            Some(("rate", value)) => {
                let rate = port::rate(value);
                request.rate_mbit =
                    Some(rate.map_err(|error| Failure::usage(format!("--network {text}: rate: {error}")))?);
            }
            Some(("port", value)) => request.port = Some(value.to_string()),
            Some(("alias", value)) => {
                let alias = value
                    .parse::<Alias>()
                    .map_err(|error| Failure::usage(format!("--network {text}: alias {value:?}: {error}")))?;
                request.aliases.push(alias);
            }
            Some(("ip" | "address", value)) => {
                let address = value
                    .parse()
                    .map_err(|_| Failure::usage(format!("--network {text}: {value:?} is no address")))?;
                request.address = Some(address);
            }
            _ => {
                return Err(Failure::usage(format!("--network {text}: {part:?} is not understood")).hint(
                    "write NAME, NAME,ip=ADDRESS, subnet=NAME, rate=50m, alias=NAME, port=NAME or none",
                ));
            }
        }
    }
    Ok(Some(request))
}

/// `NAME[:PATH][:ro]`, or `SIZE[:PATH][:keep][:thick]`.
///
/// # Errors
/// A part is not understood, or a path of the host is meant.
pub fn volume(text: &str) -> Result<VolumeRequest> {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    if first.starts_with(['/', '.', '~']) {
        return Err(Failure::usage(format!("--volume {text}: write a directory of the host from / on"))
            .hint("or make a volume: `holm volume create NAME --size 10g`, then --volume NAME:PATH"));
    }
    let mut request = VolumeRequest::default();
    if wording::is_size(first) {
        request.size_gib = Some(wording::parse_gib(first).map_err(Failure::usage)?);
    } else if first.is_empty() {
        return Err(Failure::usage(format!("--volume {text}: name a volume or a size like 10g")));
    } else {
        request.volume = Some(first.to_string());
    }
    for part in parts {
        match part {
            "ro" => request.read_only = true,
            "rw" => request.read_only = false,
            "keep" => request.keep = true,
            "thick" => request.thick = true,
            path if path.starts_with('/') => request.mount_path = Some(path.to_string()),
            other => {
                return Err(Failure::usage(format!("--volume {text}: {other:?} is not understood"))
                    .hint("write NAME[:PATH][:ro], or SIZE[:PATH][:keep][:thick] for a new one"));
            }
        }
    }
    Ok(request)
}

fn user_data(path: &Path) -> Result<String> {
    let mut bytes = vec![];
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(USER_DATA_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(USER_DATA_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|e| Failure::local(format!("cannot read the user-data {}", path.display()), &e))?;
    Ok(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_images() {
        for (image, name) in [
            ("debian:12", "debian-00ff"),
            ("localhost:5000/team/Web_App@sha256:00", "web-app-00ff"),
            ("日本", "instance-00ff"),
        ] {
            assert_eq!(name_for(image, 0xff), name);
        }
    }

    #[test]
    fn networks_and_volumes_are_read() {
        assert_eq!(network("none").unwrap(), None);
        let asked = network("lan,ip=fd00::5").unwrap().unwrap();
        assert_eq!(
            (asked.network.as_deref(), asked.address),
            (Some("lan"), Some("fd00::5".parse().unwrap()))
        );
        let asked = network("lan,alias=db,alias=Main_DB").unwrap().unwrap();
        assert_eq!(asked.aliases.iter().map(|a| a.as_str()).collect::<Vec<_>>(), ["db", "Main_DB"]);
        assert!(network("lan,alias=a b").is_err());
        assert!(network("lan,speed=9").is_err() && network("lan,ip=x").is_err() && network("").is_err());

        let new = volume("10g:/data:keep").unwrap();
        assert_eq!((new.size_gib, new.mount_path.as_deref(), new.keep), (Some(10), Some("/data"), true));
        let old = volume("data:/srv:ro").unwrap();
        assert_eq!((old.volume.as_deref(), old.read_only), (Some("data"), true));
        assert!(volume("/host:/x").is_err() && volume("data:x").is_err() && volume("").is_err());
    }

    #[test]
    fn extra_hosts_are_read() {
        let host = extra_host("db.example=fd00::1").unwrap();
        assert_eq!((host.name.as_str(), host.address), ("db.example", "fd00::1".parse().unwrap()));
        for wrong in ["db", "db=", "=10.0.0.1", "a b=10.0.0.1", "db=host"] {
            assert!(extra_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn own_variables_are_passed_on() {
        let own = |key: &str| (key == "HOME").then(|| "/root".to_string());
        let all = environment(&["A=b=c".into(), "HOME".into(), "E=".into()], &own).unwrap();
        assert_eq!(all["A"], "b=c");
        assert_eq!(all["HOME"], "/root");
        assert_eq!(all["E"], "");
        assert!(environment(&["NONE".into()], &own).is_err());
        assert!(environment(&["=x".into()], &own).is_err());
    }
}
