//! Allocations: what each instance takes, of which host; and the sum of a project.

use super::provider::{Amounts, Provider};
use crate::openstack::{Door, Fault, Microversion, Result, Session, paging::same_id, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
};
use model::id::ProjectId;
use serde_json::{Map, Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new().route("/allocations/{consumer}", get(show)).route("/usages", get(usages))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(consumer): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("placement:allocations:list")?;
    let mut all = Map::new();
    let mut owner: Option<ProjectId> = None;
    for provider in Provider::all(door.control()) {
        let held = provider.taken.iter().find(|(id, ..)| same_id(&id.to_string(), &consumer));
        if let Some((_, project, amounts)) = held {
            owner = Some(*project);
            let one = json!({ "generation": provider.generation, "resources": amounts });
            all.insert(provider.id.to_string(), one);
        }
    }
    let mut view = json!({ "allocations": all });
    // A consumer that holds nothing has no further facts.
    if let Some(project) = owner {
        if version.has(1, 12) {
            view["project_id"] = json!(project.hex());
            view["user_id"] = json!(project.hex());
        }
        if version.has(1, 28) {
            view["consumer_generation"] = json!(1);
        }
        if version.has(1, 38) {
            view["consumer_type"] = json!("INSTANCE");
        }
    }
    Ok(Json(view))
}

async fn usages(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    version.require(1, 9)?;
    let project =
        query.get("project_id").ok_or_else(|| Fault::invalid("'project_id' is a required property"))?;
    let project: ProjectId = project.parse().map_err(|_| Fault::invalid("'project_id' is no id"))?;
    if project != session.caller.project {
        session.require_admin("placement:usages")?;
    }
    let mut sum = Amounts::new();
    let mut count = 0_u64;
    for provider in Provider::all(door.control()) {
        for (_, _, amounts) in provider.taken.iter().filter(|(_, owner, _)| *owner == project) {
            count += 1;
            for (class, amount) in amounts {
                *sum.entry(*class).or_default() += amount;
            }
        }
    }
    if !version.has(1, 38) {
        return Ok(Json(json!({ "usages": sum })));
    }
    let mut usages = Map::new();
    if count > 0 {
        let mut one = json!(sum);
        one["consumer_count"] = json!(count);
        usages.insert("INSTANCE".into(), one);
    }
    Ok(Json(json!({ "usages": usages })))
}
