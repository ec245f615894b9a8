//! What `docker inspect` shows of a container, put together from the records.

use super::{
    found::{self, Found},
    health, memory,
    publish::{self, PortKey, write_key},
    state, usage,
};
use crate::{
    app::Asker,
    docker::{door::Door, id, network, query::Query},
    error::Result,
    v1::types::restart,
};
use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use model::{
    instance::{
        ContainerSpec, State as Seen,
        content::Shows,
        isolation::Isolation,
        succession::{Inherited, Succession},
        ulimit::{Resource, Ulimit},
    },
    network::Network,
    plan::RestartPolicy,
    port::Port,
    publish::Publish,
    volume::Volume,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, net::IpAddr};

/// GET of one.
pub async fn inspect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = found::find(&door, &caller, &name)?;
    let mut view = whole(&door, &found);
    if query.flag("size") {
        let (written, all) = usage::sizes(&door, &found).await;
        (view["SizeRw"], view["SizeRootFs"]) = (written.into(), all.into());
    }
    Ok(Json(view))
}

fn whole(door: &Door, found: &Found) -> Value {
    let instance = found.instance();
    let argv = argv(door, found);
    let (path, arguments) =
        argv.split_first().map_or((String::new(), vec![]), |(p, a)| (p.clone(), a.to_vec()));
    json!({
        "Id": id::of(found.id()),
        "Created": instance.meta.created_at.to_string(),
        "Path": path,
        "Args": arguments,
        "State": state_view(found),
        "Image": image_id(door, found),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": format!("/{}", found.name()),
        "RestartCount": found.fact("restarts").and_then(Value::as_u64).unwrap_or(0),
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Some(door.execs().running(found.id())).filter(|ids| !ids.is_empty()),
        "HostConfig": host_config(door, found),
        "GraphDriver": {"Name": "overlay2", "Data": null},
        "Mounts": mounts(door, found),
        "Config": config(door, found),
        "NetworkSettings": network_settings(door, found),
    })
}

fn state_view(found: &Found) -> Value {
    let (started, finished) = match found.state() {
        Seen::Running { since } | Seen::Paused { since } => {
            // What runs in it may have been started again since the instance was.
            let last = ["since_ms", "started_ms"].iter().find_map(|name| found.fact(name)?.as_i64());
            let last = last.and_then(|ms| Timestamp::from_millisecond(ms).ok());
            (last.unwrap_or(*since).to_string(), state::NEVER.to_string())
        }
        Seen::Stopped { at, .. } => {
            let started = found.last_start();
            (started.map_or_else(|| state::NEVER.to_string(), |at| at.to_string()), at.to_string())
        }
        Seen::Absent => (state::NEVER.to_string(), state::NEVER.to_string()),
    };
    let not_started = found.not_started();
    let fault = found.status().and_then(|status| status.fault_of(found.instance()));
    let error = not_started.map(|reason| reason.message).or(fault.map(|fault| fault.message.clone()));
    let oom_killed =
        matches!(found.state(), Seen::Stopped { cause, .. } if cause.starts_with("killed by the OOM killer"));
    let pid = found.fact("pid").and_then(Value::as_u64).filter(|_| found.is_alive());
    let mut view = json!({
        "Status": state::word(found),
        "Running": found.is_alive(),
        "Paused": found.is_paused(),
        "Restarting": found.is_restarting(),
        "OOMKilled": oom_killed,
        "Dead": false,
        "Pid": pid.unwrap_or(0),
        "ExitCode": state::exit_code(found),
        "Error": error.unwrap_or_default(),
        "StartedAt": started,
        "FinishedAt": finished,
    });
    if let Some(health) = found.health() {
        view["Health"] = health::view(health);
    }
    view
}

