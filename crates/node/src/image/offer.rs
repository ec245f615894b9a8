//! Root file systems that this cloud gives to others as an image server: their sums, and the description beside them.

use super::{
    cancel::{StoppableReader, run_blocking},
    reconcile::Images,
    squashfs,
    tar::{Entry, Kind},
    tar_writer::TarWriter,
    upload::{fault, refused},
    xz,
};
use model::{
    error::{Code, Fault},
    image::{Image, ImageKind, ImageSource},
    simplestreams::offer::{File, SQUASHFS},
};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// Bytes that are summed at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// What gzip (RFC 1952) and zstd (RFC 8878) begin with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The files of an image that others may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// A tar with `metadata.yaml`.
    pub metadata: Vec<u8>,
    /// What that is.
    pub metadata_file: File,
    /// The root file system as it was sent.
    pub root: File,
    /// What that is, as a name's suffix.
    pub root_suffix: &'static str,
    /// SHA-256 in hex of both, one behind the other.
    pub combined_sha256: String,
}

impl Images {
    /// Reads a root file system once for its sums. `metadata` is the text of its `metadata.yaml`.
    ///
    /// # Errors
    /// The image is no root file system that was sent or fetched, or its file cannot be read.
    pub async fn offer(&self, image: &Image, metadata: String) -> Result<Offered, Fault> {
        let has_file = !matches!(image.source, ImageSource::Registry { .. } | ImageSource::Content { .. });
        if image.kind != ImageKind::System || !has_file {
            let message = format!("image {} is no root file system in a tar", image.meta.name);
            return Err(fault(Code::Conflict, message, "import one with --kind system"));
        }
        let file = self.disks.open_sent(image.meta.id, None).await.map_err(|error| refused(&error))?;
        let (file, created_s) = (file.into_std().await, image.meta.created_at.as_second());
        let summed = run_blocking(move |flag| sum(metadata, created_s, StoppableReader::new(file, flag)));
        let unread = |error: io::Error| {
            fault(Code::Unavailable, format!("image {} cannot be read: {error}", image.meta.name), "")
        };
        summed.await.unwrap_or_else(|| Err(io::Error::other("the work was cancelled"))).map_err(unread)
    }
}

fn sum(metadata: String, created_s: i64, mut root: impl Read) -> io::Result<Offered> {
    let metadata = archive(metadata, created_s)?;
    let (mut alone, mut combined) = (Sha256::new(), Sha256::new());
    combined.update(&metadata);
    let (mut size_bytes, mut suffix) = (0, "");
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        root.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        if size_bytes == 0 {
            suffix = suffix_of(&chunk);
        }
        size_bytes += chunk.len() as u64;
        alone.update(&chunk);
        combined.update(&chunk);
    }
    let metadata_file =
        File { size_bytes: metadata.len() as u64, sha256: format!("{:x}", Sha256::digest(&metadata)) };
    Ok(Offered {
        metadata,
        metadata_file,
        root: File { size_bytes, sha256: format!("{:x}", alone.finalize()) },
        root_suffix: suffix,
        combined_sha256: format!("{:x}", combined.finalize()),
    })
}

/// The same image always has the same description: its sum is the image's name.
fn archive(metadata: String, created_s: i64) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(vec![]);
    let entry = Entry {
        path: b"metadata.yaml".to_vec(),
        link: vec![],
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size_bytes: metadata.len() as u64,
        mtime: (created_s, 0),
        xattrs: vec![],
    };
    tar.add_file(&entry, &mut metadata.as_bytes())?;
    tar.finish()
}

fn suffix_of(head: &[u8]) -> &'static str {
    match head {
        head if head.starts_with(&xz::MAGIC) => ".xz",
        head if head.starts_with(&GZIP_MAGIC) => ".gz",
        head if head.starts_with(&ZSTD_MAGIC) => ".zst",
        head if head.starts_with(&squashfs::MAGIC) => SQUASHFS,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_summed_in_one_go() {
        let root: Vec<u8> = [&xz::MAGIC[..], &[7; CHUNK_BYTES + 9][..]].concat();
        let offered = sum("{}\n".into(), 5, &root[..]).expect("summed");
        assert_eq!(offered, sum("{}\n".into(), 5, &root[..]).expect("summed"), "the same each time");
        assert_eq!((offered.root.size_bytes, offered.root_suffix), (root.len() as u64, ".xz"));
        assert_eq!(offered.root.sha256, format!("{:x}", Sha256::digest(&root)));
        let both = [&offered.metadata[..], &root[..]].concat();
        assert_eq!(offered.combined_sha256, format!("{:x}", Sha256::digest(both)));
        assert_eq!(offered.metadata_file.size_bytes, offered.metadata.len() as u64);
        for (head, suffix) in [
            (&[0x1f, 0x8b, 8][..], ".gz"),
            (&ZSTD_MAGIC[..], ".zst"),
            (&b"hsqs"[..], SQUASHFS),
            (&b"etc/"[..], ""),
            (&b""[..], ""),
        ] {
            assert_eq!(suffix_of(head), suffix);
        }
    }
}
