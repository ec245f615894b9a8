//! What `docker run` can be asked beside what `holm run` has by itself: the same words, the same meaning.

use super::RunArgs;
use crate::cli::{
    failure::{Failure, Result},
    wording,
};
use api::v1::types::{
    instance::{
        ContainerRequest, CreateInstance, Instance, LogRequest, NetworkRequest, UlimitRequest, VolumeRequest,
    },
    pod::{ContainerMount, DnsRequest, MemoryMountRequest},
};
use model::port::alias::Alias;
use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Longest file of variables.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;
/// Docker's weight of a container that asks for none; holm's is 100.
const CPU_SHARES_USUAL: u32 = 1_024;

/// Whole CPUs, and thousandths where it is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus {
    /// Whole CPUs.
    pub whole: u32,
    /// Thousandths, where these are not whole.
    pub millis: Option<u32>,
}

/// Reads `2` and `0.5`.
///
/// # Errors
/// A text for people.
pub fn cpus(text: &str) -> std::result::Result<Cpus, String> {
    let wrong = || format!("{text:?} is no number of CPUs: write 2 or 0.5");
    let count: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.01..=4_096.0).contains(&count) {
        return Err(wrong());
    }
    let millis = (count * 1_000.0).round() as u32;
    Ok(Cpus { whole: millis.div_ceil(1_000), millis: (!millis.is_multiple_of(1_000)).then_some(millis) })
}

/// What docker has beside.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Container, as docker has it")]
pub struct FurtherArgs {
    /// File with variables, KEY=VALUE or KEY on each line (may be given several times)
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Host name inside [default: made of its name]
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<String>,
    /// Address in its first network
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<IpAddr>,
    /// Further name in its first network (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<Alias>,
    /// What is mounted: type=volume,source=NAME,target=/path[,readonly], type=tmpfs,target=/path[,tmpfs-size=64m], or
    /// type=bind,source=/path,target=/path in what the operator lends (may be given several times)
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Put a small init before its program
    #[arg(long)]
    pub init: bool,
    /// Most processes and threads
    #[arg(long, value_name = "COUNT")]
    pub pids_limit: Option<u64>,
    /// Limit of each process: nofile=1024[:2048] (may be given several times)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimit: Vec<(String, UlimitRequest)>,
    /// How its log is kept: max-size=10m, max-file=3 (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::noun::pair)]
    pub log_opt: Vec<(String, String)>,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Size of /dev/shm: 64m
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::docker::parse_bytes)]
    pub shm_size: Option<u64>,
    /// Number of a further group of its user (may be given several times)
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<u32>,
    /// Name server, instead of its networks' own (may be given several times)
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Domain in which names are looked up (may be given several times)
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option of the resolver, like ndots:2 (may be given several times)
    #[arg(long, value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Part of the CPUs when they are short, as docker counts it: 1024 is usual
    #[arg(long, value_name = "WEIGHT", conflicts_with = "cpu_weight")]
    pub cpu_shares: Option<u32>,
    /// no-new-privileges, which always holds
    #[arg(long, value_name = "OPTION", value_parser = security_option)]
    pub security_opt: Vec<String>,
    /// File that its id is written to, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
}

fn security_option(text: &str) -> std::result::Result<String, String> {
    match text {
        "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => Ok(text.to_string()),
        _ => Err("holm's own profile holds for all containers".to_string()),
    }
}

fn ulimit(text: &str) -> std::result::Result<(String, UlimitRequest), String> {
    let wrong = || "write NAME=SOFT[:HARD], with -1 for no limit: nofile=1024:2048".to_string();
    let (name, limits) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let read = |text: &str| match text {
        "-1" => Ok(None),
        number => number.parse().map(Some).map_err(|_| wrong()),
    };
    Ok((name.to_string(), UlimitRequest { soft: read(soft)?, hard: read(hard)? }))
}

