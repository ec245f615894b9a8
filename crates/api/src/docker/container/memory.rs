//! Mounts that are kept in memory, as `--tmpfs` and `--mount type=tmpfs` ask for them, and how they are told again.

use super::host_config::{HostConfig, parse_bytes, refuse_rest};
use crate::{
    docker::refusal::not_honoured,
    error::{Failure, Result},
};
use model::{error::Code, instance::content::MemoryMount};
use serde_json::{Map, Value, json};

/// The mounts: those that ask for nothing, by their paths, and the others.
pub type Asked = (Vec<String>, Vec<MemoryMount>);

/// Reads them.
///
/// # Errors
/// `invalid`, with the option that cannot be had.
pub fn asked(host: &HostConfig) -> Result<Asked> {
    let mut all = vec![];
    for (path, options) in host.tmpfs.iter().flatten() {
        all.push(read(path, options)?);
    }
    for mount in host.mounts.iter().flatten().filter(|mount| mount.kind == "tmpfs") {
        let mut rest = mount.rest.clone();
        let options = rest.remove("TmpfsOptions").unwrap_or_default();
        refuse_rest(&rest, "Mounts.")?;
        all.push(of_mount(&mount.target, mount.read_only, &options)?);
    }
    let (plain, special): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|mount| *mount == MemoryMount { path: mount.path.clone(), ..MemoryMount::default() });
    Ok((plain.into_iter().map(|mount| mount.path).collect(), special))
}

/// Options as mount(8) has them.
fn read(path: &str, options: &str) -> Result<MemoryMount> {
    let mut mount = MemoryMount { path: path.to_string(), ..MemoryMount::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || {
            let message = format!("invalid tmpfs option {option:.64?} of {path}");
            Failure::new(Code::Invalid, message)
                .hint("size=64m, mode=1777, uid=0, gid=0, ro, rw, exec, noexec are known")
        };
        let id = || value.parse::<u32>().map_err(|_| wrong());
        match name {
            "size" => {
                mount.size_bytes = Some(parse_bytes(value).filter(|bytes| *bytes > 0).ok_or_else(wrong)?)
            }
            "mode" => mount.mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?),
            "uid" => mount.uid = id()?,
            "gid" => mount.gid = id()?,
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "noexec" => mount.no_exec = true,
            "exec" => mount.no_exec = false,
            // What is so in any case, or changes nothing that anybody could see.
            "nosuid" | "nodev" | "noatime" | "relatime" | "nodiratime" | "async" => {}
            "suid" | "dev" => {
                let why =
                    format!("option {name}: no program of a container gains powers, and no device is made");
                return Err(not_honoured(&format!("Tmpfs {path}"), why));
            }
            _ => return Err(wrong()),
        }
    }
    Ok(mount)
}

fn of_mount(path: &str, read_only: bool, options: &Value) -> Result<MemoryMount> {
    let mut mount = MemoryMount { path: path.to_string(), read_only, ..MemoryMount::default() };
    for (name, value) in options.as_object().into_iter().flatten() {
        let number = value.as_u64();
        match name.as_str() {
            "SizeBytes" => mount.size_bytes = number.filter(|bytes| *bytes > 0),
            "Mode" => mount.mode = number.filter(|mode| *mode > 0).and_then(|mode| u32::try_from(mode).ok()),
            "Options" if value.as_array().is_none_or(Vec::is_empty) => {}
            other => {
                let why = format!("it was set to {value:.100}", value = value.to_string());
                return Err(not_honoured(&format!("Mounts.TmpfsOptions.{other}"), why));
            }
        }
    }
    Ok(mount)
}

/// The mounts by their paths, with their options, as `docker inspect` tells them.
pub fn told(plain: &[String], special: &[MemoryMount]) -> Map<String, Value> {
    let plain = plain.iter().map(|path| (path.clone(), json!("")));
    plain.chain(special.iter().map(|mount| (mount.path.clone(), json!(options(mount))))).collect()
}

fn options(mount: &MemoryMount) -> String {
    let mut all = vec![];
    all.extend(mount.read_only.then(|| "ro".to_string()));
    all.extend(mount.no_exec.then(|| "noexec".to_string()));
    all.extend(mount.size_bytes.map(|bytes| format!("size={bytes}")));
    all.extend(mount.mode.map(|mode| format!("mode={mode:o}")));
    all.extend((mount.uid > 0).then(|| format!("uid={}", mount.uid)));
    all.extend((mount.gid > 0).then(|| format!("gid={}", mount.gid)));
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_told_again() {
        let mount = |path: &str| MemoryMount { path: path.into(), ..MemoryMount::default() };
        for (options_asked, wanted, again) in [
            ("", mount("/a"), ""),
            ("rw,nosuid,nodev,exec", mount("/a"), ""),
            ("size=64m", MemoryMount { size_bytes: Some(64 << 20), ..mount("/a") }, "size=67108864"),
            (
                "ro,noexec,mode=0750,uid=7,gid=8,size=4096",
                MemoryMount {
                    size_bytes: Some(4096),
                    mode: Some(0o750),
                    uid: 7,
                    gid: 8,
                    read_only: true,
                    no_exec: true,
                    ..mount("/a")
                },
                "ro,noexec,size=4096,mode=750,uid=7,gid=8",
            ),
        ] {
            let read = read("/a", options_asked).unwrap();
            assert_eq!((&read, options(&read).as_str()), (&wanted, again), "{options_asked}");
        }
        for bad in ["size=much", "size=0", "mode=9", "uid=x", "suid", "dev", "huge=always"] {
            assert!(read("/a", bad).is_err(), "{bad}");
        }
        let host: HostConfig = serde_json::from_value(json!({
            "Tmpfs": {"/run": "", "/tmp": "size=1m"},
            "Mounts": [
                {"Type": "tmpfs", "Target": "/b", "ReadOnly": true, "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}},
                {"Type": "tmpfs", "Target": "/c"},
            ],
        }))
        .unwrap();
        let (plain, special) = asked(&host).unwrap();
        assert_eq!(plain, ["/run", "/c"]);
        assert_eq!(
            special[1],
            MemoryMount { size_bytes: Some(4096), mode: Some(0o700), read_only: true, ..mount("/b") }
        );
        assert_eq!(told(&plain, &special)["/tmp"], "size=1048576");
    }
}
