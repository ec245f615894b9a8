//! Candidates: the hosts on which something of a size would fit now.

use super::provider::{CLASSES, Provider};
use crate::openstack::{Door, Fault, Microversion, Result, Session, query::Query};
use crate::routing::{Router, get};
use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/allocation_candidates", get(list))
        .route("/resource_classes", get(classes))
        .route("/traits", get(traits))
}

/// Reads `VCPU:2,MEMORY_MB:512`.
///
/// # Errors
/// 400 for anything else, and for a class that no host has.
pub fn resources(text: &str) -> Result<Vec<(&'static str, u64)>> {
    let read = |part: &str| -> Result<(&'static str, u64)> {
        let wrong = || {
            Fault::invalid(format!(
                "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {text}."
            ))
        };
        let (class, amount) = part.split_once(':').ok_or_else(wrong)?;
        let known = CLASSES.into_iter().find(|known| *known == class);
        let class = known.ok_or_else(|| {
            Fault::invalid(format!("Invalid resource class in resources parameter: {class}"))
        })?;
        let amount = amount.parse().ok().filter(|amount| *amount > 0).ok_or_else(wrong)?;
        Ok((class, amount))
    };
    text.split(',').map(read).collect()
}

/// Whether a host has so much left.
pub fn fits(provider: &Provider, wanted: &[(&'static str, u64)]) -> bool {
    let used = provider.used();
    wanted.iter().all(|(class, amount)| {
        let taken = used.get(class).copied().unwrap_or(0);
        *amount <= provider.share_max(class) && taken.saturating_add(*amount) <= provider.capacity(class)
    })
}

/// Traits that are required and forbidden: `A,!B`.
#[derive(Debug)]
pub struct Traits(Vec<(String, bool)>);

impl Traits {
    /// Reads a list.
    ///
    /// # Errors
    /// 400 for an empty one.
    pub fn parse(text: &str) -> Result<Self> {
        let read = |part: &str| {
            let (name, wanted) = part.strip_prefix('!').map_or((part, true), |name| (name, false));
            (!name.is_empty()).then(|| (name.to_string(), wanted))
        };
        let all: Option<Vec<_>> = text.split(',').map(read).collect();
        all.map(Self).ok_or_else(|| Fault::invalid(format!("Invalid query string parameters: Expected 'required' parameter value of the form: HW_CPU_X86_VMX,!CUSTOM_MAGIC. Got: {text}")))
    }

    /// Whether a host has what is required and nothing that is forbidden.
    pub fn fit(&self, provider: &Provider) -> bool {
        self.0.iter().all(|(name, wanted)| provider.traits.contains(&name.as_str()) == *wanted)
    }
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    version.require(1, 10)?;
    session.require_admin("placement:allocation_candidates:list")?;
    let text = query.get("resources").ok_or_else(|| Fault::invalid("'resources' is a required property"))?;
    let wanted = resources(text)?;
    let limit =
        query.number("limit")?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit == 0 {
        return Err(Fault::invalid("'limit' must be at least 1"));
    }
    let mut all = Provider::all(door.control());
    all.retain(|provider| provider.takes_new && fits(provider, &wanted));
    for (key, text) in query.pairs() {
        match key {
            "required" => {
                let wanted = Traits::parse(text)?;
                all.retain(|provider| wanted.fit(provider));
            }
            "member_of" => all.retain(|_| text.starts_with('!')),
            "in_tree" => all.retain(|p| crate::openstack::paging::same_id(&p.id.to_string(), text)),
            "resources" | "limit" | "group_policy" => {}
            _ => {
                return Err(Fault::invalid(format!(
                    "Invalid query string parameters: '{key}' was unexpected"
                )));
            }
        }
    }
    all.truncate(limit);
    let requests: Vec<Value> = all.iter().map(|provider| request(provider, &wanted, version)).collect();
    let summaries: Map<String, Value> =
        all.iter().map(|provider| (provider.id.to_string(), summary(provider, version))).collect();
    Ok(Json(json!({ "allocation_requests": requests, "provider_summaries": summaries })))
}

fn request(provider: &Provider, wanted: &[(&'static str, u64)], version: Microversion) -> Value {
    let amounts: Map<String, Value> =
        wanted.iter().map(|(class, amount)| ((*class).to_string(), json!(amount))).collect();
    let id = provider.id.to_string();
    if !version.has(1, 12) {
        return json!({ "allocations": [{ "resource_provider": { "uuid": id }, "resources": amounts }] });
    }
    let mut view = json!({ "allocations": { id.as_str(): { "resources": amounts } } });
    if version.has(1, 34) {
        view["mappings"] = json!({ "": [id] });
    }
    view
}

fn summary(provider: &Provider, version: Microversion) -> Value {
    let used = provider.used();
    let resources: Map<String, Value> = provider
        .has
        .keys()
        .map(|class| {
            let used = used.get(class).copied().unwrap_or(0);
            ((*class).to_string(), json!({ "capacity": provider.capacity(class), "used": used }))
        })
        .collect();
    let mut view = json!({ "resources": resources });
    if version.has(1, 17) {
        view["traits"] = json!(provider.traits);
    }
    if version.has(1, 29) {
        view["root_provider_uuid"] = json!(provider.id);
        view["parent_provider_uuid"] = Value::Null;
    }
    view
}

async fn classes(session: Session, version: Microversion) -> Result<Json<Value>> {
    version.require(1, 2)?;
    session.require_admin("placement:resource_classes:list")?;
    let all = CLASSES.map(|class| {
        json!({ "name": class, "links": [{ "rel": "self", "href": format!("/resource_classes/{class}") }] })
    });
    Ok(Json(json!({ "resource_classes": all })))
}

async fn traits(State(door): State<Door>, session: Session, version: Microversion) -> Result<Json<Value>> {
    version.require(1, 6)?;
    session.require_admin("placement:traits:list")?;
    let mut all: Vec<&str> = Provider::all(door.control()).iter().flat_map(|p| p.traits.clone()).collect();
    all.sort_unstable();
    all.dedup();
    Ok(Json(json!({ "traits": all })))
}
