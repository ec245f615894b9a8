//! Hooks of containers: what is done after their start and before their end.

use super::{Refusal, field::Fields, probe};
use crate::instance::lifecycle::{HOOK_S_MAX, Hook, Lifecycle};
use std::collections::BTreeMap;

/// Reads the hooks of a container whose ports have these names, and whose pod has so many seconds to end.
pub(super) fn read(
    container: &Fields<'_>,
    ports: &BTreeMap<String, u16>,
    grace_s: u64,
) -> Result<Lifecycle, Refusal> {
    let Some(fields) = container.child("lifecycle")? else { return Ok(Lifecycle::default()) };
    let longest = u64::from(HOOK_S_MAX);
    Ok(Lifecycle {
        post_start: hook(&fields, "postStart", ports, longest)?,
        pre_stop: hook(&fields, "preStop", ports, grace_s.min(longest))?,
    })
}

fn hook(
    lifecycle: &Fields<'_>,
    name: &str,
    ports: &BTreeMap<String, u16>,
    seconds_max: u64,
) -> Result<Option<Hook>, Refusal> {
    let Some(fields) = lifecycle.child(name)? else { return Ok(None) };
    fields.refuse("grpc", "is for probes: use exec, httpGet, tcpSocket or sleep")?;
    let Some(sleep) = fields.child("sleep")? else {
        let action = probe::action(&fields, ports, "exec, httpGet, tcpSocket and sleep")?;
        let hook = Hook::Ask { action };
        return match hook.check() {
            Ok(()) => Ok(Some(hook)),
            Err(wrong) => Err(lifecycle.wrong(name, wrong)),
        };
    };
    for other in ["exec", "httpGet", "tcpSocket"] {
        fields.refuse(other, "is one hook too many beside sleep")?;
    }
    let seconds = sleep.number("seconds", 0..=seconds_max)?;
    let seconds = seconds.ok_or_else(|| sleep.wrong("seconds", "is missing"))?;
    Ok(Some(Hook::Sleep { seconds: u32::try_from(seconds).unwrap_or(HOOK_S_MAX) }))
}
