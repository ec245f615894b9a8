//! Disks of a new server, as `block_device_mapping_v2` names them.
//!
//! ```text
//!   source_type   destination_type   here
//!   image         local              the root disk that is made along with a server (boot_index 0, the same as imageRef)
//!   image         volume             a new volume made of the image
//!   snapshot      volume             a new volume made of the snapshot
//!   volume        volume             a volume that is there
//!   blank         volume             a new, empty volume
//!   blank         local              refused: flavors have no ephemeral disks and no swap
//! ```
//! Of all, the one with `boot_index` 0 is what the server boots from. The list's first form, `block_device_mapping`, names
//! volumes and snapshots alone, and is read as the second one that says the same.

use super::create::has_tags;
use crate::openstack::{
    Door, Fault, Microversion, Result, Session,
    compute::{
        form::{Form, wrong},
        tag,
    },
    volume::kind,
};
use control::{
    instance::{DiskAsked, VolumeAsked},
    volume::{Attach, NewVolume, SourceAsked, TypeAsked},
};
use model::{
    id::{ImageId, SnapshotId, VolumeId},
    image::Image,
    instance::Kind,
    snapshot::Snapshot,
    volume::{Provisioning, Volume},
};
use serde_json::{Value, json};

/// The disks that were asked for.
#[derive(Default)]
pub struct Disks {
    /// What the server boots from, instead of a disk made of its image.
    pub root: Option<VolumeAsked>,
    /// The others, in their order.
    pub volumes: Vec<VolumeAsked>,
}

/// One entry.
struct Entry {
    boot_index: Option<u64>,
    /// `None` for the local disk of the server's image.
    asked: Option<VolumeAsked>,
}

impl Disks {
    /// Reads what a new server of this kind asks for.
    ///
    /// # Errors
    /// 400 for disks that cannot be, for volumes, snapshots and images that are not there, and for orders to boot from
    /// that are none.
    pub fn read(
        door: &Door,
        session: &Session,
        version: Microversion,
        form: &Form<'_>,
        kind: Kind,
    ) -> Result<Self> {
        let image = form.text("imageRef")?.filter(|text| !text.is_empty());
        let legacy = form.list("block_device_mapping")?.filter(|list| !list.is_empty());
        let listed = form.list("block_device_mapping_v2")?.filter(|list| !list.is_empty());
        if legacy.is_some() && listed.is_some() {
            let message = "Using different block_device_mapping syntaxes is not allowed in the same request.";
            return Err(Fault::invalid(message));
        }
        let translated = legacy.map(|list| from_legacy(list, image.is_some())).transpose()?;
        let mut entries = vec![];
        for value in translated.as_deref().or(listed).unwrap_or_default() {
            let entry = Reader { door, session, image, kind, form: entry_of(value, version)? };
            // Takes away what an image would have brought along; images here bring nothing.
            if !entry.form.flag("no_device")?.unwrap_or(false) {
                entries.push(entry.read()?);
            }
        }
        check_order(&entries)?;
        let mut disks = Self::default();
        for Entry { boot_index, asked } in entries {
            match (boot_index, asked) {
                (_, None) => {}
                (Some(0), root) => disks.root = root,
                (_, Some(volume)) => disks.volumes.push(volume),
            }
        }
        if kind != Kind::Vm && disks.root.is_some() {
            return Err(invalid("a container has no disk to boot from"));
        }
        Ok(disks)
    }

    /// Refuses several servers that would share a volume.
    ///
    /// # Errors
    /// 400.
    pub fn refuse_several(&self, servers: u64) -> Result<()> {
        let exists = |asked: &VolumeAsked| matches!(asked.disk, DiskAsked::Volume(_));
        if servers > 1 && self.root.iter().chain(&self.volumes).any(exists) {
            return Err(Fault::invalid("Cannot attach one or more volumes to multiple instances"));
        }
        Ok(())
    }
}

fn invalid(why: &str) -> Fault {
    Fault::invalid(format!("Block Device Mapping is Invalid: {why}."))
}

/// Indexes of those that can be booted from begin at 0 and leave none out.
fn check_order(entries: &[Entry]) -> Result<()> {
    let mut indexes: Vec<u64> = entries.iter().filter_map(|entry| entry.boot_index).collect();
    indexes.sort_unstable();
    if indexes.iter().zip(0..).all(|(index, wanted)| *index == wanted) {
        return Ok(());
    }
    Err(invalid("Boot sequence for the instance and image/block device mapping combination is not valid"))
}

