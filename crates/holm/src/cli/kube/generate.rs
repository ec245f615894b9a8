//! `holm kube generate`: an instance as a Pod that can be played again.
//!
//! What is sealed is not told, so a Secret that has to be there is named instead of its values.

use crate::cli::{
    failure::{Failure, Result},
    output,
    session::Session,
};
use api::v1::types::{
    instance::{Container, Instance},
    pod::{FileName, HttpProbe, LifecycleHook, Probe},
};
use model::{
    error::Code,
    instance::{Kind, content::Role},
    plan::RestartPolicy,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Prints it.
///
/// # Errors
/// It is no instance of containers, or the server refuses.
pub async fn generate(session: &Session, name: &str) -> Result {
    let instance: Instance = session.client.get(name).await?;
    if instance.kind != Kind::Container {
        let message = format!("{name} is a {}: a Pod is made of containers", instance.kind.as_str());
        return Err(Failure::new(Code::Invalid, message));
    }
    for lost in lost(&instance) {
        session.warn(format!("{lost} is not told: a Pod has no words for it"));
    }
    for secret in secrets(&instance) {
        session.warn(format!("the Secret {secret} is named and not told: put it before the pod"));
    }
    output::write(output::yaml(&pod(&instance))?.as_bytes())
}

/// What the instance has and no Pod can say.
fn lost(instance: &Instance) -> Vec<String> {
    let mut all = vec![];
    if instance.ports.len() != 1 {
        all.push(format!("that it has {} network interfaces", instance.ports.len()));
    }
    if instance.size.disk_gib > 0 {
        all.push(format!("the limit of {} GiB for its own files", instance.size.disk_gib));
    }
    if let Some(times) = &instance.schedule {
        all.push(format!("that it is started at {times}"));
    }
    for it in &instance.containers {
        let is_number = |user: &String| user.split(':').all(|part| part.parse::<u32>().is_ok());
        if let Some(user) = it.user.as_ref().filter(|user| !user.is_empty() && !is_number(user)) {
            all.push(format!("the user {user} of {}, who has no number,", it.name));
        }
        if it.init {
            all.push(format!("the init of {}", it.name));
        }
        if it.shm_bytes.is_some() {
            all.push(format!("the size of the shared memory of {}", it.name));
        }
        if it.restart == RestartPolicy::OnUnhealthy {
            all.push(format!("that {} is started again when it is unhealthy", it.name));
        }
        if it.health_check.is_some() {
            all.push(format!("the health check of {}", it.name));
        }
        if matches!(it.restart, RestartPolicy::OnFailure { retries_max: 1.. }) {
            all.push(format!("how often {} is started again", it.name));
        }
    }
    all
}

/// Names of Secrets that the pod needs.
fn secrets(instance: &Instance) -> Vec<String> {
    let of_env = instance.containers.iter().any(|it| !it.secret_env.is_empty());
    let of_env = of_env.then(|| env_secret(instance));
    of_env.into_iter().chain(instance.files.iter().map(|set| set.name.clone())).collect()
}

fn env_secret(instance: &Instance) -> String {
    format!("{}-env", instance.head.name)
}

fn pod(instance: &Instance) -> Value {
    let mut labels = instance.head.labels.clone();
    labels.retain(|key, _| key != super::OBJECT && key != super::DIGEST);
    let mut metadata = json!({"name": instance.head.name});
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    let (first, main): (Vec<_>, Vec<_>) = instance.containers.iter().partition(|it| !it.role.is_main());
    let of = |all: &[&Container]| all.iter().map(|it| container(instance, it)).collect::<Vec<Value>>();
    let restart = match main.first().map(|it| it.restart) {
        Some(RestartPolicy::Always | RestartPolicy::UnlessStopped) => "Always",
        Some(RestartPolicy::OnFailure { .. } | RestartPolicy::OnUnhealthy) => "OnFailure",
        _ => "Never",
    };
    let mut spec = json!({
        "containers": of(&main),
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": instance.grace_s,
    });
    put(&mut spec, "initContainers", json!(of(&first)));
    put(&mut spec, "hostname", json!(instance.containers.iter().find_map(|it| it.hostname.as_ref())));
    put(&mut spec, "volumes", json!(volumes(instance)));
    put(&mut spec, "shareProcessNamespace", instance.shared.processes.into());
    if !instance.isolation.is_shared() {
        put(&mut spec, "runtimeClassName", instance.isolation.as_str().into());
    }
    put(&mut spec, "securityContext", pod_security(instance));
    names(&mut spec, instance);
    let aliases = instance.extra_hosts.iter();
    let aliases = aliases.map(|host| json!({"ip": host.address, "hostnames": [host.name]}));
    put(&mut spec, "hostAliases", Value::Array(aliases.collect()));
    if let Some(first) = spec["containers"].get_mut(0) {
        let ports = instance.publish.iter().map(|port| {
            let mut told = json!({"containerPort": port.port, "hostPort": port.host_port});
            told["protocol"] = port.protocol.to_uppercase().into();
            if let Some(address) = port.address {
                told["hostIP"] = json!(address);
            }
            told
        });
        put(first, "ports", Value::Array(ports.collect()));
        // The pod's size is that of its containers together; what they do not say is the first one's.
        let others = instance.containers.iter().filter(|it| it.role != Role::Init).skip(1);
        let others: u64 = others.map(|it| it.memory_mib.unwrap_or(512)).sum();
        let memory = format!("{}Mi", instance.size.memory_mib.saturating_sub(others).max(1));
        let mut resources = first.get("resources").cloned().unwrap_or_else(|| json!({}));
        resources["requests"] = json!({"cpu": instance.size.vcpus.to_string(), "memory": memory});
        first["resources"] = resources;
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// How names are looked up, where that is not as usual.
fn names(spec: &mut Value, instance: &Instance) {
    let Some(dns) = &instance.shared.dns else { return };
    if dns.instead {
        spec["dnsPolicy"] = "None".into();
    }
    let options = dns.options.iter().map(|option| match option.split_once(':') {
        Some((name, value)) => json!({"name": name, "value": value}),
        None => json!({"name": option}),
    });
    let mut config = json!({});
    put(&mut config, "nameservers", json!(dns.servers));
    put(&mut config, "searches", json!(dns.search));
    put(&mut config, "options", Value::Array(options.collect()));
    put(spec, "dnsConfig", config);
}

/// Groups are the pod's, if all of its containers have them.
fn pod_security(instance: &Instance) -> Value {
    let mut told = json!({});
    let group = instance.containers.iter().flat_map(|it| &it.mounts).find_map(|mount| {
        let gid = mount.group?;
        Some((gid, mount.group_once))
    });
    if let Some((gid, once)) = group {
        told["fsGroup"] = gid.into();
        if once {
            told["fsGroupChangePolicy"] = "OnRootMismatch".into();
        }
    }
    let groups = instance.containers.first().map(|it| it.groups.clone()).unwrap_or_default();
    let others: Vec<u32> =
        groups.into_iter().filter(|gid| group.is_none_or(|(own, _)| own != *gid)).collect();
    put(&mut told, "supplementalGroups", json!(others));
    told
}

/// Puts what says something.
fn put(into: &mut Value, name: &str, value: Value) {
    let is_empty = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if !is_empty {
        into[name] = value;
    }
}

fn container(instance: &Instance, it: &Container) -> Value {
    let image = it.image.as_ref().map(|image| image.name.clone());
    let mut told = json!({"name": it.name, "image": image});
    let escape = |value: &String| value.replace('$', "$$");
    let words =
        |all: &Option<Vec<String>>| all.as_ref().map(|all| all.iter().map(escape).collect::<Vec<_>>());
    put(&mut told, "command", json!(words(&it.entrypoint)));
    put(&mut told, "args", json!(words(&it.args)));
    let plain = it.env.iter().map(|(name, value)| json!({"name": name, "value": escape(value)}));
    let secret = it.secret_env.iter().map(|name| {
        json!({"name": name, "valueFrom": {"secretKeyRef": {"name": env_secret(instance), "key": name}}})
    });
    put(&mut told, "env", Value::Array(plain.chain(secret).collect()));
    put(&mut told, "workingDir", json!(it.working_dir));
    put(&mut told, "tty", it.tty.into());
    put(&mut told, "stdin", it.stdin_open.into());
    if it.role == Role::Sidecar {
        told["restartPolicy"] = "Always".into();
    }
    put(&mut told, "securityContext", security(it));
    let mut limits = json!({});
    put(&mut limits, "cpu", json!(it.cpu_millis.map(|millis| format!("{millis}m"))));
    put(&mut limits, "memory", json!(it.memory_mib.map(|mib| format!("{mib}Mi"))));
    if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
        told["resources"] = json!({"limits": limits});
    }
    put(&mut told, "volumeMounts", json!(mounts(instance, it)));
    let mut hooks = json!({});
    put(&mut hooks, "postStart", it.lifecycle.post_start.as_ref().map_or(Value::Null, hook));
    put(&mut hooks, "preStop", it.lifecycle.pre_stop.as_ref().map_or(Value::Null, hook));
    put(&mut told, "lifecycle", hooks);
    for (name, asked) in [
        ("startupProbe", &it.probes.startup),
        ("readinessProbe", &it.probes.readiness),
        ("livenessProbe", &it.probes.liveness),
    ] {
        put(&mut told, name, asked.as_ref().map_or(Value::Null, probe));
    }
    told
}

fn security(it: &Container) -> Value {
    let mut told = json!({});
    let (user, group) = it
        .user
        .as_deref()
        .unwrap_or_default()
        .split_once(':')
        .unwrap_or((it.user.as_deref().unwrap_or_default(), ""));
    put(&mut told, "runAsUser", json!(user.parse::<u32>().ok()));
    put(&mut told, "runAsGroup", json!(group.parse::<u32>().ok()));
    put(&mut told, "readOnlyRootFilesystem", it.read_only.into());
    let mut capabilities = json!({});
    put(&mut capabilities, "add", json!(it.cap_add));
    put(&mut capabilities, "drop", json!(it.cap_drop));
    put(&mut told, "capabilities", capabilities);
    told
}

/// The word by which a volume is meant in the file.
fn name_of(volume: &api::v1::types::instance::InstanceVolume) -> String {
    volume.tag.as_ref().map_or_else(|| volume.name.clone(), ToString::to_string)
}

fn mounts(instance: &Instance, it: &Container) -> Vec<Value> {
    let own = it.mounts.iter().map(|mount| {
        let tag = mount.volume.as_ref().or(mount.files.as_ref()).map(ToString::to_string);
        let name = tag.or_else(|| mount.host.as_deref().map(host_name));
        let mut told = json!({"name": name, "mountPath": mount.path});
        put(&mut told, "subPath", json!(mount.sub_path));
        put(&mut told, "readOnly", mount.read_only.into());
        told
    });
    let everywhere = instance.volumes.iter().filter_map(|volume| {
        Some(json!({"name": name_of(volume), "mountPath": volume.mount_path.as_ref()?}))
    });
    let memory = memory_paths(it).map(|(path, _)| json!({"name": memory_name(it, path), "mountPath": path}));
    own.chain(everywhere).chain(memory).collect()
}

/// The word by which a directory of the host is meant in the file.
fn host_name(path: &str) -> String {
    model::name::dns_label(&format!("host{path}"), "host")
}

/// Mounts kept in memory, and their sizes where they have such.
fn memory_paths(it: &Container) -> impl Iterator<Item = (&String, Option<u64>)> {
    let limited = it.memory_mounts.iter().map(|mount| (&mount.path, mount.size_bytes));
    it.tmpfs.iter().map(|path| (path, None)).chain(limited)
}

fn memory_name(it: &Container, path: &str) -> String {
    model::name::dns_label(&format!("{}-{path}", it.name), "memory")
}

fn volumes(instance: &Instance) -> Vec<Value> {
    let disks = instance.volumes.iter().map(|volume| match volume.delete_with_instance {
        true => json!({"name": name_of(volume), "emptyDir": {"sizeLimit": format!("{}Gi", volume.size_gib)}}),
        false => json!({"name": name_of(volume), "persistentVolumeClaim": {"claimName": volume.name}}),
    });
    let files = instance.files.iter().map(|set| {
        // A key has no slashes.
        let item = |file: &FileName| json!({"key": file.path.replace('/', "."), "path": file.path, "mode": file.mode});
        let items: Vec<Value> = set.files.iter().map(item).collect();
        json!({"name": set.name, "secret": {"secretName": set.name, "items": items}})
    });
    let memory = instance.containers.iter().flat_map(|it| {
        memory_paths(it).map(|(path, size_bytes)| {
            let mut kept = json!({"medium": "Memory"});
            put(&mut kept, "sizeLimit", json!(size_bytes.map(|bytes| format!("{}Ki", bytes.div_ceil(1024)))));
            json!({"name": memory_name(it, path), "emptyDir": kept})
        })
    });
    let lent: BTreeMap<String, Value> = instance
        .containers
        .iter()
        .flat_map(|it| &it.mounts)
        .filter_map(|mount| {
            let path = mount.host.as_deref()?;
            let kind = if mount.host_exists { "Directory" } else { "DirectoryOrCreate" };
            Some((
                host_name(path),
                json!({"name": host_name(path), "hostPath": {"path": path, "type": kind}}),
            ))
        })
        .collect();
    disks.chain(files).chain(memory).chain(lent.into_values()).collect()
}

/// Times become whole seconds, rounded up.
fn probe(asked: &Probe) -> Value {
    let seconds = |ms: u64| ms.div_ceil(1_000);
    let mut told = Map::from_iter([
        ("initialDelaySeconds".to_string(), json!(seconds(asked.delay_ms))),
        ("periodSeconds".to_string(), json!(seconds(asked.interval_ms))),
        ("timeoutSeconds".to_string(), json!(seconds(asked.timeout_ms))),
        ("successThreshold".to_string(), json!(asked.successes)),
        ("failureThreshold".to_string(), json!(asked.failures)),
    ]);
    if let Some(argv) = &asked.exec {
        told.insert("exec".into(), json!({"command": argv}));
    }
    if let Some(port) = asked.tcp {
        told.insert("tcpSocket".into(), json!({"port": port}));
    }
    if let Some(page) = &asked.http {
        told.insert("httpGet".into(), http(page));
    }
    if let Some(asked) = &asked.grpc {
        let mut grpc = json!({"port": asked.port});
        put(&mut grpc, "service", json!(asked.service));
        told.insert("grpc".into(), grpc);
    }
    Value::Object(told)
}

fn http(page: &HttpProbe) -> Value {
    let headers = page.headers.iter().map(|(name, value)| json!({"name": name, "value": value}));
    let mut http = json!({"port": page.port, "path": page.path});
    put(&mut http, "httpHeaders", Value::Array(headers.collect()));
    if page.tls {
        http["scheme"] = "HTTPS".into();
    }
    http
}

fn hook(asked: &LifecycleHook) -> Value {
    let mut told = json!({});
    put(&mut told, "exec", asked.exec.as_ref().map_or(Value::Null, |argv| json!({"command": argv})));
    put(&mut told, "tcpSocket", asked.tcp.map_or(Value::Null, |port| json!({"port": port})));
    put(&mut told, "httpGet", asked.http.as_ref().map_or(Value::Null, http));
    put(&mut told, "sleep", asked.sleep_s.map_or(Value::Null, |seconds| json!({"seconds": seconds})));
    told
}
