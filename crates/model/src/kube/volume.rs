//! Volumes of a pod: directories of its own, claims, and sets of files made of ConfigMaps, Secrets and facts.

use super::{
    Refusal,
    config::Config,
    field::Fields,
    pod::{File, FileSet, Scene},
    quantity,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Permissions of a file that asks for none.
const MODE_USUAL: u32 = 0o644;
/// Sources that holm does not have, and why.
const REFUSED: [(&str, &str); 2] = [
    ("ephemeral", "is not made here: use a PersistentVolumeClaim"),
    ("image", "images are not mounted: use them as a container"),
];

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Volume {
    /// A directory that goes with the pod.
    Empty {
        /// Its size in GiB.
        size_gib: u64,
    },
    /// Memory that goes with the pod.
    Memory,
    /// The same, of a size of its own.
    LimitedMemory {
        /// Most bytes.
        size_bytes: u64,
    },
    /// A volume that stays.
    Claim {
        /// Its name.
        name: String,
        /// Writes are refused.
        read_only: bool,
    },
    /// A directory or file of the host, where its operator lends it.
    Host {
        /// Where on the host.
        path: String,
        /// It is to be there.
        exists: bool,
    },
    /// Files.
    Files(FileSet),
}

impl Volume {
    /// Whether it is kept in memory.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory | Self::LimitedMemory { .. })
    }

    /// Whether its files are given to the group that a pod's volumes are.
    pub(super) fn takes_group(&self) -> bool {
        matches!(self, Self::Empty { .. } | Self::Claim { .. } | Self::Files(_))
    }
}

/// Reads the volumes of a pod, by their names.
pub(super) fn read(spec: &Fields<'_>, scene: &Scene<'_>) -> Result<BTreeMap<String, Volume>, Refusal> {
    let mut all = BTreeMap::new();
    for fields in spec.children("volumes")? {
        let name = fields.needed("name")?;
        if name.parse::<crate::instance::tag::Tag>().is_err() || name.starts_with('.') {
            return Err(fields.wrong("name", "has at most 60 letters, digits and dashes"));
        }
        let volume = volume(&name, &fields, scene)?;
        if all.insert(name.clone(), volume).is_some() {
            return Err(fields.wrong("name", format!("two volumes are called {name}")));
        }
    }
    for (name, claim) in scene.claims {
        all.insert(name.clone(), Volume::Claim { name: claim.clone(), read_only: false });
    }
    Ok(all)
}

fn volume(name: &str, fields: &Fields<'_>, scene: &Scene<'_>) -> Result<Volume, Refusal> {
    for (field, reason) in REFUSED {
        fields.refuse(field, reason)?;
    }
    if let Some(empty) = fields.child("emptyDir")? {
        return empty_dir(&empty);
    }
    if let Some(claim) = fields.child("persistentVolumeClaim")? {
        let read_only = claim.flag("readOnly")?.unwrap_or(false);
        return Ok(Volume::Claim { name: claim.needed("claimName")?, read_only });
    }
    if let Some(host) = fields.child("hostPath")? {
        return host_path(&host);
    }
    let mut files = vec![];
    if let Some(source) = fields.child("configMap")? {
        let mode = mode(&source, "defaultMode", MODE_USUAL)?;
        files_of(&source, scene.config(&source, "name", false)?, false, mode, &mut files)?;
    } else if let Some(source) = fields.child("secret")? {
        let mode = mode(&source, "defaultMode", MODE_USUAL)?;
        files_of(&source, scene.config(&source, "secretName", true)?, true, mode, &mut files)?;
    } else if let Some(source) = fields.child("downwardAPI")? {
        let mode = mode(&source, "defaultMode", MODE_USUAL)?;
        facts(&source, scene, mode, &mut files)?;
    } else if let Some(projected) = fields.child("projected")? {
        let usual = mode(&projected, "defaultMode", MODE_USUAL)?;
        for source in projected.children("sources")? {
            source.refuse("serviceAccountToken", "there are no service accounts here")?;
            source.refuse("clusterTrustBundle", "there is none here")?;
            if let Some(named) = source.child("configMap")? {
                files_of(&named, scene.config(&named, "name", false)?, false, usual, &mut files)?;
            }
            if let Some(named) = source.child("secret")? {
                files_of(&named, scene.config(&named, "name", true)?, true, usual, &mut files)?;
            }
            if let Some(named) = source.child("downwardAPI")? {
                facts(&named, scene, usual, &mut files)?;
            }
        }
    } else {
        let kinds: Vec<&str> = fields.names().filter(|field| *field != "name").collect();
        if !kinds.is_empty() {
            return Err(fields.wrong(kinds[0], "is no kind of volume that is known here").hint(
                "emptyDir, persistentVolumeClaim, hostPath, configMap, secret, projected and downwardAPI are",
            ));
        }
        return Ok(Volume::Empty { size_gib: 1 });
    }
    Ok(Volume::Files(FileSet { name: name.to_string(), files }))
}

