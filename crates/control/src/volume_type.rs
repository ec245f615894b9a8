//! Volume types: made, changed and opened by admins, and taken on by volumes.

use crate::{Caller, Control, Error, Result, Role, transact::Transaction};
use model::{
    error::Code,
    id::{ProjectId, VolumeTypeId},
    meta::Meta,
    name::Name,
    project::Project,
    volume::{Provisioning, Volume},
    volume_type::{PROJECTS_MAX, PROVISIONING, SPECS_MAX, TYPES_MAX, VolumeType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// Names of the types that every cloud has.
pub const BUILT_IN: [&str; 2] = ["thin", "thick"];
/// What a type may not ask for, because nothing here gives it.
const UNSERVED: [&str; 3] = ["multiattach", "replication_enabled", "encryption"];
/// Name of the counter of a cloud's types.
const COUNTER: &str = "volume_types";

/// A volume type to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolumeType {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Every project may use it.
    pub public: bool,
    /// Extra specs.
    pub extra_specs: BTreeMap<String, String>,
}

fn parse_name(text: &str) -> Result<Name> {
    if BUILT_IN.contains(&text) {
        return Err(Error::new(Code::Taken, format!("every cloud has a volume type {text}")).field("name"));
    }
    text.parse().map_err(|e| Error::invalid("name", e))
}

fn check_specs(specs: &BTreeMap<String, String>) -> Result<()> {
    if specs.len() > SPECS_MAX {
        let message = format!("a volume type has at most {SPECS_MAX} extra specs");
        return Err(Error::new(Code::TooLarge, message).field("extra_specs"));
    }
    if let Some(key) = UNSERVED.iter().find(|key| specs.contains_key(**key)) {
        let message = format!("no volume here has {key}");
        return Err(Error::invalid("extra_specs", message).hint(format!("{PROVISIONING} can be chosen")));
    }
    match specs.get(PROVISIONING).map(String::as_str) {
        None | Some("thin" | "thick") => Ok(()),
        Some(other) => {
            Err(Error::invalid("extra_specs", format!("{PROVISIONING} {other:?} is neither thin nor thick")))
        }
    }
}

impl Control {
    /// Makes a volume type.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`, `too_large`, `quota_exceeded`.
    pub async fn create_volume_type(&self, caller: &Caller, new: NewVolumeType) -> Result<VolumeType> {
        caller.require(Role::Admin, "creating a volume type")?;
        check_specs(&new.extra_specs)?;
        let id = VolumeTypeId::from_random(rand::random());
        let mut meta = Meta::new(id, caller.project, parse_name(&new.name)?, self.now());
        meta.description = new.description;
        let made =
            VolumeType { meta, public: new.public, projects: BTreeSet::new(), extra_specs: new.extra_specs };
        self.transact(|tx| {
            tx.raw().count("cloud", COUNTER, 1, Some(TYPES_MAX));
            tx.create(&made);
            Ok(made.clone())
        })
        .await
    }

    /// Changes what is said of a volume type, or whether it is public.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`, `not_found`.
    pub async fn update_volume_type(
        &self,
        caller: &Caller,
        reference: &str,
        name: Option<&str>,
        description: Option<&str>,
        public: Option<bool>,
    ) -> Result<VolumeType> {
        self.change_volume_type(caller, reference, |next| {
            if let Some(name) = name {
                next.meta.name = parse_name(name)?;
            }
            if let Some(description) = description {
                next.meta.description = description.to_string();
            }
            next.public = public.unwrap_or(next.public);
            Ok(())
        })
        .await
    }

    /// Changes the extra specs of a volume type. When space is taken stays as it is for a type that volumes have.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `too_large`, `in_use`, `not_found`.
    pub async fn change_volume_type_specs(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut BTreeMap<String, String>) + Send + Sync,
    ) -> Result<VolumeType> {
        self.change_volume_type(caller, reference, |next| {
            let before = next.provisioning();
            change(&mut next.extra_specs);
            check_specs(&next.extra_specs)?;
            if next.provisioning() != before {
                self.refuse_used_type(next)?;
            }
            Ok(())
        })
        .await
    }

    /// Opens a volume type that is not public to a project, or closes it.
    ///
    /// # Errors
    /// `conflict` for a public one, `taken` and `not_found` where nothing would change, `invalid` for a project that is not
    /// there, `too_large`, `forbidden`.
    pub async fn open_volume_type(
        &self,
        caller: &Caller,
        reference: &str,
        project: ProjectId,
        open: bool,
    ) -> Result<VolumeType> {
        self.change_volume_type(caller, reference, |next| {
            let name = next.meta.name.clone();
            if next.public {
                return Err(Error::new(Code::Conflict, format!("volume type {name} is everyone's already")));
            }
            if !open {
                let missing = || format!("volume type {name} is not open to project {}", project.hex());
                return match next.projects.remove(&project) {
                    true => Ok(()),
                    false => Err(Error::new(Code::NotFound, missing())),
                };
            }
            if self.get::<Project>(project).is_none() {
                return Err(Error::invalid("project", format!("there is no project {}", project.hex())));
            }
            if next.projects.len() >= PROJECTS_MAX {
                let message =
                    format!("volume type {name} is open to {PROJECTS_MAX} projects, no more are possible");
                return Err(Error::new(Code::TooLarge, message).hint("make it public, or make another"));
            }
            if !next.projects.insert(project) {
                let message = format!("volume type {name} is open to project {} already", project.hex());
                return Err(Error::new(Code::Taken, message));
            }
            Ok(())
        })
        .await
    }

    async fn change_volume_type(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut VolumeType) -> Result<()> + Send + Sync,
    ) -> Result<VolumeType> {
        caller.require(Role::Admin, "changing a volume type")?;
        self.transact(|tx| {
            let found = self.find::<VolumeType>(caller, reference)?;
            let mut next = found.record.clone();
            change(&mut next)?;
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Removes a volume type that no volume has.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_volume_type(
        &self,
        caller: &Caller,
        reference: &str,
    ) -> Result<Arc<Stored<VolumeType>>> {
        caller.require(Role::Admin, "deleting a volume type")?;
        self.transact(|tx| {
            let found = self.find::<VolumeType>(caller, reference)?;
            self.refuse_used_type(&found.record)?;
            tx.raw().count("cloud", COUNTER, -1, None);
            tx.delete(&found);
            Ok(found)
        })
        .await
    }

    /// Volumes that take a type change its record, so that one that is asked for while the type goes is refused or counts.
    fn refuse_used_type(&self, kind: &VolumeType) -> Result<()> {
        let all = self.store.list::<Volume>();
        let used = all.iter().filter(|volume| volume.record.kind == Some(kind.meta.id)).count();
        if used == 0 {
            return Ok(());
        }
        let message = format!("volume type {} is the type of {used} volumes", kind.meta.name);
        Err(Error::new(Code::InUse, message).hint("give these another type first"))
    }

    /// The type that a volume is to have. Its record changes, so that its end and this exclude each other.
    pub(crate) fn take_volume_type(
        &self,
        tx: &mut Transaction,
        id: VolumeTypeId,
        project: ProjectId,
    ) -> Result<Provisioning> {
        let found = self
            .get::<VolumeType>(id)
            .filter(|found| found.record.is_open_to(project) || found.record.meta.project == project);
        let missing = || Error::new(Code::NotFound, format!("there is no volume type {id}")).field("type");
        let found = found.ok_or_else(missing)?;
        let mut next = found.record.clone();
        next.meta.generation += 1;
        tx.update(&found, &next);
        Ok(next.provisioning())
    }
}
