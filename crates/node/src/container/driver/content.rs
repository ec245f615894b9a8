//! The files that came with a pod, written beside its socket before it starts: in memory on usual hosts.
//!
//! They are written anew with each start, when no container has them mounted, and go with the pod's directory, which only
//! root can enter. Containers see them through mounts that cannot be written.

use crate::{container::bundle::Places, image::tree_removal::remove_tree};
use model::plan::FileSetPlan;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Writes the sets in place of those of the last start.
///
/// # Errors
/// A file cannot be written, or one is in another's way.
pub(in crate::container) fn write(places: &Places, sets: &[FileSetPlan]) -> io::Result<()> {
    let all = places.files();
    remove_tree(&all)?;
    for set in sets {
        let directory = all.join(&set.name);
        open_directory(&directory)?;
        for file in &set.files {
            let path = directory.join(&file.path);
            let inner = Path::new(&file.path).ancestors().skip(1).filter(|part| !part.as_os_str().is_empty());
            for part in inner.collect::<Vec<_>>().into_iter().rev() {
                open_directory(&directory.join(part))?;
            }
            let mut made = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            made.write_all(&file.bytes)?;
            made.set_permissions(fs::Permissions::from_mode(file.mode & 0o777))?;
        }
    }
    Ok(())
}

/// A directory that every user of a container may look into, whatever the daemon keeps from others by its mask.
fn open_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
