//! What clients ask of the shape of a list: an order (`sort_key`, `sort_dir`) and some fields alone (`fields`).

use super::{
    fault::{Fault, Result},
    query::Query,
};
use serde_json::Value;
use std::cmp::Ordering;

/// Most keys that a list is sorted by.
pub const SORT_KEYS_MAX: usize = 16;

/// The fields that a call asks for, of one item; all when it names none. Neutron's `fields=id&fields=name`.
pub fn fields(mut item: Value, query: &Query) -> Value {
    let wanted: Vec<&str> = query.all("fields").filter(|field| !field.is_empty()).collect();
    if let (false, Value::Object(map)) = (wanted.is_empty(), &mut item) {
        map.retain(|key, _| wanted.contains(&key.as_str()));
    }
    item
}

/// The order that a call asks for: keys with their directions (`true` is up).
///
/// Both spellings are read: `sort_key=a&sort_dir=desc`, each repeated, and `sort=a:desc,b`.
///
/// # Errors
/// 400 for a direction that is none, a key that is not in `known`, and too many keys.
pub fn order(query: &Query, known: &[&str], default: &[(&str, bool)]) -> Result<Vec<(String, bool)>> {
    let mut keys: Vec<(String, Option<&str>)> =
        query.all("sort_key").map(|key| (key.to_string(), None)).collect();
    for (at, dir) in query.all("sort_dir").enumerate() {
        match keys.get_mut(at) {
            Some(key) => key.1 = Some(dir),
            // A direction without a key turns the default order.
            None => keys.extend(default.get(at).map(|(key, _)| ((*key).to_string(), Some(dir)))),
        }
    }
    for part in query.all("sort").flat_map(|text| text.split(',')).filter(|part| !part.is_empty()) {
        let (key, dir) = part.split_once(':').map_or((part, None), |(key, dir)| (key, Some(dir)));
        keys.push((key.to_string(), dir));
    }
    if keys.len() > SORT_KEYS_MAX {
        return Err(Fault::invalid(format!("at most {SORT_KEYS_MAX} sort keys are possible")));
    }
    if keys.is_empty() {
        return Ok(default.iter().map(|(key, up)| ((*key).to_string(), *up)).collect());
    }
    let read = |(key, dir): (String, Option<&str>)| {
        if !known.contains(&key.as_str()) {
            return Err(Fault::invalid(format!("{key} is invalid attribute for sort_key")));
        }
        let default_up = default.first().is_none_or(|(_, up)| *up);
        match dir.map(str::to_ascii_lowercase).as_deref() {
            None => Ok((key, default_up)),
            Some("asc") => Ok((key, true)),
            Some("desc") => Ok((key, false)),
            Some(other) => Err(Fault::invalid(format!("{other} is invalid value for sort_dir"))),
        }
    };
    keys.into_iter().map(read).collect()
}

/// Sorts items by keys of their JSON; items that are alike stay in their order.
pub fn sort(items: &mut [Value], order: &[(String, bool)]) {
    items.sort_by(|a, b| {
        let compared = order.iter().map(|(key, up)| {
            let found = compare(&a[key.as_str()], &b[key.as_str()]);
            if *up { found } else { found.reverse() }
        });
        compared.into_iter().find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
    });
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sorted(query: &str) -> Result<Vec<u64>> {
        let query = Query::parse("/x", query).unwrap();
        let mut items =
            [json!({"id": 1, "name": "b"}), json!({"id": 2, "name": "a"}), json!({"id": 3, "name": "b"})];
        sort(&mut items, &order(&query, &["id", "name"], &[("id", true)])?);
        Ok(items.iter().filter_map(|item| item["id"].as_u64()).collect())
    }

    #[test]
    fn lists_are_sorted_as_asked() {
        for (query, ids) in [
            ("", [1, 2, 3]),
            ("sort_dir=desc", [3, 2, 1]),
            ("sort_key=name", [2, 1, 3]),
            ("sort_key=name&sort_key=id&sort_dir=desc&sort_dir=desc", [3, 1, 2]),
            ("sort=name:asc,id:desc", [2, 3, 1]),
        ] {
            assert_eq!(sorted(query).unwrap(), ids, "{query}");
        }
        for wrong in ["sort_key=x", "sort_key=id&sort_dir=up", &"sort_key=id&".repeat(SORT_KEYS_MAX + 1)] {
            assert!(sorted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn items_are_cut_to_the_fields_asked_for() {
        let item = json!({"id": 1, "name": "b", "mtu": 1500});
        let cut = |query: &str| fields(item.clone(), &Query::parse("/x", query).unwrap());
        assert_eq!(cut(""), item);
        assert_eq!(cut("fields=id&fields=mtu&fields=none"), json!({"id": 1, "mtu": 1500}));
    }
}
