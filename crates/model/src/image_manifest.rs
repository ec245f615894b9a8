//! The documents that make an image: index, manifest and config, of OCI and of Docker (schema 2), and the rule that
//! picks the one that fits this machine.
//!
//! These are views for reading: the bytes whose digest names a document are kept as they came and never rewritten.
//! Fields that nobody here reads are left out. Documents come from strangers, so every list has a limit.

use crate::{health::HealthSpec, image_digest::Digest};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Largest manifest or index that is read, in bytes (registries commonly refuse more than 4 MiB).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest image config that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Most layers of one image. The kernel's overlay takes 500 layers; one is the container's own.
pub const LAYERS_MAX: usize = 499;
/// Most entries of one index.
pub const INDEX_ENTRIES_MAX: usize = 1000;
/// Largest compressed layer, in bytes.
pub const LAYER_BYTES_MAX: u64 = 64 << 30;

/// Media types of indexes.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Media types of manifests.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// Media type of an OCI image's config.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an OCI layer that is not compressed.
pub const LAYER_TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of an OCI layer compressed with gzip.
pub const LAYER_GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A pointer to content: its kind, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Kind of the content.
    #[serde(default)]
    pub media_type: String,
    /// Name of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// For which machine, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes, such as `org.opencontainers.image.ref.name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An operating system and processor, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's GOOS.
    #[serde(default)]
    pub os: String,
    /// Go's GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows' build number.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// Linux on the processor that Rust calls `arch` (`std::env::consts::ARCH`).
    pub fn linux_on(arch: &str) -> Self {
        let (architecture, variant) = match arch {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7".to_string())),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant, os_version: None }
    }

    /// Reads `linux/amd64`, `linux/arm/v7` or `amd64`.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts
            .iter()
            .any(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
        {
            return None;
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(variant.to_string())),
            _ => return None,
        };
        Some(Self { os: os.into(), architecture: architecture.into(), variant, os_version: None })
    }

    /// How well an image for `self` runs on `host`: higher is better, `None` is not at all.
    pub fn fits(&self, host: &Self) -> Option<u8> {
        if self.os != host.os || self.architecture != host.architecture {
            return None;
        }
        let level = |variant: &Option<String>, default: u8| match variant {
            None => Some(default),
            Some(text) => text.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()),
        };
        // What no variant means: amd64 is v1, arm64 is v8, arm is v7 on hosts and v6 or lower is older code.
        let default = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        let (image, host) = (level(&self.variant, default)?, level(&host.variant, default)?);
        (image <= host).then_some(image)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// A list of images for several machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Kind, where the document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image: its config and layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Kind, where the document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// How to run it.
    pub config: Descriptor,
    /// Its files, lowest first.
    pub layers: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How an image is run, and what its layers unpack to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Go's GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// Go's GOOS.
    #[serde(default)]
    pub os: String,
    /// Such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows' build number.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// When it was made (RFC 3339), as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Defaults of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    /// What the layers unpack to.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// Digests of the layers' plain tars, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// Defaults of a container made from the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user`, `uid`, `user:group`…
    pub user: String,
    /// `80/tcp` and so on; the values are empty objects.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments that a user replaces.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Paths that should be volumes; the values are empty objects.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Where it starts.
    pub working_dir: String,
    /// Notes.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM` or a number.
    pub stop_signal: String,
    /// Docker's health check; durations in nanoseconds.
    pub healthcheck: Option<Healthcheck>,
    /// Docker's `SHELL`.
    #[serde(deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
}

