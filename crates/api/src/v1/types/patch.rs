//! Changes: a missing field stays as it is, `null` takes a value away (JSON merge patch, RFC 7396).

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Labels to set; `null` removes one.
pub type LabelChanges = BTreeMap<String, Option<String>>;

/// A field that may be missing (`None`), `null` (`Some(None)`) or a value. Use with `#[serde(default)]`.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Applies label changes to labels.
pub fn apply_labels(labels: &mut model::meta::Labels, changes: &LabelChanges) {
    for (key, value) in changes {
        match value {
            Some(value) => labels.insert(key.clone(), value.clone()),
            None => labels.remove(key),
        };
    }
}
