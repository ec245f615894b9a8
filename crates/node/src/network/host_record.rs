//! What the host was like before holm changed it: the settings that are put back when holm goes.
//!
//! The record is made once, before the first change, and only grows; so whatever crashes in between, the value
//! from before holm is the one that is kept. It lives beside the handles, in a directory that a reboot empties as
//! it empties the settings themselves.

use model::dataplane::host::HostSettings;
use std::{collections::BTreeMap, fs, io, path::Path};
use sys::{
    error::{Error, Result},
    netlink::Netlink,
    netns::NetNs,
    sysctl,
};

/// Name of the record's file, beside the directory of namespace handles.
pub const FILE_NAME: &str = "host-settings.json";

type Record = BTreeMap<String, String>;

fn load(path: &Path) -> Result<Record> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Error::new("read record of host settings", path.display(), io::Error::other(error))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::new()),
        Err(error) => Err(Error::new("read record of host settings", path.display(), error)),
    }
}

/// Notes the present value of each setting that is not noted yet.
///
/// # Errors
/// When a value cannot be read or the record cannot be written: then nothing may be changed.
pub fn remember(host: &NetNs, path: &Path, settings: &[(String, String)]) -> Result<()> {
    let mut record = load(path)?;
    let before = record.len();
    for (key, _) in settings {
        if !record.contains_key(key) {
            record.insert(key.clone(), sysctl::read(host, key)?);
        }
    }
    if record.len() == before {
        return Ok(());
    }
    let bytes = serde_json::to_vec_pretty(&record).map_err(|error| {
        Error::new("write record of host settings", path.display(), io::Error::other(error))
    })?;
    sys::file::write_atomic(path, &bytes, 0o600)
}

/// Puts back what was noted, and forgets it. A setting whose interface is gone is left out.
///
/// # Errors
/// The kernel's; running again goes on.
pub fn put_back(host: &NetNs, path: &Path) -> Result<()> {
    let record = load(path)?;
    // Turning forwarding off resets settings of interfaces, so those come after it.
    let is_general = |key: &&String| !key.contains("/conf/") || key.contains("/conf/all/");
    let (general, of_interfaces): (Vec<_>, Vec<_>) = record.iter().partition(|(key, _)| is_general(key));
    for (key, value) in general.into_iter().chain(of_interfaces) {
        match sysctl::write(host, key, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new("remove record of host settings", path.display(), error))
        }
        _ => Ok(()),
    }
}

/// Looks at the host: which interfaces lead to the world, and which of them need a guard because forwarding was off
/// before holm. `path` is the record that [`remember`] keeps.
///
/// # Errors
/// The kernel's.
pub fn discover(host: &NetNs, prefix: &str, path: &Path) -> Result<HostSettings> {
    let record = load(path)?;
    let before =
        |key: &str| record.get(key).map_or_else(|| sysctl::read(host, key), |value| Ok(value.clone()));
    let interfaces: Vec<String> = Netlink::open(host)?
        .links()?
        .into_iter()
        .filter(|link| link.name != "lo" && link.mac.is_some())
        .filter(|link| matches!(link.kind.as_deref(), None | Some("bond" | "team" | "vlan")))
        .map(|link| link.name)
        .collect();
    let was_off = before("net/ipv4/ip_forward")? == "0" && before("net/ipv6/conf/all/forwarding")? == "0";
    let takes_advertisements = |interface: &&String| {
        let key = format!("net/ipv6/conf/{interface}/accept_ra");
        before(&key).is_ok_and(|value| value != "0")
    };
    Ok(HostSettings {
        prefix: prefix.to_string(),
        advertised_interfaces: interfaces.iter().filter(takes_advertisements).cloned().collect(),
        guarded_interfaces: if was_off { interfaces } else { Vec::new() },
    })
}
