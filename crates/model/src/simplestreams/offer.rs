//! What a server tells of the images that it gives: the two documents, and the description that LXD and Incus keep with a
//! root file system.
//!
//! ```text
//!   streams/v1/index.json, streams/v1/images.json
//!   images/<id>/metadata.tar     metadata.yaml alone
//!   images/<id>/root.tar.xz      the root file system as it was sent, under a suffix that says how it is compressed
//! ```
//! LXD and Incus take an image for the SHA-256 of both files, one behind the other, and read of each by its content how it is
//! compressed; they know a root file system only under the name of a kind, `root.tar.xz` or `squashfs`.

use super::IMAGES;
use crate::{id::ImageId, image::Image, image_manifest::Platform};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Path of the document that names the images.
pub const PRODUCTS_PATH: &str = "streams/v1/images.json";
/// Name of the file with the description.
pub const METADATA: &str = "metadata.tar";
/// What LXD and Incus call the file with the description.
const METADATA_KINDS: [&str; 2] = ["incus.tar.xz", "lxd.tar.xz"];
/// What a tar of a root is called, whatever it is compressed by, and the field of its sum with the description.
const TAR_KIND: (&str, &str) = ("root.tar.xz", "combined_rootxz_sha256");
/// The same of a squashfs.
const SQUASHFS_KIND: (&str, &str) = ("squashfs", "combined_squashfs_sha256");
/// Suffix of a root that is a squashfs, and no tar.
pub const SQUASHFS: &str = ".squashfs";

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub size_bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// An image that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub id: ImageId,
    /// Its name, which is its alias.
    pub name: String,
    /// Architecture as Linux names it.
    pub arch: String,
    /// When it was made: which of several of a name is the newest.
    pub created_at: Timestamp,
    /// Its system, for people.
    pub os: String,
    /// Its release, for people.
    pub release: String,
    /// The description.
    pub metadata: File,
    /// The root file system.
    pub root: File,
    /// What the root is, as the suffix of a name: `.xz` and the like for a tar, nothing for a plain one, or [`SQUASHFS`].
    pub root_suffix: String,
    /// SHA-256 in hex of the description and the root, one behind the other.
    pub combined_sha256: String,
}

/// Whether a name can be an alias: documents separate these by commas, and addresses by `#`.
pub fn can_be_alias(name: &str) -> bool {
    !name.chars().any(|c| c.is_control() || c.is_whitespace() || "#?,".contains(c))
}

/// Name of the file with a root file system.
pub fn root_name(suffix: &str) -> String {
    if suffix == SQUASHFS { format!("root{SQUASHFS}") } else { format!("root.tar{suffix}") }
}

/// Path of a file of an image, below the server's address.
pub fn path(id: ImageId, name: &str) -> String {
    format!("images/{id}/{name}")
}

/// Architecture as Debian, and with it these documents, name it.
fn arch(linux: &str) -> String {
    Platform::linux_on(linux).architecture
}

/// What an image says of its system, for people: `os_distro` and `os_version`, as OpenStack names these properties.
pub fn system_of(image: &Image) -> (String, String) {
    let property =
        |key: &str, usual: &str| image.properties.get(key).map_or(usual, String::as_str).to_string();
    (property("os_distro", "Linux"), property("os_version", "current"))
}

/// The description of an image, `metadata.yaml`: JSON, which is YAML.
pub fn metadata(image: &Image) -> String {
    let (os, release) = system_of(image);
    let name = image.meta.name.as_str();
    let description = if image.meta.description.is_empty() { name } else { &image.meta.description };
    let told = json!({
        "architecture": image.arch,
        "creation_date": image.meta.created_at.as_second(),
        "properties": {
            "architecture": arch(&image.arch), "description": description, "name": name, "os": os, "release": release,
        },
        "templates": {},
    });
    format!("{told:#}\n")
}

/// Images of one name and architecture, which differ by their time.
fn products(offers: &[Offer]) -> BTreeMap<String, Vec<&Offer>> {
    let mut products: BTreeMap<String, Vec<&Offer>> = BTreeMap::new();
    for offer in offers {
        products.entry(format!("{}:{}", offer.name, arch(&offer.arch))).or_default().push(offer);
    }
    products
}

/// The first document.
pub fn index(offers: &[Offer]) -> Value {
    let names: Vec<String> = products(offers).into_keys().collect();
    json!({
        "format": "index:1.0",
        "index": {"images": {
            "datatype": IMAGES, "format": "products:1.0", "path": PRODUCTS_PATH, "products": names,
        }},
    })
}

