//! Who a container's program runs as: the user text of an image or a request, looked up in the image's own
//! `/etc/passwd` and `/etc/group`. Pure; the files come in as text.

use serde::{Deserialize, Serialize};

/// Ids inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Why a user cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such user in the image.
    #[error("the image has no user {0:?} in its /etc/passwd")]
    UnknownUser(String),
    /// No such group in the image.
    #[error("the image has no group {0:?} in its /etc/group")]
    UnknownGroup(String),
    /// The id does not fit in the range of host ids that belongs to the instance.
    #[error("id {id} is outside the {count} ids of the instance")]
    OutOfRange {
        /// The id asked for.
        id: u32,
        /// Ids that the instance has.
        count: u32,
    },
}

/// Most groups that one process may have here.
const GROUPS_MAX: usize = 256;

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_line(line: &str) -> Option<PasswdLine<'_>> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let home = fields.nth(1).unwrap_or("");
    Some(PasswdLine { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
}

/// Name, id and members of a line of `/etc/group`.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
}

/// Looks a user up as docker does: `name`, `uid`, `name:group`, `uid:gid`, or empty for root.
///
/// A number that the files do not know is taken as it is, with group 0; a name must be known. With a group given,
/// no further groups are added. `ids` is how many ids the container has.
pub fn resolve(user: &str, passwd: &str, group: &str, ids: u32) -> Result<Identity, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let known = passwd
        .lines()
        .filter_map(passwd_line)
        .find(|line| line.name == user || number.is_some_and(|uid| uid == line.uid));
    let mut identity = match (&known, number) {
        (Some(line), _) => {
            Identity { uid: line.uid, gid: line.gid, groups: Vec::new(), home: line.home.to_string() }
        }
        (None, Some(uid)) => Identity { uid, ..Default::default() },
        (None, None) => return Err(UserError::UnknownUser(user.to_string())),
    };
    if identity.home.is_empty() {
        identity.home = if identity.uid == 0 { "/root" } else { "/" }.to_string();
    }
    match wanted_group {
        Some(wanted) => identity.gid = find_group(wanted, group)?,
        None => {
            if let Some(line) = &known {
                identity.groups = groups_of(line.name, group);
            }
        }
    }
    identity.groups.retain(|gid| *gid < ids);
    match [identity.uid, identity.gid].into_iter().find(|id| *id >= ids) {
        Some(id) => Err(UserError::OutOfRange { id, count: ids }),
        None => Ok(identity),
    }
}

fn find_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    let known = group.lines().filter_map(group_line).find(|(name, ..)| *name == wanted);
    match (known, wanted.parse()) {
        (Some((_, gid, _)), _) | (None, Ok(gid)) => Ok(gid),
        (None, Err(_)) => Err(UserError::UnknownGroup(wanted.to_string())),
    }
}

fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let lines = group.lines().filter_map(group_line);
    lines
        .filter(|(_, _, members)| members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
        .take(GROUPS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:34:web:/var/www:/bin/sh\n7:x:70:71::/seven:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:web,root\nlog:x:5:web\n";

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Identity, UserError> {
        Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.into() })
    }

    #[test]
    fn users_as_docker_spells_them() {
        for (user, wanted) in [
            ("", identity(0, 0, &[4], "/root")),
            ("root", identity(0, 0, &[4], "/root")),
            ("web", identity(33, 34, &[4, 5], "/var/www")),
            ("33", identity(33, 34, &[4, 5], "/var/www")),
            ("web:", identity(33, 34, &[4, 5], "/var/www")),
            ("web:log", identity(33, 5, &[], "/var/www")),
            ("web:77", identity(33, 77, &[], "/var/www")),
            ("1000", identity(1000, 0, &[], "/")),
            ("1000:1001", identity(1000, 1001, &[], "/")),
            ("7", identity(70, 71, &[], "/seven")),
            ("nobody", Err(UserError::UnknownUser("nobody".into()))),
            ("web:staff", Err(UserError::UnknownGroup("staff".into()))),
            ("65536", Err(UserError::OutOfRange { id: 65536, count: 65536 })),
            ("0:70000", Err(UserError::OutOfRange { id: 70000, count: 65536 })),
        ] {
            assert_eq!(resolve(user, PASSWD, GROUP, 65536), wanted, "{user:?}");
        }
        assert_eq!(resolve("", "", "", 65536), identity(0, 0, &[], "/root"), "an image without the files");
    }
}