/// Program and arguments, as they are put together from the image and the request.
pub fn argv(door: &Door, found: &Found) -> Vec<String> {
    let spec = found.spec();
    let image = found.content(door).and_then(|content| content.oci).unwrap_or_default();
    let entrypoint = spec.entrypoint.clone().unwrap_or(image.entrypoint);
    let args = match (&spec.args, &spec.entrypoint) {
        (Some(args), _) => args.clone(),
        (None, Some(_)) => vec![],
        (None, None) => image.cmd,
    };
    entrypoint.into_iter().chain(args).collect()
}

/// What its image is called, as short as can be.
pub fn image_name(door: &Door, found: &Found) -> String {
    let Some(image) = found.image(door) else { return String::new() };
    match image.record.reference() {
        Some(reference) => {
            let name = reference.familiar();
            name.strip_suffix(":latest").unwrap_or(&name).to_string()
        }
        // One that has no name any more is called by its id, as docker does.
        None => image_id(door, found).trim_start_matches("sha256:").chars().take(id::SHORT_DIGITS).collect(),
    }
}

/// Docker's id of its image.
pub fn image_id(door: &Door, found: &Found) -> String {
    found.content(door).and_then(|content| content.oci).map(|oci| oci.config_digest).unwrap_or_default()
}

/// Ports that its image names.
pub fn exposed(door: &Door, found: &Found) -> BTreeSet<PortKey> {
    let oci = found.content(door).and_then(|content| content.oci).unwrap_or_default();
    oci.exposed_ports.iter().filter_map(|text| publish::read_key(text).ok()).collect()
}

/// Volumes that it sees.
pub fn mounts(door: &Door, found: &Found) -> Vec<Value> {
    let mount = |volume: &Volume, path: String, is_read_only: bool| {
        Some(json!({
            "Type": "volume",
            "Name": volume.meta.name,
            "Source": "",
            "Destination": path,
            "Driver": "local",
            "Mode": if is_read_only { "ro" } else { "" },
            "RW": !is_read_only,
            "Propagation": "",
        }))
    };
    let of = |id| {
        let stored = door.control().get::<Volume>(id)?;
        mount(&stored.record, stored.record.mount_path.clone()?, stored.record.attached_read_only)
    };
    // What it takes over with its start is its own already, to those who asked for it.
    let later = |inherited: &Inherited| {
        let stored = door.control().get::<Volume>(inherited.volume)?;
        mount(&stored.record, inherited.mount_path.clone()?, inherited.read_only)
    };
    let all = lent(found).chain(found.instance().volumes.iter().filter_map(|id| of(*id)));
    all.chain(pending(found).flat_map(|succession| succession.volumes.iter().filter_map(later))).collect()
}

/// Directories of the host that it sees.
fn lent(found: &Found) -> impl Iterator<Item = Value> {
    found.spec().mounts.iter().filter_map(|mount| {
        let Shows::Host { path, .. } = &mount.shows else { return None };
        Some(json!({
            "Type": "bind",
            "Source": path,
            "Destination": mount.path,
            "Mode": if mount.read_only { "ro" } else { "" },
            "RW": !mount.read_only,
            "Propagation": "rprivate",
        }))
    })
}

fn pending(found: &Found) -> impl Iterator<Item = &Succession> {
    found.instance().succession.iter()
}

fn ports(door: &Door, found: &Found) -> Vec<Port> {
    door.control().ports_of(&found.instance().ports)
}

/// The network that `docker run --network` would name.
pub fn network_mode(door: &Door, found: &Found) -> String {
    match ports(door, found).first() {
        Some(port) => network::name_of(door, port.network),
        None => "none".into(),
    }
}

/// Its networks by docker's names, with its addresses.
pub fn networks(door: &Door, found: &Found) -> Map<String, Value> {
    let mut all = Map::new();
    for port in ports(door, found) {
        all.insert(network::name_of(door, port.network), endpoint(door, found, &port));
    }
    if all.is_empty() {
        all.insert("none".into(), json!({"NetworkID": "", "EndpointID": "", "IPAddress": "", "Gateway": ""}));
    }
    all
}

