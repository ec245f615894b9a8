//! Finding what a user means: a name, an id or the unique start of an id, among what the caller may see.

use crate::{
    Caller, Control, Error, Result,
    schema::{by_name, by_project},
};
use model::{
    error::Code, id, image::OciContent, image_reference::Reference, instance::Instance, meta::Meta,
    record::Record,
};
use std::{fmt::Display, sync::Arc};
use store::Stored;

/// Characters of an id that are enough to name a thing by.
const START_CHARS_MIN: usize = 4;

/// A record that users name.
pub trait Noun: Record {
    /// Its id.
    type Id: Copy + Eq + Display + std::str::FromStr + std::fmt::Debug;
    /// What messages call it.
    const WORD: &'static str;
    /// Whether only its own project may ever list or use it, whatever its record says.
    const IS_PRIVATE: bool = false;
    /// Its head.
    fn meta(&self) -> &Meta<Self::Id>;
    /// Its head, to change.
    fn meta_mut(&mut self) -> &mut Meta<Self::Id>;
    /// Where its name is unique: in its project, unless the noun says otherwise.
    fn name_scope(&self) -> String {
        format!("name/{}/{}", Self::TABLE, self.meta().project)
    }
    /// Whether other projects may use it.
    fn is_public(&self) -> bool {
        false
    }
    /// Whether the lists of `project`, which does not own it, show it.
    fn is_listed_for(&self, _project: id::ProjectId) -> bool {
        self.is_public()
    }
    /// Whether `project`, which does not own it, may use it when it names its id.
    fn is_open_to(&self, project: id::ProjectId) -> bool {
        self.is_listed_for(project)
    }
    /// Whether no other of its project (of the cloud, for projects and flavors) may have its name.
    fn has_own_name(&self) -> bool {
        true
    }
    /// Whether it is the cloud's own business: no user lists, names or changes it.
    fn is_hidden(&self) -> bool {
        false
    }
}

macro_rules! nouns {
    ($($type:path, $id:ident, $word:literal $(, |$r:ident| $public:expr)?;)*) => {$(
        impl Noun for $type {
            type Id = id::$id;
            const WORD: &'static str = $word;
            // What says when it is public may be another project's to use.
            const IS_PRIVATE: bool = { let public: &[&str] = &[$(stringify!($r))?]; public.is_empty() };
            fn meta(&self) -> &Meta<Self::Id> { &self.meta }
            fn meta_mut(&mut self) -> &mut Meta<Self::Id> { &mut self.meta }
            $(fn is_public(&self) -> bool { let $r = self; $public })?
        }
    )*};
}

nouns! {
    model::instance::Instance, InstanceId, "instance";
    model::network::Network, NetworkId, "network", |r| r.shared || r.external().is_some();
    model::subnet::Subnet, SubnetId, "subnet";
    model::subnet_pool::SubnetPool, SubnetPoolId, "subnet pool", |r| r.shared;
    model::address_scope::AddressScope, AddressScopeId, "address scope", |r| r.shared;
    model::port::Port, PortId, "port";
    model::router::Router, RouterId, "router";
    model::security_group::SecurityGroup, SecurityGroupId, "security group";
    model::server_group::ServerGroup, ServerGroupId, "server group";
    model::deployment::Deployment, DeploymentId, "deployment";
    model::volume::Volume, VolumeId, "volume";
    model::snapshot::Snapshot, SnapshotId, "snapshot";
}

impl Noun for model::image::Image {
    type Id = id::ImageId;
    const WORD: &'static str = "image";
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    fn is_public(&self) -> bool {
        self.visibility == model::image::Visibility::Public
    }
    fn is_listed_for(&self, project: id::ProjectId) -> bool {
        self.is_listed_for(project)
    }
    fn is_open_to(&self, project: id::ProjectId) -> bool {
        self.is_open_to(project)
    }
    fn has_own_name(&self) -> bool {
        !self.name_repeats
    }
    fn is_hidden(&self) -> bool {
        self.step.is_some()
    }
}

impl Noun for model::keypair::Keypair {
    type Id = id::KeypairId;
    const WORD: &'static str = "keypair";
    const IS_PRIVATE: bool = true;
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    /// Of one user in all projects, or of its project.
    fn name_scope(&self) -> String {
        match self.user {
            Some(user) => format!("name/keypair/user/{user}"),
            None => format!("name/keypair/{}", self.meta.project),
        }
    }
}

impl Noun for model::project::Project {
    type Id = id::ProjectId;
    const WORD: &'static str = "project";
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    /// In its domain; the default domain's names are the ones that the native door has.
    fn name_scope(&self) -> String {
        if self.domain == id::DomainId::DEFAULT {
            "name/project".to_string()
        } else {
            format!("name/project/{}", self.domain)
        }
    }
}

impl Noun for model::flavor::Flavor {
    type Id = id::FlavorId;
    const WORD: &'static str = "flavor";
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    fn is_public(&self) -> bool {
        self.public
    }
    fn is_listed_for(&self, project: id::ProjectId) -> bool {
        self.is_open_to(project)
    }
    /// In the whole cloud.
    fn name_scope(&self) -> String {
        "name/flavor".to_string()
    }
}