/// What the list's first form says, in the words of the second. The server boots from the disk that is called `vda`, or
/// without an image from the only one.
fn from_legacy(list: &[Value], has_image: bool) -> Result<Vec<Value>> {
    let mut entries = vec![];
    for value in list {
        let form = Form::of(value, "block_device_mapping")?;
        let mut known =
            vec!["device_name", "volume_id", "snapshot_id", "volume_size", "delete_on_termination"];
        known.extend(["no_device", "virtual_name", "connection_info"]);
        form.refuse_others(&known)?;
        // An empty no_device is said of devices that are to be.
        if form.get("no_device").is_some_and(|value| value != "" && value != false) {
            continue;
        }
        let volume = form.text("volume_id")?.filter(|text| !text.is_empty());
        let snapshot = form.text("snapshot_id")?.filter(|text| !text.is_empty());
        let (source, uuid) = match (volume, snapshot) {
            (Some(volume), _) => ("volume", volume),
            (None, Some(snapshot)) => ("snapshot", snapshot),
            (None, None) => return Err(invalid("a volume or a snapshot must be named")),
        };
        let name = form.text("device_name")?.unwrap_or_default();
        let mut entry = json!({
            "source_type": source,
            "destination_type": "volume",
            "uuid": uuid,
            "device_name": name,
            "delete_on_termination": form.flag("delete_on_termination")?.unwrap_or(false),
        });
        if let Some(size) = form.get("volume_size").filter(|size| *size != "") {
            entry["volume_size"] = size.clone();
        }
        if name.trim_start_matches("/dev/") == "vda" {
            entry["boot_index"] = json!(0);
        }
        entries.push(entry);
    }
    if let ([only], false) = (entries.as_mut_slice(), has_image) {
        only["boot_index"] = json!(0);
    }
    Ok(entries)
}

fn entry_of(value: &Value, version: Microversion) -> Result<Form<'_>> {
    let form = Form::of(value, "block_device_mapping_v2")?;
    let mut known = vec!["source_type", "destination_type", "uuid", "boot_index", "volume_size"];
    known.extend(["delete_on_termination", "no_device"]);
    known.extend(["device_name", "device_type", "disk_bus", "guest_format"]);
    if has_tags(version, 33) {
        known.push("tag");
    }
    if version.has(2, 67) {
        known.push("volume_type");
    }
    form.refuse_others(&known)?;
    for (key, only) in [("device_type", "disk"), ("disk_bus", "virtio")] {
        if form.text(key)?.is_some_and(|text| text != only) {
            let value = form.raw(key).cloned().unwrap_or_default();
            return Err(wrong(key, &value, &format!("it can only be {only} here")));
        }
    }
    Ok(form)
}

