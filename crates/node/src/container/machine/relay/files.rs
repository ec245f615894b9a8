//! The files that the containers of a pod are shown, read back from where the daemon wrote them.

use model::plan::{FilePlan, FileSetPlan};
use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// The files that the containers of a pod are shown, as the daemon wrote them.
pub(super) fn shown_files(all: &Path) -> io::Result<Vec<FileSetPlan>> {
    let sets = match fs::read_dir(all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        sets => sets?,
    };
    let mut found = Vec::new();
    for set in sets {
        let set = set?;
        let mut files = Vec::new();
        collect(&set.path(), &set.path(), &mut files)?;
        found.push(FileSetPlan { name: set.file_name().to_string_lossy().into_owned(), files });
    }
    Ok(found)
}

fn collect(top: &Path, directory: &Path, files: &mut Vec<FilePlan>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(top, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(top).unwrap_or(&path).to_string_lossy().into_owned();
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        files.push(FilePlan { path: name, mode, bytes: fs::read(&path)? });
    }
    Ok(())
}