impl Noun for model::volume_type::VolumeType {
    type Id = id::VolumeTypeId;
    const WORD: &'static str = "volume type";
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    fn is_public(&self) -> bool {
        self.public
    }
    fn is_listed_for(&self, project: id::ProjectId) -> bool {
        self.is_open_to(project)
    }
    /// In the whole cloud.
    fn name_scope(&self) -> String {
        "name/volume_type".to_string()
    }
}

impl Noun for model::floating_ip::FloatingIp {
    type Id = id::FloatingIpId;
    const WORD: &'static str = "floating IP";
    const IS_PRIVATE: bool = true;
    fn meta(&self) -> &Meta<Self::Id> {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta<Self::Id> {
        &mut self.meta
    }
    fn is_hidden(&self) -> bool {
        self.internal
    }
}

impl Control {
    /// All records of a noun that the caller's project has or may use, by name and then by age.
    pub fn list<R: Noun>(&self, caller: &Caller) -> Vec<Arc<Stored<R>>> {
        let mut all = if R::IS_PRIVATE {
            self.store.by_index(&by_project::<R>(), &caller.project.to_string())
        } else {
            self.store.list::<R>()
        };
        all.retain(|s| is_listed(caller, &s.record));
        sort(&mut all);
        all
    }

    /// Those of [`Self::list`] that are called so, by age.
    pub fn named<R: Noun>(&self, caller: &Caller, name: &str) -> Vec<Arc<Stored<R>>> {
        let mut all = self.store.by_index(&by_name::<R>(), name);
        all.retain(|s| is_listed(caller, &s.record));
        sort(&mut all);
        all
    }

    /// Those of [`Self::list`] whose id starts so, written with dashes or without.
    pub fn starting<R: Noun>(&self, caller: &Caller, start: &str) -> Vec<Arc<Stored<R>>> {
        let Some(start) = dashed(start) else {
            return vec![];
        };
        let mut all = self.store.mirror().list_prefix::<R>(&start);
        all.retain(|s| is_listed(caller, &s.record));
        all
    }

    /// Those of [`Self::list`] that the caller's own project has.
    pub fn list_own<R: Noun>(&self, caller: &Caller) -> Vec<Arc<Stored<R>>> {
        let mut all = self.store.by_index(&by_project::<R>(), &caller.project.to_string());
        all.retain(|s| !s.record.is_hidden());
        sort(&mut all);
        all
    }

    /// All records of a noun in the whole cloud, for admins.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn list_everywhere<R: Noun>(&self, caller: &Caller) -> Result<Vec<Arc<Stored<R>>>> {
        caller.require(Role::Admin, &format!("listing every project's {}s", R::WORD))?;
        let mut all = self.store.mirror().list::<R>();
        all.retain(|s| !s.record.is_hidden());
        sort(&mut all);
        Ok(all)
    }

    /// The record that `reference` means: an id, a name, or the unique start (4 characters at least) of an id.
    ///
    /// # Errors
    /// `not_found` with what was probably meant, `conflict` if several records fit.
    pub fn find<R: Noun>(&self, caller: &Caller, reference: &str) -> Result<Arc<Stored<R>>> {
        if let Ok(id) = reference.parse::<R::Id>() {
            return match self.store.mirror().get::<R>(&id.to_string()) {
                Some(found) if visible(caller, &found.record) => Ok(found),
                _ => Err(not_found::<R>(reference, &[])),
            };
        }
        let named = self.named::<R>(caller, reference);
        let own = |s: &&Arc<Stored<R>>| s.record.meta().project == caller.project;
        let own_named: Vec<_> = named.iter().filter(own).cloned().collect();
        for candidates in [own_named, named] {
            match candidates.as_slice() {
                [one] => return Ok(Arc::clone(one)),
                [] => {}
                several => return Err(ambiguous::<R>(reference, several.len())),
            }
        }
        let starting = match reference.len() >= START_CHARS_MIN {
            true => self.starting::<R>(caller, reference),
            false => vec![],
        };
        match starting.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => {
                let all = self.list::<R>(caller);
                let names: Vec<&str> = all.iter().map(|s| s.record.meta().name.as_str()).collect();
                let error = not_found::<R>(reference, &names);
                if R::TABLE == Instance::TABLE && self.means_image(caller, reference) {
                    return Err(error
                        .hint(format!("that is an image: `holm run {reference}` makes an instance of it")));
                }
                Err(error)
            }
            several => Err(ambiguous::<R>(reference, several.len())),
        }
    }

    /// Whether a text that is no instance's is an image's: its name, the reference that it was pulled by, or the beginning
    /// of its id, as `holm images` and `docker images` show it.
    fn means_image(&self, caller: &Caller, text: &str) -> bool {
        let reference: Option<Reference> = text.parse().ok();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_start = digits.len() >= START_CHARS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.images_open_to(caller).iter().map(|stored| &stored.record).any(|image| {
            let called = image.meta.name.as_str() == text;
            let pulled = reference.is_some() && image.reference() == reference;
            let status = self.image_status(image.meta.id).filter(|_| is_start);
            let oci = status.as_ref().and_then(|stored| stored.record.content()?.oci.as_ref());
            let of_id =
                |oci: &OciContent| oci.config_digest.trim_start_matches("sha256:").starts_with(digits);
            !image.is_hidden() && (called || pulled || oci.is_some_and(of_id))
        })
    }

    /// As [`Self::find`], with the input's field in the error.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_for<R: Noun>(&self, caller: &Caller, field: &str, reference: &str) -> Result<Arc<Stored<R>>> {
        self.find(caller, reference).map_err(|e| e.field(field))
    }

    /// A record by id, whoever owns it; for references inside records.
    pub fn get<R: Noun>(&self, id: R::Id) -> Option<Arc<Stored<R>>> {
        self.store.mirror().get::<R>(&id.to_string())
    }

    /// The record that `reference` means, if it may be changed by the caller.
    ///
    /// # Errors
    /// As [`Self::find`], and `forbidden` for another project's record.
    pub fn find_own<R: Noun>(
        &self,
        caller: &Caller,
        reference: &str,
        action: &str,
    ) -> Result<Arc<Stored<R>>> {
        caller.require(Role::Member, action)?;
        let found = self.find::<R>(caller, reference)?;
        if caller.sees(found.record.meta().project) {
            return Ok(found);
        }
        let message =
            format!("{action}: {} {} belongs to another project", R::WORD, found.record.meta().name);
        Err(Error::new(Code::Forbidden, message).hint("only its own project or an admin may change it"))
    }
}