/// Docker's health check. Durations in nanoseconds, 0 means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between two runs.
    pub interval: i64,
    /// Of one run.
    pub timeout: i64,
    /// In which failures do not count.
    pub start_period: i64,
    /// Between two runs in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures until unhealthy.
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Healthcheck {
    /// As holm has it. What makes no sense is left out: an image cannot be refused for it.
    pub fn spec(&self) -> HealthSpec {
        let ms = |nanos: i64| u64::try_from(nanos / 1_000_000).ok().filter(|ms| *ms > 0);
        HealthSpec {
            test: self.test.clone().try_into().ok(),
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            retries: u32::try_from(self.retries).ok().filter(|n| *n > 0),
            start_period_ms: ms(self.start_period),
            start_interval_ms: ms(self.start_interval),
        }
        .moved_into_bounds()
    }
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Go writes empty lists and maps as null.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// The machine that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
        }
    }
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No JSON, or not of the expected shape.
    #[error("the {what} cannot be read: {reason}")]
    Malformed {
        /// `manifest`, `config`…
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Longer than the limit.
    #[error("the {what} has {size_bytes} bytes, at most {size_bytes_max} are read")]
    TooLarge {
        /// `manifest`, `config`…
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        size_bytes_max: u64,
    },
    /// Docker's first manifest format.
    #[error("the image is in Docker's old format (schema 1), which carries no checked content")]
    Schema1,
    /// An artifact, such as a Helm chart or a signature.
    #[error("'{0}' is not a container image")]
    NotAnImage(String),
    /// More layers than overlay can stack.
    #[error("the image has {0} layers, at most {LAYERS_MAX} can be stacked")]
    TooManyLayers(usize),
    /// More entries than the limit.
    #[error("the index has {0} entries, at most {INDEX_ENTRIES_MAX} are read")]
    TooManyEntries(usize),
    /// A layer is larger than the limit.
    #[error("layer {digest} has {size_bytes} bytes, at most {LAYER_BYTES_MAX} are taken")]
    LayerTooLarge {
        /// The layer.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
    },
    /// Layer kind that cannot be unpacked.
    #[error("layer {digest} is of kind '{media_type}', which cannot be unpacked")]
    LayerKind {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Config and manifest do not belong together.
    #[error("the config lists {diff_ids} layers, the manifest {layers}")]
    LayerCount {
        /// In the config.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
    /// The image is for another operating system or processor.
    #[error("the image is for {offered}, this machine runs containers for {host}")]
    Platform {
        /// What there is, joined by commas.
        offered: String,
        /// What would fit.
        host: Platform,
        /// Windows is among the offers.
        windows: bool,
    },
}

impl ManifestError {
    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Platform { windows: true, .. } => {
                "a container shares this machine's Linux kernel: import a disk with Windows (`holm image import`) and run that as a VM (`holm run --vm`)".into()
            }
            Self::Platform { host, offered, .. } if !offered.contains("linux/") => {
                format!("look for a tag that is made for {host}, or import a disk with that system and run it as a VM (`holm run --vm`)")
            }
            Self::Platform { host, .. } => format!(
                "look for a tag that is made for {host}, or run it in a VM (`holm run --vm`) with an emulator of that processor inside (qemu-user-static)"
            ),
            Self::Schema1 => "ask its publisher to push it again with a current docker or buildah".into(),
            Self::NotAnImage(_) => {
                "it may be a chart, a signature or another artifact; give the image's own name".into()
            }
            Self::TooManyLayers(_) => "build the image with fewer layers, or squash it".into(),
            Self::LayerKind { .. } => {
                "layers must be tar, plain or compressed with gzip or zstd, and not encrypted or foreign"
                    .into()
            }
            _ => "the image or its registry is broken: pull it again, or tell its publisher".into(),
        }
    }
}

/// Reads a manifest or index. `media_type` is what the registry called it; the document's own word goes first.
pub fn parse_document(bytes: &[u8], media_type: Option<&str>) -> Result<Document, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
    }
    check_size("manifest", bytes, MANIFEST_BYTES_MAX)?;
    let probe: Probe = parse_json("manifest", bytes)?;
    if probe.schema_version == 1 {
        return Err(ManifestError::Schema1);
    }
    let kind = probe.media_type.as_deref().or(media_type).unwrap_or_default();
    // A document with both lists would mean one thing to us and another to someone else.
    if probe.manifests.is_some() && probe.layers.is_some() {
        return Err(malformed("manifest", "it has both layers and manifests"));
    }
    if INDEX_TYPES.contains(&kind) || (!MANIFEST_TYPES.contains(&kind) && probe.manifests.is_some()) {
        let index: Index = parse_json("index", bytes)?;
        if index.manifests.len() > INDEX_ENTRIES_MAX {
            return Err(ManifestError::TooManyEntries(index.manifests.len()));
        }
        return Ok(Document::Index(index));
    }
    let manifest: Manifest = parse_json("manifest", bytes)?;
    check_manifest(&manifest)?;
    Ok(Document::Manifest(manifest))
}

