//! Lists of images: whose, which, in which order, and in pages.

use super::view::view;
use crate::openstack::{Door, Fault, Result, Session, paging::same_id, query::Query, shape};
use axum::{Json, extract::State};
use control::{Caller, Control, Role};
use jiff::Timestamp;
use model::image::{Answer, Image, Visibility};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// Images of a page when the call names no number, as Glance has it.
const LIMIT_DEFAULT: usize = 25;
/// Most images of a page.
const LIMIT_MAX: usize = 1_000;
/// What a list can be sorted by.
const SORT_KEYS: [&str; 16] = [
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
    "visibility",
    "protected",
    "owner",
    "min_disk",
    "min_ram",
    "checksum",
    "virtual_size",
    "os_hidden",
];

/// GET of all images.
pub async fn list(State(door): State<Door>, session: Session, query: Query) -> Result<Json<Value>> {
    let control = door.control();
    if query.get("sort").is_some() && (query.get("sort_key").is_some() || query.get("sort_dir").is_some()) {
        return Err(Fault::invalid("Old and new sorting syntax cannot be combined"));
    }
    let order = shape::order(&query, &SORT_KEYS, &[("created_at", false)])?;
    let order = [order, vec![("id".to_string(), false)]].concat();
    let mut images: Vec<Value> =
        visible(control, &session.caller, &query)?.iter().map(|image| view(control, &image.record)).collect();
    for (key, text) in query.pairs() {
        keep(&mut images, key, text)?;
    }
    shape::sort(&mut images, &order);
    let limit = limit(&query)?;
    let first = match query.get("marker").filter(|marker| !marker.is_empty()) {
        None => 0,
        Some(marker) => {
            let fits = |image: &Value| image["id"].as_str().is_some_and(|id| same_id(id, marker));
            let at = images.iter().position(fits);
            1 + at.ok_or_else(|| Fault::invalid(format!("Marker {marker} could not be found")))?
        }
    };
    let more = images.len() > first + limit;
    let page: Vec<Value> = images.into_iter().skip(first).take(limit).collect();
    let mut reply = json!({ "first": without_marker(&query), "schema": "/v2/schemas/images" });
    if let (true, Some(last)) = (more, page.last().and_then(|image| image["id"].as_str())) {
        reply["next"] = query.with_marker(last).into();
    }
    reply["images"] = page.into();
    Ok(Json(reply))
}

fn limit(query: &Query) -> Result<usize> {
    let Some(text) = query.get("limit") else { return Ok(LIMIT_DEFAULT) };
    let number: i64 = text.parse().map_err(|_| Fault::invalid("limit param must be an integer"))?;
    let number = usize::try_from(number).map_err(|_| Fault::invalid("limit param must be positive"))?;
    Ok(number.min(LIMIT_MAX))
}

fn without_marker(query: &Query) -> String {
    let link = query.with_marker("");
    let bare = link.trim_end_matches("marker=").trim_end_matches(['&', '?']);
    bare.to_string()
}

/// The images that a list may show: the project's own, those of all, and what others share as the call asks. Admins
/// see every project's.
fn visible(control: &Control, caller: &Caller, query: &Query) -> Result<Vec<Arc<Stored<Image>>>> {
    let wanted = match query.get("visibility") {
        None => None,
        Some(word @ ("public" | "private" | "shared" | "community" | "all")) => Some(word),
        Some(word) => return Err(Fault::invalid(format!("Invalid visibility value: {word}"))),
    };
    let answer = match query.get("member_status").unwrap_or("accepted") {
        "accepted" => Some(Answer::Accepted),
        "pending" => Some(Answer::Pending),
        "rejected" => Some(Answer::Rejected),
        "all" => None,
        word => return Err(Fault::invalid(format!("Invalid status: {word}"))),
    };
    let hidden = query.flag("os_hidden")?.unwrap_or(false);
    let mut all = match caller.role {
        Role::Admin => control.list_everywhere::<Image>(caller)?,
        _ => control.images_open_to(caller),
    };
    all.retain(|stored| {
        let image = &stored.record;
        // Backups are what Cinder lists.
        if image.meta.is_deleting() || image.backup.is_some() {
            return false;
        }
        let own = image.meta.project == caller.project;
        let shared = || {
            let member = image.members.get(&caller.project);
            member.is_some_and(|member| answer.is_none_or(|answer| member.answer == answer))
        };
        let listed = match image.visibility {
            Visibility::Public => true,
            Visibility::Community => own || matches!(wanted, Some("community" | "all")),
            Visibility::Shared => own || caller.role == Role::Admin || shared(),
            Visibility::Private => own || caller.role == Role::Admin,
        };
        listed
            && image.hidden == hidden
            && wanted.is_none_or(|word| word == "all" || word == image.visibility.as_str())
    });
    Ok(all)
}