impl FurtherArgs {
    /// Whether it asks for what only a container in full can be asked.
    pub fn is_container(&self) -> bool {
        self.hostname.is_some()
            || self.init
            || self.pids_limit.is_some()
            || !self.ulimit.is_empty()
            || !self.log_opt.is_empty()
            || self.stop_signal.is_some()
            || self.shm_size.is_some()
            || !self.group_add.is_empty()
            || self.mount.iter().any(|text| !is_volume(text))
    }

    /// The part of the CPUs when they are short.
    pub fn cpu_weight(&self) -> Option<u32> {
        self.cpu_shares.map(|shares| shares.saturating_mul(100).div_ceil(CPU_SHARES_USUAL).clamp(1, 10_000))
    }
}

fn is_volume(mount: &str) -> bool {
    !mount.split(',').any(|part| matches!(part, "type=tmpfs" | "type=bind"))
}

/// Adds to the request what concerns the instance: addresses, names, volumes, the resolver.
///
/// # Errors
/// An option cannot be understood.
pub fn of_instance(args: &RunArgs, request: &mut CreateInstance) -> Result {
    let further = &args.further;
    if further.ip.is_some() || !further.network_alias.is_empty() {
        let networks = request.networks.get_or_insert_with(|| vec![NetworkRequest::default()]);
        let Some(first) = networks.first_mut() else {
            return Err(Failure::usage("--ip and --network-alias need a network"));
        };
        first.address = further.ip.or(first.address);
        first.aliases.extend(further.network_alias.iter().cloned());
    }
    for text in further.mount.iter().filter(|text| is_volume(text)) {
        request.volumes.push(volume(text)?);
    }
    if !(further.dns.is_empty() && further.dns_search.is_empty() && further.dns_option.is_empty()) {
        request.shared.dns = Some(DnsRequest {
            instead: !further.dns.is_empty(),
            servers: further.dns.clone(),
            search: further.dns_search.clone(),
            options: further.dns_option.clone(),
        });
    }
    request.cpu_weight = further.cpu_weight().or(request.cpu_weight);
    Ok(())
}

/// Adds to a container what only containers have.
///
/// # Errors
/// An option cannot be understood.
pub fn of_container(args: &RunArgs, container: &mut ContainerRequest) -> Result {
    let further = &args.further;
    container.hostname.clone_from(&further.hostname);
    container.init = further.init;
    container.pids_max = further.pids_limit;
    container.ulimits = further.ulimit.iter().cloned().collect();
    container.stop_signal.clone_from(&further.stop_signal);
    container.shm_bytes = further.shm_size;
    container.groups.clone_from(&further.group_add);
    container.cpu_millis = args.size.cpus.and_then(|cpus| cpus.millis);
    container.log = log(&further.log_opt)?;
    for text in further.mount.iter().filter(|text| !is_volume(text)) {
        mounted(text, container)?;
    }
    for text in args.size.volume.iter().filter(|text| is_of_host(text)) {
        container.mounts.push(directory(text)?);
    }
    Ok(())
}

/// Whether `-v` means a directory of the host, which is shown where the operator lends it.
pub fn is_of_host(volume: &str) -> bool {
    volume.starts_with('/')
}

/// `/path:/path[:ro]`. As docker has it, a directory that is missing is made.
fn directory(text: &str) -> Result<ContainerMount> {
    let mut parts = text.split(':');
    let wrong = || Failure::usage(format!("--volume {text}: write /PATH/OF/HOST:/PATH[:ro]"));
    let (host, path) =
        parts.next().zip(parts.next()).filter(|(_, path)| path.starts_with('/')).ok_or_else(wrong)?;
    let mut mount =
        ContainerMount { host: Some(host.into()), path: path.into(), ..ContainerMount::default() };
    for part in parts {
        match part {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            _ => return Err(wrong()),
        }
    }
    Ok(mount)
}