fn endpoint(door: &Door, found: &Found, port: &Port) -> Value {
    let control = door.control();
    let of = |v4: bool| {
        let fixed = port.addresses.iter().find(|fixed| fixed.address.is_ipv4() == v4)?;
        let subnet = control.subnet(fixed.subnet)?;
        Some((fixed.address, subnet.record.cidr.prefix_len(), subnet.record.gateway))
    };
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |a| a.to_string());
    let (v4, v6) = (of(true), of(false));
    let network = control.get::<Network>(port.network);
    let own = [found.name().to_string(), id::short(found.id())];
    let names: Vec<String> = own.into_iter().chain(port.aliases.iter().map(ToString::to_string)).collect();
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": Some(&port.aliases).filter(|aliases| !aliases.is_empty()),
        "MacAddress": port.mac.to_string(),
        "DriverOpts": null,
        "NetworkID": network.map_or_else(String::new, |n| id::of(n.record.meta.id)),
        "EndpointID": id::of(port.meta.id),
        "Gateway": text(v4.and_then(|(_, _, gateway)| gateway)),
        "IPAddress": text(v4.map(|(address, ..)| address)),
        "IPPrefixLen": v4.map_or(0, |(_, length, _)| length),
        "IPv6Gateway": text(v6.and_then(|(_, _, gateway)| gateway)),
        "GlobalIPv6Address": text(v6.map(|(address, ..)| address)),
        "GlobalIPv6PrefixLen": v6.map_or(0, |(_, length, _)| length),
        "DNSNames": names,
    })
}

fn network_settings(door: &Door, found: &Found) -> Value {
    let networks = networks(door, found);
    let first = networks.get("bridge").cloned().unwrap_or_default();
    let of_bridge = |name: &str| first.get(name).cloned().unwrap_or_else(|| json!(""));
    let published = if found.is_alive() {
        publish::mapped(&found.instance().publish, &exposed(door, found), true)
    } else {
        json!({})
    };
    json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "Ports": published,
        "EndpointID": of_bridge("EndpointID"),
        "Gateway": of_bridge("Gateway"),
        "IPAddress": of_bridge("IPAddress"),
        "IPPrefixLen": first.get("IPPrefixLen").cloned().unwrap_or_else(|| json!(0)),
        "IPv6Gateway": of_bridge("IPv6Gateway"),
        "GlobalIPv6Address": of_bridge("GlobalIPv6Address"),
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen").cloned().unwrap_or_else(|| json!(0)),
        "MacAddress": of_bridge("MacAddress"),
        "Networks": networks,
    })
}

pub fn config(door: &Door, found: &Found) -> Value {
    let spec = found.spec();
    let image = found.content(door).and_then(|content| content.oci).unwrap_or_default();
    let set = |keys: &mut dyn Iterator<Item = String>| -> Map<String, Value> {
        keys.map(|key| (key, json!({}))).collect()
    };
    let own: BTreeSet<PortKey> = found.instance().publish.iter().map(|p| (p.protocol, p.port)).collect();
    let exposed: BTreeSet<PortKey> = exposed(door, found).union(&own).copied().collect();
    let words = |asked: &Option<Vec<String>>, image: &[String]| match asked {
        Some(words) => json!(words),
        None if image.is_empty() => Value::Null,
        None => json!(image),
    };
    let cmd = if spec.entrypoint.is_some() { words(&spec.args, &[]) } else { words(&spec.args, &image.cmd) };
    let mut labels = image.labels.clone();
    labels.extend(found.instance().meta.labels.clone());
    let hostname = model::name::dns_label(found.name(), &id::short(found.id()));
    let mut view = json!({
        "Hostname": spec.hostname.clone().unwrap_or(hostname),
        "Domainname": "",
        "User": spec.user.clone().unwrap_or(image.user),
        "AttachStdin": spec.stdin_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(&mut exposed.into_iter().map(write_key)),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "StdinOnce": spec.stdin_once,
        "Env": environment(spec, &image.env),
        "Cmd": cmd,
        "Image": image_name(door, found),
        "Volumes": set(&mut image.volumes.iter().cloned()),
        "WorkingDir": spec.working_dir.clone().unwrap_or(image.working_dir),
        "Entrypoint": words(&spec.entrypoint, &image.entrypoint),
        "OnBuild": null,
        "Labels": labels,
        "StopSignal": spec.stop_signal.clone().unwrap_or(image.stop_signal),
        "StopTimeout": found.instance().grace_s,
    });
    if let Some(asked) = door.control().health_asked(spec) {
        view["Healthcheck"] = health::check_view(&asked);
    }
    view
}

