//! What a build is asked for: the query of `POST /build`.

use super::{export::Output, given::AllGiven};
use crate::{
    docker::{
        container::host_config::{HostConfig, UlimitAsked},
        image::{check_platform, wanted_tag},
        query::Query,
        refusal::not_honoured,
    },
    error::{Failure, Result},
};
use model::{dockerfile::scope::ARGS_MAX, error::Code, meta::Labels};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Most bytes of all build arguments, as they are sent.
const ARGS_BYTES_MAX: usize = 64 << 10;
/// Most names for one image.
const TAGS_MAX: usize = 64;

/// What a build is asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// Names of the image.
    pub tags: Vec<String>,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Only the id is told.
    pub quiet: bool,
    /// Nothing is taken from earlier builds.
    pub no_cache: bool,
    /// Images are asked for anew.
    pub pull: bool,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: Labels,
    /// The stage that is wanted.
    pub target: Option<String>,
    /// The network of `RUN`.
    pub network: String,
    /// Limits of `RUN`, and names that it finds.
    pub host: HostConfig,
    /// No image is kept of a build without names, only its steps.
    pub forgets: bool,
    /// What the client wants of the result.
    pub outputs: Vec<Output>,
    /// The image is sent to the registries of its names.
    pub pushes: bool,
    /// What takes the place of names in the Dockerfile.
    pub given: AllGiven,
    /// What people should know of what they asked for.
    pub warnings: Vec<String>,
}

impl Asked {
    /// What the native door asks for, checked.
    ///
    /// # Errors
    /// `invalid` for names that are none, `too_large`.
    pub fn checked(self) -> Result<Self> {
        if self.args.len() > ARGS_MAX || self.tags.len() > TAGS_MAX {
            let message = format!("at most {ARGS_MAX} build arguments and {TAGS_MAX} names are possible");
            return Err(Failure::new(Code::TooLarge, message));
        }
        let tags = self.tags.iter().map(|tag| wanted_tag(tag)).collect::<Result<_>>()?;
        Ok(Self { tags, ..self })
    }

    /// Reads it.
    ///
    /// # Errors
    /// `invalid`, with the parameter that is wrong or not honoured.
    pub fn read(query: &Query) -> Result<Self> {
        refuse(query)?;
        check_platform(query.text("platform"))?;
        let tags =
            query.all("t").filter(|tag| !tag.is_empty()).map(wanted_tag).collect::<Result<Vec<_>>>()?;
        if tags.len() > TAGS_MAX {
            return Err(Failure::new(
                Code::TooLarge,
                format!("an image gets at most {TAGS_MAX} names at once"),
            ));
        }
        let args: BTreeMap<String, Option<String>> = json(query, "buildargs")?;
        if args.len() > ARGS_MAX || query.text("buildargs").is_some_and(|text| text.len() > ARGS_BYTES_MAX) {
            let message =
                format!("at most {ARGS_MAX} build arguments of {ARGS_BYTES_MAX} bytes are possible");
            return Err(Failure::new(Code::TooLarge, message));
        }
        let labels: Labels = json(query, "labels")?;
        let number = |name: &str| Ok::<_, Failure>(query.number(name)?.unwrap_or(0));
        let ulimits: Vec<UlimitAsked> = json(query, "ulimits")?;
        let host = HostConfig {
            memory: number("memory")?,
            cpu_shares: number("cpushares")?,
            cpu_quota: number("cpuquota")?,
            cpu_period: number("cpuperiod")?,
            ulimits: (!ulimits.is_empty()).then_some(ulimits),
            extra_hosts: Some(extra_hosts(query)?),
            ..HostConfig::default()
        };
        host.size()?;
        host.ulimits()?;
        Ok(Self {
            tags,
            dockerfile: query.text("dockerfile").unwrap_or("Dockerfile").to_string(),
            quiet: query.flag("q"),
            no_cache: query.flag("nocache"),
            pull: query.flag("pull"),
            args: args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            labels,
            target: query.text("target").map(str::to_string),
            network: query.text("networkmode").unwrap_or("default").to_string(),
            host,
            forgets: false,
            ..Self::default()
        })
    }
}

