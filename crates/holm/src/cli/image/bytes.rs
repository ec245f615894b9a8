//! Where the bytes of an image come from: a file, standard input, or a directory that is sent as a tar.

use crate::cli::{
    failure::{Failure, Result},
    input::Input,
};
use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
};
use tokio::io::AsyncRead;

/// Longest path below the directory.
const DEPTH_MAX: usize = 16;

/// Bytes to send.
pub struct Source {
    /// The bytes.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
    /// How many there are, where that is known before.
    pub size_bytes: Option<u64>,
}

impl Source {
    /// Opens a file, `-`, or a directory.
    ///
    /// # Errors
    /// It cannot be read, or the directory is no OCI image layout.
    pub async fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { reader: Box::pin(Input::stdin().into_reader()), size_bytes: None });
        }
        let failed = |e: std::io::Error| Failure::local(format!("cannot read {}", path.display()), &e);
        let facts = fs::metadata(path).map_err(failed)?;
        if facts.is_dir() {
            return Self::directory(path);
        }
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let size_bytes = facts.is_file().then_some(facts.len());
        Ok(Self { reader: Box::pin(file), size_bytes })
    }

    fn directory(path: &Path) -> Result<Self> {
        if !path.join("oci-layout").is_file() {
            return Err(Failure::usage(format!("{} is no OCI image layout", path.display()))
                .hint("such a directory has the files oci-layout and index.json, and a directory blobs"));
        }
        let path = path.to_path_buf();
        let input = Input::made_by(move |out| write_tar(&path, out));
        Ok(Self { reader: Box::pin(input.into_reader()), size_bytes: None })
    }
}

fn write_tar(directory: &Path, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(true);
    let mut waiting: Vec<(PathBuf, usize)> = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = waiting.pop() {
        let mut entries = fs::read_dir(directory.join(&below))?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = below.join(entry.file_name());
            let path = entry.path();
            if path.is_dir() {
                if depth < DEPTH_MAX {
                    waiting.push((name, depth + 1));
                }
            } else if path.is_file() {
                builder.append_path_with_name(&path, &name)?;
            }
        }
    }
    builder.finish()
}
