//! What a build is asked for by BuildKit's clients: options of the Dockerfile's frontend, and what becomes of the result.

use super::{
    upload,
    wire::{CacheOptions, Exporter},
};
use crate::{
    docker::{
        build::{AllGiven, Asked, Given, Output, OutputKind, arch},
        container::host_config::{HostConfig, UlimitAsked},
        image::{check_platform, wanted_tag},
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

/// Most outputs of one build.
const OUTPUTS_MAX: usize = 16;

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
pub fn read(frontend: &str, options: &Options, results: &Results) -> Result<Read> {
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
        tags: results.image.clone().unwrap_or_default(),
        dockerfile: text("filename").unwrap_or("Dockerfile").to_string(),
        // One that names stages is honoured for all of them.
        no_cache: options.contains_key("no-cache"),
        pull: text("image-resolve-mode") == Some("pull"),
        args: named("build-arg:"),
        labels: named("label:"),
        target: text("target").map(str::to_string),
        network: network.to_string(),
        host,
        forgets: results.image.is_none(),
        quiet: false,
        outputs: results.outputs.clone(),
        pushes: results.pushes,
        given: given(options)?,
        warnings: results.warnings.clone(),
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

/// What becomes of the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// Names of the image of this cloud that is made; `None` if none is.
    pub image: Option<Vec<String>>,
    /// It is sent to the registries of its names.
    pub pushes: bool,
    /// What the client is given.
    pub outputs: Vec<Output>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Reads what becomes of the result, and which caches are meant beside the cloud's own.
///
/// # Errors
/// `invalid` for what is not honoured, and for names that are none.
pub fn results(all: &[Exporter], cache: Option<&CacheOptions>) -> Result<Results> {
    if all.len() > OUTPUTS_MAX {
        return Err(Failure::new(Code::TooLarge, format!("a build has at most {OUTPUTS_MAX} outputs")));
    }
    let mut results =
        Results { warnings: cache.map(caches).transpose()?.unwrap_or_default(), ..Results::default() };
    for (number, exporter) in all.iter().enumerate() {
        let says = |name: &str, value: &str| exporter.attributes.get(name).is_some_and(|it| it == value);
        let refuse = |why: &str| Err(not_honoured("--output", format!("type={:.40}: {why}", exporter.kind)));
        let kind = match exporter.kind.as_str() {
            "" | "cacheonly" => continue,
            "moby" | "image" if results.image.is_some() => return refuse("a build makes one image"),
            "moby" | "image" if says("push-by-digest", "true") => {
                return refuse("push-by-digest: an image is pushed by its names");
            }
            "moby" | "image" => {
                results.image = Some(names(exporter)?);
                results.pushes = says("push", "true");
                continue;
            }
            "local" if says("mode", "delete") => {
                return refuse("mode=delete: nothing is removed on the client; empty the directory first");
            }
            "local" => OutputKind::Files,
            "tar" => OutputKind::Tar,
            "oci" | "docker" if says("tar", "false") => {
                return refuse("tar=false: the archive is a file; unpack it where it is needed");
            }
            "oci" | "docker" => OutputKind::Archive(names(exporter)?),
            _ => return refuse("local, tar, oci, docker and image are possible"),
        };
        results.outputs.push(Output { number, kind });
    }
    Ok(results)
}

/// What people should know of the caches that they name: there is one, the cloud's own.
fn caches(asked: &CacheOptions) -> Result<Vec<String>> {
    let shown = |cache: &Exporter| {
        let place = ["ref", "src", "dest"].iter().find_map(|name| cache.attributes.get(*name));
        let place = place.map_or(String::new(), |place| format!(" {place:.200}"));
        format!("type={:.40}{place}", cache.kind)
    };
    let mut all = vec![];
    for cache in &asked.exports {
        if cache.kind != "inline" {
            let why = format!("{}: steps are kept in this cloud's own cache, and sent nowhere", shown(cache));
            return Err(not_honoured("--cache-to", why));
        }
        all.push("--cache-to type=inline is passed over: the image tells nothing of its steps, which this cloud keeps".into());
    }
    for cache in asked.imports.iter().take(OUTPUTS_MAX) {
        let text = format!(
            "--cache-from {} is passed over: steps are taken from this cloud's own cache",
            shown(cache)
        );
        all.push(text);
    }
    Ok(all)
}

fn names(exporter: &Exporter) -> Result<Vec<String>> {
    let names = exporter.attributes.get("name").map_or("", String::as_str);
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(wanted_tag).collect()
}

/// What takes the place of names in the Dockerfile: `context:NAME`, or `context:NAME::PLATFORM` for one platform.
fn given(options: &Options) -> Result<AllGiven> {
    let mut all = AllGiven::default();
    for (option, value) in options {
        let Some(name) = option.strip_prefix("context:") else { continue };
        let (name, platform) = name.split_once("::").unwrap_or((name, ""));
        if !platform.is_empty() && platform != format!("linux/{}", arch()) {
            continue;
        }
        let given = if let Some(image) = value.strip_prefix("docker-image://") {
            Given::Image(image.to_string())
        } else if let Some(directory) = value.strip_prefix("local:") {
            Given::Directory(directory.to_string())
        } else {
            let why = format!("{name:.100}={value:.100}: a context is a directory or docker-image://NAME");
            return Err(not_honoured("--build-context", why));
        };
        all.add(name, given)?;
    }
    Ok(all)
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
        exporter("moby", &[("name", name)])
    }

    fn exporter(kind: &str, pairs: &[(&str, &str)]) -> Exporter {
        Exporter { kind: kind.into(), attributes: options(pairs) }
    }

    fn nothing() -> Results {
        Results::default()
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
        let Read { asked, files } = read(
            FRONTEND,
            &sent,
            &results(&[moby("docker.io/library/web:latest,docker.io/shop/web:1")], None).unwrap(),
        )
        .unwrap();
        assert_eq!(asked.tags, ["docker.io/library/web:latest", "docker.io/shop/web:1"]);
        assert_eq!((asked.dockerfile.as_str(), asked.network.as_str()), ("app.Dockerfile", "none"));
        assert_eq!(files, Files::usual());
        let archive =
            read(FRONTEND, &options(&[("context", "http://buildkit-session/x")]), &nothing()).unwrap();
        assert_eq!(archive.files, Files::Archive("x".into()));
        assert_eq!(asked.args, options(&[("A", "1")]));
        assert_eq!(asked.target.as_deref(), Some("tools"));
        assert!(asked.no_cache && !asked.pull && !asked.forgets);
        assert_eq!(asked.host.extra_hosts.as_ref().map(Vec::len), Some(2));
        assert_eq!(
            asked.host.ulimits.as_ref().map(|all| (all[0].soft, all[0].hard, all[1].hard)),
            Some((10, 20, 0))
        );
        let plain = read(FRONTEND, &Options::new(), &nothing()).unwrap().asked;
        assert!(plain.forgets && plain.tags.is_empty() && plain.dockerfile == "Dockerfile");
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        for (pairs, words) in [
            (&[("context", "https://example.org/x.git")][..], "context"),
            (&[("context:base", "oci-layout://x")], "docker-image"),
            (&[("context:base", "https://example.org/x.git")], "docker-image"),
            (&[("platform", "linux/amd64,linux/arm64")], "platform"),
            (&[("requestid", "frontend.outline")], "described"),
            (&[("platform", "windows/amd64")], "platform"),
            (&[("ulimit", "nofile")], "ulimit"),
            (&[("memory", "x")], "memory"),
            (&[("attest:sbom", "")], "attestations"),
            (&[("shm-size", "1")], "shm-size"),
        ] {
            let failure = read(FRONTEND, &options(pairs), &nothing()).err().expect(words);
            assert!(failure.error.message.contains(words), "{words}: {}", failure.error.message);
        }
        let source = |text: &str| options(&[("source", text)]);
        assert!(read(GATEWAY, &source("docker.io/docker/dockerfile:1"), &nothing()).is_ok());
        assert!(read(GATEWAY, &source("example.org/other"), &nothing()).is_err());
        assert!(read("x", &Options::new(), &nothing()).is_err());
    }

    #[test]
    fn names_stand_for_what_is_given() {
        let sent = options(&[
            ("context:base", "docker-image://busybox"),
            ("context:alpine::linux/nosuch", "docker-image://other"),
            ("context:assets", "local:assets"),
        ]);
        let given = read(FRONTEND, &sent, &nothing()).unwrap().asked.given;
        assert_eq!(given.get("base"), Some(&Given::Image("busybox".into())));
        assert_eq!(given.get("assets"), Some(&Given::Directory("assets".into())));
        assert_eq!(given.get("alpine"), None, "it is for another platform");
    }

    #[test]
    fn outputs_are_read_with_their_numbers() {
        let all = [
            exporter("local", &[]),
            exporter("cacheonly", &[]),
            exporter("tar", &[]),
            exporter("oci", &[("name", "shop/web:1")]),
            exporter("moby", &[("name", "web"), ("push", "true")]),
        ];
        let read = results(&all, None).unwrap();
        let kinds = [
            (0, OutputKind::Files),
            (2, OutputKind::Tar),
            (3, OutputKind::Archive(vec!["docker.io/shop/web:1".into()])),
        ];
        assert_eq!(read.outputs, kinds.map(|(number, kind)| Output { number, kind }));
        assert!(read.pushes && read.image == Some(vec!["docker.io/library/web:latest".into()]));
        assert_eq!(results(&[], None).unwrap(), nothing());
        for (exporter, words) in [
            (exporter("nosuch", &[]), "nosuch"),
            (exporter("local", &[("mode", "delete")]), "mode=delete"),
            (exporter("oci", &[("tar", "false")]), "tar=false"),
            (exporter("image", &[("push-by-digest", "true")]), "push-by-digest"),
            (moby("Not:Good:Name"), "invalid reference format"),
        ] {
            let failure = results(&[exporter], None).expect_err(words);
            assert!(failure.error.message.contains(words), "{words}: {}", failure.error.message);
        }
        assert!(results(&[moby("a"), moby("b")], None).is_err(), "one image is made");
        assert!(results(&vec![exporter("tar", &[]); OUTPUTS_MAX + 1], None).is_err());
    }

    #[test]
    fn caches_elsewhere_are_told_of() {
        let cache = |exports: &[Exporter], imports: &[Exporter]| {
            results(&[], Some(&CacheOptions { exports: exports.to_vec(), imports: imports.to_vec() }))
        };
        let registry = exporter("registry", &[("ref", "shop/cache")]);
        let told = cache(&[exporter("inline", &[])], std::slice::from_ref(&registry)).unwrap().warnings;
        assert!(told[0].contains("--cache-to type=inline"), "{told:?}");
        assert!(told[1].contains("--cache-from type=registry shop/cache"), "{told:?}");
        let failure = cache(&[registry], &[]).unwrap_err();
        assert!(failure.error.message.contains("--cache-to"), "{}", failure.error.message);
    }
}
