//! Settings of a network namespace under `/proc/sys/net`.
//!
//! Only `net/` keys: all others are the whole machine's and not ours to change. Which namespace a file under
//! `/proc/sys/net` speaks of is decided by the thread that opens it.

use std::{fs, io};

use crate::error::{Context, Error, Result};
use crate::netns::NetNs;

/// Writes a setting, for example `net/ipv4/ip_forward` = `1`. Parts are separated by slashes, because a device name may
/// contain a dot.
pub fn write(namespace: &NetNs, key: &str, value: &str) -> Result<()> {
    let path = path_of(key)?;
    namespace
        .run(|| fs::write(&path, value))
        .context("set sysctl", key)?
        .context("set sysctl", format!("{key} to {value}"))
}

/// Writes several settings with one visit to the namespace; stops at the first that fails.
pub fn write_all<'a>(
    namespace: &NetNs,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    visit(namespace, settings, &|_| false)
}

/// The same, without those that this kernel does not have.
pub fn write_present<'a>(
    namespace: &NetNs,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    visit(namespace, settings, &|error| error.kind() == io::ErrorKind::NotFound)
}

fn visit<'a>(
    namespace: &NetNs,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    is_fine: &(dyn Fn(&io::Error) -> bool + Sync),
) -> Result<()> {
    let settings: Vec<(&str, String, &str)> =
        settings.into_iter().map(|(key, value)| Ok((key, path_of(key)?, value))).collect::<Result<_>>()?;
    namespace
        .run(|| {
            settings.iter().try_for_each(|(key, path, value)| match fs::write(path, value) {
                Err(error) if is_fine(&error) => Ok(()),
                written => written.context("set sysctl", format!("{key} to {value}")),
            })
        })
        .context("set sysctls of", namespace.name().display())?
}

/// Reads a setting, without the newline at its end.
pub fn read(namespace: &NetNs, key: &str) -> Result<String> {
    let path = path_of(key)?;
    let text =
        namespace.run(|| fs::read_to_string(&path)).context("get sysctl", key)?.context("get sysctl", key)?;
    Ok(text.trim_end().to_owned())
}

fn path_of(key: &str) -> Result<String> {
    let clean =
        key.starts_with("net/") && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if clean && !key.contains('\0') {
        Ok(format!("/proc/sys/{key}"))
    } else {
        Err(Error::invalid(
            "use sysctl",
            format!("{key:?}"),
            "a key starts with net/ and has parts between slashes",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_a_network_namespace_are_taken() {
        assert_eq!(
            path_of("net/ipv4/conf/a.b/proxy_arp").expect("a key"),
            "/proc/sys/net/ipv4/conf/a.b/proxy_arp"
        );
        for key in
            ["kernel/hostname", "net/../kernel/hostname", "/net/x", "net//x", "net.ipv4.ip_forward", "net/"]
        {
            assert!(path_of(key).is_err(), "{key}");
        }
    }
}