fn log(options: &[(String, String)]) -> Result<Option<LogRequest>> {
    let mut log = LogRequest::default();
    for (key, value) in options {
        let wrong = |_| Failure::usage(format!("--log-opt {key}={value}: {value:?} is not understood"));
        match key.as_str() {
            "max-size" => log.file_bytes_max = Some(crate::cli::docker::parse_bytes(value).map_err(wrong)?),
            "max-file" => log.files_max = Some(value.parse().map_err(|_| wrong(String::new()))?),
            _ => {
                return Err(Failure::usage(format!("--log-opt {key}: holm keeps logs in files"))
                    .hint("max-size and max-file are what it knows"));
            }
        }
    }
    Ok((!options.is_empty()).then_some(log))
}

/// The words of a mount.
struct Words<'a> {
    text: &'a str,
    source: Option<&'a str>,
    target: Option<&'a str>,
    read_only: bool,
    size: Option<u64>,
    mode: Option<u32>,
}

impl<'a> Words<'a> {
    fn read(text: &'a str) -> Result<Self> {
        let mut words = Self { text, source: None, target: None, read_only: false, size: None, mode: None };
        for part in text.split(',') {
            let wrong = || Failure::usage(format!("--mount {text}: {part:?} is not understood"));
            match part.split_once('=').unwrap_or((part, "")) {
                ("type", "volume" | "bind" | "tmpfs") => {}
                ("source" | "src", value) => words.source = Some(value),
                ("target" | "dst" | "destination", value) => words.target = Some(value),
                ("readonly" | "ro", "" | "true" | "1") => words.read_only = true,
                ("readonly" | "ro", "false" | "0") => words.read_only = false,
                ("tmpfs-size", value) => {
                    words.size = Some(crate::cli::docker::parse_bytes(value).map_err(|_| wrong())?);
                }
                ("tmpfs-mode", value) => {
                    words.mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?)
                }
                _ => return Err(wrong()),
            }
        }
        Ok(words)
    }

    fn target(&self) -> Result<String> {
        let missing =
            || Failure::usage(format!("--mount {}: where to is missing", self.text)).hint("add target=/path");
        self.target.map(str::to_string).ok_or_else(missing)
    }

    fn source(&self) -> Result<String> {
        let missing =
            || Failure::usage(format!("--mount {}: what is missing", self.text)).hint("add source=NAME");
        self.source.map(str::to_string).ok_or_else(missing)
    }
}

fn volume(text: &str) -> Result<VolumeRequest> {
    let words = Words::read(text)?;
    Ok(VolumeRequest {
        volume: Some(words.source()?),
        mount_path: Some(words.target()?),
        read_only: words.read_only,
        ..VolumeRequest::default()
    })
}

fn mounted(text: &str, container: &mut ContainerRequest) -> Result {
    let words = Words::read(text)?;
    let (path, read_only) = (words.target()?, words.read_only);
    if text.split(',').any(|part| part == "type=tmpfs") {
        let (size_bytes, mode) = (words.size, words.mode);
        container.memory_mounts.push(MemoryMountRequest {
            path,
            read_only,
            size_bytes,
            mode,
            ..MemoryMountRequest::default()
        });
    } else {
        let host = Some(words.source()?);
        container.mounts.push(ContainerMount {
            path,
            read_only,
            host,
            host_exists: true,
            ..ContainerMount::default()
        });
    }
    Ok(())
}

/// The variables of files; those named by themselves come from `own`, and are left out where it has none, as docker does.
///
/// # Errors
/// A file cannot be read, or a line is none.
pub fn env_files(
    files: &[PathBuf],
    own: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for file in files {
        let failed = |e: std::io::Error| Failure::local(format!("cannot read {}", file.display()), &e);
        if fs::metadata(file).map_err(failed)?.len() > ENV_FILE_BYTES_MAX {
            let message = format!("{} has more than {}", file.display(), wording::bytes(ENV_FILE_BYTES_MAX));
            return Err(Failure::usage(message));
        }
        read_env(&fs::read_to_string(file).map_err(failed)?, file, own, &mut all)?;
    }
    Ok(all)
}

fn read_env(
    text: &str,
    file: &Path,
    own: &dyn Fn(&str) -> Option<String>,
    all: &mut BTreeMap<String, String>,
) -> Result {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_string())),
            None => (line, own(line)),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            let message =
                format!("{}, line {}: {key:?} is no name of a variable", file.display(), number + 1);
            return Err(Failure::usage(message));
        }
        all.extend(value.map(|value| (key.to_string(), value)));
    }
    Ok(())
}

