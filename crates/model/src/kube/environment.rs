//! The environment of a container, and what refers to it: `$(NAME)` in commands and values.

use super::{Refusal, field::Fields, pod::Scene};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of a container's variables, and of its command, once what they refer to is put in: each may name others many
/// times over.
pub const EXPANDED_BYTES_MAX: usize = 1024 * 1024;

/// Variables; the values of secret ones are sealed before they are kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Those that anybody may see.
    pub plain: BTreeMap<String, String>,
    /// Those that came from a Secret, or refer to such.
    pub secret: BTreeMap<String, String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("plain", &self.plain)
            .field("secret", &self.secret.keys().collect::<BTreeSet<_>>())
            .finish()
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut all = out.serialize_struct("Environment", 2)?;
        all.serialize_field("plain", &self.plain)?;
        all.serialize_field("secret", &self.secret.keys().collect::<BTreeSet<_>>())?;
        all.end()
    }
}

impl Environment {
    fn set(&mut self, name: String, value: String, is_secret: bool) {
        self.plain.remove(&name);
        self.secret.remove(&name);
        let place = if is_secret { &mut self.secret } else { &mut self.plain };
        place.insert(name, value);
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.plain.iter().chain(&self.secret).map(|(name, value)| name.len() + value.len()).sum()
    }

    /// A text with each `$(NAME)` that is known replaced, and whether a secret is in it then. `$$` stands for `$`. What
    /// comes out is cut off when it is longer than anybody takes ([`EXPANDED_BYTES_MAX`]).
    pub fn expand(&self, text: &str) -> (String, bool) {
        let (mut out, mut rest, mut is_secret) = (String::new(), text, false);
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let name = after.strip_prefix('(').and_then(|inner| Some(&inner[..inner.find(')')?]));
            let known = name.and_then(|name| {
                let plain = self.plain.get(name).map(|value| (value, false));
                Some((plain.or_else(|| Some((self.secret.get(name)?, true)))?, name.len() + 2))
            });
            match known {
                Some(((value, secret), length)) => {
                    out.push_str(value);
                    is_secret |= secret;
                    if out.len() > EXPANDED_BYTES_MAX {
                        return (out, is_secret);
                    }
                    rest = &after[length..];
                }
                None => {
                    out.push('$');
                    rest = after.strip_prefix('$').unwrap_or(after);
                }
            }
        }
        out.push_str(rest);
        (out, is_secret)
    }
}

/// Reads `envFrom` and `env` of a container.
pub(super) fn read(container: &Fields<'_>, scene: &Scene<'_>) -> Result<Environment, Refusal> {
    let (mut all, mut bytes) = (Environment::default(), 0);
    for source in container.children("envFrom")? {
        let prefix = source.text("prefix")?.unwrap_or_default();
        for (field, is_secret) in [("configMapRef", false), ("secretRef", true)] {
            let Some(named) = source.child(field)? else { continue };
            let Some(config) = scene.config(&named, "name", is_secret)? else { continue };
            for (key, value) in &config.data {
                let name = format!("{prefix}{key}");
                match String::from_utf8(value.clone()) {
                    Ok(value) if is_name(&name) && !value.contains('\0') => all.set(name, value, is_secret),
                    _ => source.warn(field, format!("{key} cannot be a variable and is left out")),
                }
            }
        }
    }
    for variable in container.children("env")? {
        let name = variable.needed("name")?;
        if !is_name(&name) {
            return Err(variable.wrong("name", "a variable's name has printable characters and no ="));
        }
        let (value, is_secret) = match variable.child("valueFrom")? {
            None => all.expand(&variable.text("value")?.unwrap_or_default()),
            Some(source) => match value_from(&source, scene)? {
                Some(found) => found,
                None => continue,
            },
        };
        if value.contains('\0') {
            return Err(variable.wrong("value", "a variable cannot hold a zero byte"));
        }
        bytes += name.len() + value.len();
        if bytes > EXPANDED_BYTES_MAX {
            let message = format!("the variables come to more than {EXPANDED_BYTES_MAX} bytes");
            return Err(container.wrong("env", message).hint("mount what is large as a file"));
        }
        all.set(name, value, is_secret);
    }
    Ok(all)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

/// The value that a source gives, and whether it is a secret; `None` where an optional one is not there.
fn value_from(source: &Fields<'_>, scene: &Scene<'_>) -> Result<Option<(String, bool)>, Refusal> {
    for (field, is_secret) in [("configMapKeyRef", false), ("secretKeyRef", true)] {
        let Some(named) = source.child(field)? else { continue };
        let key = named.needed("key")?;
        let Some(config) = scene.config(&named, "name", is_secret)? else { return Ok(None) };
        let Some(value) = config.data.get(&key) else {
            return match named.flag("optional")? {
                Some(true) => Ok(None),
                _ => Err(named.wrong("key", format!("there is no {key:.80}"))),
            };
        };
        let value = String::from_utf8(value.clone());
        return match value {
            Ok(value) => Ok(Some((value, is_secret))),
            Err(_) => Err(named.wrong("key", "its value is no text: mount it as a file")),
        };
    }
    if let Some(field) = source.child("fieldRef")? {
        return Ok(Some((scene.field(&field)?, false)));
    }
    source.refuse("resourceFieldRef", "cannot be told to containers here: write the number")?;
    Err(Refusal::new(source.object(), source.path(), "names no source that is known here")
        .hint("configMapKeyRef, secretKeyRef and fieldRef are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_followed_as_kubernetes_does() {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
        let all = Environment { plain: pair("A", "one"), secret: pair("S", "hidden") };
        for (text, wanted, is_secret) in [
            ("plain", "plain", false),
            ("$(A)-$(A)", "one-one", false),
            ("$(S)", "hidden", true),
            ("$(B)", "$(B)", false),
            ("$$(A)", "$(A)", false),
            ("$$", "$", false),
            ("cost: $5 $(", "cost: $5 $(", false),
            ("$A", "$A", false),
        ] {
            assert_eq!(all.expand(text), (wanted.to_string(), is_secret), "{text:?}");
        }
        assert!(!format!("{all:?}").contains("hidden"));
        let large = Environment { plain: pair("A", &"x".repeat(1000)), ..Environment::default() };
        let (text, _) = large.expand(&"$(A)".repeat(100_000));
        assert!((EXPANDED_BYTES_MAX..EXPANDED_BYTES_MAX + 2000).contains(&text.len()), "{}", text.len());
    }
}
