//! Image servers as LXC, LXD, Incus and Ubuntu's clouds have them: documents that name files, in the form called simplestreams.
//!
//! ```text
//!   <base>/streams/v1/index.json    which further documents there are
//!   <base>/streams/v1/images.json   products, each with names, an architecture and dated versions of files
//!   <base>/<path of a file>         of a system container: root.tar.xz or root.squashfs, and metadata that only LXD and Incus need
//! ```
//! Source: <https://linuxcontainers.org/incus/docs/main/reference/image_servers>. Everything in these documents is a stranger's: paths are
//! joined to the base only when they stay below it, and a file counts only with its SHA-256.

pub mod offer;

use crate::image_digest::Digest;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// What an address of an image on such a server begins with.
pub const SCHEME: &str = "simplestreams:";
/// Where the first document is, below the base.
pub const INDEX_PATH: &str = "streams/v1/index.json";
/// Most further documents that are read.
pub const DOCUMENTS_MAX: usize = 8;
/// Kind of a document that names images.
const IMAGES: &str = "image-downloads";
/// Kinds of files that hold a root file system, the better first: a squashfs is made a tar of, which takes a program more.
const ROOTS: [&str; 4] = ["root.tar.xz", "root.tar.gz", "root.tar.zst", "squashfs"];
/// Names that are told where none fits.
const NAMES_TOLD_MAX: usize = 12;

/// An image on a server: `simplestreams:https://HOST[/BASE]#ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where its documents begin, without a slash at the end.
    pub base: String,
    /// The image's name there, like `debian/12`.
    pub alias: String,
}

/// The text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write simplestreams:https://HOST#ALIAS, like simplestreams:https://images.linuxcontainers.org#debian/12"
)]
pub struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (base, alias) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('#')).ok_or(PlaceError)?;
        let host =
            base.strip_prefix("https://").or_else(|| base.strip_prefix("http://")).ok_or(PlaceError)?;
        let is_plain =
            |text: &str| !text.chars().any(|c| c.is_control() || c.is_whitespace() || "#?,".contains(c));
        if host.is_empty() || host.starts_with('/') || alias.is_empty() || !is_plain(base) || !is_plain(alias)
        {
            return Err(PlaceError);
        }
        Ok(Self { base: base.trim_end_matches('/').to_string(), alias: alias.to_string() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}#{}", self.base, self.alias)
    }
}

impl Place {
    /// The address of what a document calls `path`; `None` where that leads elsewhere.
    pub fn url(&self, path: &str) -> Option<String> {
        let is_below = path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".");
        let is_plain = !path.chars().any(|c| c.is_control() || c.is_whitespace() || "#?\\".contains(c));
        (is_below && is_plain).then(|| format!("{}/{path}", self.base))
    }
}

/// The first document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Index {
    #[serde(default)]
    index: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Entry {
    #[serde(default)]
    datatype: String,
    #[serde(default)]
    path: String,
}

impl Index {
    /// Paths of the documents that name images.
    pub fn documents(&self) -> impl Iterator<Item = &str> {
        let of_images = self.index.values().filter(|entry| entry.datatype == IMAGES);
        of_images.map(|entry| entry.path.as_str()).take(DOCUMENTS_MAX)
    }
}

/// A document that names images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Products {
    #[serde(default)]
    products: BTreeMap<String, Product>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Product {
    #[serde(default)]
    aliases: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Version {
    #[serde(default)]
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Item {
    #[serde(default)]
    ftype: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    sha256: String,
}

/// A root file system on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its path below the base.
    pub path: String,
    /// What the file must be.
    pub digest: Digest,
    /// Which version of the image it is.
    pub version: String,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No such name.
    #[error("the server has no image {alias:?} for {arch}{}", told(.names))]
    Unknown {
        /// What was asked for.
        alias: String,
        /// The host's architecture.
        arch: String,
        /// Some that it has.
        names: Vec<String>,
    },
    /// It is there, in other forms.
    #[error("the server has {alias:?} for virtual machines alone, not as a root file system")]
    NoRoot {
        /// What was asked for.
        alias: String,
    },
    /// A digest is none.
    #[error("the server tells no SHA-256 of the root file system of {alias:?}")]
    NoDigest {
        /// What was asked for.
        alias: String,
    },
}

fn told(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) }
}

impl Product {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.aliases.split(',').map(str::trim).filter(|name| !name.is_empty())
    }
}

