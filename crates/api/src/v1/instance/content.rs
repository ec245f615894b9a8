//! Files, mounts and probes of a new pod: from what a client asks to what control takes.

use crate::v1::types::pod::{ContainerMount, FileSetRequest, Lifecycle, Probes};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::{
    Error, Result,
    instance::{FileAsked, FileSetAsked},
};
use model::{
    health::probe,
    instance::{content::Mount, lifecycle},
};

/// Files with their bytes.
///
/// # Errors
/// What is no base64.
pub fn files(asked: &[FileSetRequest]) -> Result<Vec<FileSetAsked>> {
    let set = |(number, set): (usize, &FileSetRequest)| {
        let files = set.files.iter().enumerate().map(|(at, file)| {
            let bytes = STANDARD.decode(&file.content).map_err(|_| {
                let field = format!("files[{number}].files[{at}].content");
                Error::invalid(&field, "the bytes of a file are told in base64")
            })?;
            Ok(FileAsked { path: file.path.clone(), mode: file.mode, bytes })
        });
        Ok(FileSetAsked { name: set.name.clone(), files: files.collect::<Result<_>>()? })
    };
    asked.iter().enumerate().map(set).collect()
}

/// Mounts of a container.
///
/// # Errors
/// One that shows nothing, or two things.
pub fn mounts(container: usize, asked: &[ContainerMount]) -> Result<Vec<Mount>> {
    let mount = |(at, mount): (usize, &ContainerMount)| {
        mount.mount().ok_or_else(|| {
            let field = format!("containers[{container}].mounts[{at}]");
            Error::invalid(&field, "a mount names one of a volume, a set of files, and a path of the host")
        })
    };
    asked.iter().enumerate().map(mount).collect()
}

/// Probes of a container.
///
/// # Errors
/// One that asks nothing, or two things.
pub fn probes(container: usize, asked: &Probes) -> Result<probe::Probes> {
    asked.probes().map_err(|name| {
        let field = format!("containers[{container}].probes.{name}");
        Error::invalid(&field, "a probe has one of exec, tcp, http and grpc")
    })
}

/// Hooks of a container.
///
/// # Errors
/// One that does nothing, or two things.
pub fn lifecycle(container: usize, asked: &Lifecycle) -> Result<lifecycle::Lifecycle> {
    asked.lifecycle().map_err(|name| {
        let field = format!("containers[{container}].lifecycle.{name}");
        Error::invalid(&field, "a hook has one of exec, tcp, http and sleep_s")
    })
}
