//! Secret variables of a pod, kept apart from what is written of it for good.
//!
//! They lie beside the shim's socket, where only root can look, in memory on usual hosts; they are written anew with each
//! start and go with the pod.

use super::bundle::Pod;
use model::plan::SecretEnv;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

/// Name of the file, below the pod's run directory.
const SECRETS: &str = "secrets.json";

/// Writes those of a pod that is about to start, in place of those of its last start.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(pod: &Pod) -> io::Result<()> {
    let path = pod.places.run.join(SECRETS);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let secret = pod.containers.iter().filter(|it| !it.process.secret_env.0.is_empty());
    let all: BTreeMap<&str, &SecretEnv> =
        secret.map(|it| (it.name.as_str(), &it.process.secret_env)).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(&all)?)
}

/// Gives the containers of a pod that was read their secret variables again.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn put_back(pod: &mut Pod) -> io::Result<()> {
    let text = match fs::read(pod.places.run.join(SECRETS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut all: BTreeMap<String, SecretEnv> = serde_json::from_slice(&text)?;
    for container in &mut pod.containers {
        let env = &mut container.process.env;
        for (name, value) in all.remove(&container.name).unwrap_or_default().0 {
            env.retain(|(known, _)| *known != name);
            env.push((name, value));
        }
    }
    Ok(())
}
