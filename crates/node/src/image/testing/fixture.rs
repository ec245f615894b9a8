//! Layers and archives made in memory.

use flate2::{Compression, write::GzEncoder};
use model::image_digest::Digest;
use std::io::Write;

/// Writes a tar with names that no honest tool would write.
#[derive(Default)]
pub struct Tar {
    builder: Option<tar::Builder<Vec<u8>>>,
}

/// A header with these fields and nothing checked.
pub fn header(name: &str, kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    assert!(name.len() <= 100, "short names only; use append_pax for others");
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    header
}

impl Tar {
    pub fn new() -> Self {
        Self { builder: Some(tar::Builder::new(Vec::new())) }
    }

    fn builder(&mut self) -> &mut tar::Builder<Vec<u8>> {
        self.builder.as_mut().expect("not finished")
    }

    pub fn raw(mut self, header: &tar::Header, content: &[u8]) -> Self {
        self.builder().append(header, content).expect("in memory");
        self
    }

    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        let header = header(name, tar::EntryType::Regular, content.len() as u64, mode);
        self.raw(&header, content)
    }

    pub fn owned(self, name: &str, mode: u32, uid: u64, gid: u64, content: &[u8]) -> Self {
        let mut header = header(name, tar::EntryType::Regular, content.len() as u64, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_cksum();
        self.raw(&header, content)
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(&header(name, tar::EntryType::Directory, 0, mode), &[])
    }

    pub fn link(self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = header(name, kind, 0, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.raw(&header, &[])
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Symlink, name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Link, name, target)
    }

    /// A pax header before the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.builder().append_pax_extensions(records.iter().copied()).expect("in memory");
        self
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.builder.take().expect("not finished").into_inner().expect("in memory")
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}

/// A file with this content, open for reading and without a name.
pub fn open_file(content: &[u8]) -> std::fs::File {
    use std::io::Seek;
    let mut file = tempfile::tempfile().expect("temp file");
    file.write_all(content).expect("writes");
    file.rewind().expect("rewinds");
    file
}

/// Digest of bytes; for a plain tar, its diff id.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

/// An image in memory, with its layers compressed by gzip.
#[derive(Clone)]
pub struct TestImage {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub archives: Vec<Vec<u8>>,
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

impl TestImage {
    pub fn new(tars: &[Vec<u8>]) -> Self {
        Self::for_platform(
            tars,
            "linux",
            &model::image_manifest::Platform::linux_on(std::env::consts::ARCH).architecture,
        )
    }

    pub fn for_platform(tars: &[Vec<u8>], os: &str, architecture: &str) -> Self {
        let archives: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| digest(tar)).collect();
        let config = serde_json::json!({
            "os": os, "architecture": architecture, "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).expect("json");
        let layers: Vec<_> = archives
            .iter()
            .map(|archive| {
                let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
                serde_json::json!({"mediaType": media_type, "digest": digest(archive), "size": archive.len()})
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config), "size": config.len(),
            },
            "layers": layers,
        });
        Self { manifest: serde_json::to_vec(&manifest).expect("json"), config, archives }
    }

    pub fn digest(&self) -> Digest {
        digest(&self.manifest)
    }

    pub fn blob(&self, wanted: Digest) -> Option<&[u8]> {
        let blobs = [&self.manifest, &self.config].into_iter().chain(&self.archives);
        blobs.map(Vec::as_slice).find(|blob| digest(blob) == wanted)
    }

    /// Puts all of it into a store.
    pub async fn store(&self, blobs: &crate::image::blobs::BlobStore) -> crate::image::stored::StoredImage {
        for blob in [&self.manifest, &self.config].into_iter().chain(&self.archives) {
            blobs.insert(blob.clone()).await.expect("stores");
        }
        crate::image::stored::StoredImage::load(blobs, self.digest(), &host()).expect("loads")
    }
}

/// The platform that tests run on.
pub fn host() -> model::image_manifest::Platform {
    model::image_manifest::Platform::linux_on(std::env::consts::ARCH)
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// The whole chain of an error's messages.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