/// The newest root file system of an image. `arch` is the architecture as Debian names it, like `amd64`.
///
/// # Errors
/// There is none, or none that can be checked.
pub fn pick(documents: &[Products], alias: &str, arch: &str) -> Result<Root, PickError> {
    let fitting =
        || documents.iter().flat_map(|it| it.products.values()).filter(|product| product.arch == arch);
    let alias = alias.to_string();
    let Some(product) = fitting().find(|product| product.names().any(|name| name == alias)) else {
        let mut names: Vec<String> =
            fitting().filter_map(|it| it.names().min_by_key(|name| name.len())).map(str::to_string).collect();
        names.sort();
        names.dedup();
        names.truncate(NAMES_TOLD_MAX);
        return Err(PickError::Unknown { alias, arch: arch.to_string(), names });
    };
    // Versions are named by their times, so that the last name is the newest.
    for (version, files) in product.versions.iter().rev() {
        let root = ROOTS.iter().find_map(|kind| files.items.values().find(|item| item.ftype == *kind));
        if let Some(root) = root {
            let digest =
                format!("sha256:{}", root.sha256).parse().map_err(|_| PickError::NoDigest { alias })?;
            return Ok(Root { path: root.path.clone(), digest, version: version.clone() });
        }
    }
    Err(PickError::NoRoot { alias })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(text: &str) -> Result<Place, PlaceError> {
        text.parse()
    }

    #[test]
    fn addresses_are_read() {
        let found = place("simplestreams:https://images.example:8443/base/#debian/12").expect("an address");
        assert_eq!(
            (found.base.as_str(), found.alias.as_str()),
            ("https://images.example:8443/base", "debian/12")
        );
        assert_eq!(found.to_string(), "simplestreams:https://images.example:8443/base#debian/12");
        for wrong in [
            "https://images.example#debian",
            "simplestreams:images.example#debian",
            "simplestreams:https://images.example",
            "simplestreams:https://images.example#",
            "simplestreams:https://#debian",
            "simplestreams:https:///x#debian",
            "simplestreams:ftp://images.example#debian",
            "simplestreams:https://images.example?x#debian",
            "simplestreams:https://images.example#a b",
            "simplestreams:https://images.example#a#b",
        ] {
            assert_eq!(place(wrong), Err(PlaceError), "{wrong}");
        }
    }

    #[test]
    fn paths_stay_below_the_base() {
        let base = place("simplestreams:https://images.example/base#x").expect("an address");
        assert_eq!(base.url("images/a.tar").as_deref(), Some("https://images.example/base/images/a.tar"));
        for wrong in
            ["", "/etc/passwd", "../x", "a/../../x", "a//b", "https://evil.example/x", "a?b", "a#b", "a\\b"]
        {
            assert_eq!(base.url(wrong), None, "{wrong}");
        }
    }

    fn documents() -> (Index, Vec<Products>) {
        let index = json!({"format": "index:1.0", "index": {
            "images": {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": ["a"]},
            "ids": {"datatype": "image-ids", "path": "streams/v1/ids.json"},
        }});
        let sum = "ab".repeat(32);
        let root = |path: &str| json!({"ftype": "root.tar.xz", "path": path, "sha256": sum, "size": 9});
        let images = json!({"format": "products:1.0", "products": {
            "debian:12:amd64:default": {"aliases": "debian/12/default,debian/12", "arch": "amd64", "os": "Debian", "versions": {
                "20260101_05:24": {"items": {"root.tar.xz": root("old.tar.xz")}},
                "20260301_05:24": {"items": {
                    "incus.tar.xz": {"ftype": "incus.tar.xz", "path": "meta.tar.xz", "sha256": sum},
                    "root.tar.xz": root("new.tar.xz"),
                    "root.squashfs": {"ftype": "squashfs", "path": "x", "sha256": sum},
                }},
                "20260401_05:24": {"items": {"disk.qcow2": {"ftype": "disk-kvm.img", "path": "y", "sha256": sum}}},
            }},
            "debian:12:arm64:default": {"aliases": "debian/12", "arch": "arm64", "versions": {}},
            "alpine:amd64": {"aliases": "alpine/3.22", "arch": "amd64", "versions": {"20260301_13:00": {"items": {
                "root.squashfs": {"ftype": "squashfs", "path": "alpine.squashfs", "sha256": sum},
                "disk.qcow2": {"ftype": "disk-kvm.img", "path": "y", "sha256": sum}}}}},
            "vm:amd64": {"aliases": "vm", "arch": "amd64", "versions": {"1": {"items": {}}}},
            "bad:amd64": {"aliases": "bad", "arch": "amd64", "versions": {"1": {"items": {
                "root.tar.xz": {"ftype": "root.tar.xz", "path": "z"}}}}},
        }});
        (
            serde_json::from_value(index).expect("an index"),
            vec![serde_json::from_value(images).expect("products")],
        )
    }

    #[test]
    fn the_newest_root_of_the_hosts_architecture_is_picked() {
        let (index, documents) = documents();
        assert_eq!(index.documents().collect::<Vec<_>>(), ["streams/v1/images.json"]);
        let root = pick(&documents, "debian/12", "amd64").expect("a root");
        assert_eq!((root.path.as_str(), root.version.as_str()), ("new.tar.xz", "20260301_05:24"));
        assert_eq!(root.digest.to_string(), format!("sha256:{}", "ab".repeat(32)));
        let error = pick(&documents, "debian/13", "amd64").expect_err("none").to_string();
        assert_eq!(
            error,
            "the server has no image \"debian/13\" for amd64; it has alpine/3.22, bad, debian/12, vm"
        );
        assert_eq!(pick(&documents, "alpine/3.22", "amd64").expect("a root").path, "alpine.squashfs");
        assert!(matches!(pick(&documents, "debian/12", "riscv64"), Err(PickError::Unknown { .. })));
        assert!(matches!(pick(&documents, "vm", "amd64"), Err(PickError::NoRoot { .. })));
        assert!(matches!(pick(&documents, "bad", "amd64"), Err(PickError::NoDigest { .. })));
    }
}
