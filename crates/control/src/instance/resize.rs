//! Another size for an instance. Containers take it while they run; a VM finds its CPUs and memory when it boots.

use super::{action::refuse_locked, rebuild::refuse_unsettled};
use crate::{Caller, Control, Error, Result};
use model::{
    error::Code,
    flavor::Size,
    instance::{CPU_WEIGHT, Instance, Kind},
};

/// What an instance is to get instead of what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSize {
    /// Another flavor.
    pub flavor: Option<String>,
    /// CPUs instead of the flavor's.
    pub vcpus: Option<u32>,
    /// Memory in MiB instead of the flavor's.
    pub memory_mib: Option<u64>,
    /// Most that the containers of a pod may write to their own files, in GiB.
    pub disk_gib: Option<u64>,
    /// Part of the host's CPUs when they are short.
    pub cpu_weight: Option<u32>,
}

impl NewSize {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Control {
    /// Gives an instance another flavor, or other CPUs, memory and (to containers) more disk by number. Volumes stay as
    /// they are.
    ///
    /// # Errors
    /// `quota_exceeded`, `no_capacity` on its host, `invalid`, `conflict` while it is being deleted, `not_found`,
    /// `forbidden`.
    pub async fn resize_instance(&self, caller: &Caller, reference: &str, new: &NewSize) -> Result<Instance> {
        check_weight(new.cpu_weight)?;
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "resizing an instance")?;
            let old = &found.record;
            refuse_locked(caller, old)?;
            refuse_unsettled(old)?;
            let kept = old.size;
            let (vcpus, memory_mib) = match new.flavor {
                Some(_) => (new.vcpus, new.memory_mib),
                None => (new.vcpus.or(Some(kept.vcpus)), new.memory_mib.or(Some(kept.memory_mib))),
            };
            let mut next = old.clone();
            let disk_gib = new.disk_gib.unwrap_or(kept.disk_gib);
            refuse_own_disk(old, disk_gib, "disk_gib")?;
            if new.flavor.is_some() || (vcpus, memory_mib, disk_gib) != same(kept) {
                (next.flavor, next.flavor_name, next.size) =
                    self.size_asked(caller, new.flavor.as_deref(), vcpus, memory_mib, Some(disk_gib))?;
            }
            next.cpu_weight = new.cpu_weight.unwrap_or(old.cpu_weight);
            if grows(kept, next.size) {
                self.refuse_without_room(old, next.size)?;
            }
            self.charge_change(tx, old, kept, next.size);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }
}

fn same(size: Size) -> (Option<u32>, Option<u64>, u64) {
    (Some(size.vcpus), Some(size.memory_mib), size.disk_gib)
}

/// Refuses to make the disk of an instance anything but a larger one of the containers' own.
pub(super) fn refuse_own_disk(instance: &Instance, disk_gib: u64, field: &str) -> Result<()> {
    let (name, has) = (&instance.meta.name, instance.size.disk_gib);
    if disk_gib == has {
        return Ok(());
    }
    if instance.kind == Kind::Vm {
        let message = format!("the root disk of {name} is a volume of its own");
        let volume = instance.root_volume().map_or("VOLUME".to_string(), |id| id.to_string());
        return Err(Error::invalid(field, message).hint(format!("`holm volume grow {volume} {disk_gib}g`")));
    }
    if has == 0 {
        let message =
            format!("{name} was made without a limit of what it writes, and none can be put on it now");
        return Err(Error::new(Code::Conflict, message)
            .field(field)
            .hint("make it anew with `holm run --disk SIZE`; volumes keep their data"));
    }
    if disk_gib < has {
        let message =
            format!("the disk of {name} has {has} GiB, {disk_gib} GiB were asked for: a disk never shrinks");
        return Err(Error::invalid(field, message).hint("ask for at least as much"));
    }
    Ok(())
}

fn grows(old: Size, new: Size) -> bool {
    new.vcpus > old.vcpus || new.memory_mib > old.memory_mib
}

/// Refuses a weight that the kernel does not know.
pub(super) fn check_weight(weight: Option<u32>) -> Result<()> {
    match weight {
        Some(weight) if !CPU_WEIGHT.contains(&weight) => {
            let (least, most) = (CPU_WEIGHT.start(), CPU_WEIGHT.end());
            let message = format!("a CPU weight of {weight}: {least} to {most} are possible, 100 is usual");
            Err(Error::invalid("cpu_weight", message))
        }
        _ => Ok(()),
    }
}
