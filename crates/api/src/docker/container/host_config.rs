//! What is asked of a new container's surroundings (`HostConfig`): read, checked, and what is not honoured refused.

use crate::{
    docker::refusal::not_honoured,
    error::{Failure, Result},
    v1::types::restart,
};
use model::{
    error::Code,
    instance::{
        isolation::Isolation,
        pod::Dns,
        ulimit::{Resource, Ulimit, Ulimits},
    },
    plan::{LogLimits, RestartPolicy},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
/// Least memory of a container in bytes, as docker has it.
const MEMORY_BYTES_MIN: u64 = 6 * MIB;
/// CPU time is given in billionths of a CPU.
const NANOS_PER_CPU: u64 = 1_000_000_000;
/// Docker's weight of a container that asks for none; holm's is 100.
const CPU_SHARES_USUAL: u64 = 1_024;

/// What a client sends. What is not named here must be empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Volumes and directories, as `NAME:/path[:ro]`.
    pub binds: Option<Vec<String>>,
    /// The same in full.
    pub mounts: Option<Vec<Mount>>,
    /// `default`, `bridge`, `none`, or a network.
    pub network_mode: String,
    /// Ports of the host that lead to it.
    pub port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    /// Publish all ports that the image names.
    pub publish_all_ports: bool,
    /// What happens when it ends.
    pub restart_policy: Option<Restart>,
    /// Remove it when it ends.
    pub auto_remove: bool,
    /// Capabilities beside the default ones.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities less than the default ones.
    pub cap_drop: Option<Vec<String>>,
    /// Nothing can be written to the root.
    pub readonly_rootfs: bool,
    /// Paths kept in memory, with options.
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Bytes.
    pub memory: i64,
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Microseconds of CPU time in each period.
    pub cpu_quota: i64,
    /// That period in microseconds.
    pub cpu_period: i64,
    /// Weight when CPUs are short; 1024 is usual.
    pub cpu_shares: i64,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
    /// What its files may take: `size`, like `10G`.
    pub storage_opt: Option<BTreeMap<String, String>>,
    /// How its output is kept.
    pub log_config: Option<LogConfig>,
    /// Security options, like `no-new-privileges`.
    pub security_opt: Option<Vec<String>>,
    /// Size of the client's terminal: rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Where the client keeps the id.
    #[serde(rename = "ContainerIDFile")]
    pub _container_id_file: Option<String>,
    /// How it is kept from memory: -1 is the kernel's usual.
    pub memory_swappiness: Option<i64>,
    /// Namespaces that may be private, which they are.
    pub cgroupns_mode: String,
    /// The same for shared memory.
    pub ipc_mode: String,
    /// Containers that are to be known by further names: `CONTAINER[:NAME]`.
    pub links: Option<Vec<String>>,
    /// Limits of its processes.
    pub ulimits: Option<Vec<UlimitAsked>>,
    /// Names for /etc/hosts: `NAME:ADDRESS`, with `host-gateway` for the host itself.
    pub extra_hosts: Option<Vec<String>>,
    /// A small init comes before its program.
    pub init: Option<bool>,
    /// Bytes of `/dev/shm`; 0 is as usual.
    pub shm_size: i64,
    /// Name servers, instead of those of its networks.
    pub dns: Option<Vec<String>>,
    /// Domains in which names are looked up.
    pub dns_search: Option<Vec<String>>,
    /// Options of the resolver.
    pub dns_options: Option<Vec<String>>,
    /// Groups of its user beside those of the image.
    pub group_add: Option<Vec<String>>,
    /// `vm` for a kernel of its own; nothing or `default` for the host's.
    pub isolation: String,
    /// The same as the name of a runtime: `vm` or `holm`.
    pub runtime: String,
    /// All else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A volume or a file system in memory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `volume`, `bind` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the volume.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
    /// Writes are refused.
    pub read_only: bool,
    /// All else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A port of the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address; all when empty.
    pub host_ip: String,
    /// Port; a free one when empty.
    pub host_port: String,
}