/// Keeps the images that a filter lets through.
fn keep(images: &mut Vec<Value>, key: &str, text: &str) -> Result<()> {
    match key {
        "limit" | "marker" | "sort" | "sort_key" | "sort_dir" | "visibility" | "member_status"
        | "os_hidden" => {}
        "tag" => images
            .retain(|image| image["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == text))),
        "size_min" | "size_max" => {
            let bound = number(key, text)?;
            let is_min = key == "size_min";
            images.retain(|image| {
                image["size"].as_u64().is_some_and(|size| if is_min { size >= bound } else { size <= bound })
            });
        }
        "size" | "min_ram" | "min_disk" | "virtual_size" => {
            let wanted = number(key, text)?;
            images.retain(|image| image[key].as_u64() == Some(wanted));
        }
        "protected" => {
            let wanted = crate::openstack::query::truth(text)
                .ok_or_else(|| Fault::invalid(format!("Invalid value {text} for protected")))?;
            images.retain(|image| image["protected"] == wanted);
        }
        "created_at" | "updated_at" => {
            let (operator, at) = moment(text)?;
            images.retain(|image| {
                let found = image[key].as_str().and_then(|text| text.parse::<Timestamp>().ok());
                found.is_some_and(|found| compare(operator, found, at))
            });
        }
        _ => {
            let wanted = alternatives(key, text)?;
            images.retain(|image| {
                let found = image.get(key).and_then(Value::as_str).unwrap_or_default();
                image.get(key).is_some()
                    && wanted.iter().any(|one| one == found || key == "id" && same_id(one, found))
            });
        }
    }
    Ok(())
}

fn number(key: &str, text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Fault::invalid(format!("Cannot convert {key} {text:?} to a non-negative integer")))
}

/// `in:a,"b,c"` for the attributes that Glance has it for; else the text itself.
fn alternatives(key: &str, text: &str) -> Result<Vec<String>> {
    const IN: [&str; 5] = ["id", "name", "status", "container_format", "disk_format"];
    let Some(list) = text.strip_prefix("in:").filter(|_| IN.contains(&key)) else {
        let plain = text.strip_prefix("eq:").filter(|_| IN.contains(&key)).unwrap_or(text);
        return Ok(vec![plain.to_string()]);
    };
    let mut all = vec![];
    let mut rest = list;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (one, after) = quoted.split_once('"').ok_or_else(|| {
                Fault::invalid(format!("Invalid filter value {text}: the quote is not closed."))
            })?;
            all.push(one.to_string());
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(all),
                None => {
                    return Err(Fault::invalid(format!(
                        "Invalid filter value {text}. There is no comma after closing quotation mark."
                    )));
                }
            }
        } else {
            match rest.split_once(',') {
                Some((one, next)) => {
                    all.push(one.to_string());
                    rest = next;
                }
                None => {
                    all.push(rest.to_string());
                    return Ok(all);
                }
            }
        }
    }
}

fn moment(text: &str) -> Result<(&str, Timestamp)> {
    let (operator, time) = match text.split_once(':') {
        Some((word @ ("gt" | "gte" | "lt" | "lte" | "eq" | "neq"), time)) => (word, time),
        _ => ("eq", text),
    };
    let zoned = if time.ends_with('Z') || time.contains('+') { time.to_string() } else { format!("{time}Z") };
    let at = zoned.parse().map_err(|_| Fault::invalid(format!("Invalid time format: {time}.")))?;
    Ok((operator, at))
}

fn compare(operator: &str, found: Timestamp, at: Timestamp) -> bool {
    match operator {
        "gt" => found > at,
        "gte" => found >= at,
        "lt" => found < at,
        "lte" => found <= at,
        "neq" => found != at,
        _ => found == at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_read_with_quotes_and_commas() {
        for (text, all) in [
            ("x", vec!["x"]),
            ("in:x", vec!["x"]),
            ("in:x,y", vec!["x", "y"]),
            ("in:\"a,b\",c", vec!["a,b", "c"]),
            ("in:\"a\"", vec!["a"]),
        ] {
            assert_eq!(alternatives("name", text).unwrap(), all, "{text}");
        }
        assert_eq!(alternatives("owner", "in:x").unwrap(), ["in:x"]);
        assert!(alternatives("name", "in:\"a").is_err());
        assert!(alternatives("name", "in:\"a\"b").is_err());
    }
}
