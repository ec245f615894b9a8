//! What every resource shows: id, name, owner, description, tags, times and revision; and tags as labels.
//!
//! A tag is a label without a value, or `key=value` for one that has it; so labels of the native door are tags here.

use control::resolve::Noun;
use jiff::Timestamp;
use model::{
    meta::{Labels, Meta},
    name::Name,
};
use serde_json::{Value, json};

/// A time as Neutron writes it.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Adds what every resource has to the rest of its view; `word` is the one that missing names are made up with.
pub fn with_head<R: Noun>(record: &R, word: &str, short_id: &str, rest: Value) -> Value {
    let meta = record.meta();
    let project = meta.project.hex();
    let mut out = json!({
        "id": meta.id.to_string(),
        "name": name(meta, word, short_id),
        "tenant_id": project,
        "project_id": project,
        "description": meta.description,
        "tags": tags(&meta.labels),
        "created_at": time(meta.created_at),
        "updated_at": time(meta.updated_at),
        "revision_number": meta.generation,
    });
    if let (Value::Object(out), Value::Object(rest)) = (&mut out, rest) {
        out.extend(rest);
    }
    out
}

/// The name that the client gave: nothing for one that was made up.
pub fn name<Id>(meta: &Meta<Id>, word: &str, short_id: &str) -> String {
    if meta.name == Name::made_up(word, short_id) { String::new() } else { meta.name.to_string() }
}

/// Labels as tags.
pub fn tags(labels: &Labels) -> Vec<String> {
    labels.iter().map(|(key, value)| tag(key, value)).collect()
}

fn tag(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_string() } else { format!("{key}={value}") }
}

/// Adds a tag to labels. One whose key has another value already is kept whole as a key.
pub fn put_tag(labels: &mut Labels, text: &str) {
    if labels.iter().any(|(key, value)| tag(key, value) == text) {
        return;
    }
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !labels.contains_key(key) => {
            labels.insert(key.to_string(), value.to_string());
        }
        _ => {
            labels.insert(text.to_string(), String::new());
        }
    }
}

/// Takes a tag from labels; `false` if there is none.
pub fn take_tag(labels: &mut Labels, text: &str) -> bool {
    let before = labels.len();
    labels.retain(|key, value| tag(key, value) != text);
    labels.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_read_back_as_they_were_given() {
        let mut labels = Labels::new();
        let given = ["plain", "env=prod", "env=test", "odd=", "=odd", "a=b=c"];
        for tag in given.iter().chain(&given) {
            put_tag(&mut labels, tag);
        }
        let mut back = tags(&labels);
        back.sort();
        let mut expected = given.map(str::to_string).to_vec();
        expected.sort();
        assert_eq!(back, expected);
        assert_eq!(labels["env"], "prod", "the native door sees a label");
        assert!(take_tag(&mut labels, "env=test") && !take_tag(&mut labels, "env=test"));
        assert!(take_tag(&mut labels, "odd=") && tags(&labels).len() == 4);
    }
}