/// A restart policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Restart {
    /// `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`.
    pub maximum_retry_count: u32,
}

/// A limit of processes; -1 is none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UlimitAsked {
    /// What is limited, like `nofile`.
    pub name: String,
    /// What holds.
    pub soft: i64,
    /// How far a process may raise it.
    pub hard: i64,
}

/// How output is kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// Driver.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its options.
    pub config: Option<BTreeMap<String, String>>,
}

/// CPU and memory as holm has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Whole CPUs.
    pub vcpus: Option<u32>,
    /// Thousandths of these, where it is less.
    pub cpu_millis: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Weight.
    pub cpu_weight: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// What its own files may take, in GiB.
    pub disk_gib: Option<u64>,
}

/// Whether a value says nothing: what clients send for all that a user did not set.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.values().all(is_empty),
    }
}

/// Refuses the first field that says something and is not read.
///
/// # Errors
/// `invalid`, with the field.
pub fn refuse_rest(rest: &Map<String, Value>, path: &str) -> Result<()> {
    match rest.iter().find(|(_, value)| !is_empty(value)) {
        Some((name, value)) => {
            let value = value.to_string();
            let why = format!("it was set to {value:.100}");
            Err(not_honoured(&format!("{path}{name}"), why))
        }
        None => Ok(()),
    }
}

impl HostConfig {
    /// Refuses what is not honoured.
    ///
    /// # Errors
    /// `invalid`, with the field and what to do.
    pub fn check(&self) -> Result<()> {
        let set = |name: &str| self.rest.get(name).is_some_and(|value| !is_empty(value));
        for (name, why) in [
            (
                "Privileged",
                "a container of holm is never root on its host; name the capabilities it needs (--cap-add)",
            ),
            ("Devices", "devices of the host are not given to containers"),
            ("DeviceRequests", "devices of the host are not given to containers"),
            ("VolumesFrom", "a volume belongs to one container at a time"),
        ] {
            if set(name) {
                return Err(not_honoured(name, why));
            }
        }
        if self.memory_swappiness.is_some_and(|value| value != -1 && value != 0) {
            return Err(not_honoured("MemorySwappiness", "containers do not swap"));
        }
        for (name, mode) in [("CgroupnsMode", &self.cgroupns_mode), ("IpcMode", &self.ipc_mode)] {
            if !matches!(mode.as_str(), "" | "private" | "shareable") {
                return Err(not_honoured(name, "a container has namespaces of its own"));
            }
        }
        self.isolation()?;
        for option in self.security_opt.iter().flatten() {
            // Containers of holm never gain privileges, so that asking for it changes nothing.
            if !matches!(
                option.as_str(),
                "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true"
            ) {
                return Err(not_honoured(
                    "SecurityOpt",
                    format!("{option:?}: holm's own profile holds for all containers"),
                ));
            }
        }
        refuse_rest(&self.rest, "")
    }

    /// What stands between it and the host: docker has two ways to ask for it, and either will do.
    ///
    /// # Errors
    /// `invalid` for any other isolation and runtime than holm has.
    pub fn isolation(&self) -> Result<Isolation> {
        let has = "holm (the host's kernel, the usual one) and vm (a kernel of its own)";
        let by_isolation = match self.isolation.as_str() {
            "" | "default" | "shared" => Isolation::Shared,
            "vm" => Isolation::Vm,
            other => {
                let why = format!(
                    "there is no isolation {other:.32?}: default (the host's kernel) and vm (a kernel of its own) are"
                );
                return Err(not_honoured("Isolation", why));
            }
        };
        let by_runtime = match self.runtime.as_str() {
            // What scripts name that ask for docker's own usual one.
            "" | "holm" | "runc" => Isolation::Shared,
            "vm" => Isolation::Vm,
            other => {
                let message = format!("unknown or invalid runtime name: {other:.64}; holm has {has}");
                return Err(Failure::new(Code::Invalid, message));
            }
        };
        Ok(if by_runtime == Isolation::Vm { by_runtime } else { by_isolation })
    }

