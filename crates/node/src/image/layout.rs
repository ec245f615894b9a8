//! Images as files: OCI image layouts (directory or tar) and `docker save` archives, in and out.
//!
//! An archive comes as a stream in any order, so content goes into the blob store as it comes, named by its own
//! digest, and only then the documents say what belongs together. Names inside an archive are looked up in a table
//! and never become paths. What a refused archive left in the store is waste, and the collector's.

use super::{
    blobs::{BlobError, BlobStore},
    cancel::{StopFlag, StoppableReader, run_blocking},
    compression::{CompressionError, decompress},
    stored::{StoredError, StoredImage},
    tar::{Kind, TarError, TarReader},
};
use crate::room;
use model::{
    error::Code,
    image_digest::Digest,
    image_manifest::{
        CONFIG_BYTES_MAX, CONFIG_TYPE, Descriptor, INDEX_ENTRIES_MAX, ImageConfig, Index, LAYER_BYTES_MAX,
        LAYER_GZIP_TYPE, LAYER_TAR_TYPE, LAYERS_MAX, MANIFEST_BYTES_MAX, MANIFEST_TYPES, Manifest,
        ManifestError, Platform,
    },
    image_reference::Reference,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

/// Most entries of an archive.
const ENTRIES_MAX: u64 = 20_000;
/// Most bytes of an archive, unpacked.
const ARCHIVE_BYTES_MAX: u64 = 512 << 30;
/// Links of old archives point to links at most this often.
const ALIAS_HOPS_MAX: u32 = 8;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const BLOBS_PREFIX: &str = "blobs/sha256/";

/// Why an image cannot be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive is damaged.
    #[error("the archive cannot be read")]
    Archive(#[from] TarError),
    /// It is compressed in a way that is not supported.
    #[error("the archive cannot be read")]
    Compression(#[from] CompressionError),
    /// The blob store failed.
    #[error("blob '{name}' cannot be stored")]
    Blob {
        /// Its name in the archive.
        name: String,
        /// Why not.
        source: BlobError,
    },
    /// An image in it cannot be used.
    #[error(transparent)]
    Image(#[from] StoredError),
    /// A document cannot be read.
    #[error("{name} cannot be read")]
    Document {
        /// Its name in the archive.
        name: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// Neither an OCI layout nor a docker archive.
    #[error("this is neither an OCI image layout nor an archive of docker save")]
    NoImage,
    /// A name that a document mentions is missing.
    #[error("the archive has no '{0}', which its manifest mentions")]
    Missing(String),
    /// A limit was passed.
    #[error("the archive has {what} past the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Written by a later version of the format.
    #[error("the image layout has version '{0}', only 1.x is known")]
    Version(String),
    /// Nobody waits for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
}

impl LayoutError {
    /// Whose matter it is: the archive's, unless this host's disk is full.
    pub fn code(&self) -> Code {
        match self {
            Self::Blob { source, .. } if source.is_full() => Code::NoCapacity,
            Self::Image(error) if error.code() == Code::NoCapacity => Code::NoCapacity,
            _ => Code::Invalid,
        }
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Image(error) => error.hint(),
            Self::Blob { source, .. } if source.is_full() => room::HINT.into(),
            Self::NoImage => {
                "make one with: docker save -o FILE IMAGE, or: skopeo copy … oci-archive:FILE".into()
            }
            _ => "make the archive again; it may have been cut or changed on its way".into(),
        }
    }
}

/// An image that was imported, with the names that the archive gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// Names; empty for an image saved by its id.
    pub names: Vec<Reference>,
    /// What names it: the digest of its index or manifest.
    pub digest: Digest,
    /// The image.
    pub image: StoredImage,
}

/// Imports every image of a tar stream, plain or compressed, that runs on `host`.
pub async fn import_tar(
    blobs: &BlobStore,
    archive: impl Read + Send + 'static,
    host: &Platform,
) -> Result<Vec<ImportedImage>, LayoutError> {
    let (blobs, host) = (blobs.clone(), host.clone());
    run_blocking(move |flag| {
        let mut contents = Contents::default();
        contents.read_tar(&blobs, StoppableReader::new(archive, flag))?;
        contents.images(&blobs, &host)
    })
    .await
    .unwrap_or(Err(LayoutError::Cancelled))
}

/// Imports every image of an OCI layout directory that runs on `host`.
pub async fn import_dir(
    blobs: &BlobStore,
    dir: PathBuf,
    host: &Platform,
) -> Result<Vec<ImportedImage>, LayoutError> {
    let (blobs, host) = (blobs.clone(), host.clone());
    run_blocking(move |flag| {
        let mut contents = Contents::default();
        contents.read_dir(&blobs, &dir, &flag)?;
        contents.images(&blobs, &host)
    })
    .await
    .unwrap_or(Err(LayoutError::Cancelled))
}

/// What an archive held: documents in memory, content in the blob store.
#[derive(Default)]
struct Contents {
    /// `oci-layout`, `index.json`, `manifest.json`.
    documents: HashMap<String, Vec<u8>>,
    /// Other files by name.
    stored: HashMap<String, (Digest, u64)>,
    /// Symbolic links of old docker archives, from name to name.
    aliases: HashMap<String, String>,
}

/// One image of `manifest.json`, as docker writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayoutVersion {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// A name inside an archive without `./`; only a key of a table, never a path.
fn clean(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).into_owned();
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Contents {
    fn read_tar(&mut self, blobs: &BlobStore, archive: impl Read) -> Result<(), LayoutError> {
        let mut reader = TarReader::new(decompress(archive)?);
        let (mut entries, mut total_bytes) = (0u64, 0u64);
        while let Some(entry) = reader.next_entry()? {
            entries += 1;
            total_bytes = total_bytes.saturating_add(entry.size_bytes);
            if entries > ENTRIES_MAX {
                return Err(LayoutError::Limit { what: "entries", limit: ENTRIES_MAX });
            }
            if total_bytes > ARCHIVE_BYTES_MAX {
                return Err(LayoutError::Limit { what: "bytes", limit: ARCHIVE_BYTES_MAX });
            }
            let name = clean(&entry.path);
            match entry.kind {
                Kind::File => self.take_file(blobs, name, entry.size_bytes, &mut reader)?,
                Kind::Symlink | Kind::HardLink => {
                    let target = if entry.kind == Kind::Symlink {
                        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                        clean(format!("{parent}/{}", String::from_utf8_lossy(&entry.link)).as_bytes())
                    } else {
                        clean(&entry.link)
                    };
                    self.aliases.insert(name, target);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_dir(&mut self, blobs: &BlobStore, dir: &Path, flag: &StopFlag) -> Result<(), LayoutError> {
        let at = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError::Io { operation, path, source }
        };
        for name in ["oci-layout", "index.json"] {
            let path = dir.join(name);
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LayoutError::NoImage),
                other => other.map_err(at("open", &path))?,
            };
            let size = file.metadata().map_err(at("look at", &path))?.len();
            self.take_file(blobs, name.to_string(), size, &mut StoppableReader::new(file, flag.clone()))?;
        }
        let blobs_dir = dir.join(BLOBS_PREFIX);
        for (count, entry) in (1..).zip(fs::read_dir(&blobs_dir).map_err(at("list", &blobs_dir))?) {
            if count > ENTRIES_MAX {
                return Err(LayoutError::Limit { what: "entries", limit: ENTRIES_MAX });
            }
            let path = entry.map_err(at("list", &blobs_dir))?.path();
            let Some(hex) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if !fs::symlink_metadata(&path).map_err(at("look at", &path))?.is_file() {
                continue;
            }
            let file = File::open(&path).map_err(at("open", &path))?;
            let size = file.metadata().map_err(at("look at", &path))?.len();
            let name = format!("{BLOBS_PREFIX}{hex}");
            self.take_file(blobs, name, size, &mut StoppableReader::new(file, flag.clone()))?;
        }
        Ok(())
    }

    fn take_file(
        &mut self,
        blobs: &BlobStore,
        name: String,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), LayoutError> {
        if matches!(name.as_str(), "oci-layout" | "index.json" | "manifest.json") {
            if size > MANIFEST_BYTES_MAX {
                return Err(LayoutError::Limit { what: "a document's bytes", limit: MANIFEST_BYTES_MAX });
            }
            let mut document = Vec::new();
            content.take(MANIFEST_BYTES_MAX).read_to_end(&mut document).map_err(TarError::Io)?;
            self.documents.insert(name, document);
            return Ok(());
        }
        let expected = name.strip_prefix(BLOBS_PREFIX).and_then(|hex| Digest::from_hex(hex).ok());
        let wanted =
            expected.is_some() || name.ends_with(".tar") || name.ends_with(".json") || is_hex_name(&name);
        if !wanted {
            return Ok(());
        }
        let stored = match blobs.ingest(content, expected, LAYER_BYTES_MAX) {
            Ok(stored) => stored,
            Err(source) => return Err(LayoutError::Blob { name, source }),
        };
        self.stored.insert(name, stored);
        Ok(())
    }

    fn images(&self, blobs: &BlobStore, host: &Platform) -> Result<Vec<ImportedImage>, LayoutError> {
        if self.documents.contains_key("oci-layout") && self.documents.contains_key("index.json") {
            self.layout_images(blobs, host)
        } else if let Some(document) = self.documents.get("manifest.json") {
            let images: Vec<DockerImage> = parse("manifest.json", document)?;
            if images.len() > INDEX_ENTRIES_MAX {
                return Err(LayoutError::Limit { what: "images", limit: INDEX_ENTRIES_MAX as u64 });
            }
            if images.is_empty() {
                return Err(LayoutError::NoImage);
            }
            images.iter().map(|image| self.docker_image(blobs, host, image)).collect()
        } else {
            Err(LayoutError::NoImage)
        }
    }

    fn layout_images(&self, blobs: &BlobStore, host: &Platform) -> Result<Vec<ImportedImage>, LayoutError> {
        let version: LayoutVersion = parse("oci-layout", &self.documents["oci-layout"])?;
        if !version.version.starts_with("1.") {
            return Err(LayoutError::Version(version.version.chars().take(40).collect()));
        }
        let index: Index = parse("index.json", &self.documents["index.json"])?;
        if index.manifests.len() > INDEX_ENTRIES_MAX {
            return Err(LayoutError::Limit { what: "images", limit: INDEX_ENTRIES_MAX as u64 });
        }
        // docker save writes the full names beside the layout.
        let tags = self.docker_tags();
        let mut images: Vec<ImportedImage> = Vec::new();
        let mut misfit = None;
        for entry in &index.manifests {
            if entry.annotations.contains_key("vnd.docker.reference.type") {
                continue;
            }
            match StoredImage::load(blobs, entry.digest, host) {
                Ok(image) => {
                    // What others have here is not given to who knows its digest.
                    let held: HashSet<Digest> = self.stored.values().map(|(digest, _)| *digest).collect();
                    if let Some(foreign) = image.blobs().find(|digest| !held.contains(digest)) {
                        return Err(LayoutError::Missing(foreign.to_string()));
                    }
                    let names = names_of(entry, tags.get(&image.id));
                    match images.iter_mut().find(|known| known.digest == entry.digest) {
                        Some(known) => {
                            known.names.extend(names);
                            known.names.sort();
                            known.names.dedup();
                        }
                        None => images.push(ImportedImage { names, digest: entry.digest, image }),
                    }
                }
                // A layout of many machines' images is fine as long as one is for this machine.
                Err(error @ StoredError::Document(ManifestError::Platform { .. })) => misfit = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        match misfit {
            Some(error) if images.is_empty() => Err(error.into()),
            _ if images.is_empty() => Err(LayoutError::NoImage),
            _ => Ok(images),
        }
    }

    /// Names in `manifest.json` by the config's digest; only a help, so a broken one is no error.
    fn docker_tags(&self) -> HashMap<Digest, Vec<Reference>> {
        let images: Vec<DockerImage> = self
            .documents
            .get("manifest.json")
            .and_then(|d| serde_json::from_slice(d).ok())
            .unwrap_or_default();
        let mut tags: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for image in images.into_iter().take(INDEX_ENTRIES_MAX) {
            if let Ok((digest, _)) = self.find(&image.config) {
                tags.entry(digest).or_default().extend(references(image.repo_tags.as_deref()));
            }
        }
        tags
    }

    fn find(&self, name: &str) -> Result<(Digest, u64), LayoutError> {
        let mut key = clean(name.as_bytes());
        for _ in 0..ALIAS_HOPS_MAX {
            if let Some(stored) = self.stored.get(&key) {
                return Ok(*stored);
            }
            match self.aliases.get(&key) {
                Some(target) => key = target.clone(),
                None => break,
            }
        }
        Err(LayoutError::Missing(name.chars().take(200).collect()))
    }

    /// Makes a manifest for an image that `docker save` wrote without one.
    fn docker_image(
        &self,
        blobs: &BlobStore,
        host: &Platform,
        image: &DockerImage,
    ) -> Result<ImportedImage, LayoutError> {
        if image.layers.len() > LAYERS_MAX {
            return Err(StoredError::Document(ManifestError::TooManyLayers(image.layers.len())).into());
        }
        let (config, config_bytes) = self.find(&image.config)?;
        let diff_ids = self.diff_ids(blobs, config)?;
        let mut layers = Vec::with_capacity(image.layers.len());
        for (n, name) in image.layers.iter().enumerate() {
            let (digest, size) = self.find(name)?;
            let plain = diff_ids.get(n) == Some(&digest);
            layers.push(descriptor(if plain { LAYER_TAR_TYPE } else { LAYER_GZIP_TYPE }, digest, size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPES[0].to_string()),
            config: descriptor(CONFIG_TYPE, config, config_bytes),
            layers,
            annotations: BTreeMap::new(),
        };
        let text = to_json("manifest.json", &manifest)?;
        let (digest, _) = blobs
            .ingest(&text[..], None, MANIFEST_BYTES_MAX)
            .map_err(|source| LayoutError::Blob { name: "manifest".into(), source })?;
        let image_stored = StoredImage::load(blobs, digest, host)?;
        Ok(ImportedImage { names: references(image.repo_tags.as_deref()), digest, image: image_stored })
    }

    fn diff_ids(&self, blobs: &BlobStore, config: Digest) -> Result<Vec<Digest>, LayoutError> {
        let text = blobs.read(&config, CONFIG_BYTES_MAX).map_err(StoredError::Blob)?;
        Ok(parse::<ImageConfig>("the image's config", &text)?.rootfs.diff_ids)
    }
}

/// Old docker archives name a config by its hex digest alone in some versions.
fn is_hex_name(name: &str) -> bool {
    Digest::from_hex(name).is_ok()
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_string(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn references(tags: Option<&[String]>) -> Vec<Reference> {
    tags.unwrap_or_default().iter().filter_map(|tag| tag.parse().ok()).collect()
}

fn names_of(entry: &Descriptor, tags: Option<&Vec<Reference>>) -> Vec<Reference> {
    let full = entry.annotations.get(CONTAINERD_NAME);
    // The layout's own annotation is often a bare tag, which names nothing; a full name has a slash or a colon.
    let named = entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']));
    let mut names: Vec<Reference> = full.or(named).and_then(|name| name.parse().ok()).into_iter().collect();
    names.extend(tags.into_iter().flatten().cloned());
    names.sort();
    names.dedup();
    names
}

fn parse<'a, T: Deserialize<'a>>(name: &'static str, text: &'a [u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(text).map_err(|source| LayoutError::Document { name, source })
}

fn to_json(name: &'static str, value: &impl Serialize) -> Result<Vec<u8>, LayoutError> {
    serde_json::to_vec(value).map_err(|source| LayoutError::Document { name, source })
}

/// Writes images as a tar that is an OCI layout and a `docker load` archive at once. The same images give the same
/// bytes.
pub async fn export_tar(
    blobs: &BlobStore,
    images: Vec<ImportedImage>,
    output: impl Write + Send + 'static,
) -> Result<(), LayoutError> {
    let blobs = blobs.clone();
    run_blocking(move |flag| {
        let failed = |source| LayoutError::Io { operation: "write", path: "the archive".into(), source };
        let mut builder = tar::Builder::new(BufWriter::with_capacity(256 << 10, output));
        let header = |size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header
        };
        for (name, text) in export_documents(&blobs, &images)? {
            builder.append_data(&mut header(text.len() as u64), name, &text[..]).map_err(failed)?;
        }
        for digest in needed_blobs(&images) {
            let file = blobs.open_blob(&digest).map_err(StoredError::Blob)?;
            let size = file.metadata().map_err(failed)?.len();
            let name = format!("{BLOBS_PREFIX}{}", digest.hex());
            let content = StoppableReader::new(file, flag.clone());
            builder.append_data(&mut header(size), name, content).map_err(failed)?;
        }
        builder.into_inner().and_then(|mut output| output.flush()).map_err(failed)
    })
    .await
    .unwrap_or(Err(LayoutError::Cancelled))
}

/// Writes images as an OCI layout into `dir`, which is made.
pub async fn export_dir(
    blobs: &BlobStore,
    images: Vec<ImportedImage>,
    dir: PathBuf,
) -> Result<(), LayoutError> {
    let blobs = blobs.clone();
    run_blocking(move |flag| {
        let at = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError::Io { operation, path, source }
        };
        let blobs_dir = dir.join(BLOBS_PREFIX);
        fs::create_dir_all(&blobs_dir).map_err(at("create", &blobs_dir))?;
        for digest in needed_blobs(&images) {
            let path = blobs_dir.join(digest.hex());
            let file = blobs.open_blob(&digest).map_err(StoredError::Blob)?;
            let mut output = File::create(&path).map_err(at("create", &path))?;
            io::copy(&mut StoppableReader::new(file, flag.clone()), &mut output)
                .map_err(at("write", &path))?;
        }
        // The documents come last: a directory that has them is whole.
        for (name, text) in export_documents(&blobs, &images)? {
            let path = dir.join(name);
            fs::write(&path, text).map_err(at("write", &path))?;
        }
        Ok(())
    })
    .await
    .unwrap_or(Err(LayoutError::Cancelled))
}

/// An index is exported only as its manifest: the other machines' images are not here.
fn export_documents(
    blobs: &BlobStore,
    images: &[ImportedImage],
) -> Result<Vec<(&'static str, Vec<u8>)>, LayoutError> {
    let mut manifests = Vec::new();
    let mut docker = Vec::new();
    for ImportedImage { names, image, .. } in images {
        let size = blobs.size_bytes(&image.manifest).map_err(StoredError::Blob)?;
        let size = size.ok_or(BlobError::Missing(image.manifest)).map_err(StoredError::Blob)?;
        let text = blobs.read(&image.manifest, MANIFEST_BYTES_MAX).map_err(StoredError::Blob)?;
        let manifest: Manifest = parse("manifest.json", &text)?;
        let media_type = manifest.media_type.as_deref().unwrap_or(MANIFEST_TYPES[0]);
        let mut entry = descriptor(media_type, image.manifest, size);
        entry.platform = Some(image.config.platform()).filter(|platform| !platform.os.is_empty());
        if names.is_empty() {
            manifests.push(entry.clone());
        }
        for name in names {
            let mut named = entry.clone();
            named.annotations.insert(CONTAINERD_NAME.into(), name.to_string());
            named.annotations.insert(REF_NAME.into(), name.tag().unwrap_or("latest").into());
            manifests.push(named);
        }
        docker.push(DockerImage {
            config: format!("{BLOBS_PREFIX}{}", image.id.hex()),
            repo_tags: Some(names.iter().filter(|n| n.digest().is_none()).map(Reference::familiar).collect()),
            layers: image.layers.iter().map(|layer| format!("{BLOBS_PREFIX}{}", layer.blob.hex())).collect(),
        });
    }
    let index = Index { schema_version: 2, media_type: None, manifests, annotations: BTreeMap::new() };
    Ok(vec![
        ("oci-layout", to_json("oci-layout", &LayoutVersion { version: "1.0.0".into() })?),
        ("index.json", to_json("index.json", &index)?),
        ("manifest.json", to_json("manifest.json", &docker)?),
    ])
}

fn needed_blobs(images: &[ImportedImage]) -> Vec<Digest> {
    let mut seen = HashSet::new();
    let all = images.iter().flat_map(|i| {
        [i.image.manifest, i.image.id].into_iter().chain(i.image.layers.iter().map(|layer| layer.blob))
    });
    all.filter(|digest| seen.insert(*digest)).collect()
}