/// The document that names the images.
pub fn images(offers: &[Offer]) -> Value {
    let products: Map<String, Value> = products(offers)
        .into_iter()
        .filter_map(|(key, same)| {
            let newest = same.iter().max_by_key(|offer| offer.created_at)?;
            let versions: Map<String, Value> =
                same.iter().map(|offer| (version(offer.created_at), json!({"items": items(offer)}))).collect();
            let product = json!({
                "aliases": newest.name, "arch": arch(&newest.arch), "os": newest.os, "release": newest.release,
                "release_title": newest.release, "variant": "default", "versions": versions,
            });
            Some((key, product))
        })
        .collect();
    json!({"content_id": "images", "datatype": IMAGES, "format": "products:1.0", "products": products})
}

/// The name of a version: LXD and Incus read a date in its first eight digits, and the last name is the newest.
fn version(at: Timestamp) -> String {
    at.strftime("%Y%m%d_%H%M%S").to_string()
}

fn items(offer: &Offer) -> Map<String, Value> {
    let item = |kind: &str, name: &str, file: &File| {
        json!({
            "ftype": kind, "path": path(offer.id, name), "sha256": file.sha256, "size": file.size_bytes,
        })
    };
    let (root_kind, combined) = if offer.root_suffix == SQUASHFS { SQUASHFS_KIND } else { TAR_KIND };
    let mut items = Map::new();
    for kind in METADATA_KINDS {
        let mut metadata = item(kind, METADATA, &offer.metadata);
        metadata[combined] = json!(offer.combined_sha256);
        items.insert(kind.into(), metadata);
    }
    items.insert(root_kind.into(), item(root_kind, &root_name(&offer.root_suffix), &offer.root));
    items
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    fn offer(number: u8, name: &str, arch: &str, at: &str) -> Offer {
        let file = |digit: u8| File { size_bytes: 7, sha256: format!("{digit:02x}").repeat(32) };
        Offer {
            id: ImageId::from_random([number; 16]),
            name: name.into(),
            arch: arch.into(),
            created_at: at.parse().expect("a time"),
            os: "Debian".into(),
            release: "12".into(),
            metadata: file(1),
            root: file(number),
            root_suffix: ".gz".into(),
            combined_sha256: "c".repeat(64),
        }
    }

    #[test]
    fn what_is_told_is_read_again() {
        let offers = [
            offer(2, "debian/12", "x86_64", "2026-01-02T03:04:05Z"),
            offer(3, "debian/12", "x86_64", "2026-03-01T00:00:00Z"),
            offer(4, "debian/12", "aarch64", "2026-04-01T00:00:00Z"),
            offer(5, "box", "x86_64", "2026-01-01T00:00:00Z"),
        ];
        let first: Index = serde_json::from_value(index(&offers)).expect("an index");
        assert_eq!(first.documents().collect::<Vec<_>>(), [PRODUCTS_PATH]);
        let second: Products = serde_json::from_value(images(&offers)).expect("products");
        let root = pick(&[second], "debian/12", "amd64").expect("a root");
        assert_eq!(root.path, format!("images/{}/root.tar.gz", offers[1].id), "the newest for this machine");
        assert_eq!(root.digest.to_string(), format!("sha256:{}", offers[1].root.sha256));
        let place: Place = "simplestreams:https://images.example#x".parse().expect("an address");
        assert!(place.url(&root.path).is_some());
    }

    #[test]
    fn lxd_and_incus_find_what_they_look_for() {
        let told = images(&[offer(2, "box", "x86_64", "2026-01-02T03:04:05Z")]);
        let items = &told["products"]["box:amd64"]["versions"]["20260102_030405"]["items"];
        assert_eq!(items["incus.tar.xz"]["combined_rootxz_sha256"], "c".repeat(64));
        assert_eq!(items["lxd.tar.xz"]["ftype"], "lxd.tar.xz");
        assert_eq!(items["root.tar.xz"]["size"], 7);
        let squashed =
            Offer { root_suffix: SQUASHFS.into(), ..offer(2, "box", "x86_64", "2026-01-02T03:04:05Z") };
        let told = images(&[squashed]);
        let items = &told["products"]["box:amd64"]["versions"]["20260102_030405"]["items"];
        assert_eq!(items["incus.tar.xz"]["combined_squashfs_sha256"], "c".repeat(64));
        assert!(items["squashfs"]["path"].as_str().is_some_and(|path| path.ends_with("/root.squashfs")));
        assert_eq!(index(&[])["index"]["images"]["products"], json!([]), "an empty list is not fetched");
        for (name, can) in [("debian/12", true), ("a,b", false), ("a b", false), ("a#b", false)] {
            assert_eq!(can_be_alias(name), can, "{name}");
        }
    }
}