    /// The size that is asked for.
    ///
    /// # Errors
    /// `invalid`.
    pub fn size(&self) -> Result<Size> {
        let amount = |name: &str, value: i64| {
            u64::try_from(value).map_err(|_| Failure::new(Code::Invalid, format!("invalid {name}: {value}")))
        };
        let memory = amount("Memory", self.memory)?;
        if memory > 0 && memory < MEMORY_BYTES_MIN {
            return Err(Failure::new(Code::Invalid, "Minimum memory limit allowed is 6MB"));
        }
        let (vcpus, cpu_millis) = self.cpus()?;
        let shares = amount("CpuShares", self.cpu_shares)?;
        let weight = (shares * 100).div_ceil(CPU_SHARES_USUAL).clamp(1, 10_000);
        let pids =
            self.pids_limit.filter(|limit| *limit > 0).map(|limit| amount("PidsLimit", limit)).transpose()?;
        Ok(Size {
            vcpus,
            cpu_millis,
            memory_mib: (memory > 0).then(|| memory.div_ceil(MIB)),
            cpu_weight: (shares > 0).then(|| u32::try_from(weight).unwrap_or(100)),
            pids_max: pids,
            disk_gib: self.disk_gib()?,
        })
    }

    fn disk_gib(&self) -> Result<Option<u64>> {
        let mut disk = None;
        for (name, value) in self.storage_opt.iter().flatten() {
            if name != "size" {
                return Err(not_honoured(&format!("StorageOpt {name}"), "the one that holm knows is size"));
            }
            let bytes = parse_bytes(value).filter(|bytes| *bytes > 0);
            let wrong =
                || Failure::new(Code::Invalid, format!("invalid size {value:.32?}: write it like 10G"));
            disk = Some(bytes.ok_or_else(wrong)?.div_ceil(1 << 30));
        }
        Ok(disk)
    }

    /// Whole CPUs, and thousandths where these are not whole.
    fn cpus(&self) -> Result<(Option<u32>, Option<u32>)> {
        let wrong = || {
            Failure::new(
                Code::Invalid,
                "invalid CPU limit: give a part of a CPU like 0.5 or a number of CPUs",
            )
        };
        let period = if self.cpu_period == 0 { 100_000 } else { self.cpu_period };
        let nanos = match (self.nano_cpus, self.cpu_quota) {
            (0, 0 | -1) if self.cpu_period == 0 => return Ok((None, None)),
            (nanos, 0) if nanos > 0 && self.cpu_period == 0 => u64::try_from(nanos).map_err(|_| wrong())?,
            (0, quota) if quota > 0 && period > 0 => {
                let nanos = i128::from(quota) * i128::from(NANOS_PER_CPU) / i128::from(period);
                u64::try_from(nanos).map_err(|_| wrong())?
            }
            (0, quota) if quota > 0 => return Err(wrong()),
            (0, _) => return Err(not_honoured("CpuPeriod", "it needs CpuQuota")),
            _ => {
                let message = "Conflicting options: Nano CPUs and CPU Quota cannot both be set";
                return Err(Failure::new(Code::Invalid, message));
            }
        };
        let vcpus = u32::try_from(nanos.div_ceil(NANOS_PER_CPU)).map_err(|_| wrong())?;
        let millis = u32::try_from(nanos / 1_000_000).map_err(|_| wrong())?;
        if millis < 10 {
            return Err(Failure::new(Code::Invalid, "range of CPUs is from 0.01"));
        }
        Ok((Some(vcpus), (!nanos.is_multiple_of(NANOS_PER_CPU)).then_some(millis)))
    }