use crate::Role;

fn sort<R: Noun>(all: &mut [Arc<Stored<R>>]) {
    all.sort_by(|a, b| {
        let (a, b) = (a.record.meta(), b.record.meta());
        a.name.cmp(&b.name).then(a.created_at.cmp(&b.created_at))
    });
}

fn is_listed<R: Noun>(caller: &Caller, record: &R) -> bool {
    (record.meta().project == caller.project || record.is_listed_for(caller.project)) && !record.is_hidden()
}

/// The start of an id as keys have it. `None` for what is no start of an id.
fn dashed(start: &str) -> Option<String> {
    let digits = start.to_ascii_lowercase().replace('-', "");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&place) {
            text.push('-');
        }
        text.push(digit);
    }
    Some(text)
}

fn visible<R: Noun>(caller: &Caller, record: &R) -> bool {
    (caller.sees(record.meta().project) || record.is_open_to(caller.project)) && !record.is_hidden()
}

/// The error for something that is not there; `names` are what could have been meant.
pub fn not_found<R: Noun>(reference: &str, names: &[&str]) -> Error {
    let error = Error::new(Code::NotFound, format!("no {} {reference:?} in this project", R::WORD));
    match (closest(reference, names), list_command::<R>()) {
        (Some(name), _) => error.hint(format!("did you mean {name:?}?")),
        (None, Some(command)) => error.hint(format!("`{command}` shows what is there")),
        (None, None) => error,
    }
}

/// The command that lists all of a noun; `None` for those that the command line has not.
pub fn list_command<R: Noun>() -> Option<String> {
    match R::WORD {
        "deployment" => Some("holm kube get".into()),
        "volume type" => None,
        word => Some(format!("holm {} list", word.replace(' ', "-").to_lowercase())),
    }
}

fn ambiguous<R: Noun>(reference: &str, count: usize) -> Error {
    Error::new(Code::Conflict, format!("{count} {}s are called {reference:?}", R::WORD))
        .hint("name it by its id")
}

/// The name nearest to what was typed, if it is near: at most a third of the letters differ.
pub fn closest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    names
        .iter()
        .map(|name| (distance(&typed, &name.to_lowercase()), *name))
        .filter(|(d, name)| *d <= 1.max(typed.len().min(name.len()) / 3))
        .min_by_key(|(d, _)| *d)
        .map(|(_, name)| name)
}

/// Edit distance (optimal string alignment: insert, delete, replace, swap neighbours).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_ids_are_read_with_dashes_and_without() {
        for (start, expected) in [
            ("", None),
            ("-", None),
            ("abcd", Some("abcd")),
            ("ABCD-", Some("abcd")),
            ("12345678", Some("12345678")),
            ("123456789", Some("12345678-9")),
            ("12345678-9abc-4", Some("12345678-9abc-4")),
            ("123456789abc4def8", Some("12345678-9abc-4def-8")),
            ("web1", None),
        ] {
            assert_eq!(dashed(start).as_deref(), expected, "{start}");
        }
    }

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["web", "database", "micro"];
        for (typed, meant) in
            [("wbe", Some("web")), ("databse", Some("database")), ("mirco", Some("micro")), ("xyz", None)]
        {
            assert_eq!(closest(typed, &names), meant, "{typed}");
        }
    }
}
