//! What a pod and its containers ask for of users, groups and powers.

use super::{Refusal, field::Fields};
use crate::instance::content::VolumeGroup;
use serde_json::Value;

/// Ids that an instance has inside.
const IDS: std::ops::RangeInclusive<u64> = 0..=65_535;

/// What holds for all containers of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodSecurity {
    /// User, and group if one is told.
    pub user: Option<String>,
    /// Further groups of every user.
    pub groups: Vec<u32>,
    /// Group that volumes are given to.
    pub volume_group: Option<VolumeGroup>,
}

/// What one container asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Security {
    /// User, and group if one is told.
    pub user: Option<String>,
    /// Its own files cannot be written.
    pub read_only: bool,
    /// Capabilities more.
    pub cap_add: Vec<String>,
    /// Capabilities less.
    pub cap_drop: Vec<String>,
}

/// What the pod as a whole asks for.
pub(super) fn of_pod(spec: &Fields<'_>) -> Result<PodSecurity, Refusal> {
    let Some(context) = spec.child("securityContext")? else { return Ok(PodSecurity::default()) };
    seccomp(&context)?;
    let user = user(&context)?;
    not_root(&context, user.as_deref())?;
    context.word("supplementalGroupsPolicy", &[("Merge", ())])?;
    let mut groups = supplemental(&context)?;
    let once = context.word("fsGroupChangePolicy", &[("Always", false), ("OnRootMismatch", true)])?;
    let gid = context.number("fsGroup", IDS)?.and_then(|gid| u32::try_from(gid).ok());
    if let Some(gid) = gid.filter(|gid| !groups.contains(gid)) {
        groups.push(gid);
    }
    Ok(PodSecurity { user, groups, volume_group: gid.map(|gid| VolumeGroup { gid, once }) })
}

fn supplemental(context: &Fields<'_>) -> Result<Vec<u32>, Refusal> {
    let Some(value) = context.raw("supplementalGroups") else { return Ok(vec![]) };
    let id =
        |value: &Value| value.as_u64().filter(|id| IDS.contains(id)).and_then(|id| u32::try_from(id).ok());
    let all: Option<Vec<u32>> = value.as_array().and_then(|all| all.iter().map(id).collect());
    all.ok_or_else(|| {
        let message = format!("is to be a list of numbers from {} to {}", IDS.start(), IDS.end());
        context.wrong("supplementalGroups", message)
    })
}

/// What one container asks for, over what its pod does.
pub(super) fn of_container(fields: &Fields<'_>, pod_user: Option<&str>) -> Result<Security, Refusal> {
    let pod_user = pod_user.map(String::from);
    let Some(context) = fields.child("securityContext")? else {
        return Ok(Security { user: pod_user, ..Security::default() });
    };
    context.refuse("privileged", "no container has the powers of the host's root")?;
    context.refuse("procMount", "what /proc hides stays hidden")?;
    // Set-uid programs give nothing to anybody here.
    if context.flag("allowPrivilegeEscalation")? == Some(true) {
        context.warn("allowPrivilegeEscalation", "not honoured: no program gains privileges here");
    }
    seccomp(&context)?;
    let user = user(&context)?.or(pod_user);
    not_root(&context, user.as_deref())?;
    let capabilities = context.child("capabilities")?;
    let list = |name: &str| match &capabilities {
        None => Ok(vec![]),
        Some(fields) => fields.texts(name).map(Option::unwrap_or_default),
    };
    Ok(Security {
        user,
        read_only: context.flag("readOnlyRootFilesystem")?.unwrap_or(false),
        cap_add: list("add")?,
        cap_drop: list("drop")?,
    })
}

fn user(context: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let user = context.number("runAsUser", IDS)?;
    let group = context.number("runAsGroup", IDS)?;
    Ok(match (user, group) {
        (None, None) => None,
        (Some(user), None) => Some(user.to_string()),
        (user, Some(group)) => Some(format!("{}:{group}", user.unwrap_or(0))),
    })
}

fn not_root(context: &Fields<'_>, user: Option<&str>) -> Result<(), Refusal> {
    if context.flag("runAsNonRoot")? != Some(true) {
        return Ok(());
    }
    match user {
        Some(user) if user == "0" || user.starts_with("0:") => {
            Err(context.wrong("runAsNonRoot", "the user that is asked for is root"))
        }
        Some(_) => Ok(()),
        None => {
            context.warn("runAsNonRoot", "not checked: the image's user is not known yet; say runAsUser");
            Ok(())
        }
    }
}

/// System calls are filtered in one way for all.
fn seccomp(context: &Fields<'_>) -> Result<(), Refusal> {
    let Some(profile) = context.child("seccompProfile")? else { return Ok(()) };
    match profile.text("type")?.as_deref() {
        None | Some("RuntimeDefault") => Ok(()),
        Some(_) => {
            Err(profile.wrong("type", "system calls are filtered by holm's own rules: RuntimeDefault"))
        }
    }
}
