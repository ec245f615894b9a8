//! Image references as people write them: `alpine`, `ghcr.io/org/app:1.2`, `localhost:5000/app@sha256:…`.
//!
//! The grammar is the one of the distribution project's `reference` package, which docker uses, so that a name
//! means the same image here as there. A value of [`Reference`] is always complete: registry, repository and a tag
//! or digest. It must never be made by joining texts.

use crate::image_digest::{Digest, DigestError};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The registry that names without one mean.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag that names without one mean.
pub const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, in bytes (distribution specification).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest tag, in bytes (distribution specification).
pub const TAG_BYTES_MAX: usize = 128;
/// Longest text that is looked at, so that a hostile one costs nothing.
const TEXT_BYTES_MAX: usize = 1024;

/// A complete image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("an image name is needed")]
    Empty,
    /// The whole is longer than any reference can be.
    #[error("the image name has {0} bytes, that is too long")]
    TooLong(usize),
    /// A URL was given.
    #[error("'{0}' is a URL, not an image name")]
    Url(String),
    /// The repository has capital letters.
    #[error("the repository name '{0}' has capital letters")]
    Uppercase(String),
    /// The registry part is no host name or address with an optional port.
    #[error("'{0}' is not a registry's host name and port")]
    Registry(String),
    /// The repository part breaks the grammar.
    #[error("'{0}' is not a repository name")]
    Repository(String),
    /// The tag breaks the grammar.
    #[error("'{0}' is not a tag")]
    Tag(String),
    /// The digest is none.
    #[error("the image name ends with something that is not a digest")]
    Digest(#[from] DigestError),
    /// 64 hex digits: an id, not a name.
    #[error("'{0}' is an image id, not a name that can be pulled")]
    Id(String),
}

impl ReferenceError {
    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Empty => "give a name such as alpine or ghcr.io/org/app:1.2".into(),
            Self::TooLong(_) => {
                format!("registry and repository have at most {NAME_BYTES_MAX} bytes together")
            }
            Self::Url(text) => match text.split_once("://") {
                Some((_, rest)) if !rest.is_empty() => format!("leave the scheme out: {rest}"),
                _ => "give a name such as alpine or ghcr.io/org/app:1.2".into(),
            },
            Self::Uppercase(name) => format!("did you mean {}?", name.to_lowercase()),
            Self::Registry(_) => "give it as host, host:port or [IPv6 address]:port".into(),
            Self::Repository(_) => {
                "use small letters and digits, joined by '.', '_', '__' or '-' and parted by '/'".into()
            }
            Self::Tag(_) => format!(
                "a tag starts with a letter, digit or '_', goes on with these, '.' and '-', and has at most {TAG_BYTES_MAX} bytes"
            ),
            Self::Digest(_) => "a digest is sha256: and 64 digits of 0-9 and a-f".into(),
            Self::Id(id) => format!("to name an image by content, write NAME@sha256:{id}"),
        }
    }
}

