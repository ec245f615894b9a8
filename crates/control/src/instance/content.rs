//! Files and secret variables that come with a pod: checked, and sealed before they are part of a record.

use super::{ContainerAsked, NewInstance};
use crate::{Control, Error, Result};
use model::{
    error::Code,
    flavor::MEMORY_MIB,
    health::probe::LINES_RULE,
    id::InstanceId,
    instance::{
        ContainerSpec, Kind,
        content::{
            BadPath, FILE_SETS_MAX, FILES_MAX, File, FileSet, MOUNTS_MAX, SEALED_BYTES_MAX, Shows,
            check_absolute, check_relative,
        },
        tag::Tag,
    },
    seal::{SealKey, Sealed},
};
use std::collections::{BTreeMap, BTreeSet};

/// Longest host name of a container (RFC 1123; sethostname(2) takes 64 bytes).
const HOSTNAME_BYTES_MAX: usize = 63;

/// A set of files to be kept.
#[derive(Debug, Clone)]
pub struct FileSetAsked {
    /// What mounts call it.
    pub name: Tag,
    /// The files.
    pub files: Vec<FileAsked>,
}

/// A file to be kept.
#[derive(Clone)]
pub struct FileAsked {
    /// Path in the set.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Its bytes, which may be a secret.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for FileAsked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// Variables whose values are not to be shown.
#[derive(Clone, Default)]
pub struct SecretEnv(pub BTreeMap<String, String>);

impl std::fmt::Debug for SecretEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Control {
    /// Refuses what cannot be, of files, mounts and variables.
    pub(super) fn check_content(&self, new: &NewInstance) -> Result<()> {
        check_files(&new.files)?;
        let of_env = |asked: &ContainerAsked| {
            asked.secret_env.0.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let in_files =
            new.files.iter().flat_map(|set| &set.files).map(|file| file.bytes.len()).sum::<usize>();
        let bytes = in_files + new.containers.iter().map(of_env).sum::<usize>();
        if bytes > SEALED_BYTES_MAX {
            let message = format!(
                "files and secret variables of {bytes} bytes: at most {SEALED_BYTES_MAX} are kept with an instance"
            );
            return Err(Error::new(Code::TooLarge, message).field("files").hint("put them on a volume"));
        }
        if new.kind == Kind::Vm && !new.files.is_empty() {
            return Err(Error::invalid("files", "files are for containers").hint("a VM has user-data"));
        }
        if (bytes > 0 || !new.files.is_empty()) && self.seal_key.is_none() {
            let message = "this holm has no key to seal files and secret variables with";
            return Err(Error::new(Code::Unsupported, message).field("files"));
        }
        let tags: BTreeSet<&Tag> =
            new.volumes.iter().filter_map(|volume| volume.attach.tag.as_ref()).collect();
        let sets: BTreeSet<&Tag> = new.files.iter().map(|set| &set.name).collect();
        for (number, asked) in new.containers.iter().enumerate() {
            check_mounts(number, &asked.spec, &tags, &sets)?;
            check_secret_env(number, &asked.secret_env)?;
            check_limits(number, &asked.spec)?;
        }
        Ok(())
    }

    /// The files as their instance's record keeps them.
    pub(super) fn seal_files(&self, id: InstanceId, sets: &[FileSetAsked]) -> Vec<FileSet> {
        let Some(key) = &self.seal_key else { return vec![] };
        let file = |file: &FileAsked| File {
            path: file.path.clone(),
            mode: file.mode,
            bytes: seal(key, id, &file.bytes),
        };
        let set = |set: &FileSetAsked| FileSet {
            name: set.name.clone(),
            files: set.files.iter().map(file).collect(),
        };
        sets.iter().map(set).collect()
    }

    /// The variables as their container's record keeps them.
    pub(super) fn seal_env(&self, id: InstanceId, env: &SecretEnv) -> BTreeMap<String, Sealed> {
        let Some(key) = &self.seal_key else { return BTreeMap::new() };
        env.0.iter().map(|(name, value)| (name.clone(), seal(key, id, value.as_bytes()))).collect()
    }
}

fn seal(key: &SealKey, id: InstanceId, bytes: &[u8]) -> Sealed {
    key.seal(rand::random(), id.to_string().as_bytes(), bytes)
}

fn check_files(sets: &[FileSetAsked]) -> Result<()> {
    let too_many = |what: &str, max: usize| {
        Err(Error::new(Code::TooLarge, format!("an instance has at most {max} {what}")).field("files"))
    };
    if sets.len() > FILE_SETS_MAX {
        return too_many("sets of files", FILE_SETS_MAX);
    }
    if sets.iter().map(|set| set.files.len()).sum::<usize>() > FILES_MAX {
        return too_many("files", FILES_MAX);
    }
    let mut names = BTreeSet::new();
    for (number, set) in sets.iter().enumerate() {
        if !names.insert(&set.name) || set.name.as_str().starts_with('.') {
            let message =
                format!("{}: a set of files has a name of its own without a dot before it", set.name);
            return Err(Error::invalid(&format!("files[{number}].name"), message));
        }
        let mut paths: BTreeSet<&str> = BTreeSet::new();
        for (at, file) in set.files.iter().enumerate() {
            let field = |name: &str| format!("files[{number}].files[{at}].{name}");
            check_relative(&file.path).map_err(|wrong| Error::invalid(&field("path"), wrong))?;
            let inside = |other: &&str| {
                let (long, short) = if other.len() > file.path.len() {
                    (*other, file.path.as_str())
                } else {
                    (file.path.as_str(), *other)
                };
                long == short || long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'))
            };
            if let Some(other) = paths.iter().find(|other| inside(other)) {
                return Err(Error::invalid(
                    &field("path"),
                    format!("{} and {other} are in each other's way", file.path),
                ));
            }
            paths.insert(&file.path);
            if file.mode > 0o777 {
                let message = format!("{:o}: permissions are 0 to 777 in octal digits", file.mode);
                return Err(Error::invalid(&field("mode"), message));
            }
        }
    }
    Ok(())
}

fn check_mounts(
    number: usize,
    spec: &ContainerSpec,
    volumes: &BTreeSet<&Tag>,
    sets: &BTreeSet<&Tag>,
) -> Result<()> {
    if spec.mounts.len() > MOUNTS_MAX {
        let message = format!("a container has at most {MOUNTS_MAX} mounts");
        return Err(Error::new(Code::TooLarge, message).field(&format!("containers[{number}].mounts")));
    }
    let mut paths = BTreeSet::new();
    for (at, mount) in spec.mounts.iter().enumerate() {
        let field = |name: &str| format!("containers[{number}].mounts[{at}].{name}");
        let bad = |name: &str| {
            let field = field(name);
            move |wrong: BadPath| Error::invalid(&field, wrong)
        };
        check_absolute(&mount.path).map_err(bad("path"))?;
        if !paths.insert(mount.path.trim_end_matches('/')) {
            return Err(Error::invalid(&field("path"), format!("{} is mounted twice", mount.path)));
        }
        match &mount.shows {
            Shows::Volume(tag) if !volumes.contains(tag) => {
                let message = format!("no volume asked for here has the tag {tag}");
                return Err(Error::invalid(&field("volume"), message));
            }
            Shows::Files(name) if !sets.contains(name) => {
                let message = format!("no set of files asked for here is called {name}");
                return Err(Error::invalid(&field("files"), message));
            }
            _ => {}
        }
        if let Some(path) = &mount.sub_path {
            check_relative(path).map_err(bad("sub_path"))?;
        }
    }
    Ok(())
}

fn check_secret_env(number: usize, env: &SecretEnv) -> Result<()> {
    let field = format!("containers[{number}].secret_env");
    for (name, value) in &env.0 {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::invalid(&field, "a variable has a name, without = in it"));
        }
        if value.contains('\0') {
            return Err(Error::invalid(&field, format!("the value of {name:.80} has a zero byte in it")));
        }
    }
    Ok(())
}