    /// Limits of its processes.
    ///
    /// # Errors
    /// `invalid`.
    pub fn ulimits(&self) -> Result<Ulimits> {
        let mut all = Ulimits::new();
        for asked in self.ulimits.iter().flatten() {
            let name = &asked.name;
            let wrong = |why: &str| Failure::new(Code::Invalid, format!("invalid ulimit {name:.32}: {why}"));
            let resource = Resource::of_name(name).ok_or_else(|| wrong("there is no such limit"))?;
            let amount = |value: i64| match value {
                -1 => Ok(u64::MAX),
                value => u64::try_from(value).map_err(|_| wrong("a limit is a number, or -1 for none")),
            };
            let limit = Ulimit { soft: amount(asked.soft)?, hard: amount(asked.hard)? };
            if limit.soft > limit.hard {
                return Err(wrong("the soft limit is above the hard one"));
            }
            all.insert(resource, limit);
        }
        Ok(all)
    }

    /// The restart policy.
    ///
    /// # Errors
    /// `invalid`.
    pub fn restart(&self) -> Result<RestartPolicy> {
        let policy = read_restart(self.restart_policy.as_ref())?;
        if self.auto_remove && policy != RestartPolicy::No {
            let message = "can't create 'AutoRemove' container with restart policy";
            return Err(Failure::new(Code::Invalid, message));
        }
        Ok(policy)
    }

    /// Rotation of the log.
    ///
    /// # Errors
    /// `invalid` for other log drivers and options.
    pub fn log(&self) -> Result<LogLimits> {
        let mut limits = LogLimits::default();
        let Some(config) = &self.log_config else { return Ok(limits) };
        if !matches!(config.kind.as_str(), "" | "json-file" | "local") {
            return Err(not_honoured(
                "LogConfig",
                format!("log driver {:?}: holm keeps logs in files", config.kind),
            ));
        }
        for (name, value) in config.config.iter().flatten() {
            let wrong =
                || Failure::new(Code::Invalid, format!("invalid value {value:?} of log option {name}"));
            match name.as_str() {
                "max-size" => limits.size_bytes_max = parse_bytes(value).ok_or_else(wrong)?,
                "max-file" => {
                    limits.files_max =
                        value.parse().ok().filter(|n| (1..=1_000).contains(n)).ok_or_else(wrong)?
                }
                _ => return Err(not_honoured("LogConfig", format!("log option {name}"))),
            }
        }
        Ok(limits)
    }

    /// Size of its shared memory.
    ///
    /// # Errors
    /// `invalid`.
    pub fn shm_bytes(&self) -> Result<Option<u64>> {
        match self.shm_size {
            0 => Ok(None),
            size => {
                let size = u64::try_from(size);
                size.map(Some).map_err(|_| Failure::new(Code::Invalid, "SHM size can not be less than 0"))
            }
        }
    }

    /// Further groups of its user, by number: names are the image's, which is not asked here.
    ///
    /// # Errors
    /// `invalid` for names.
    pub fn groups(&self) -> Result<Vec<u32>> {
        let number = |text: &String| {
            let why = || not_honoured("GroupAdd", format!("{text:.32?}: name the group by its number"));
            text.parse().map_err(|_| why())
        };
        self.group_add.iter().flatten().map(number).collect()
    }

    /// How it looks names up, if not as its networks tell.
    ///
    /// # Errors
    /// `invalid`.
    pub fn dns(&self) -> Result<Option<Dns>> {
        let server = |text: &String| {
            let wrong = || Failure::new(Code::Invalid, format!("{text:.64} is not an ip address"));
            text.parse().map_err(|_| wrong())
        };
        let servers = self.dns.iter().flatten().map(server).collect::<Result<Vec<_>>>()?;
        let (search, options) =
            (self.dns_search.clone().unwrap_or_default(), self.dns_options.clone().unwrap_or_default());
        let dns = Dns { instead: !servers.is_empty(), servers, search, options };
        Ok(Some(dns).filter(|dns| *dns != Dns::default()))
    }
}

