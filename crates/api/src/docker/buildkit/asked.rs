//! What a build is asked for by BuildKit's clients: options of the Dockerfile's frontend, and what becomes of the result.

use super::{upload, wire::Exporter};
use crate::{
    docker::{
        build::Asked,
        container::host_config::{HostConfig, UlimitAsked},
        image::check_platform,
        refusal::not_honoured,
    },
    error::{Failure, Result},
};
use model::error::Code;
use std::collections::BTreeMap;

/// The frontend that is spoken.
pub const FRONTEND: &str = "dockerfile.v0";
/// A frontend that is an image; docker's own Dockerfile is spoken all the same.
const GATEWAY: &str = "gateway.v0";
/// Most options.
const OPTIONS_MAX: usize = 2_000;

type Options = BTreeMap<String, String>;

/// A build, and where its files are.
pub struct Read {
    /// The build.
    pub asked: Asked,
    /// Its files.
    pub files: Files,
}

/// Where the files of a build are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// In directories, which the client calls so.
    Directories {
        /// That of the Dockerfile.
        dockerfile: String,
        /// The context.
        context: String,
    },
    /// In an archive with this id.
    Archive(String),
}

impl Files {
    /// In directories that are called as clients do that say nothing of it.
    pub fn usual() -> Self {
        Self::Directories { dockerfile: "dockerfile".into(), context: "context".into() }
    }
}

/// Reads the options of a frontend.
///
/// # Errors
/// `invalid`, with the option that is wrong or not honoured.
pub fn read(frontend: &str, options: &Options, exporter: Option<&Exporter>) -> Result<Read> {
    check_frontend(frontend, options)?;
    if options.len() > OPTIONS_MAX {
        return Err(Failure::new(Code::TooLarge, format!("a build has at most {OPTIONS_MAX} options")));
    }
    refuse(options)?;
    let text = |name: &str| options.get(name).map(String::as_str).filter(|text| !text.is_empty());
    check_platform(text("platform"))?;
    let named = |prefix: &str| -> Options {
        let own =
            |(name, value): (&String, &String)| Some((name.strip_prefix(prefix)?.into(), value.clone()));
        options.iter().filter_map(own).collect()
    };
    let host = HostConfig {
        extra_hosts: text("add-hosts").map(|all| all.split(',').map(str::to_string).collect()),
        ulimits: text("ulimit").map(ulimits).transpose()?,
        memory: number(options, "memory")?,
        cpu_shares: number(options, "cpushares")?,
        cpu_quota: number(options, "cpuquota")?,
        cpu_period: number(options, "cpuperiod")?,
        ..HostConfig::default()
    };
    host.size()?;
    host.ulimits()?;
    let network = match text("force-network-mode") {
        None | Some("sandbox") => "default",
        Some(other) => other,
    };
    let asked = Asked {
        tags: exporter.map(tags).unwrap_or_default(),
        dockerfile: text("filename").unwrap_or("Dockerfile").to_string(),
        // One that names stages is honoured for all of them.
        no_cache: options.contains_key("no-cache"),
        pull: text("image-resolve-mode") == Some("pull"),
        args: named("build-arg:"),
        labels: named("label:"),
        target: text("target").map(str::to_string),
        network: network.to_string(),
        host,
        forgets: exporter.is_none(),
        quiet: false,
    };
    let files = match text("context").and_then(upload::id) {
        Some(id) => Files::Archive(id.to_string()),
        None => Files::Directories {
            dockerfile: text("dockerfilekey").unwrap_or("dockerfile").to_string(),
            context: text("contextkey").unwrap_or("context").to_string(),
        },
    };
    Ok(Read { asked: asked.checked()?, files })
}

/// What becomes of the result: an image of this cloud, or nothing.
///
/// # Errors
/// `invalid` for anything else.
pub fn exporter(all: &[Exporter]) -> Result<Option<&Exporter>> {
    let (Some(first), rest) = (all.first(), all.iter().skip(1)) else { return Ok(None) };
    if rest.count() > 0 {
        return Err(not_honoured("--output", "a build has one output here"));
    }
    match first.kind.as_str() {
        "moby" | "image" => Ok(Some(first)),
        "" | "cacheonly" => Ok(None),
        kind => {
            let why =
                format!("type={kind:.40}: images stay here; `docker save` and `docker cp` take files out");
            Err(not_honoured("--output", why))
        }
    }
}

fn tags(exporter: &Exporter) -> Vec<String> {
    let names = exporter.attributes.get("name").map_or("", String::as_str);
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect()
}

fn check_frontend(frontend: &str, options: &Options) -> Result<()> {
    if frontend == FRONTEND {
        return Ok(());
    }
    let source = options.get("source").map_or("", String::as_str);
    let name = source.split(['@', ':']).next().unwrap_or("");
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    if frontend == GATEWAY && matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") {
        return Ok(());
    }
    let what = if frontend == GATEWAY { source } else { frontend };
    let message = format!("the frontend {what:.100?} is not spoken here");
    Err(Failure::new(Code::Unsupported, message).hint("builds read Dockerfiles; leave BUILDKIT_SYNTAX out"))
}