impl Reference {
    /// A reference by parts, checked like text.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, ReferenceError> {
        let mut text = format!("{registry}/{repository}");
        if let Some(tag) = tag {
            text.push(':');
            text.push_str(tag);
        }
        let mut reference: Self = text.parse()?;
        reference.digest = digest;
        if tag.is_none() && digest.is_some() {
            reference.tag = None;
        }
        Ok(reference)
    }

    /// The registry as written, `docker.io` for short names. May have a port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host and port that serve the registry's API: docker.io's is registry-1.docker.io.
    pub fn registry_host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.registry }
    }

    /// The repository, complete: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins the content.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What is asked of the registry: the digest where there is one, else the tag.
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_string(),
        }
    }

    /// The same repository, pinned to this content.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The shortest text that means the same: `alpine:3.20` for `docker.io/library/alpine:3.20`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }

    /// Registry and repository as docker shows them: `alpine`, `org/app`, `ghcr.io/org/app`.
    pub fn familiar_name(&self) -> String {
        let short = match self.repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => &self.repository,
        };
        // What would be read as another registry is not left to itself: `docker.io/a.b/app`.
        if self.registry == DEFAULT_REGISTRY && split_registry(short) == (DEFAULT_REGISTRY, short) {
            return short.to_string();
        }
        format!("{}/{}", self.registry, self.repository)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(ReferenceError::TooLong(text.len()));
        }
        if text.contains("://") {
            return Err(ReferenceError::Url(text.to_string()));
        }
        if text.len() == 64 && Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::Id(text.to_string()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, repository) = split_registry(name);
        check_registry(registry)?;
        check_repository(repository)?;
        let registry = canonical_registry(registry);
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_string()
        };
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(ReferenceError::TooLong(registry.len() + 1 + repository.len()));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_string()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_string()),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The tag is what follows the last colon, unless a slash follows: then the colon starts a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first part is a registry if it could not be a name on Docker Hub.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':', '['])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn canonical_registry(registry: &str) -> String {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.docker.io" => DEFAULT_REGISTRY.to_string(),
        // Capital letters stay: they are what tells a host without a dot from a name on Docker Hub.
        other => other.to_string(),
    }
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Registry(registry.to_string());
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or_else(bad)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        (None, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(bad)?) })
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        }
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err(bad());
        }
    }
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match host {
        Some(host) if !host.split('.').all(label_is_fine) => Err(bad()),
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase(repository.to_string()));
    }
    if repository.split('/').all(component_is_fine) {
        Ok(())
    } else {
        Err(ReferenceError::Repository(repository.to_string()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn component_is_fine(component: &str) -> bool {
    let edge_is_fine = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !edge_is_fine(component.bytes().next()) || !edge_is_fine(component.bytes().next_back()) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fine = tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if fine { Ok(()) } else { Err(ReferenceError::Tag(tag.chars().take(TAG_BYTES_MAX).collect())) }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// The complete text: `docker.io/library/alpine:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_become_complete() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("org/app", "docker.io/org/app:latest", "org/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/a.b/app", "docker.io/a.b/app:latest", "docker.io/a.b/app:latest"),
            ("docker.io/docker.io/app", "docker.io/docker.io/app:latest", "docker.io/docker.io/app:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("ghcr.io/org/app:1_2-x", "ghcr.io/org/app:1_2-x", "ghcr.io/org/app:1_2-x"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
            ("REG/app", "REG/app:latest", "REG/app:latest"),
            ("a--b__c.d_e", "docker.io/library/a--b__c.d_e:latest", "a--b__c.d_e:latest"),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn a_digest_leaves_the_tag_out_unless_given() {
        let pinned: Reference = format!("alpine@sha256:{HEX}").parse().expect("valid");
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.manifest_name(), format!("sha256:{HEX}"));
        let both: Reference = format!("alpine:3@sha256:{HEX}").parse().expect("valid");
        assert_eq!(both.tag(), Some("3"));
        assert_eq!(both.manifest_name(), format!("sha256:{HEX}"));
        assert_eq!(both.registry_host(), "registry-1.docker.io");
    }

    #[test]
    fn wrong_names_are_refused_with_a_hint() {
        use ReferenceError as E;
        for (text, error, hint) in [
            ("", E::Empty, "give a name"),
            ("https://ghcr.io/a", E::Url("https://ghcr.io/a".into()), "leave the scheme out: ghcr.io/a"),
            ("library/Alpine", E::Uppercase("library/Alpine".into()), "did you mean library/alpine?"),
            ("a.b:99999/c", E::Registry("a.b:99999".into()), "host:port"),
            ("a.b:/c", E::Registry("a.b:".into()), "host:port"),
            ("-a.b/c", E::Registry("-a.b".into()), "host:port"),
            ("[::g]/c", E::Registry("[::g]".into()), "host:port"),
            ("a..b", E::Repository("a..b".into()), "small letters"),
            ("a/../b", E::Repository("a/../b".into()), "small letters"),
            ("/a", E::Repository("/a".into()), "small letters"),
            ("a/", E::Repository("a/".into()), "small letters"),
            ("a_._b", E::Repository("a_._b".into()), "small letters"),
            ("ä", E::Repository("ä".into()), "small letters"),
            ("a:", E::Tag("".into()), "a tag starts"),
            ("a:-x", E::Tag("-x".into()), "a tag starts"),
            (HEX, E::Id(HEX.into()), "NAME@sha256:"),
        ] {
            let got = text.parse::<Reference>().expect_err(text);
            assert_eq!(got, error, "{text}");
            assert!(got.hint().contains(hint), "{text}: {}", got.hint());
        }
        assert!(matches!("a@sha256:12".parse::<Reference>(), Err(E::Digest(_))));
        let tag = "t".repeat(TAG_BYTES_MAX);
        assert!(format!("a:{tag}").parse::<Reference>().is_ok());
        assert!(matches!(format!("a:{tag}t").parse::<Reference>(), Err(E::Tag(_))));
        let name = "n".repeat(NAME_BYTES_MAX - "docker.io/library/".len());
        assert!(name.parse::<Reference>().is_ok());
        assert!(matches!(format!("{name}n").parse::<Reference>(), Err(E::TooLong(256))));
        assert!(matches!("x".repeat(2000).parse::<Reference>(), Err(E::TooLong(2000))));
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_is_taken_reads_back(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().expect("complete text reads back");
                prop_assert_eq!(&again, &reference);
                let short: Reference = reference.familiar().parse().expect("familiar text reads back");
                prop_assert_eq!(&short, &reference);
            }
        }

        #[test]
        fn well_formed_names_are_taken(
            host in "(([a-z]{1,5}\\.[a-z]{2,3}|localhost)(:[0-9]{1,4})?/)?",
            path in "[a-z0-9]{1,5}([_-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?",
        ) {
            let text = format!("{host}{path}{tag}");
            let reference: Reference = text.parse().expect("well formed");
            let again: Reference = reference.to_string().parse().expect("reads back");
            prop_assert_eq!(again, reference);
        }
    }
}
