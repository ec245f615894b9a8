//! Flavors: named sizes that admins make.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    error::Code,
    flavor::{DISK_GIB_MAX, Flavor, MEMORY_MIB, Size, VCPUS_MAX, size_from_name},
    id::FlavorId,
    instance::Instance,
    meta::Meta,
    name::Name,
};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// A flavor to be made.
#[derive(Debug, Clone)]
pub struct NewFlavor {
    /// Name; may tell the size, like `g1.c2m4g`.
    pub name: String,
    /// Size; read out of the name when `None`.
    pub size: Option<Size>,
    /// Every project may use it.
    pub public: bool,
    /// Extra specs.
    pub extra_specs: BTreeMap<String, String>,
}

/// Checks a size against what this holm allows.
///
/// # Errors
/// `invalid`, with the field and its limits.
pub fn check_size(size: Size) -> Result<()> {
    if !(1..=VCPUS_MAX).contains(&size.vcpus) {
        return Err(Error::invalid("vcpus", format!("{} vCPUs: 1 to {VCPUS_MAX} are possible", size.vcpus)));
    }
    if !MEMORY_MIB.contains(&size.memory_mib) {
        let (least, most) = (MEMORY_MIB.start(), MEMORY_MIB.end());
        let message = format!("{} MiB of memory: {least} to {most} MiB are possible", size.memory_mib);
        return Err(Error::invalid("memory_mib", message));
    }
    if size.disk_gib > DISK_GIB_MAX {
        let message = format!("a disk of {} GiB: at most {DISK_GIB_MAX} GiB are possible", size.disk_gib);
        return Err(Error::invalid("disk_gib", message));
    }
    Ok(())
}

impl Control {
    /// Makes a flavor.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_flavor(&self, caller: &Caller, new: NewFlavor) -> Result<Flavor> {
        caller.require(Role::Admin, "creating a flavor")?;
        let name: Name = new.name.parse().map_err(|e| Error::invalid("name", e))?;
        let size = match new.size {
            Some(size) => size,
            None => size_from_name(&name).map_err(|e| Error::invalid("vcpus", e))?,
        };
        check_size(size)?;
        let meta = Meta::new(FlavorId::from_random(rand::random()), caller.project, name, self.now());
        let flavor = Flavor { meta, size, public: new.public, extra_specs: new.extra_specs };
        self.transact(|tx| {
            tx.create(&flavor);
            Ok(flavor.clone())
        })
        .await
    }

    /// Removes a flavor. Instances made with it keep their size.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn delete_flavor(&self, caller: &Caller, reference: &str) -> Result<Arc<Stored<Flavor>>> {
        caller.require(Role::Admin, "deleting a flavor")?;
        self.transact(|tx| {
            let flavor = self.find::<Flavor>(caller, reference)?;
            tx.delete(&flavor);
            Ok(flavor)
        })
        .await
    }

    /// How many instances were made with a flavor.
    pub fn flavor_uses(&self, id: FlavorId) -> usize {
        self.store.mirror().list::<Instance>().iter().filter(|i| i.record.flavor == Some(id)).count()
    }

    /// The size that a request asks for: a flavor, or CPUs and memory by number, or both (numbers win).
    ///
    /// # Errors
    /// `invalid` if neither is given, `not_found`.
    pub fn size_asked(
        &self,
        caller: &Caller,
        flavor: Option<&str>,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
        disk_gib: Option<u64>,
    ) -> Result<(Option<FlavorId>, String, Size)> {
        let found = match flavor {
            Some(reference) => Some(self.find_for::<Flavor>(caller, "flavor", reference)?),
            None => None,
        };
        let base = match (&found, vcpus, memory_mib) {
            (Some(found), _, _) => found.record.size,
            (None, Some(vcpus), Some(memory_mib)) => Size { vcpus, memory_mib, disk_gib: 0 },
            _ => {
                return Err(Error::new(Code::Invalid, "no size was given")
                    .field("flavor")
                    .hint("name a flavor (`holm flavor list`), or both --cpus and --memory"));
            }
        };
        let size = Size {
            vcpus: vcpus.unwrap_or(base.vcpus),
            memory_mib: memory_mib.unwrap_or(base.memory_mib),
            disk_gib: disk_gib.unwrap_or(base.disk_gib),
        };
        check_size(size)?;
        let name = found.as_ref().map_or("custom".to_string(), |f| f.record.meta.name.to_string());
        Ok((found.map(|f| f.record.meta.id), name, size))
    }
}