fn check_manifest(manifest: &Manifest) -> Result<(), ManifestError> {
    let config = manifest.config.media_type.as_str();
    if !matches!(config, CONFIG_TYPE | "application/vnd.docker.container.image.v1+json" | "") {
        return Err(ManifestError::NotAnImage(config.chars().take(120).collect()));
    }
    if manifest.layers.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers(manifest.layers.len()));
    }
    for layer in &manifest.layers {
        if layer.size > LAYER_BYTES_MAX {
            return Err(ManifestError::LayerTooLarge { digest: layer.digest, size_bytes: layer.size });
        }
        let kind = layer.media_type.as_str();
        let is_tar = kind.contains(".tar") || kind.contains("rootfs.diff") || kind.is_empty();
        if !is_tar || kind.contains("encrypted") || kind.contains("foreign") {
            let media_type = kind.chars().take(120).collect();
            return Err(ManifestError::LayerKind { digest: layer.digest, media_type });
        }
    }
    if manifest.config.size > CONFIG_BYTES_MAX {
        return Err(ManifestError::TooLarge {
            what: "config",
            size_bytes: manifest.config.size,
            size_bytes_max: CONFIG_BYTES_MAX,
        });
    }
    Ok(())
}

/// Reads an image's config and checks that it belongs to the manifest and runs on `host`.
pub fn parse_config(
    bytes: &[u8],
    manifest: &Manifest,
    host: &Platform,
) -> Result<ImageConfig, ManifestError> {
    check_size("config", bytes, CONFIG_BYTES_MAX)?;
    let config: ImageConfig = parse_json("config", bytes)?;
    let platform = config.platform();
    // Old and hand-made images leave the platform out; they are Linux images of the builder's machine.
    if !(platform.os.is_empty() && platform.architecture.is_empty()) && platform.fits(host).is_none() {
        let windows = platform.os == "windows";
        return Err(ManifestError::Platform { offered: platform.to_string(), host: host.clone(), windows });
    }
    let (diff_ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if diff_ids != layers {
        return Err(ManifestError::LayerCount { diff_ids, layers });
    }
    Ok(config)
}

/// The entry of an index that runs best on `host`. The first of equals wins, as with other tools.
pub fn pick_platform<'a>(index: &'a Index, host: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let images = || {
        index.manifests.iter().filter(|entry| {
            // Build attestations lie beside the images as unknown/unknown.
            !entry.annotations.contains_key("vnd.docker.reference.type")
                && entry.platform.as_ref().is_none_or(|p| p.os != "unknown")
        })
    };
    let mut best: Option<(u8, &Descriptor)> = None;
    for entry in images() {
        let score = match &entry.platform {
            Some(platform) => platform.fits(host),
            // An entry that says nothing may fit: its config will tell. Anything that says so goes first.
            None => Some(0),
        };
        if let Some(score) = score
            && best.is_none_or(|(highest, _)| score > highest)
        {
            best = Some((score, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    let mut offered: Vec<String> =
        images().filter_map(|e| e.platform.as_ref()).map(Platform::to_string).collect();
    offered.sort();
    offered.dedup();
    offered.truncate(20);
    let windows = !offered.is_empty() && offered.iter().all(|p| p.starts_with("windows/"));
    let offered = if offered.is_empty() { "no machine at all".into() } else { offered.join(", ") };
    Err(ManifestError::Platform { offered, host: host.clone(), windows })
}

fn malformed(what: &'static str, reason: &str) -> ManifestError {
    ManifestError::Malformed { what, reason: reason.chars().take(200).collect() }
}

fn check_size(what: &'static str, bytes: &[u8], size_bytes_max: u64) -> Result<(), ManifestError> {
    let size_bytes = bytes.len() as u64;
    if size_bytes > size_bytes_max {
        return Err(ManifestError::TooLarge { what, size_bytes, size_bytes_max });
    }
    Ok(())
}

fn parse_json<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn host() -> Platform {
        Platform::linux_on("x86_64")
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .enumerate()
            .map(|(n, text)| Descriptor {
                media_type: MANIFEST_TYPES[0].into(),
                digest: digest(n as u8),
                size: 1,
                platform: Platform::parse(text),
                annotations: BTreeMap::new(),
            })
            .collect();
        Index { schema_version: 2, media_type: None, manifests, annotations: BTreeMap::new() }
    }

    #[test]
    fn the_entry_that_fits_is_picked() {
        let arm = Platform::parse("linux/arm/v7").expect("valid");
        for (host, offered, picked) in [
            (&host(), &["linux/arm64", "linux/amd64"][..], Some(1)),
            (&host(), &["unknown/unknown", "linux/amd64/v3", "linux/amd64"], Some(2)),
            (&host(), &["linux/amd64", "linux/amd64"], Some(0)),
            (&host(), &["windows/amd64", "linux/arm64/v8"], None),
            (&arm, &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], Some(1)),
            (&Platform::linux_on("aarch64"), &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            (&host(), &[], None),
        ] {
            let index = index(offered);
            let got = pick_platform(&index, host).ok().map(|entry| entry.digest);
            assert_eq!(got, picked.map(|n: u8| digest(n)), "{offered:?} on {host}");
        }
    }

    #[test]
    fn other_systems_are_refused_with_a_vm_offered() {
        let windows = pick_platform(&index(&["windows/amd64"]), &host()).expect_err("no fit");
        assert_eq!(
            windows.to_string(),
            "the image is for windows/amd64, this machine runs containers for linux/amd64"
        );
        assert!(
            windows.hint().contains("with Windows") && windows.hint().contains("as a VM"),
            "{}",
            windows.hint()
        );
        let arm = pick_platform(&index(&["linux/arm64"]), &host()).expect_err("no fit");
        assert!(arm.hint().contains("made for linux/amd64") && arm.hint().contains("VM"), "{}", arm.hint());
    }

    fn manifest_json() -> serde_json::Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPES[1],
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest(0), "size": 7},
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest(1), "size": 9
            }]
        })
    }

    #[test]
    fn docker_and_oci_manifests_are_read() {
        let docker = parse_document(manifest_json().to_string().as_bytes(), None).expect("docker");
        assert!(matches!(docker, Document::Manifest(m) if m.layers.len() == 1));
        let list = json!({"schemaVersion": 2, "manifests": []}).to_string();
        let read = parse_document(list.as_bytes(), Some(INDEX_TYPES[1])).expect("list");
        assert!(matches!(read, Document::Index(_)));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let mut many = manifest_json();
        many["layers"] = vec![many["layers"][0].clone(); LAYERS_MAX + 1].into();
        let mut chart = manifest_json();
        chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        let mut foreign = manifest_json();
        foreign["layers"][0]["mediaType"] =
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        let mut huge = manifest_json();
        huge["layers"][0]["size"] = (LAYER_BYTES_MAX + 1).into();
        let mut both = manifest_json();
        both["manifests"] = json!([]);
        let cases = [
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            (many, "500 layers"),
            (chart, "not a container image"),
            (foreign, "cannot be unpacked"),
            (huge, "at most"),
            (both, "both layers and manifests"),
            (json!({"schemaVersion": 2}), "cannot be read"),
            (json!([]), "cannot be read"),
        ];
        for (document, message) in cases {
            let error = parse_document(document.to_string().as_bytes(), None).expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_config_must_belong_to_its_manifest_and_machine() {
        let Ok(Document::Manifest(manifest)) = parse_document(manifest_json().to_string().as_bytes(), None)
        else {
            panic!("a manifest")
        };
        let config = |os: &str, diff_ids: usize| {
            json!({
                "os": os, "architecture": "amd64", "history": null,
                "config": {"Env": null, "Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}}},
                "rootfs": {"type": "layers", "diff_ids": vec![digest(3); diff_ids]}
            })
            .to_string()
        };
        let read = parse_config(config("linux", 1).as_bytes(), &manifest, &host()).expect("fits");
        assert_eq!(read.config.expect("given").cmd, ["sh"]);
        let count = parse_config(config("linux", 2).as_bytes(), &manifest, &host());
        assert_eq!(count, Err(ManifestError::LayerCount { diff_ids: 2, layers: 1 }));
        let windows = parse_config(config("windows", 1).as_bytes(), &manifest, &host());
        assert!(matches!(windows, Err(ManifestError::Platform { windows: true, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_document(&bytes, None);
        }
    }
}
