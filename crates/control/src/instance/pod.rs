//! What containers are asked beside files and mounts: hooks, groups, memory, what they share. Refused here where no host
//! could do it.

use super::NewInstance;
use crate::{Caller, Control, Error, Result, Role as Level};
use model::{
    error::Code,
    instance::{
        ContainerSpec, Kind,
        content::{MOUNTS_MAX, MemoryMount, Role, Shows, check_absolute},
        host_directory::within,
        isolation::Isolation,
    },
    plan::RestartPolicy,
};

/// Ids that an instance has inside.
const IDS: std::ops::RangeInclusive<u32> = 0..=65_535;
/// Most further groups of a container's user.
const GROUPS_MAX: usize = 32;
/// Least and most that a mount in memory or `/dev/shm` may hold, in bytes. What is on it counts as the container's memory.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 4096..=(1 << 40);
/// Most bytes of a container's variables and arguments, as much as a call that makes it could bring.
const ENVIRONMENT_BYTES_MAX: usize = 1 << 20;

/// Refuses what cannot be.
pub(super) fn check(new: &NewInstance) -> Result<()> {
    if new.kind != Kind::Container && !new.shared.is_empty() {
        return Err(Error::invalid("shared", "what containers share is for pods of containers"));
    }
    check_isolation(new)?;
    if new.kind != Kind::Container && new.restart == RestartPolicy::OnUnhealthy {
        return Err(Error::invalid("restart", "on-unhealthy is for containers, which have health checks"));
    }
    if let Some(dns) = &new.shared.dns {
        dns.check().map_err(|wrong| Error::invalid("shared.dns", wrong))?;
    }
    for (number, asked) in new.containers.iter().enumerate() {
        check_container(new.kind, number, &asked.spec)?;
    }
    Ok(())
}

/// Refuses a machine of its own to what has one, and to what it is not made for.
fn check_isolation(new: &NewInstance) -> Result<()> {
    if new.isolation == Isolation::Shared {
        return Ok(());
    }
    match new.kind {
        Kind::Container => {}
        Kind::Vm => {
            return Err(Error::invalid(
                "isolation",
                "a VM has a kernel of its own: isolation is for containers",
            ));
        }
        Kind::System => {
            let message = "a system container runs on the host's kernel: isolation vm is for containers";
            return Err(Error::invalid("isolation", message).hint(
                "make a VM of a disk image, or a container of an OCI image (`holm run --isolate vm IMAGE`)",
            ));
        }
    }
    for (number, asked) in new.containers.iter().enumerate() {
        for (at, mount) in asked.spec.mounts.iter().enumerate() {
            let Shows::Host { path, .. } = &mount.shows else { continue };
            let message = format!(
                "{path:.200}: a container with a kernel of its own sees no directory of its host (isolation vm)"
            );
            return Err(Error::invalid(&format!("containers[{number}].mounts[{at}].host"), message)
                .hint("use a volume, or leave the isolation out"));
        }
    }
    Ok(())
}

impl Control {
    /// Refuses directories of the host that are not lent, and those who may not ask for them.
    pub(super) fn check_lent(&self, caller: &Caller, new: &NewInstance) -> Result<()> {
        for (number, asked) in new.containers.iter().enumerate() {
            for (at, mount) in asked.spec.mounts.iter().enumerate() {
                let Shows::Host { path, .. } = &mount.shows else { continue };
                let field = format!("containers[{number}].mounts[{at}].host");
                if new.kind != Kind::Container {
                    return Err(Error::invalid(&field, "directories of the host are for containers"));
                }
                // Where things are on a host is not for everybody.
                caller.require(Level::Admin, "using a directory of the host").map_err(|e| e.field(&field))?;
                if within(path, &self.host_directories).is_none() {
                    let lent: Vec<String> =
                        self.host_directories.iter().map(|it| it.display().to_string()).collect();
                    let what = if lent.is_empty() {
                        "none is".into()
                    } else {
                        format!("these are: {}", lent.join(", "))
                    };
                    let message = format!(
                        "{path:.200}: directories of the host are shown to containers only where its operator lends them; {what}"
                    );
                    return Err(Error::new(Code::Forbidden, message)
                        .field(&field)
                        .hint("use a volume, or have the operator start `holm serve --host-directory DIR`"));
                }
            }
        }
        Ok(())
    }
}

