//! Flavors: named sizes, their extra specs, and the projects that may use private ones.

use super::form::{Form, wrong};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    audit::Deed,
    body::Body,
    paging::{LIMIT_MAX, Page},
    query::Query,
    shape,
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::flavor::NewFlavor;
use model::{
    error::Code,
    flavor::{Flavor, Size},
    id::{FlavorId, ProjectId},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/flavors", get(brief).post(create))
        .route("/v2.1/flavors/detail", get(detail))
        .route("/v2.1/flavors/{id}", get(show).put(describe).delete(delete))
        .route("/v2.1/flavors/{id}/action", post(act))
        .route("/v2.1/flavors/{id}/os-flavor-access", get(access))
        .route("/v2.1/flavors/{id}/os-extra_specs", get(specs).post(add_specs))
        .route("/v2.1/flavors/{id}/os-extra_specs/{key}", get(spec).put(set_spec).delete(remove_spec))
}

fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Flavor>>> {
    let found = door.control().flavor_by_openstack_id(&session.caller, id);
    found.ok_or_else(|| Fault::not_found("Flavor", id))
}

fn links(base: &Base, id: &str) -> Value {
    json!([
        { "rel": "self", "href": base.link(&format!("/v2.1/flavors/{id}")) },
        { "rel": "bookmark", "href": base.link(&format!("/flavors/{id}")) },
    ])
}

/// A flavor as it is shown; with its name alone in lists without details.
pub fn view(flavor: &Flavor, version: Microversion, base: &Base, whole: bool) -> Value {
    let meta = &flavor.meta;
    let id = flavor.openstack_id();
    let mut shown = json!({ "id": id, "name": meta.name, "links": links(base, &id) });
    let description = if meta.description.is_empty() { Value::Null } else { json!(meta.description) };
    if whole {
        let Size { vcpus, memory_mib, disk_gib } = flavor.size;
        for (key, value) in [
            ("ram", json!(memory_mib)),
            ("disk", json!(disk_gib)),
            ("vcpus", json!(vcpus)),
            ("swap", if version.has(2, 75) { json!(0) } else { json!("") }),
            ("OS-FLV-EXT-DATA:ephemeral", json!(0)),
            ("OS-FLV-DISABLED:disabled", json!(false)),
            ("os-flavor-access:is_public", json!(flavor.public)),
            ("rxtx_factor", json!(1.0)),
        ] {
            shown[key] = value;
        }
        if version.has(2, 61) {
            shown["extra_specs"] = json!(flavor.extra_specs);
        }
    }
    if version.has(2, 55) {
        shown["description"] = description;
    }
    shown
}

fn list(
    door: &Door,
    session: &Session,
    version: Microversion,
    base: &Base,
    query: &Query,
    whole: bool,
) -> Result<Json<Value>> {
    let public = match query.get("is_public") {
        // Admins see all when they ask for it by none.
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(_) => Some(query.flag("is_public")?.unwrap_or(true)),
        None => Some(true),
    };
    let least = |key: &str| {
        query.get(key).map(|text| {
            text.parse::<u64>().map_err(|_| Fault::invalid(format!("Invalid {key} filter [{text}]")))
        })
    };
    let (disk, memory) = (least("minDisk").transpose()?, least("minRam").transpose()?);
    let mut all = if session.is_admin() {
        door.control().list_everywhere::<Flavor>(&session.caller)?
    } else {
        door.control().list::<Flavor>(&session.caller)
    };
    let public_fits = |flavor: &Flavor, open: bool| match public.filter(|_| session.is_admin()) {
        None => true,
        Some(true) => open,
        Some(false) => !flavor.public,
    };
    all.retain(|stored| {
        let flavor = &stored.record;
        // Those that are opened to the project count as public to it.
        let open = flavor.is_open_to(session.caller.project);
        public_fits(flavor, open)
            && disk.is_none_or(|disk| flavor.size.disk_gib >= disk)
            && memory.is_none_or(|memory| flavor.size.memory_mib >= memory)
    });
    let order = shape::order(
        query,
        &["name", "flavorid", "id", "created_at", "memory_mb", "root_gb", "vcpus", "ram", "disk"],
        &[("flavorid", true)],
    )?;
    all.sort_by(|a, b| compare(&a.record, &b.record, &order));
    let page = Page::cut(all, query, LIMIT_MAX, |f| f.record.openstack_id())?;
    let shown: Vec<Value> = page.items.iter().map(|f| view(&f.record, version, base, whole)).collect();
    let mut reply = json!({ "flavors": shown });
    let links = page.links(base, query);
    if !links.is_empty() {
        reply["flavors_links"] = links.into();
    }
    Ok(Json(reply))
}