/// A restart policy as holm has it.
///
/// # Errors
/// `invalid`.
pub fn read_restart(asked: Option<&Restart>) -> Result<RestartPolicy> {
    let Some(asked) = asked.filter(|asked| !asked.name.is_empty()) else {
        return Ok(RestartPolicy::No);
    };
    let wrong = |text: String| Failure::new(Code::Invalid, format!("invalid restart policy: {text}"));
    match restart::from_text(&asked.name).map_err(wrong)? {
        RestartPolicy::OnFailure { .. } => {
            Ok(RestartPolicy::OnFailure { retries_max: asked.maximum_retry_count })
        }
        _ if asked.maximum_retry_count > 0 => {
            Err(wrong("maximum retry count can only be used with 'on-failure'".into()))
        }
        policy => Ok(policy),
    }
}

/// Reads `10m`, `512k`, `1g` or bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> HostConfig {
        serde_json::from_value(value).expect("a host config")
    }

    /// What `docker run IMAGE` sends, as docker 28 spells it.
    fn plain() -> Value {
        json!({
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "bridge",
            "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [24, 80], "CapAdd": null, "CapDrop": null,
            "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null,
            "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
            "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
            "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
            "BlkioWeight": 0, "BlkioWeightDevice": [], "CpuPeriod": 0, "CpuQuota": 0, "CpusetCpus": "", "Devices": [],
            "DeviceRequests": null, "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0,
            "Ulimits": [], "CpuCount": 0, "MaskedPaths": null, "ReadonlyPaths": null, "Init": null,
        })
    }

    #[test]
    fn what_a_client_sends_by_itself_is_taken() {
        let config = read(plain());
        config.check().expect("nothing was asked for");
        assert_eq!(config.size().unwrap(), Size::default());
        assert_eq!(config.restart().unwrap(), RestartPolicy::No);
        assert_eq!(config.log().unwrap(), LogLimits::default());
    }

    #[test]
    fn a_kernel_of_its_own_is_asked_for_in_two_ways() {
        for (isolation, runtime, wanted) in [
            ("", "", Isolation::Shared),
            ("default", "holm", Isolation::Shared),
            ("default", "runc", Isolation::Shared),
            ("vm", "", Isolation::Vm),
            ("", "vm", Isolation::Vm),
            ("vm", "vm", Isolation::Vm),
        ] {
            let config = read(json!({"Isolation": isolation, "Runtime": runtime}));
            config.check().unwrap();
            assert_eq!(config.isolation().unwrap(), wanted, "{isolation} {runtime}");
        }
        for (name, value, word) in
            [("Isolation", "hyperv", "vm (a kernel"), ("Runtime", "runsc", "runtime name: runsc")]
        {
            let failure = read(json!({name: value})).check().expect_err(value);
            assert!(failure.error.message.contains(word), "{}", failure.error.message);
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for (name, value) in [
            ("Privileged", json!(true)),
            ("PidMode", json!("host")),
            ("IpcMode", json!("host")),
            ("MemorySwap", json!(-1)),
            ("SecurityOpt", json!(["seccomp=unconfined"])),
            ("SomethingNew", json!({"Deep": [1]})),
        ] {
            let mut config = plain();
            config[name] = value;
            let failure = read(config).check().expect_err(name);
            assert!(failure.error.message.contains(name), "{name}: {}", failure.error.message);
        }
        let mut config = plain();
        config["SecurityOpt"] = json!(["no-new-privileges"]);
        read(config).check().expect("holds for all");
    }

    #[test]
    fn sizes_are_rounded_up_to_what_holm_gives() {
        let size = |value: Value| read(value).size();
        let cpus = |vcpus, cpu_millis| Size { vcpus: Some(vcpus), cpu_millis, ..Size::default() };
        for (value, wanted) in [
            (json!({"NanoCpus": 500_000_000}), cpus(1, Some(500))),
            (json!({"NanoCpus": 2_000_000_000}), cpus(2, None)),
            (json!({"CpuQuota": 150_000}), cpus(2, Some(1500))),
            (json!({"CpuQuota": 50_000, "CpuPeriod": 50_000}), cpus(1, None)),
            (json!({"Memory": 64 << 20}), Size { memory_mib: Some(64), ..Size::default() }),
            (json!({"Memory": (64 << 20) + 1}), Size { memory_mib: Some(65), ..Size::default() }),
            (json!({"CpuShares": 512}), Size { cpu_weight: Some(50), ..Size::default() }),
            (json!({"CpuShares": 2}), Size { cpu_weight: Some(1), ..Size::default() }),
            (json!({"PidsLimit": 10}), Size { pids_max: Some(10), ..Size::default() }),
            (json!({"PidsLimit": -1}), Size::default()),
            (json!({"StorageOpt": {"size": "1500M"}}), Size { disk_gib: Some(2), ..Size::default() }),
        ] {
            assert_eq!(size(value.clone()).unwrap(), wanted, "{value}");
        }
        for bad in [
            json!({"Memory": 1}),
            json!({"Memory": -1}),
            json!({"NanoCpus": -1}),
            json!({"NanoCpus": 1}),
            json!({"NanoCpus": 1_000_000_000, "CpuQuota": 1000}),
            json!({"CpuPeriod": 1000}),
            json!({"StorageOpt": {"size": "much"}}),
            json!({"StorageOpt": {"size": "0"}}),
            json!({"StorageOpt": {"inodes": "10"}}),
        ] {
            assert!(size(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn policies_and_logs_are_read() {
        let config = read(json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}));
        assert_eq!(config.restart().unwrap(), RestartPolicy::OnFailure { retries_max: 3 });
        for bad in [
            json!({"RestartPolicy": {"Name": "never"}}),
            json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}),
            json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true}),
        ] {
            assert!(read(bad.clone()).restart().is_err(), "{bad}");
        }
        let config =
            read(json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}}));
        assert_eq!(config.log().unwrap(), LogLimits { size_bytes_max: 10 << 20, files_max: 2 });
        assert!(read(json!({"LogConfig": {"Type": "syslog"}})).log().is_err());
        assert!(read(json!({"LogConfig": {"Type": "", "Config": {"labels": "x"}}})).log().is_err());
        let limits = |soft: i64, hard: i64| {
            read(json!({"Ulimits": [{"Name": "nofile", "Soft": soft, "Hard": hard}]})).ulimits()
        };
        assert_eq!(limits(10, -1).unwrap()[&Resource::Nofile], Ulimit { soft: 10, hard: u64::MAX });
        assert!(limits(2, 1).is_err() && limits(-2, 1).is_err() && limits(-1, 1).is_err());
        assert!(read(json!({"Ulimits": [{"Name": "as", "Soft": 1, "Hard": 1}]})).ulimits().is_err());
        let config =
            read(json!({"Dns": ["192.0.2.53"], "DnsSearch": ["shop.example"], "DnsOptions": ["ndots:2"]}));
        let dns = config.dns().unwrap().unwrap();
        assert_eq!((dns.instead, dns.servers.len(), dns.search.len(), dns.options.len()), (true, 1, 1, 1));
        assert_eq!(read(plain()).dns().unwrap(), None);
        assert!(read(json!({"Dns": ["dns.example"]})).dns().is_err());
        assert_eq!(read(json!({"ShmSize": 1 << 20})).shm_bytes().unwrap(), Some(1 << 20));
        assert!(read(json!({"ShmSize": -1})).shm_bytes().is_err());
        assert_eq!(read(json!({"GroupAdd": ["7"]})).groups().unwrap(), [7]);
        assert!(read(json!({"GroupAdd": ["audio"]})).groups().is_err());
        let config = read(json!({"RestartPolicy": {"Name": "on-unhealthy"}}));
        assert_eq!(config.restart().unwrap(), RestartPolicy::OnUnhealthy);
    }
}
