//! Lists: what a caller may see, filtered by any attribute, sorted, cut into pages and to some fields.

use super::refusal::About;
use crate::openstack::{
    Base, Fault, Result, Session,
    paging::same_id,
    query::{Query, truth},
    shape,
};
use control::{Control, Role, resolve::Noun};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;
use uuid::Uuid;

/// Keys of a query that are no filters.
const NO_FILTERS: [&str; 10] = [
    "fields",
    "limit",
    "marker",
    "page_reverse",
    "sort_key",
    "sort_dir",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
];

/// All records of a noun that the caller may see: an admin sees every project's.
pub fn all<R: Noun>(control: &Control, session: &Session) -> Vec<Arc<Stored<R>>> {
    let caller = &session.caller;
    let everywhere =
        (caller.role == Role::Admin).then(|| control.list_everywhere::<R>(caller).ok()).flatten();
    everywhere.unwrap_or_else(|| control.list::<R>(caller))
}

/// The record with an id that the caller may see, given how Neutron calls it.
///
/// # Errors
/// 404 in Neutron's words: for names too, as clients look for these another way.
pub fn one<R: Noun>(control: &Control, session: &Session, about: About, id: &str) -> Result<Arc<Stored<R>>>
where
    R::Id: From<IdText>,
{
    let missing = || about.missing(id);
    let parsed = IdText::read(id).ok_or_else(missing)?;
    let found = control.get::<R>(parsed.into()).filter(|found| {
        let record = &found.record;
        (session.caller.sees(record.meta().project) || record.is_public()) && !record.is_hidden()
    });
    found.ok_or_else(missing)
}

/// An id as a client wrote it: a UUID with its dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdText(Uuid);

impl IdText {
    fn read(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().filter(|_| text.len() == 36).map(Self)
    }
}

macro_rules! ids {
    ($($id:ident),*) => {$(
        impl From<IdText> for model::id::$id {
            fn from(text: IdText) -> Self {
                Self(text.0)
            }
        }
    )*};
}

ids!(NetworkId, SubnetId, PortId, RouterId, FloatingIpId, SecurityGroupId, SubnetPoolId, AddressScopeId);

/// A list as Neutron replies it: `views` of everything that the caller may see, under the collection's name.
///
/// # Errors
/// 400 for a filter, order or limit that cannot be.
pub fn reply(mut views: Vec<Value>, collection: &str, base: &Base, query: &Query) -> Result<Value> {
    filter(&mut views, query)?;
    let known: Vec<String> = match views.first() {
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        _ => query.all("sort_key").map(str::to_string).collect(),
    };
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let order = shape::order(query, &known, &[("created_at", true), ("id", true)])?;
    shape::sort(&mut views, &order);
    let (items, links) = page(views, collection, base, query)?;
    let items: Vec<Value> = items.into_iter().map(|item| shape::fields(item, query)).collect();
    let mut out = json!({ collection: items });
    if !links.is_empty() {
        out[format!("{collection}_links")] = links.into();
    }
    Ok(out)
}

/// Cuts a page; it has links where it was asked for as one.
fn page(all: Vec<Value>, collection: &str, base: &Base, query: &Query) -> Result<(Vec<Value>, Vec<Value>)> {
    let limit =
        query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let reverse = query.flag("page_reverse")?.unwrap_or(false);
    let id = |item: &Value| item["id"].as_str().unwrap_or_default().to_string();
    let marker = query.get("marker").filter(|marker| !marker.is_empty());
    let at = match marker {
        None => None,
        Some(marker) => {
            let found = all.iter().position(|item| same_id(&id(item), marker));
            Some(found.ok_or_else(|| {
                let kind = format!("{}NotFound", collection.trim_end_matches('s'));
                Fault::not_found("Marker", marker).kind(&kind)
            })?)
        }
    };
    let size = limit.unwrap_or(all.len());
    let (from, to) = if reverse {
        let to = at.unwrap_or(all.len());
        (to.saturating_sub(size), to)
    } else {
        let from = at.map_or(0, |at| at + 1);
        (from, (from + size).min(all.len()))
    };
    let (before, after) = (from > 0, to < all.len());
    let items: Vec<Value> = all.into_iter().skip(from).take(to.saturating_sub(from)).collect();
    let mut links = vec![];
    if limit.is_some() {
        let href = |item: &Value, back: bool| {
            let text = query.with_marker(&id(item));
            let text = text.replace("&page_reverse=True", "").replace("page_reverse=True&", "");
            base.link(&if back { format!("{text}&page_reverse=True") } else { text })
        };
        if let (true, Some(last)) = (after, items.last()) {
            links.push(json!({ "rel": "next", "href": href(last, false) }));
        }
        if let (true, Some(first)) = (before, items.first()) {
            links.push(json!({ "rel": "previous", "href": href(first, true) }));
        }
    }
    Ok((items, links))
}