/// Refuses limits of one container that no kernel takes.
fn check_limits(number: usize, spec: &ContainerSpec) -> Result<()> {
    let field = |name: &str| format!("containers[{number}].{name}");
    if let Some(mib) = spec.memory_mib.filter(|mib| !(1..=*MEMORY_MIB.end()).contains(mib)) {
        let message = format!("{mib} MiB: 1 to {} MiB are possible", MEMORY_MIB.end());
        return Err(Error::invalid(&field("memory_mib"), message));
    }
    if spec.cpu_millis == Some(0) {
        return Err(Error::invalid(&field("cpu_millis"), "at least one thousandth of a CPU is needed"));
    }
    let fits = |name: &String| {
        (1..=HOSTNAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
            && !name.starts_with(['-', '.'])
    };
    match spec.hostname.as_ref().filter(|name| !fits(name)) {
        Some(_) => {
            let message = format!("letters, digits, dashes and dots, {HOSTNAME_BYTES_MAX} at most");
            Err(Error::invalid(&field("hostname"), message))
        }
        None => Ok(()),
    }
}

/// Refuses probes that are out of bounds.
pub(super) fn check_probes(number: usize, spec: &ContainerSpec) -> Result<()> {
    for (purpose, probe) in spec.probes.all() {
        let field = format!("containers[{number}].probes.{}", purpose.as_str());
        probe.check_bounds().map_err(|wrong| Error::invalid(&field, wrong))?;
        if probe.breaks_lines() {
            return Err(Error::invalid(&field, LINES_RULE));
        }
        if purpose.restarts() && probe.successes != 1 {
            return Err(Error::invalid(&field, "one success is enough for a startup or liveness probe"));
        }
    }
    Ok(())
}
