//! What all of Identity's lists and records have: links, filters by name and the like, times.

use crate::openstack::{
    base::Base,
    fault::{Fault, Result},
    paging::Page,
    query::Query,
};
use control::session::Session;
use jiff::Timestamp;
use model::{
    domain::parse_domain,
    id::{DomainId, ProjectId, UserId},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Most items of one answer.
const ITEMS_MAX: usize = 10_000;

/// Parameters that say how a list is shown, not what is in it.
const NOT_FILTERS: [&str; 5] = ["limit", "marker", "sort_key", "sort_dir", "parents_as_list"];

/// A list with its links. Items are kept that have the value which each parameter asks for; `name__contains=x` and its
/// like compare texts. Parameters that name no field of the items ask for nothing, as in Keystone.
///
/// # Errors
/// 400 for a limit that is no number.
pub fn list(word: &str, items: Vec<Value>, base: &Base, query: &Query) -> Result<Value> {
    let kept: Vec<Value> = items.into_iter().filter(|item| fits(item, query)).collect();
    let page = Page::cut(kept, query, ITEMS_MAX, |item| item["id"].as_str().unwrap_or_default().into())?;
    let next = page.next.as_ref().map(|marker| base.link(&query.with_marker(marker)));
    let own = base.link(query.path());
    Ok(json!({ word: page.items, "links": { "next": next, "self": own, "previous": null } }))
}

fn fits(item: &Value, query: &Query) -> bool {
    query.pairs().filter(|(key, _)| !NOT_FILTERS.contains(key)).all(|(key, wanted)| {
        let (field, how) = key.split_once("__").unwrap_or((key, ""));
        match item.get(field) {
            None => true,
            Some(Value::Bool(is)) => is_wanted(*is, wanted),
            Some(Value::String(text)) => compare(text, how, wanted),
            Some(Value::Null) => false,
            Some(_) => true,
        }
    })
}

/// A flag in a query is off for `0` and `false` alone, as in Keystone.
fn is_wanted(is: bool, wanted: &str) -> bool {
    is == !matches!(wanted.to_ascii_lowercase().as_str(), "0" | "false")
}

fn compare(text: &str, how: &str, wanted: &str) -> bool {
    let folded = (text.to_lowercase(), wanted.to_lowercase());
    match how {
        "contains" => text.contains(wanted),
        "icontains" => folded.0.contains(&folded.1),
        "startswith" => text.starts_with(wanted),
        "istartswith" => folded.0.starts_with(&folded.1),
        "endswith" => text.ends_with(wanted),
        "iendswith" => folded.0.ends_with(&folded.1),
        _ => text == wanted,
    }
}

/// The domain that a list is asked for.
///
/// # Errors
/// 400 for what is no id.
pub fn domain_filter(query: &Query) -> Result<Option<DomainId>> {
    query.get("domain_id").map(domain).transpose()
}

/// A domain's id in a body or query.
///
/// # Errors
/// 400 for what is none.
pub fn domain(text: &str) -> Result<DomainId> {
    parse_domain(text).ok_or_else(|| Fault::invalid(format!("{text:?} is not the id of a domain.")))
}

/// The domain of something new: the one that is named, else the asker's.
///
/// # Errors
/// 400 for what is no id.
pub fn home(asker: &Session, named: Option<&str>) -> Result<DomainId> {
    named.map_or_else(|| Ok(asker.home_domain()), domain)
}

/// A project's id in a body.
///
/// # Errors
/// 400 for what is none.
pub fn project(text: &str) -> Result<ProjectId> {
    text.parse().map_err(|_| Fault::invalid(format!("{text:?} is not the id of a project.")))
}

/// A user's id in a path.
///
/// # Errors
/// 404 for what is none.
pub fn user(text: &str) -> Result<UserId> {
    text.parse().map_err(|_| Fault::from(control::access::missing("user", text)))
}

/// A time as Keystone writes it: `2026-11-21T05:33:43.000000Z`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A field that may be missing, null or have a value: `None`, `Some(None)`, `Some(Some(..))`.
///
/// # Errors
/// As the value's.
pub fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    reader: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_filtered_by_what_their_items_have() {
        let items = || {
            vec![
                json!({"id": "1", "name": "Ann", "enabled": true, "email": null}),
                json!({"id": "2", "name": "bob", "enabled": false, "email": "b@example.org"}),
            ]
        };
        for (query, ids) in [
            ("", "12"),
            ("name=Ann", "1"),
            ("name=ann", ""),
            ("name__icontains=a", "1"),
            ("name__startswith=b", "2"),
            ("enabled=False", "2"),
            ("enabled=1", "1"),
            ("enabled", "1"),
            ("email=b@example.org", "2"),
            ("unknown=x", "12"),
        ] {
            let query = Query::parse("/v3/users", query).unwrap();
            let found: String = items()
                .into_iter()
                .filter(|item| fits(item, &query))
                .filter_map(|item| item["id"].as_str().map(str::to_string))
                .collect();
            assert_eq!(found, ids, "{query:?}");
        }
    }

    #[test]
    fn times_are_written_with_microseconds() {
        let at = Timestamp::from_microsecond(1_700_000_000_000_007).unwrap();
        assert_eq!(time(at), "2023-11-14T22:13:20.000007Z");
    }
}
