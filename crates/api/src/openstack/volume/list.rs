//! Lists as Cinder's clients ask for them: filters, order, pages by `limit`, `marker` and `offset`, and the count.

use crate::openstack::{
    Base, Fault, Microversion, Result,
    paging::{LIMIT_MAX, Page, same_id},
    query::{Query, truth},
    shape,
};
use model::meta::Labels;
use serde_json::{Map, Value, json};

/// Keys by which lists are sorted.
const SORT_KEYS: &[&str] = &[
    "id",
    "name",
    // What the first Cinder called names.
    "display_name",
    "status",
    "size",
    "created_at",
    "updated_at",
    "volume_id",
    "bootable",
    "availability_zone",
    "host",
];

/// One entry: as it is filtered and sorted by, and as it is shown.
pub struct Entry {
    /// Fields to filter and sort by.
    pub full: Value,
    /// What the list shows.
    pub shown: Value,
    /// When it was made, as exactly as it is known.
    pub created_at: jiff::Timestamp,
}

/// Filters, sorts and cuts a list, and writes the reply. `word` is the list's name, like `volumes`; `filters` are the
/// fields that it may be filtered by.
///
/// # Errors
/// 400 for a limit, offset, sort key or filter that cannot be read, 404 for a marker that names nothing.
pub fn reply(
    word: &str,
    mut all: Vec<Entry>,
    filters: &[&str],
    query: &Query,
    version: Microversion,
    base: &Base,
) -> Result<Value> {
    for key in filters {
        if let Some(wanted) = query.get(key) {
            all.retain(|entry| fits(&entry.full[*key], wanted));
        }
    }
    if let Some(text) = query.get("metadata") {
        let wanted = dictionary(text)?;
        all.retain(|entry| wanted.iter().all(|(key, value)| entry.full["metadata"][key] == json!(value)));
    }
    let mut order = shape::order(query, SORT_KEYS, &[("created_at", false), ("id", false)])?;
    order.iter_mut().filter(|(key, _)| key == "display_name").for_each(|(key, _)| *key = "name".into());
    // Newest first, unless something else is asked for; equals stay in that order.
    all.sort_by_key(|entry| std::cmp::Reverse((entry.created_at, entry.full["id"].to_string())));
    let asked = ["sort", "sort_key", "sort_dir"].iter().any(|key| query.get(key).is_some());
    if asked {
        sort(&mut all, &order);
    }
    let count = all.len();
    let offset = usize::try_from(query.number("offset")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let all: Vec<Entry> = all.into_iter().skip(offset).collect();
    let is_empty = query.get("limit") == Some("0");
    let page = page(all, query)?;
    let mut reply = Map::new();
    let links = if is_empty { vec![] } else { page.links(base, &without_offset(query)?) };
    let items: Vec<Value> = page.items.into_iter().map(|entry| entry.shown).collect();
    reply.insert(word.to_string(), json!(if is_empty { vec![] } else { items }));
    if !links.is_empty() {
        reply.insert(format!("{word}_links"), json!(links));
    }
    if version.has(3, 45) && query.flag("with_count")? == Some(true) {
        reply.insert("count".into(), json!(count));
    }
    Ok(Value::Object(reply))
}

/// The page that a call asks for. Cinder does not look behind a page: one that is full has a next one, empty perhaps.
fn page(all: Vec<Entry>, query: &Query) -> Result<Page<Entry>> {
    let id = |entry: &Entry| entry.full["id"].as_str().unwrap_or_default().to_string();
    if let Some(marker) = query.get("marker").filter(|marker| !marker.is_empty())
        && !all.iter().any(|entry| same_id(&id(entry), marker))
    {
        return Err(Fault::not_found("Marker", marker));
    }
    let mut page = Page::cut(all, query, LIMIT_MAX, id)?;
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
    if limit == Some(page.items.len()) {
        page.next = page.items.last().map(id);
    }
    Ok(page)
}

/// The next page begins at its marker alone.
fn without_offset(query: &Query) -> Result<Query> {
    let kept: Vec<String> = query
        .pairs()
        .filter(|(key, _)| *key != "offset")
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    Query::parse(query.path(), &kept.join("&"))
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn sort(all: &mut [Entry], order: &[(String, bool)]) {
    all.sort_by(|a, b| {
        let compared = order.iter().map(|(key, up)| {
            let found = match key.as_str() {
                "created_at" => a.created_at.cmp(&b.created_at),
                "size" => a.full["size"].as_u64().cmp(&b.full["size"].as_u64()),
                key => a.full[key].as_str().cmp(&b.full[key].as_str()),
            };
            if *up { found } else { found.reverse() }
        });
        compared.into_iter().find(|found| found.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
}

fn fits(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => {
            text == wanted
                || matches!((truth(text), truth(wanted)), (Some(a), Some(b)) if a == b && text.parse::<u64>().is_err())
        }
        Value::Bool(is) => truth(wanted) == Some(*is),
        Value::Null => wanted.is_empty() || wanted == "None",
        other => {
            let shown = other.to_string();
            shown == wanted
        }
    }
}

/// Reads the dictionary of strings that a filter by metadata is, in Python's or JSON's form: `{'a': 'b'}`.
///
/// # Errors
/// 400 for anything else.
pub fn dictionary(text: &str) -> Result<Labels> {
    let wrong = || Fault::invalid(format!("{text:?} is no dictionary of metadata."));
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(wrong)?;
    let mut found = Labels::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(wrong)?;
        let after = after.trim_start().strip_prefix(':').ok_or_else(wrong)?;
        let (value, after) = quoted(after.trim_start()).ok_or_else(wrong)?;
        found.insert(key, value);
        rest = after.trim_start();
        if let Some(more) = rest.strip_prefix(',') {
            rest = more.trim_start();
        } else if !rest.is_empty() {
            return Err(wrong());
        }
    }
    Ok(found)
}

/// One quoted text and what follows it. A `u` before it is what an old Python wrote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('u').unwrap_or(text);
    let mark = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (mut out, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => {
                out.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            end if end == mark => return Some((out, &text[at + end.len_utf8()..])),
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_of_either_language_are_read() {
        for (text, pairs) in [
            ("{}", vec![]),
            ("{'Type': 'work'}", vec![("Type", "work")]),
            (r#"{"a": "b", 'c':'it\'s'}"#, vec![("a", "b"), ("c", "it's")]),
            ("{u'a': u'ü'}", vec![("a", "ü")]),
        ] {
            let found = dictionary(text).unwrap();
            let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(found, pairs, "{text}");
        }
        for wrong in ["", "a", "{a: b}", "{'a'}", "{'a': 'b' 'c': 'd'}", "{'a': 'b"] {
            assert!(dictionary(wrong).is_err(), "{wrong}");
        }
    }
}