fn environment(spec: &ContainerSpec, image: &[String]) -> Vec<String> {
    let kept = image.iter().filter(|pair| !spec.env.contains_key(pair.split('=').next().unwrap_or(pair)));
    let own = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    own.chain(kept.cloned()).collect()
}

/// Docker's numbers have a sign, and none stands for no limit.
fn ulimits(spec: &ContainerSpec) -> Vec<Value> {
    let number = |value: u64| i64::try_from(value).unwrap_or(-1);
    let told = |(resource, limit): (&Resource, &Ulimit)| json!({"Name": resource.name(), "Soft": number(limit.soft), "Hard": number(limit.hard)});
    spec.ulimits.iter().map(told).collect()
}

fn host_config(door: &Door, found: &Found) -> Value {
    let (instance, spec) = (found.instance(), found.spec());
    let nanos =
        spec.cpu_millis.map_or(u64::from(instance.size.vcpus) * 1_000_000_000, |m| u64::from(m) * 1_000_000);
    let (policy, retries) = match spec.restart {
        RestartPolicy::OnFailure { retries_max } => ("on-failure".to_string(), retries_max),
        other => (restart::to_text(other), 0),
    };
    let binds: Vec<String> = mounts(door, found)
        .iter()
        .filter_map(|mount| {
            let source = mount["Name"].as_str().or(mount["Source"].as_str())?;
            Some(format!("{source}:{}", mount["Destination"].as_str()?))
        })
        .collect();
    let extra_hosts: Vec<String> =
        instance.extra_hosts.iter().map(|host| format!("{}:{}", host.name, host.address)).collect();
    let later = pending(found).flat_map(|succession| succession.publish.iter().copied());
    let publish: Vec<Publish> = instance.publish.iter().copied().chain(later).collect();
    let dns = instance.shared.dns.clone().unwrap_or_default();
    let own_kernel = Some(instance.isolation).filter(|it| !it.is_shared()).map(Isolation::as_str);
    let groups: Vec<String> = spec.groups.iter().map(ToString::to_string).collect();
    json!({
        "Binds": binds,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": spec.log.size_bytes_max.to_string(), "max-file": spec.log.files_max.to_string()}},
        "NetworkMode": network_mode(door, found),
        "PortBindings": publish::mapped(&publish, &BTreeSet::new(), false),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
        "AutoRemove": instance.remove_on_exit,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "CgroupnsMode": "private",
        "Dns": dns.servers,
        "DnsOptions": dns.options,
        "DnsSearch": dns.search,
        "ExtraHosts": Some(extra_hosts).filter(|hosts| !hosts.is_empty()),
        "GroupAdd": Some(groups).filter(|groups| !groups.is_empty()),
        "Init": spec.init.then_some(true),
        "IpcMode": "private",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": false,
        "PublishAllPorts": false,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": memory::told(&spec.tmpfs, &spec.memory_mounts),
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": spec.shm_bytes.unwrap_or(64 << 20),
        "Isolation": own_kernel.unwrap_or_default(),
        "Runtime": own_kernel.unwrap_or("holm"),
        "CpuShares": u64::from(instance.cpu_weight) * 1024 / 100,
        "Memory": instance.size.memory_mib << 20,
        "NanoCpus": nanos,
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpusetCpus": "",
        "Devices": [],
        "PidsLimit": spec.pids_max,
        "Ulimits": ulimits(spec),
        "StorageOpt": (instance.size.disk_gib > 0).then(|| json!({"size": format!("{}G", instance.size.disk_gib)})),
    })
}