fn compare(a: &Flavor, b: &Flavor, order: &[(String, bool)]) -> std::cmp::Ordering {
    let by = |key: &str| match key {
        "name" => a.meta.name.cmp(&b.meta.name),
        "created_at" => a.meta.created_at.cmp(&b.meta.created_at),
        "memory_mb" | "ram" => a.size.memory_mib.cmp(&b.size.memory_mib),
        "root_gb" | "disk" => a.size.disk_gib.cmp(&b.size.disk_gib),
        "vcpus" => a.size.vcpus.cmp(&b.size.vcpus),
        _ => a.openstack_id().cmp(&b.openstack_id()),
    };
    let compared = order.iter().map(|(key, up)| if *up { by(key) } else { by(key).reverse() });
    compared.into_iter().find(|found| found.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, false)
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, true)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    Ok(Json(json!({ "flavor": view(&found.record, version, &base, true) })))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Body(body): Body<Value>,
) -> Result<Response> {
    session.require_admin("os_compute_api:os-flavor-manage:create")?;
    let form = Form::under(&body, "flavor")?;
    let mut known = vec!["name", "ram", "vcpus", "disk", "id", "swap", "rxtx_factor"];
    known.extend(["OS-FLV-EXT-DATA:ephemeral", "os-flavor-access:is_public"]);
    if version.has(2, 55) {
        known.push("description");
    }
    form.refuse_others(&known)?;
    let need = |key: &str| {
        form.number(key)?.ok_or_else(|| Fault::invalid(format!("'{key}' is a required property")))
    };
    let size = Size {
        vcpus: u32::try_from(need("vcpus")?).map_err(|_| Fault::invalid("vcpus is too large"))?,
        memory_mib: need("ram")?,
        disk_gib: need("disk")?,
    };
    refuse_extras(&form)?;
    let new = NewFlavor {
        name: form.name("name")?.ok_or_else(|| Fault::invalid("'name' is a required property"))?.to_string(),
        size: Some(size),
        flavorid: id_asked(&form)?,
        description: form.text("description")?.unwrap_or_default().to_string(),
        public: form.flag("os-flavor-access:is_public")?.unwrap_or(true),
        extra_specs: BTreeMap::new(),
    };
    let made = door.control().create_flavor(&session.caller, new).await?;
    let shown = json!({ "flavor": view(&made, version, &base, true) });
    Ok(Deed::new("create", "flavor", made.meta.id, &made.meta.name).on(Json(shown)))
}

/// The id that is asked for: a text or a number; none for one that the cloud makes.
fn id_asked(form: &Form<'_>) -> Result<Option<String>> {
    match form.get("id") {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::String(text)) if text == "auto" => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value) => Err(wrong("id", value, "it is neither a text nor a number")),
    }
}

/// What no instance here has.
fn refuse_extras(form: &Form<'_>) -> Result<()> {
    for key in ["swap", "OS-FLV-EXT-DATA:ephemeral"] {
        if form.number(key)?.unwrap_or(0) > 0 {
            let value = form.raw(key).cloned().unwrap_or_default();
            return Err(wrong(key, &value, "there are no disks beside the root disk: attach a volume"));
        }
    }
    Ok(())
}

async fn set_description(door: &Door, session: &Session, id: FlavorId, text: &str) -> Result<Flavor> {
    let describe = |flavor: &mut Flavor| {
        flavor.meta.description = text.to_string();
        Ok(())
    };
    Ok(door.control().change::<Flavor>(&session.caller, &id.to_string(), describe).await?)
}

