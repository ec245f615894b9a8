//! Flavors: named sizes that admins make.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    error::Code,
    flavor::{
        DISK_GIB_MAX, FLAVORID_CHARS_MAX, Flavor, MEMORY_MIB, PROJECTS_MAX, Size, VCPUS_MAX, size_from_name,
    },
    id::{FlavorId, ProjectId},
    instance::Instance,
    meta::Meta,
    name::Name,
    project::Project,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// A flavor to be made.
#[derive(Debug, Clone)]
pub struct NewFlavor {
    /// Name; may tell the size, like `g1.c2m4g`.
    pub name: String,
    /// Size; read out of the name when `None`.
    pub size: Option<Size>,
    /// Id that OpenStack's clients know it by, where one was chosen: a UUID becomes its id on every door.
    pub flavorid: Option<String>,
    /// Free text.
    pub description: String,
    /// Every project may use it.
    pub public: bool,
    /// Extra specs.
    pub extra_specs: BTreeMap<String, String>,
}

/// Where ids that were chosen for flavors are unique.
const FLAVORID_SCOPE: &str = "flavorid/flavor";

/// The id of a new flavor, and the text that OpenStack's clients know it by where that is no UUID.
fn ids_asked(text: String) -> Result<(FlavorId, Option<String>)> {
    if let Ok(id) = text.parse::<FlavorId>()
        && id.to_string() == text
    {
        return Ok((id, None));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._- ".contains(c);
    if text.is_empty() || text.len() > FLAVORID_CHARS_MAX || text.trim() != text || !text.chars().all(plain) {
        let message = format!(
            "an id of a flavor has 1 to {FLAVORID_CHARS_MAX} letters, digits and . _ - alone, with spaces inside"
        );
        return Err(Error::invalid("id", message));
    }
    Ok((FlavorId::from_random(rand::random()), Some(text)))
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
        let (id, flavorid) = match new.flavorid {
            None => (FlavorId::from_random(rand::random()), None),
            Some(text) => ids_asked(text)?,
        };
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description = new.description;
        let flavor = Flavor {
            meta,
            size,
            public: new.public,
            projects: BTreeSet::new(),
            flavorid,
            extra_specs: new.extra_specs,
        };
        self.transact(|tx| {
            if let Some(text) = &flavor.flavorid {
                tx.claim(FLAVORID_SCOPE, text, &id.to_string());
            }
            tx.create(&flavor);
            Ok(flavor.clone())
        })
        .await
    }

    /// The flavor that OpenStack's clients know by this id, if the caller may see it.
    pub fn flavor_by_openstack_id(&self, caller: &Caller, text: &str) -> Option<Arc<Stored<Flavor>>> {
        let named = self.store.mirror().list::<Flavor>();
        let chosen = named.iter().find(|flavor| flavor.record.flavorid.as_deref() == Some(text));
        let id = match chosen {
            Some(flavor) => flavor.record.meta.id,
            None => text.parse().ok()?,
        };
        self.find::<Flavor>(caller, &id.to_string()).ok()
    }

    /// Opens a flavor that is not public to a project, or closes it.
    ///
    /// # Errors
    /// `conflict` for a public flavor, `taken` and `not_found` where nothing would change, `invalid` for a project that
    /// is not there, `too_large`, `forbidden`.
    pub async fn open_flavor(
        &self,
        caller: &Caller,
        reference: &str,
        project: ProjectId,
        open: bool,
    ) -> Result<Flavor> {
        caller.require(Role::Admin, "opening a flavor to a project")?;
        self.transact(|tx| {
            let found = self.find::<Flavor>(caller, reference)?;
            let mut next = found.record.clone();
            let name = &found.record.meta.name;
            if open {
                if next.public {
                    return Err(Error::new(Code::Conflict, format!("flavor {name} is everyone's already")));
                }
                if self.get::<Project>(project).is_none() {
                    return Err(Error::invalid("project", format!("there is no project {}", project.hex())));
                }
                if next.projects.len() >= PROJECTS_MAX {
                    let message =
                        format!("flavor {name} is open to {PROJECTS_MAX} projects, no more are possible");
                    return Err(Error::new(Code::TooLarge, message).hint("make it public, or make another"));
                }
                if !next.projects.insert(project) {
                    let message = format!("flavor {name} is open to project {} already", project.hex());
                    return Err(Error::new(Code::Taken, message));
                }
            } else if !next.projects.remove(&project) {
                let message = format!("flavor {name} is not open to project {}", project.hex());
                return Err(Error::new(Code::NotFound, message));
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
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
            if let Some(text) = &flavor.record.flavorid {
                tx.release(FLAVORID_SCOPE, text, &flavor.record.meta.id.to_string());
            }
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