/// Refuses variables and arguments that no program can be given, or too many of them.
pub(super) fn check_environment(spec: &ContainerSpec) -> Result<()> {
    let odd = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = spec.env.iter().find(odd) {
        let message = format!("{name:.100?} is no variable: a name has no =, and neither has a byte of zero");
        return Err(Error::invalid("env", message));
    }
    if spec.args.iter().flatten().any(|word| word.contains('\0')) {
        return Err(Error::invalid("args", "an argument has no byte of zero"));
    }
    let variables = spec.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let bytes = variables + spec.args.iter().flatten().map(String::len).sum::<usize>();
    if bytes > ENVIRONMENT_BYTES_MAX {
        let message =
            format!("variables and arguments have {bytes} bytes, {ENVIRONMENT_BYTES_MAX} are possible");
        return Err(Error::new(Code::TooLarge, message).field("env"));
    }
    Ok(())
}

fn check_container(kind: Kind, number: usize, spec: &ContainerSpec) -> Result<()> {
    let field = |name: &str| format!("containers[{number}].{name}");
    for (name, hook) in spec.lifecycle.all() {
        if spec.role == Role::Init {
            return Err(Error::invalid(&field("lifecycle"), "a container that runs to its end has no hooks"));
        }
        hook.check().map_err(|wrong| Error::invalid(&field(&format!("lifecycle.{name}")), wrong))?;
    }
    if kind == Kind::System {
        for (name, is_asked) in [
            ("lifecycle", !spec.lifecycle.is_empty()),
            ("init", spec.init),
            ("groups", !spec.groups.is_empty()),
            ("shm_bytes", spec.shm_bytes.is_some()),
        ] {
            if is_asked {
                let message = format!("{name} is for containers of one program: a system has its own init");
                return Err(Error::invalid(&field(name), message));
            }
        }
    }
    if spec.groups.len() > GROUPS_MAX || spec.groups.iter().any(|gid| !IDS.contains(gid)) {
        let message = format!("at most {GROUPS_MAX} groups, each a number up to {}", IDS.end());
        return Err(Error::invalid(&field("groups"), message));
    }
    check_bytes(&field("shm_bytes"), spec.shm_bytes)?;
    if spec.memory_mounts.len() > MOUNTS_MAX {
        let message = format!("a container has at most {MOUNTS_MAX} mounts");
        return Err(Error::new(Code::TooLarge, message).field(&field("memory_mounts")));
    }
    for (at, mount) in spec.memory_mounts.iter().enumerate() {
        check_memory(&field(&format!("memory_mounts[{at}]")), mount)?;
        let taken = |path: &str| path.trim_end_matches('/') == mount.path.trim_end_matches('/');
        let before = spec.memory_mounts[..at].iter().map(|other| other.path.as_str());
        let others =
            spec.tmpfs.iter().map(String::as_str).chain(spec.mounts.iter().map(|it| it.path.as_str()));
        if before.chain(others).any(taken) {
            let message = format!("{} is mounted twice", mount.path);
            return Err(Error::invalid(&field(&format!("memory_mounts[{at}].path")), message));
        }
    }
    for (at, mount) in spec.mounts.iter().enumerate() {
        if mount.group.is_some_and(|group| !IDS.contains(&group.gid)) {
            let message = format!("a group is a number up to {}", IDS.end());
            return Err(Error::invalid(&field(&format!("mounts[{at}].group")), message));
        }
    }
    Ok(())
}

fn check_memory(field: &str, mount: &MemoryMount) -> Result<()> {
    check_absolute(&mount.path).map_err(|wrong| Error::invalid(&format!("{field}.path"), wrong))?;
    check_bytes(&format!("{field}.size_bytes"), mount.size_bytes)?;
    if mount.mode.is_some_and(|mode| mode > 0o1777) {
        let message = "permissions are 0 to 1777 in octal digits";
        return Err(Error::invalid(&format!("{field}.mode"), message));
    }
    if !IDS.contains(&mount.uid) || !IDS.contains(&mount.gid) {
        let message = format!("users and groups are numbers up to {}", IDS.end());
        return Err(Error::invalid(&format!("{field}.uid"), message));
    }
    Ok(())
}

fn check_bytes(field: &str, bytes: Option<u64>) -> Result<()> {
    match bytes.filter(|bytes| !MEMORY_BYTES.contains(bytes)) {
        None => Ok(()),
        Some(bytes) => {
            let message =
                format!("{bytes} bytes: {} to {} are possible", MEMORY_BYTES.start(), MEMORY_BYTES.end());
            Err(Error::invalid(field, message))
        }
    }
}