async fn describe(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    version.require(2, 55)?;
    session.require_admin("os_compute_api:os-flavor-manage:update")?;
    let form = Form::under(&body, "flavor")?;
    form.refuse_others(&["description"])?;
    let text = form.text("description")?.unwrap_or_default();
    let found = find(&door, &session, &id)?;
    let changed = set_description(&door, &session, found.record.meta.id, text).await?;
    let shown = json!({ "flavor": view(&changed, version, &base, true) });
    Ok(Deed::new("update", "flavor", changed.meta.id, &changed.meta.name).on(Json(shown)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    session.require_admin("os_compute_api:os-flavor-manage:delete")?;
    let found = find(&door, &session, &id)?;
    door.control().delete_flavor(&session.caller, &found.record.meta.id.to_string()).await?;
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "flavor", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

/// Projects that a flavor is opened to, as Nova lists them.
fn access_view(flavor: &Flavor) -> Json<Value> {
    let id = flavor.openstack_id();
    let one = |project: &ProjectId| json!({ "flavor_id": id, "tenant_id": project.hex() });
    Json(json!({ "flavor_access": flavor.projects.iter().map(one).collect::<Vec<_>>() }))
}

async fn access(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-flavor-access")?;
    let found = find(&door, &session, &id)?;
    if found.record.public {
        let message = "Access list not available for public flavors.";
        return Err(Fault::status(StatusCode::NOT_FOUND, message));
    }
    Ok(access_view(&found.record))
}

/// Opens a flavor to a project or closes it.
async fn act(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::of(&body, "body")?;
    let (key, rule, open) = match form.fields().keys().next().map(String::as_str) {
        Some("addTenantAccess") => ("addTenantAccess", "add_tenant_access", true),
        Some("removeTenantAccess") => ("removeTenantAccess", "remove_tenant_access", false),
        _ => {
            return Err(Fault::invalid(
                "There is no such action: addTenantAccess and removeTenantAccess are.",
            ));
        }
    };
    session.require_admin(&format!("os_compute_api:os-flavor-access:{rule}"))?;
    let form = Form::under(&body, key)?;
    form.refuse_others(&["tenant"])?;
    let tenant = form.needed("tenant")?;
    let wrong = |_| Fault::invalid(format!("Project ID {tenant} is not a valid project."));
    let project: ProjectId = tenant.parse().map_err(wrong)?;
    let found = find(&door, &session, &id)?;
    let reference = found.record.meta.id.to_string();
    let flavor =
        door.control().open_flavor(&session.caller, &reference, project, open).await.map_err(|error| {
            match error.code {
                Code::NotFound => Fault::status(
                    StatusCode::NOT_FOUND,
                    format!("Flavor access not found for {id} / {tenant} combination."),
                ),
                Code::Taken => Fault::conflict(format!(
                    "Flavor access already exists for flavor {id} and project {tenant} combination."
                )),
                _ => error.into(),
            }
        })?;
    Ok(changed(&flavor, access_view(&flavor)))
}

async fn specs(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(json!({ "extra_specs": find(&door, &session, &id)?.record.extra_specs })))
}

fn specs_of(value: &Value) -> Result<BTreeMap<String, String>> {
    let fields = value.as_object().ok_or_else(|| wrong("extra_specs", value, "it is no object"))?;
    let one = |(key, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            value => return Err(wrong(key, value, "it is neither a text nor a number")),
        };
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_:. ".contains(c));
        if key.is_empty() || key.len() > 255 || text.chars().count() > 255 || !plain {
            return Err(wrong(
                "extra_specs",
                &json!(key),
                "a key or value is too long or has strange characters",
            ));
        }
        Ok((key.clone(), text))
    };
    fields.iter().map(one).collect()
}

async fn change_specs(
    door: &Door,
    session: &Session,
    id: &str,
    change: impl Fn(&mut BTreeMap<String, String>) + Send + Sync,
) -> Result<Flavor> {
    let found = find(door, session, id)?;
    let apply = |flavor: &mut Flavor| {
        change(&mut flavor.extra_specs);
        Ok(())
    };
    let id = found.record.meta.id.to_string();
    Ok(door.control().change::<Flavor>(&session.caller, &id, apply).await?)
}

fn changed(flavor: &Flavor, reply: impl axum::response::IntoResponse) -> Response {
    Deed::new("update", "flavor", flavor.meta.id, &flavor.meta.name).on(reply)
}

async fn add_specs(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    session.require_admin("os_compute_api:os-flavor-extra-specs:create")?;
    let form = Form::of(&body, "body")?;
    form.refuse_others(&["extra_specs"])?;
    let more = specs_of(form.get("extra_specs").unwrap_or(&Value::Null))?;
    let flavor = change_specs(&door, &session, &id, |own| own.extend(more.clone())).await?;
    Ok(changed(&flavor, Json(json!({ "extra_specs": more }))))
}

fn no_spec(id: &str, key: &str) -> Fault {
    Fault::status(StatusCode::NOT_FOUND, format!("Flavor {id} has no extra specs with key {key}."))
}

async fn spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let value = found.record.extra_specs.get(&key).ok_or_else(|| no_spec(&id, &key))?;
    Ok(Json(json!({ key: value })))
}

async fn set_spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> Result<Response> {
    session.require_admin("os_compute_api:os-flavor-extra-specs:update")?;
    let one = specs_of(&body)?;
    if one.len() != 1 || !one.contains_key(&key) {
        return Err(Fault::invalid("Request body and URI mismatch"));
    }
    let flavor = change_specs(&door, &session, &id, |own| own.extend(one.clone())).await?;
    Ok(changed(&flavor, Json(json!(one))))
}

async fn remove_spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response> {
    session.require_admin("os_compute_api:os-flavor-extra-specs:delete")?;
    if !find(&door, &session, &id)?.record.extra_specs.contains_key(&key) {
        return Err(no_spec(&id, &key));
    }
    let remove = |own: &mut BTreeMap<String, String>| {
        own.remove(&key);
    };
    let flavor = change_specs(&door, &session, &id, remove).await?;
    Ok(changed(&flavor, StatusCode::OK))
}
