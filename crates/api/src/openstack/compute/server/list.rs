//! Lists of servers: filtered and sorted on the records, cut to a page, and only that page made into views.

use super::{
    filter::{Filter, Row},
    view::{Extent, Looker},
};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    paging::{LIMIT_MAX, Page},
    query::Query,
    shape,
};
use axum::{Json, extract::State};
use model::instance::Instance;
use serde_json::{Value, json};
use std::{cmp::Ordering, sync::Arc};
use store::Stored;

/// Keys that lists are sorted by; Nova's other ones say nothing here and leave the order as it is.
const SORT_KEYS: [&str; 22] = [
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "availability_zone",
    "config_drive",
    "created_at",
    "display_description",
    "display_name",
    "host",
    "hostname",
    "image_ref",
    "instance_type_id",
    "key_name",
    "launched_at",
    "locked",
    "power_state",
    "project_id",
    "task_state",
    "updated_at",
    "user_id",
    "uuid",
    "vm_state",
];

/// GET of the list, names alone.
pub async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, |looker, instance| looker.brief(instance))
}

/// GET of the list with details.
pub async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, |looker, instance| looker.server(instance, Extent::Listed))
}

fn list(
    door: &Door,
    session: &Session,
    version: Microversion,
    base: &Base,
    query: &Query,
    view: impl Fn(&Looker<'_>, &Instance) -> Value,
) -> Result<Json<Value>> {
    let control = door.control();
    let filter = Filter::read(door, session, version, query)?;
    let all: Vec<Arc<Stored<Instance>>> = if filter.everywhere {
        control.list_everywhere::<Instance>(&session.caller)?
    } else {
        control.instances_of(session.caller.project)
    };
    let mut rows: Vec<Row> = all
        .into_iter()
        .map(|stored| Row::of(control, stored))
        .filter(|row| filter.fits(control, row))
        .collect();
    let order = shape::order(query, &SORT_KEYS, &[("created_at", false), ("uuid", false)])?;
    rows.sort_by(|a, b| compare(a, b, &order));
    let page = Page::cut(rows, query, LIMIT_MAX, |row| row.stored.record.meta.id.to_string())
        .map_err(|fault| marker_fault(fault, query))?;
    let looker = Looker::new(control, session, base, version);
    let shown: Vec<Value> = page.items.iter().map(|row| view(&looker, &row.stored.record)).collect();
    let mut reply = json!({ "servers": shown });
    let links = page.links(base, query);
    if !links.is_empty() {
        reply["servers_links"] = links.into();
    }
    Ok(Json(reply))
}

fn marker_fault(fault: Fault, query: &Query) -> Fault {
    match query.get("marker") {
        Some(marker) if fault.message.contains("marker") => {
            Fault::invalid(format!("Marker {marker} could not be found."))
        }
        _ => fault,
    }
}

fn compare(a: &Row, b: &Row, order: &[(String, bool)]) -> Ordering {
    let by = |key: &str| {
        let (x, y) = (&a.stored.record, &b.stored.record);
        match key {
            "created_at" => x.meta.created_at.cmp(&y.meta.created_at),
            "updated_at" => x.meta.updated_at.cmp(&y.meta.updated_at),
            "uuid" => x.meta.id.to_string().cmp(&y.meta.id.to_string()),
            "display_name" | "hostname" => x.meta.name.cmp(&y.meta.name),
            "display_description" => x.meta.description.cmp(&y.meta.description),
            "vm_state" => a.state.vm_state.cmp(b.state.vm_state),
            "task_state" => a.state.task.cmp(&b.state.task),
            "power_state" => a.state.power.cmp(&b.state.power),
            "project_id" => x.meta.project.to_string().cmp(&y.meta.project.to_string()),
            "image_ref" => x.image.map(|i| i.to_string()).cmp(&y.image.map(|i| i.to_string())),
            "instance_type_id" => x.flavor_name.cmp(&y.flavor_name),
            "key_name" => x.keys.first().map(|k| &k.0).cmp(&y.keys.first().map(|k| &k.0)),
            "locked" => x.lock.is_some().cmp(&y.lock.is_some()),
            "access_ip_v4" => x.access.v4.cmp(&y.access.v4),
            "access_ip_v6" => x.access.v6.cmp(&y.access.v6),
            "config_drive" => x.config_drive.cmp(&y.config_drive),
            _ => Ordering::Equal,
        }
    };
    let compared = order.iter().map(|(key, up)| if *up { by(key) } else { by(key).reverse() });
    compared.into_iter().find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
}