/// Names for `/etc/hosts`: docker's client sends them as one text, or as a list.
fn extra_hosts(query: &Query) -> Result<Vec<String>> {
    let Some(text) = query.text("extrahosts") else { return Ok(vec![]) };
    if text.starts_with('[') {
        return json(query, "extrahosts");
    }
    Ok(query.all("extrahosts").flat_map(|all| all.split(',')).map(str::to_string).collect())
}

fn json<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T> {
    match query.text(name) {
        None | Some("null") => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Failure::new(Code::Invalid, format!("error reading {name}: {error}")).field(name)
        }),
    }
}

/// Refuses what is not honoured.
fn refuse(query: &Query) -> Result<()> {
    let is_buildkit = query.text("version") == Some("2");
    if !is_buildkit && query.text("version").is_some_and(|version| version != "1") {
        return Err(not_honoured("version", "the classic builder is 1, and BuildKit is 2"));
    }
    if let Some(remote) = query.text("remote").filter(|remote| *remote != "client-session") {
        let why = format!("{remote:.100}: no context is fetched; fetch it yourself, and build its directory");
        return Err(not_honoured("remote", why));
    }
    for (name, why) in [
        ("squash", "layers are not joined"),
        ("session", "the classic builder has none"),
        (
            "outputs",
            "the classic protocol has no way for them; build by BuildKit, or take files out by `docker cp`",
        ),
        ("isolation", "it is for Windows"),
        ("cgroupparent", "containers have a control group of holm's"),
        ("cpusetcpus", "CPUs are not chosen one by one; --cpu-quota limits them"),
        ("cpusetmems", "memory is not chosen by its place"),
    ] {
        let value = query.text(name).unwrap_or("");
        let is_its_own = is_buildkit && matches!(name, "session" | "outputs");
        if !is_its_own && !matches!(value, "" | "0" | "false" | "null" | "[]" | "default") {
            return Err(not_honoured(name, why));
        }
    }
    for (name, why) in [
        ("shmsize", "/dev/shm counts as memory and is as large as that allows"),
        ("memswap", "containers do not swap"),
    ] {
        if query.number(name)?.is_some_and(|number| number > 0) {
            return Err(not_honoured(name, why));
        }
    }
    match query.text("securityopt") {
        None | Some("null" | "[]") => Ok(()),
        Some(_) => Err(not_honoured("securityopt", "holm's own profile holds for all containers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_read() {
        let text = "t=web&t=shop%2Fweb:1&buildargs=%7B%22A%22:%221%22,%22B%22:null%7D&labels=%7B%22tier%22:%22web%22%7D\
                    &nocache=1&memory=67108864&rm=1&ulimits=null&shmsize=0&cgroupparent=&target=&networkmode=none&version=1";
        let asked = Asked::read(&Query::parse(text).unwrap()).unwrap();
        assert_eq!(asked.tags, ["docker.io/library/web:latest", "docker.io/shop/web:1"]);
        assert_eq!(asked.args, BTreeMap::from([("A".to_string(), "1".to_string())]));
        assert!(asked.no_cache && !asked.pull && asked.target.is_none());
        assert_eq!((asked.dockerfile.as_str(), asked.network.as_str()), ("Dockerfile", "none"));
        assert_eq!(asked.host.size().unwrap().memory_mib, Some(64));
        for (text, word) in [
            ("version=3", "version"),
            ("session=x", "session"),
            ("remote=https://example.org/x.git", "remote"),
            ("squash=1", "squash"),
            ("t=Not:Good:Name", "invalid reference format"),
            ("buildargs=x", "buildargs"),
            ("memory=1", "6MB"),
            ("platform=windows/amd64", "platform"),
            ("shmsize=1000", "shmsize"),
        ] {
            let failure = Asked::read(&Query::parse(text).unwrap()).expect_err(text);
            assert!(failure.error.message.contains(word), "{text}: {}", failure.error.message);
        }
    }
}