/// Reads one entry.
struct Reader<'a> {
    door: &'a Door,
    session: &'a Session,
    image: Option<&'a str>,
    kind: Kind,
    form: Form<'a>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Entry> {
        let form = &self.form;
        let boot_index = self.boot_index()?;
        let source = form.needed("source_type")?;
        let destination = form.text("destination_type")?;
        let uuid = form.text("uuid")?.filter(|text| !text.is_empty());
        let uuid = match (source, uuid) {
            ("blank", Some(_)) => return Err(invalid("Invalid device UUID")),
            ("blank", None) => "",
            (_, None) => return Err(invalid("Missing device UUID")),
            (_, Some(uuid)) => uuid,
        };
        let disk = match (source, destination) {
            ("image", None | Some("local")) if boot_index == Some(0) => {
                self.check_own_image(uuid)?;
                return Ok(Entry { boot_index, asked: None });
            }
            ("image", None | Some("volume")) => self.new_volume(SourceAsked::Image(self.image(uuid)?))?,
            ("snapshot", None | Some("volume")) => {
                self.new_volume(SourceAsked::Snapshot(self.snapshot(uuid)?))?
            }
            ("volume", None | Some("volume")) => DiskAsked::Volume(self.volume(uuid)?),
            ("blank", None | Some("volume")) => self.new_volume(SourceAsked::Empty)?,
            ("blank", Some("local")) => {
                return Err(invalid("Ephemeral disks requested are larger than the instance type allows"));
            }
            ("image" | "snapshot" | "volume", Some("local")) => {
                return Err(invalid(&format!("Mapping {source} to local is not supported")));
            }
            ("image" | "snapshot" | "volume" | "blank", Some(_)) => {
                let value = form.raw("destination_type").cloned().unwrap_or_default();
                return Err(wrong("destination_type", &value, "it is neither local nor volume"));
            }
            _ => return Err(wrong("source_type", &source.into(), "it is no source of a disk")),
        };
        Ok(Entry { boot_index, asked: Some(VolumeAsked { disk, attach: self.attach()? }) })
    }

    /// Place in the order of disks to boot from; `None` for one that is not booted from.
    fn boot_index(&self) -> Result<Option<u64>> {
        let Some(value) = self.form.get("boot_index") else { return Ok(None) };
        let read = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let index: i64 = read.ok_or_else(|| wrong("boot_index", value, "it is no whole number"))?;
        Ok(u64::try_from(index).ok())
    }

    /// The entry that clients send beside `imageRef` says the same once more.
    fn check_own_image(&self, uuid: &str) -> Result<()> {
        match self.image {
            Some(image) if image.rsplit('/').next() == Some(uuid) => Ok(()),
            Some(_) => Err(invalid("the image to boot from is another one than imageRef")),
            None => Err(invalid("Mapping image to local is not supported")),
        }
    }

    fn image(&self, uuid: &str) -> Result<String> {
        let found = uuid.parse::<ImageId>().is_ok()
            && self.door.control().find::<Image>(&self.session.caller, uuid).is_ok();
        if found { Ok(uuid.to_string()) } else { Err(invalid(&format!("failed to get image {uuid}"))) }
    }

    fn snapshot(&self, uuid: &str) -> Result<String> {
        let found = uuid.parse::<SnapshotId>().is_ok()
            && self.door.control().find::<Snapshot>(&self.session.caller, uuid).is_ok();
        if found { Ok(uuid.to_string()) } else { Err(invalid(&format!("failed to get snapshot {uuid}"))) }
    }

    fn volume(&self, uuid: &str) -> Result<String> {
        let found = uuid.parse::<VolumeId>().is_ok()
            && self.door.control().find::<Volume>(&self.session.caller, uuid).is_ok();
        if found { Ok(uuid.to_string()) } else { Err(invalid(&format!("failed to get volume {uuid}"))) }
    }

    fn new_volume(&self, source: SourceAsked) -> Result<DiskAsked> {
        let size_gib = self.form.number("volume_size")?.filter(|size| *size > 0);
        match (&source, size_gib) {
            (SourceAsked::Image(_), None) => {
                return Err(invalid(
                    "Images with destination_type 'volume' need to have a non-zero size specified",
                ));
            }
            (SourceAsked::Empty, None) => {
                return Err(invalid(
                    "Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size",
                ));
            }
            _ => {}
        }
        let asked = match self.form.text("volume_type")? {
            None => TypeAsked::BuiltIn(Provisioning::Thin),
            Some(name) => {
                let missing = |_| Fault::invalid(format!("Volume type {name} could not be found."));
                kind::find(self.door.control(), self.session, name).map_err(missing)?.asked
            }
        };
        let thick = asked == TypeAsked::BuiltIn(Provisioning::Thick);
        Ok(DiskAsked::New(NewVolume { size_gib, thick, kind: asked.made(), source, ..NewVolume::default() }))
    }

    fn attach(&self) -> Result<Attach> {
        let form = &self.form;
        // A guest's kernel names its disks itself; a container sees a volume where its maker says.
        let mount_path = match (self.kind, form.text("device_name")?) {
            (Kind::Vm, _) => None,
            (_, Some(path)) if path.starts_with('/') && !path.starts_with("/dev/") => Some(path.to_string()),
            _ => {
                return Err(invalid(
                    "a container sees a volume at a path: give it as device_name, like /data",
                ));
            }
        };
        Ok(Attach {
            mount_path,
            read_only: false,
            delete_with_instance: Some(form.flag("delete_on_termination")?.unwrap_or(false)),
            tag: form.get("tag").map(|value| tag::read("tag", value)).transpose()?,
        })
    }
}
