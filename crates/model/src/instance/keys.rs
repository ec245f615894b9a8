//! SSH keys of a guest: those that it is to let in, and those that it was given.
//!
//! A guest takes its keys at its first boot. What changes afterwards is told to its agent, and until that has answered
//! the two differ: [`KeyChange`] is the difference.

/// A key as an instance has it: the name under which its project knew it, and the line of `authorized_keys`.
pub type NamedKey = (String, String);

/// What makes the keys that a guest has those that it is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// Keys to let in.
    pub add: Vec<NamedKey>,
    /// Keys to let in no more.
    pub remove: Vec<NamedKey>,
}

impl KeyChange {
    /// The change from `has` to `wanted`. Certificates are no business of SSH's and are left out.
    pub fn between(wanted: &[NamedKey], has: &[NamedKey]) -> Self {
        let lacks = |all: &[NamedKey], (_, key): &NamedKey| all.iter().all(|(_, other)| other != key);
        let only = |these: &[NamedKey], those: &[NamedKey]| -> Vec<NamedKey> {
            these.iter().filter(|key| is_ssh(&key.1) && lacks(those, key)).cloned().collect()
        };
        Self { add: only(wanted, has), remove: only(has, wanted) }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

fn is_ssh(key: &str) -> bool {
    !key.starts_with("-----BEGIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lines: &[&str]) -> Vec<NamedKey> {
        lines.iter().map(|line| ((*line).to_string(), format!("ssh-ed25519 {line}"))).collect()
    }

    #[test]
    fn a_change_has_what_is_missing_and_what_is_too_many() {
        let change = KeyChange::between(&keys(&["a", "b"]), &keys(&["b", "c"]));
        assert_eq!((change.add, change.remove), (keys(&["a"]), keys(&["c"])));
        assert!(KeyChange::between(&keys(&["a", "b"]), &keys(&["b", "a"])).is_empty());
    }

    #[test]
    fn another_name_of_the_same_key_is_no_change() {
        let (mut renamed, has) = (keys(&["a"]), keys(&["a"]));
        renamed[0].0 = "mine".into();
        assert!(KeyChange::between(&renamed, &has).is_empty());
    }

    #[test]
    fn certificates_are_left_alone() {
        let certificate = vec![("pc".to_string(), "-----BEGIN CERTIFICATE-----\nAA==\n".to_string())];
        assert!(KeyChange::between(&certificate, &[]).is_empty());
        assert!(KeyChange::between(&[], &certificate).is_empty());
    }
}