/// A directory of the host: whether it is lent is for who makes the pod to say.
fn host_path(fields: &Fields<'_>) -> Result<Volume, Refusal> {
    let path = fields.needed("path")?;
    crate::instance::content::check_absolute(&path).map_err(|bad| fields.wrong("path", bad.to_string()))?;
    let kinds = [("", false), ("DirectoryOrCreate", false), ("Directory", true), ("File", true)];
    Ok(Volume::Host { path, exists: fields.word("type", &kinds)? })
}

fn empty_dir(fields: &Fields<'_>) -> Result<Volume, Refusal> {
    let limit = match fields.raw("sizeLimit") {
        None => None,
        Some(Value::Number(bytes)) => Some(bytes.to_string()),
        Some(_) => fields.text("sizeLimit")?,
    };
    let size_gib = match &limit {
        None => 1,
        Some(text) => quantity::pieces(text, 1 << 30)
            .filter(|size| *size > 0)
            .ok_or_else(|| fields.wrong("sizeLimit", format!("{text:.40} is no size")))?,
    };
    match fields.text("medium")?.unwrap_or_default().as_str() {
        "" => {
            if size_gib != 1 {
                fields.warn("sizeLimit", "is charged in whole GiB and not enforced");
            }
            Ok(Volume::Empty { size_gib })
        }
        "Memory" => {
            let Some(text) = limit else { return Ok(Volume::Memory) };
            let size_mib = quantity::pieces(&text, 1 << 20).unwrap_or(size_gib << 10);
            Ok(Volume::LimitedMemory { size_bytes: size_mib << 20 })
        }
        other => Err(fields.wrong("medium", format!("{other:.40} is not known: leave it out, or Memory"))),
    }
}

/// A number, or the octal digits that YAML 1.1 takes for one.
fn mode(fields: &Fields<'_>, name: &str, usual: u32) -> Result<u32, Refusal> {
    let wrong = || fields.wrong(name, "is to be permissions from 0 to 0777");
    let mode = match fields.raw(name) {
        None => return Ok(usual),
        Some(Value::Number(number)) => number.as_u64().and_then(|mode| u32::try_from(mode).ok()),
        Some(Value::String(text)) if text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        Some(_) => None,
    };
    mode.filter(|mode| *mode <= 0o777).ok_or_else(wrong)
}

/// The files of a ConfigMap or a Secret: all keys, or those that `items` name.
fn files_of(
    source: &Fields<'_>,
    config: Option<&Config>,
    is_secret: bool,
    usual: u32,
    files: &mut Vec<File>,
) -> Result<(), Refusal> {
    let items = source.children("items")?;
    let Some(config) = config else {
        source.pass_over(&["items"]);
        items.iter().for_each(|item| item.pass_over(&["key", "path", "mode"]));
        return Ok(());
    };
    if source.raw("items").is_none() {
        let file = |(key, bytes): (&String, &Vec<u8>)| File {
            path: key.clone(),
            mode: usual,
            bytes: bytes.clone(),
            is_secret,
        };
        config.data.iter().map(file).for_each(|file| put(files, file));
    }
    for item in items {
        let (key, path) = (item.needed("key")?, item.needed("path")?);
        crate::instance::content::check_relative(&path).map_err(|bad| item.wrong("path", bad.to_string()))?;
        let Some(bytes) = config.data.get(&key) else {
            if source.flag("optional")? == Some(true) {
                continue;
            }
            return Err(item.wrong("key", format!("there is no {key:.80}")));
        };
        let mode = mode(&item, "mode", usual)?;
        put(files, File { path, mode, bytes: bytes.clone(), is_secret });
    }
    Ok(())
}

/// Files that tell a pod of itself.
fn facts(source: &Fields<'_>, scene: &Scene<'_>, usual: u32, files: &mut Vec<File>) -> Result<(), Refusal> {
    for item in source.children("items")? {
        let path = item.needed("path")?;
        crate::instance::content::check_relative(&path).map_err(|bad| item.wrong("path", bad.to_string()))?;
        item.refuse("resourceFieldRef", "cannot be told to containers here: write the number")?;
        let field = item.child("fieldRef")?.ok_or_else(|| item.wrong("fieldRef", "is missing"))?;
        let bytes = scene.field(&field)?.into_bytes();
        put(files, File { path, mode: mode(&item, "mode", usual)?, bytes, is_secret: false });
    }
    Ok(())
}

/// Of two files of one path the later counts.
fn put(files: &mut Vec<File>, file: File) {
    files.retain(|known| known.path != file.path);
    files.push(file);
}