/// Refuses what is not honoured.
fn refuse(options: &Options) -> Result<()> {
    for (name, value) in options {
        let why = match name.as_str() {
            "context" if upload::id(value).is_some() => continue,
            "context" => {
                "only a directory or an archive of the client is a context; fetch it yourself, and build its directory"
            }
            "requestid" => "a build is not described without being done",
            "cgroup-parent" => "containers have a control group of holm's",
            "hostname" | "build-arg:BUILDKIT_SANDBOX_HOSTNAME" => "a step's host name is its container's",
            "shm-size" if value != "0" => "/dev/shm counts as memory and is as large as that allows",
            "memswap" if value != "0" => "containers do not swap",
            "cpusetcpus" | "cpusetmems" => "CPUs are not chosen one by one",
            "multi-platform" | "build-arg:BUILDKIT_MULTI_PLATFORM" if value == "true" => {
                "an image is for this host alone"
            }
            name if name.starts_with("context:") => "named contexts are not served; make a stage of it",
            name if name.starts_with("input:") => "inputs that a client compiled are not read",
            name if name.starts_with("attest:") && value != "disabled=true" => "attestations are not made",
            _ => continue,
        };
        let refusal = not_honoured(name, why);
        return Err(refusal);
    }
    Ok(())
}

fn number(options: &Options, name: &str) -> Result<i64> {
    let Some(text) = options.get(name).filter(|text| !text.is_empty()) else { return Ok(0) };
    let wrong = |_| Failure::new(Code::Invalid, format!("invalid value of {name}: {text:.40?}")).field(name);
    text.parse().map_err(wrong)
}

/// `nofile=1024:2048,core=0`.
fn ulimits(text: &str) -> Result<Vec<UlimitAsked>> {
    let one = |text: &str| {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some(UlimitAsked { name: name.to_string(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
    };
    let wrong = || Failure::new(Code::Invalid, format!("invalid ulimit {text:.100?}")).field("ulimit");
    text.split(',').map(|text| one(text).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn moby(name: &str) -> Exporter {
        Exporter { kind: "moby".into(), attributes: options(&[("name", name)]) }
    }

    #[test]
    fn what_clients_send_is_read() {
        let sent = options(&[
            ("filename", "app.Dockerfile"),
            ("build-arg:A", "1"),
            ("label:tier", "web"),
            ("target", "tools"),
            ("no-cache", ""),
            ("image-resolve-mode", "local"),
            ("force-network-mode", "none"),
            ("add-hosts", "old.example=192.0.2.9,new.example=192.0.2.10"),
            ("ulimit", "nofile=10:20,core=0"),
            ("vcs:localdir:context", "."),
            ("platform", "linux/amd64"),
        ]);
        let Read { asked, files } =
            read(FRONTEND, &sent, Some(&moby("docker.io/library/web:latest,docker.io/shop/web:1"))).unwrap();
        assert_eq!(asked.tags, ["docker.io/library/web:latest", "docker.io/shop/web:1"]);
        assert_eq!((asked.dockerfile.as_str(), asked.network.as_str()), ("app.Dockerfile", "none"));
        assert_eq!(files, Files::usual());
        let archive = read(FRONTEND, &options(&[("context", "http://buildkit-session/x")]), None).unwrap();
        assert_eq!(archive.files, Files::Archive("x".into()));
        assert_eq!(asked.args, options(&[("A", "1")]));
        assert_eq!(asked.target.as_deref(), Some("tools"));
        assert!(asked.no_cache && !asked.pull && !asked.forgets);
        assert_eq!(asked.host.extra_hosts.as_ref().map(Vec::len), Some(2));
        assert_eq!(
            asked.host.ulimits.as_ref().map(|all| (all[0].soft, all[0].hard, all[1].hard)),
            Some((10, 20, 0))
        );
        let plain = read(FRONTEND, &Options::new(), None).unwrap().asked;
        assert!(plain.forgets && plain.tags.is_empty() && plain.dockerfile == "Dockerfile");
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for (pairs, words) in [
            (&[("context", "https://example.org/x.git")][..], "context"),
            (&[("context:base", "docker-image://x")], "named contexts"),
            (&[("requestid", "frontend.outline")], "described"),
            (&[("platform", "windows/amd64")], "platform"),
            (&[("ulimit", "nofile")], "ulimit"),
            (&[("memory", "x")], "memory"),
            (&[("attest:sbom", "")], "attestations"),
            (&[("shm-size", "1")], "shm-size"),
        ] {
            let failure = read(FRONTEND, &options(pairs), None).err().expect(words);
            assert!(failure.error.message.contains(words), "{words}: {}", failure.error.message);
        }
        let source = |text: &str| options(&[("source", text)]);
        assert!(read(GATEWAY, &source("docker.io/docker/dockerfile:1"), None).is_ok());
        assert!(read(GATEWAY, &source("example.org/other"), None).is_err());
        assert!(read("x", &Options::new(), None).is_err());
        let kind = |kind: &str| [Exporter { kind: kind.into(), ..Exporter::default() }];
        assert!(exporter(&kind("local")).is_err() && exporter(&kind("moby")).unwrap().is_some());
        assert!(exporter(&[moby("a"), moby("b")]).is_err() && exporter(&[]).unwrap().is_none());
        assert!(read(FRONTEND, &Options::new(), Some(&moby("Not:Good:Name"))).is_err());
    }
}
