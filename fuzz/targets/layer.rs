//! Layers of images: whatever an archive says is written below its own directory, or refused, and nothing else changes.
//!
//! It writes real files, as root, in a directory of `/dev/shm`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::image_digest::Digest;
use node::image::{layer_tree::LayerLimits, layers::LayerStore};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::LazyLock,
};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

const LIMITS: LayerLimits = LayerLimits {
    entries_max: 200,
    unpacked_bytes_max: 1 << 20,
    expansion_free_bytes: 1 << 20,
    expansion_ratio_max: 10,
    free_bytes_min: 1,
};

/// Names and inodes of all that lies beside the layers.
fn beside(world: &Path) -> Vec<(String, u64, u64)> {
    let entries = fs::read_dir(world).expect("the directory").map(|entry| entry.expect("an entry"));
    let mut all: Vec<(String, u64, u64)> = entries
        .map(|entry| {
            let seen = fs::symlink_metadata(entry.path()).expect("it is there");
            let name = entry.file_name().to_string_lossy().into_owned();
            // The store's own directory changes when a layer is put there.
            (name, seen.ino(), if seen.is_file() { seen.mtime_nsec() as u64 + seen.len() } else { 0 })
        })
        .collect();
    all.sort();
    all
}

fuzz_target!(|bytes: &[u8]| {
    let world = tempfile::tempdir_in("/dev/shm").expect("a directory");
    fs::write(world.path().join("secret"), "the host's").expect("writes");
    let store = LayerStore::open(world.path(), LIMITS).expect("a store");
    let before = beside(world.path());
    let digest = Digest::from_bytes(Sha256::digest(bytes).into());
    let mut archive = File::from(tempfile::tempfile_in("/dev/shm").expect("a file"));
    archive.write_all(bytes).and_then(|()| archive.rewind()).expect("writes");
    let done = RUNTIME.block_on(store.unpack(archive, digest, digest));
    assert_eq!(beside(world.path()), before, "nothing outside changes");
    let layers: Vec<String> = fs::read_dir(world.path().join("layers"))
        .expect("the layers")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    match done {
        Ok(facts) => {
            assert!(facts.entries <= LIMITS.entries_max && facts.size_bytes <= LIMITS.unpacked_bytes_max);
            assert_eq!(layers.len(), 2, "the layer and what is told of it: {layers:?}");
        }
        Err(error) => assert!(layers.is_empty(), "{error} leaves {layers:?}"),
    }
});