fn filter(views: &mut Vec<Value>, query: &Query) -> Result<()> {
    let mut keys: Vec<&str> =
        query.pairs().map(|(key, _)| key).filter(|key| !NO_FILTERS.contains(key)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let wanted: Vec<&str> = query.all(key).collect();
        if key == "fixed_ips" {
            views.retain(|view| has_fixed(view, &wanted));
            continue;
        }
        // Of nothing every filter leaves nothing; an attribute that no resource has is refused.
        if views.first().is_some_and(|view| view.get(key).is_none()) {
            let message = format!("Invalid input for operation: '{key}' is invalid attribute for filter.");
            return Err(Fault::invalid(message).kind("HTTPBadRequest"));
        }
        views.retain(|view| wanted.iter().any(|text| fits(&view[key], text)));
    }
    filter_tags(views, query);
    Ok(())
}

/// Whether an attribute has a value, as a query writes it; a list has it when one of its items has.
fn fits(value: &Value, text: &str) -> bool {
    match value {
        Value::Null => text.is_empty() || matches!(text, "None" | "null"),
        Value::Bool(flag) => truth(text) == Some(*flag),
        Value::Number(number) => number.to_string() == text,
        Value::String(own) => own == text || same_id(own, text),
        Value::Array(items) => items.iter().any(|item| fits(item, text)),
        Value::Object(_) => false,
    }
}

/// `fixed_ips=ip_address=10.0.0.4&fixed_ips=subnet_id=…`: of each kind one must fit, and all kinds by one port.
fn has_fixed(view: &Value, wanted: &[&str]) -> bool {
    let fixed = view["fixed_ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_kind = |kind: &str| -> Vec<&str> {
        wanted
            .iter()
            .filter_map(|text| text.split_once('='))
            .filter(|(k, _)| *k == kind)
            .map(|(_, v)| v)
            .collect()
    };
    let any = |kind: &str, key: &str, fits: &dyn Fn(&str, &str) -> bool| {
        let texts = of_kind(kind);
        texts.is_empty()
            || fixed.iter().any(|item| {
                let own = item[key].as_str().unwrap_or_default();
                texts.iter().any(|text| fits(own, text))
            })
    };
    any("ip_address", "ip_address", &|own, text| own == text)
        && any("ip_address_substr", "ip_address", &|own, text| own.contains(text))
        && any("subnet_id", "subnet_id", &|own, text| own == text)
}

fn filter_tags(views: &mut Vec<Value>, query: &Query) {
    let list = |key: &str| -> Option<Vec<String>> {
        query.get(key).map(|text| text.split(',').map(str::to_string).collect())
    };
    let has = |view: &Value, tag: &String| {
        view["tags"].as_array().is_some_and(|tags| tags.iter().any(|own| own == tag.as_str()))
    };
    for (key, every, wanted) in [
        ("tags", true, true),
        ("tags-any", false, true),
        ("not-tags", true, false),
        ("not-tags-any", false, false),
    ] {
        if let Some(tags) = list(key) {
            views.retain(|view| {
                let found = if every {
                    tags.iter().all(|tag| has(view, tag))
                } else {
                    tags.iter().any(|tag| has(view, tag))
                };
                found == wanted
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Vec<Value> {
        let port = |id: u8, name: &str, up: bool, tags: &[&str]| {
            json!({
                "id": format!("00000000-0000-0000-0000-{id:012}"), "name": name, "admin_state_up": up,
                "fixed_ips": [{ "subnet_id": "s", "ip_address": format!("10.0.0.{id}") }], "mtu": 1500,
                "security_groups": [format!("g{id}")], "device_id": null, "tags": tags,
            })
        };
        vec![port(1, "a", true, &["x"]), port(2, "b", false, &["x", "y"]), port(31, "a", false, &[])]
    }

    fn left(text: &str) -> Vec<u64> {
        let query = Query::parse("/v2.0/ports", text).unwrap();
        let mut views = ports();
        filter(&mut views, &query).unwrap();
        views.iter().map(|v| v["id"].as_str().unwrap()[30..].parse().unwrap()).collect()
    }

    #[test]
    fn every_attribute_is_a_filter() {
        for (text, expected) in [
            ("", vec![1, 2, 31]),
            ("name=a", vec![1, 31]),
            ("name=a&name=b", vec![1, 2, 31]),
            ("admin_state_up=False&name=a", vec![31]),
            ("mtu=1500&id=00000000-0000-0000-0000-000000000002", vec![2]),
            ("security_groups=g31", vec![31]),
            ("device_id=", vec![1, 2, 31]),
            ("fixed_ips=ip_address%3D10.0.0.1", vec![1]),
            ("fixed_ips=ip_address_substr%3D0.0.3&fixed_ips=subnet_id%3Ds", vec![31]),
            ("fixed_ips=subnet_id%3Dt", vec![]),
            ("tags=x", vec![1, 2]),
            ("tags=x,y", vec![2]),
            ("tags-any=y,z", vec![2]),
            ("not-tags=x,y", vec![1, 31]),
            ("not-tags-any=x,y", vec![31]),
        ] {
            assert_eq!(left(text), expected, "{text}");
        }
        let unknown = Query::parse("/v2.0/ports", "colour=red").unwrap();
        assert!(filter(&mut ports(), &unknown).is_err());
    }
}
