//! ConfigMaps, Secrets and claims of storage: what pods of the same file name.

use super::{Refusal, field::Fields, quantity};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{collections::BTreeMap, fmt};

/// Keys and values of a ConfigMap or a Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The values, which may be secrets.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

/// A claim: a volume that stays when its pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the volume.
    pub name: String,
    /// Its size in GiB.
    pub size_gib: u64,
}

/// Reads a ConfigMap.
pub(super) fn config_map(fields: &Fields<'_>) -> Result<Config, Refusal> {
    fields.pass_over(&["immutable"]);
    let mut data = BTreeMap::new();
    for (key, text) in fields.pairs("data")? {
        check_key(fields, "data", &key)?;
        data.insert(key, text.into_bytes());
    }
    decode(fields, "binaryData", &mut data)?;
    Ok(Config { data })
}

/// Reads a Secret.
pub(super) fn secret(fields: &Fields<'_>) -> Result<Config, Refusal> {
    fields.pass_over(&["immutable", "type"]);
    let mut data = BTreeMap::new();
    decode(fields, "data", &mut data)?;
    for (key, text) in fields.pairs("stringData")? {
        check_key(fields, "stringData", &key)?;
        data.insert(key, text.into_bytes());
    }
    Ok(Config { data })
}

fn decode(fields: &Fields<'_>, name: &str, data: &mut BTreeMap<String, Vec<u8>>) -> Result<(), Refusal> {
    for (key, text) in fields.pairs(name)? {
        check_key(fields, name, &key)?;
        let text: String = text.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(text);
        let bytes = bytes.map_err(|_| fields.wrong(&format!("{name}.{key}"), "is to be base64"))?;
        data.insert(key, bytes);
    }
    Ok(())
}

/// Keys become names of files.
fn check_key(fields: &Fields<'_>, name: &str, key: &str) -> Result<(), Refusal> {
    let fits = (1..=253).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !matches!(key, "." | "..");
    if fits {
        return Ok(());
    }
    let message = "a key has letters, digits, '-', '_' and '.', 253 at most";
    Err(fields.wrong(&format!("{name}.{key:.40}"), message))
}

/// Reads a PersistentVolumeClaim.
pub(super) fn claim(name: &str, fields: &Fields<'_>) -> Result<Claim, Refusal> {
    let spec = fields.child("spec")?.ok_or_else(|| fields.wrong("spec", "is missing"))?;
    spec.word("volumeMode", &[("Filesystem", ())])?;
    for mode in spec.texts("accessModes")?.unwrap_or_default() {
        if !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod") {
            spec.warn("accessModes", format!("{mode} is not honoured: one pod at a time has a volume"));
        }
    }
    let resources = spec.child("resources")?.ok_or_else(|| spec.wrong("resources", "is missing"))?;
    let requests = resources.child("requests")?.ok_or_else(|| resources.wrong("requests", "is missing"))?;
    let storage = requests.needed("storage")?;
    match quantity::pieces(&storage, 1 << 30) {
        Some(size_gib) if size_gib > 0 => Ok(Claim { name: name.to_string(), size_gib }),
        _ => Err(requests.wrong("storage", format!("{storage:.40} is no size"))),
    }
}