/// Refuses to write over the file of another's id.
///
/// # Errors
/// The file is there.
pub fn refuse_id_file(args: &FurtherArgs) -> Result {
    match &args.cidfile {
        Some(file) if file.exists() => Err(Failure::usage(format!("{} is there already", file.display()))
            .hint("it holds the id of another container: remove it, or name another file")),
        _ => Ok(()),
    }
}

/// Writes the id of what was made to the file that was asked for.
///
/// # Errors
/// The file is there, or cannot be written.
pub fn write_id(args: &FurtherArgs, instance: &Instance) -> Result {
    let Some(file) = &args.cidfile else { return Ok(()) };
    let failed = |e: std::io::Error| Failure::local(format!("cannot write {}", file.display()), &e);
    let mut out = fs::File::create_new(file).map_err(failed)?;
    std::io::Write::write_all(&mut out, instance.head.id.simple().to_string().as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_docker_are_read() {
        assert_eq!(cpus("2"), Ok(Cpus { whole: 2, millis: None }));
        assert_eq!(cpus("1.5"), Ok(Cpus { whole: 2, millis: Some(1_500) }));
        assert!(cpus("0").is_err() && cpus("x").is_err());
        let (name, limit) = ulimit("nofile=10:-1").unwrap();
        assert_eq!((name.as_str(), limit), ("nofile", UlimitRequest { soft: Some(10), hard: None }));
        assert_eq!(ulimit("core=0").unwrap().1, UlimitRequest { soft: Some(0), hard: Some(0) });
        assert!(ulimit("nofile").is_err() && ulimit("=1").is_err() && ulimit("nofile=x").is_err());
        let asked = volume("type=volume,source=data,target=/data,readonly").unwrap();
        assert_eq!(
            (asked.volume.as_deref(), asked.mount_path.as_deref(), asked.read_only),
            (Some("data"), Some("/data"), true)
        );
        assert!(volume("source=data").is_err() && volume("target=/x,what=1").is_err());
        let mut container = ContainerRequest::default();
        mounted("type=tmpfs,target=/run,tmpfs-size=1m,tmpfs-mode=700", &mut container).unwrap();
        mounted("type=bind,src=/srv/app,dst=/app", &mut container).unwrap();
        let memory = &container.memory_mounts[0];
        assert_eq!(
            (memory.path.as_str(), memory.size_bytes, memory.mode),
            ("/run", Some(1 << 20), Some(0o700))
        );
        assert_eq!(container.mounts[0].host.as_deref(), Some("/srv/app"));
        let shown = directory("/srv:/app:ro").unwrap();
        assert_eq!(
            (shown.host.as_deref(), shown.path.as_str(), shown.read_only),
            (Some("/srv"), "/app", true)
        );
        assert!(
            directory("/srv").is_err() && directory("/srv:app").is_err() && directory("/srv:/app:z").is_err()
        );
        let log =
            log(&[("max-size".into(), "10m".into()), ("max-file".into(), "2".into())]).unwrap().unwrap();
        assert_eq!(log, LogRequest { file_bytes_max: Some(10 << 20), files_max: Some(2) });
    }

    #[test]
    fn files_of_variables_are_read_as_docker_does() {
        let own = |key: &str| (key == "HOME").then(|| "/root".to_string());
        let mut all = BTreeMap::new();
        let text = "# a comment\n\nA=1 and more\n  B=\"quoted\"\nHOME\nNONE\nE=\n";
        read_env(text, Path::new("x"), &own, &mut all).unwrap();
        let wanted = [("A", "1 and more"), ("B", "\"quoted\""), ("E", ""), ("HOME", "/root")];
        assert_eq!(all, wanted.map(|(key, value)| (key.to_string(), value.to_string())).into());
        assert!(read_env("a b=1", Path::new("x"), &own, &mut all).is_err());
    }
}
