//! One thing in full: labelled lines, and tables of its parts.
//!
//! A page is made from the thing's own fields in their order, so that no field of the API is ever missing; a noun adds
//! or replaces what deserves better words.

use super::{Cell, table};
use crate::cli::wording;
use jiff::Timestamp;
use serde::Serialize;
use serde_yaml_ng::{Mapping, Value};

/// Lines and tables.
#[derive(Debug, Default)]
pub struct Page {
    lines: Vec<(String, String)>,
    tables: Vec<Part>,
    now: Timestamp,
}

#[derive(Debug)]
struct Part {
    title: String,
    heads: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Page {
    /// An empty page.
    pub fn new(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    /// All fields of a thing: lists of things become tables, all else lines.
    pub fn of(thing: &impl Serialize, now: Timestamp) -> Self {
        let mut page = Self::new(now);
        if let Ok(Value::Mapping(fields)) = serde_yaml_ng::to_value(thing) {
            // A page begins with the name, whatever the order of the fields.
            let is_name = |key: &Value| key.as_str() == Some("name");
            let names = fields.iter().filter(|(key, _)| is_name(key));
            for (key, value) in names.chain(fields.iter().filter(|(key, _)| !is_name(key))) {
                page.field(key.as_str().unwrap_or_default(), value);
            }
        }
        page
    }

    fn field(&mut self, key: &str, value: &Value) {
        match value {
            Value::Sequence(items)
                if items.iter().any(|i| matches!(i, Value::Mapping(m) if !is_reference(m))) =>
            {
                self.parts_of(key, items);
            }
            other => {
                let text = text_of(key, other, self.now);
                self.line(&label(key), text);
            }
        }
    }

    fn parts_of(&mut self, key: &str, items: &[Value]) {
        let maps: Vec<&Mapping> = items.iter().filter_map(Value::as_mapping).collect();
        let mut keys: Vec<String> = vec![];
        for map in &maps {
            for key in map.keys().filter_map(Value::as_str) {
                if !keys.iter().any(|k| k == key) {
                    keys.push(key.to_string());
                }
            }
        }
        let rows = maps.iter().map(|map| {
            let cell = |key: &String| {
                map.get(key.as_str()).map_or(Cell::text(""), |v| Cell::Text(text_of(key, v, self.now)))
            };
            keys.iter().map(cell).collect()
        });
        let rows = rows.collect();
        let heads = keys.iter().map(|k| k.replace('_', " ").to_uppercase()).collect();
        self.tables.push(Part { title: label(key), heads, rows });
    }

    /// Adds a line; one without a text is left out.
    pub fn line(&mut self, label: &str, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        if !text.is_empty() {
            self.lines.push((label.to_string(), text));
        }
        self
    }

    /// Adds a table; one without rows is left out.
    pub fn table(&mut self, title: &str, heads: &[&str], rows: Vec<Vec<Cell>>) -> &mut Self {
        if !rows.is_empty() {
            let heads = heads.iter().map(|h| (*h).to_string()).collect();
            self.tables.push(Part { title: title.to_string(), heads, rows });
        }
        self
    }

    /// The page as it is printed.
    pub fn text(&self, colours: bool) -> String {
        let width = self.lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (label, text) in &self.lines {
            let mut lines = text.lines();
            let pad = " ".repeat(width - label.chars().count());
            out.push_str(&format!("{label}:{pad}  {}\n", lines.next().unwrap_or_default()));
            for line in lines {
                out.push_str(&format!("{}{line}\n", " ".repeat(width + 3)));
            }
        }
        for part in &self.tables {
            let heads: Vec<&str> = part.heads.iter().map(String::as_str).collect();
            let body = table::render(&heads, &part.rows, self.now, colours);
            out.push_str(&format!("\n{}:\n", part.title));
            out.extend(body.lines().map(|line| format!("  {line}\n")));
        }
        out
    }
}

/// `created_at` becomes `Created`, `floating_ips` becomes `Floating IPs`.
fn label(key: &str) -> String {
    let words = key
        .strip_suffix("_at")
        .or(key.strip_suffix("_bytes"))
        .or(key.strip_suffix("_mib"))
        .or(key.strip_suffix("_gib"));
    let text = words.unwrap_or(key).replace('_', " ");
    let mut label = String::new();
    for (i, word) in text.split(' ').enumerate() {
        let word = match word {
            "id" | "cidr" | "mtu" | "dns" | "dhcp" | "mac" | "uefi" | "os" => word.to_uppercase(),
            "ip" => "IP".into(),
            "ips" => "IPs".into(),
            "vcpus" => "vCPUs".into(),
            "cpus" => "CPUs".into(),
            "ipv6" => "IPv6".into(),
            "qemu" => "QEMU".into(),
            _ if i == 0 => word[..1].to_uppercase() + &word[1..],
            _ => word.to_string(),
        };
        label.push_str(if i == 0 { "" } else { " " });
        label.push_str(&word);
    }
    label
}

/// Another thing, as the API refers to it.
fn is_reference(map: &Mapping) -> bool {
    map.len() == 2 && map.contains_key("id") && map.contains_key("name")
}

fn text_of(key: &str, value: &Value, now: Timestamp) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_string(),
        Value::Number(number) => match number.as_u64() {
            Some(count) if key.ends_with("_bytes") => wording::bytes(count),
            Some(count) if key.ends_with("_mib") => wording::mebibytes(count),
            Some(count) if key.ends_with("_gib") => format!("{count} GiB"),
            _ => number.to_string(),
        },
        Value::String(text) if key.ends_with("_at") || key == "at" || key == "since" => {
            text.parse().map_or(text.clone(), |then| wording::time(then, now))
        }
        Value::String(text) => text.clone(),
        Value::Sequence(items) => {
            let texts: Vec<String> = items.iter().map(|item| text_of("", item, now)).collect();
            texts.join(", ")
        }
        Value::Mapping(map) if is_reference(map) => {
            map.get("name").map_or(String::new(), |name| text_of("name", name, now))
        }
        Value::Mapping(map) => {
            let pair = |(key, value): (&Value, &Value)| {
                let key = key.as_str().unwrap_or_default();
                let text = text_of(key, value, now);
                (!text.is_empty()).then(|| format!("{key}={text}"))
            };
            let pairs: Vec<String> = map.iter().filter_map(pair).collect();
            pairs.join(", ")
        }
        Value::Tagged(tagged) => text_of(key, &tagged.value, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_has_its_line() {
        let now: Timestamp = "2026-01-02T00:03:00Z".parse().unwrap();
        let thing = json!({
            "id": "1", "network": {"id": "2", "name": "lan"}, "size_bytes": 1024, "memory_mib": 512,
            "created_at": "2026-01-02T00:00:00Z", "labels": {"a": "b"}, "addresses": ["10.0.0.1", "fd00::1"],
            "rules": [{"id": "7", "ports": "80"}, {"id": "8", "peer": "any"}], "description": "",
        });
        insta::assert_snapshot!(Page::of(&thing, now).text(false));
    }
}
