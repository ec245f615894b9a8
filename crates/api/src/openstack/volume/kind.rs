//! Volume types: thin and thick, which every cloud has and nobody changes, and those that admins make.

use super::asked::{field, object, refused, text};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed, body::Body, query::Query};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{Control, volume::TypeAsked, volume_type::NewVolumeType};
use model::{
    error::Code,
    id::ProjectId,
    volume::{Provisioning, Volume},
    volume_type::{PROVISIONING, VolumeType},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A volume type.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// Its id; that of a built-in one is the same in every cloud.
    pub id: String,
    /// Its name.
    pub name: String,
    /// As it is asked for.
    pub asked: TypeAsked,
    /// When its volumes take their space.
    pub provisioning: Provisioning,
    description: Option<String>,
    is_public: bool,
    extra_specs: BTreeMap<String, String>,
}

fn built_in(provisioning: Provisioning) -> Kind {
    let (id, name, description) = match provisioning {
        Provisioning::Thin => (
            "6f5c1f1c-6e6a-4f0f-8d6f-7468696e0000",
            "thin",
            "Takes space as it is written, and gives back what is discarded",
        ),
        Provisioning::Thick => {
            ("6f5c1f1c-6e6a-4f0f-8d6f-7468696b0000", "thick", "Takes all its space when it is made")
        }
    };
    Kind {
        id: id.into(),
        name: name.into(),
        asked: TypeAsked::BuiltIn(provisioning),
        provisioning,
        description: Some(description.into()),
        is_public: true,
        extra_specs: BTreeMap::from([(PROVISIONING.into(), name.into())]),
    }
}

fn made(kind: &VolumeType) -> Kind {
    let description = &kind.meta.description;
    Kind {
        id: kind.meta.id.to_string(),
        name: kind.meta.name.to_string(),
        asked: TypeAsked::Made(kind.meta.id),
        provisioning: kind.provisioning(),
        description: (!description.is_empty()).then(|| description.clone()),
        is_public: kind.public,
        extra_specs: kind.extra_specs.clone(),
    }
}

fn all_built_in() -> [Kind; 2] {
    [built_in(Provisioning::Thin), built_in(Provisioning::Thick)]
}

/// The type of a volume.
pub fn of(control: &Control, volume: &Volume) -> Kind {
    let found = volume.kind.and_then(|id| control.get::<VolumeType>(id));
    found.map_or_else(|| built_in(volume.provisioning), |kind| made(&kind.record))
}

/// The type with this name or id, if the caller may use it.
///
/// # Errors
/// 404.
pub fn find(control: &Control, session: &Session, reference: &str) -> Result<Kind> {
    if let Some(kind) = all_built_in().into_iter().find(|kind| kind.id == reference || kind.name == reference)
    {
        return Ok(kind);
    }
    let missing = || Fault::not_found("Volume type", reference);
    let all = usable(control, session);
    all.into_iter().find(|kind| kind.id == reference || kind.name == reference).ok_or_else(missing)
}

/// Types that were made and that the caller may use: all of them for an admin.
fn usable(control: &Control, session: &Session) -> Vec<Kind> {
    let found = match control.list_everywhere::<VolumeType>(&session.caller) {
        Ok(all) => all,
        Err(_) => control.list::<VolumeType>(&session.caller),
    };
    found.iter().map(|kind| made(&kind.record)).collect()
}

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/types", get(list).post(create))
        .route("/v3/types/{id}", get(show).put(update).delete(delete))
        .route("/v3/types/{id}/extra_specs", get(specs).post(add_specs))
        .route("/v3/types/{id}/extra_specs/{key}", get(spec).put(set_spec).delete(remove_spec))
        .route("/v3/types/{id}/encryption", get(encryption))
        .route("/v3/types/{id}/os-volume-type-access", get(access))
        .route("/v3/types/{id}/action", post(act))
}

fn view(kind: &Kind, session: &Session) -> Value {
    let mut view = json!({
        "id": kind.id,
        "name": kind.name,
        "is_public": kind.is_public,
        "description": kind.description,
        "extra_specs": if session.is_admin() { json!(kind.extra_specs) } else { json!({}) },
    });
    if session.is_admin() {
        view["qos_specs_id"] = Value::Null;
        view["os-volume-type-access:is_public"] = json!(kind.is_public);
    }
    view
}

async fn list(State(door): State<Door>, session: Session, query: Query) -> Result<Json<Value>> {
    let mut all: Vec<Kind> = all_built_in().into();
    all.extend(usable(door.control(), &session));
    // Admins are shown the public ones unless they ask for others; `None` asks for all.
    let wanted = query.get("is_public").filter(|text| !text.eq_ignore_ascii_case("none"));
    if let Some(wanted) = wanted.and_then(crate::openstack::query::truth).filter(|_| session.is_admin()) {
        all.retain(|kind| kind.is_public == wanted);
    }
    let shown: Vec<Value> = all.iter().map(|kind| view(kind, &session)).collect();
    Ok(Json(json!({ "volume_types": shown })))
}

async fn show(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let kind = if id == "default" { built_in(Provisioning::Thin) } else { by_id(&door, &session, &id)? };
    Ok(Json(json!({ "volume_type": view(&kind, &session) })))
}

fn by_id(door: &Door, session: &Session, id: &str) -> Result<Kind> {
    find(door.control(), session, id)
        .ok()
        .filter(|kind| kind.id == id)
        .ok_or_else(|| Fault::not_found("Volume type", id))
}

/// A type that can be changed.
fn changeable(door: &Door, session: &Session, rule: &str, id: &str) -> Result<Kind> {
    session.require_admin(rule)?;
    let kind = by_id(door, session, id)?;
    match kind.asked {
        TypeAsked::Made(_) => Ok(kind),
        TypeAsked::BuiltIn(_) => Err(Fault::forbidden(format!(
            "The volume type {} is one that every cloud has: it stays as it is.",
            kind.name
        ))),
    }
}

fn deed(action: &str, kind: &VolumeType, reply: impl IntoResponse) -> Response {
    Deed::new(action, "volume_type", kind.meta.id, &kind.meta.name).on(reply)
}

/// Cinder's words where they differ.
fn explained(error: control::Error) -> Fault {
    match error.code {
        Code::Taken => Fault::conflict(error.message),
        _ => refused(error),
    }
}

fn truth_of(input: &Value, key: &str) -> Result<Option<bool>> {
    let Some(value) = field(input, key) else { return Ok(None) };
    let read = value.as_bool().or_else(|| crate::openstack::query::truth(value.as_str()?));
    let wrong = || Fault::invalid(format!("Invalid input for field/attribute {key}: a boolean is wanted."));
    read.map(Some).ok_or_else(wrong)
}

fn specs_of(value: &Value) -> Result<BTreeMap<String, String>> {
    let wrong =
        |what: &str| Fault::invalid(format!("Invalid input for field/attribute extra_specs: {what}."));
    let map = value.as_object().ok_or_else(|| wrong("it is no dictionary"))?;
    let one = |(key, value): (&String, &Value)| {
        let text = value.as_str().ok_or_else(|| wrong("values are texts"))?;
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_:. ".contains(c));
        if key.is_empty() || key.len() > 255 || text.chars().count() > 255 || !plain {
            return Err(wrong("a key or value is too long or has strange characters"));
        }
        Ok((key.clone(), text.to_string()))
    };
    map.iter().map(one).collect()
}

async fn create(State(door): State<Door>, session: Session, Body(input): Body<Value>) -> Result<Response> {
    session.require_admin("volume_extension:type_create")?;
    let input = object(&input, "volume_type")?;
    let name = text(&input, "name")?.map(str::trim).filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| Fault::invalid("Invalid input for field/attribute name: it is missing."))?;
    let new = NewVolumeType {
        name: name.to_string(),
        description: text(&input, "description")?.unwrap_or_default().to_string(),
        public: truth_of(&input, "os-volume-type-access:is_public")?.unwrap_or(true),
        extra_specs: field(&input, "extra_specs").map(specs_of).transpose()?.unwrap_or_default(),
    };
    let kind = door.control().create_volume_type(&session.caller, new).await.map_err(explained)?;
    let mut shown = view(&made(&kind), &session);
    shown.as_object_mut().map(|fields| fields.remove("qos_specs_id"));
    Ok(deed("create", &kind, Json(json!({ "volume_type": shown }))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    changeable(&door, &session, "volume_extension:type_update", &id)?;
    let input = object(&input, "volume_type")?;
    let (name, description) = (text(&input, "name")?, text(&input, "description")?);
    let public = truth_of(&input, "is_public")?;
    if name.is_none() && description.is_none() && public.is_none() {
        return Err(Fault::invalid(
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let name = name.map(str::trim);
    if name == Some("") {
        return Err(Fault::invalid("Volume type name can not be empty."));
    }
    let changed = door.control().update_volume_type(&session.caller, &id, name, description, public);
    let kind = changed.await.map_err(explained)?;
    let mut shown = view(&made(&kind), &session);
    for key in ["qos_specs_id", "os-volume-type-access:is_public"] {
        shown.as_object_mut().map(|fields| fields.remove(key));
    }
    Ok(deed("update", &kind, Json(json!({ "volume_type": shown }))))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    changeable(&door, &session, "volume_extension:type_delete", &id)?;
    let kind = door.control().delete_volume_type(&session.caller, &id).await.map_err(explained)?;
    Ok(deed("delete", &kind.record, StatusCode::ACCEPTED))
}

async fn specs(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let kind = by_id(&door, &session, &id)?;
    let specs = if session.is_admin() { json!(kind.extra_specs) } else { json!({}) };
    Ok(Json(json!({ "extra_specs": specs })))
}

fn no_spec(key: &str) -> Fault {
    Fault::not_found("Volume type extra spec", key)
}

async fn spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let kind = by_id(&door, &session, &id)?;
    match kind.extra_specs.get(&key).filter(|_| session.is_admin()) {
        Some(value) => Ok(Json(json!({ key: value }))),
        None => Err(no_spec(&key)),
    }
}

async fn add_specs(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    changeable(&door, &session, "volume_extension:types_extra_specs:create", &id)?;
    let more = specs_of(&object(&input, "extra_specs")?)?;
    let change = |specs: &mut BTreeMap<String, String>| specs.extend(more.clone());
    let changed = door.control().change_volume_type_specs(&session.caller, &id, change);
    let kind = changed.await.map_err(explained)?;
    Ok(deed("update", &kind, Json(json!({ "extra_specs": more }))))
}

async fn set_spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
    Body(input): Body<Value>,
) -> Result<Response> {
    changeable(&door, &session, "volume_extension:types_extra_specs:update", &id)?;
    let one = specs_of(&input)?;
    if one.len() != 1 || !one.contains_key(&key) {
        return Err(Fault::invalid("Request body and URI mismatch"));
    }
    let change = |specs: &mut BTreeMap<String, String>| specs.extend(one.clone());
    let changed = door.control().change_volume_type_specs(&session.caller, &id, change);
    let kind = changed.await.map_err(explained)?;
    Ok(deed("update", &kind, Json(json!(one))))
}

async fn remove_spec(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response> {
    let kind = changeable(&door, &session, "volume_extension:types_extra_specs:delete", &id)?;
    if !kind.extra_specs.contains_key(&key) {
        return Err(no_spec(&key));
    }
    let change = |specs: &mut BTreeMap<String, String>| {
        specs.remove(&key);
    };
    let changed = door.control().change_volume_type_specs(&session.caller, &id, change);
    let kind = changed.await.map_err(explained)?;
    Ok(deed("update", &kind, StatusCode::ACCEPTED))
}

/// No type is encrypted.
async fn encryption(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    by_id(&door, &session, &id).map(|_| Json(json!({})))
}

async fn access(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    session.require_admin("volume_extension:volume_type_access:get_all_for_type")?;
    let kind = by_id(&door, &session, &id)?;
    if kind.is_public {
        let message = "Access list not available for public volume types.";
        return Err(Fault::status(StatusCode::NOT_FOUND, message));
    }
    let TypeAsked::Made(made) = kind.asked else { return Ok(Json(json!({ "volume_type_access": [] }))) };
    let projects = door.control().get::<VolumeType>(made).map(|k| k.record.projects.clone());
    let one = |project: &ProjectId| json!({ "volume_type_id": kind.id, "project_id": project.hex() });
    let shown: Vec<Value> = projects.unwrap_or_default().iter().map(one).collect();
    Ok(Json(json!({ "volume_type_access": shown })))
}

/// Opens a type to a project or closes it.
async fn act(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let (key, rule, open) = match input.as_object().and_then(|map| map.keys().next()).map(String::as_str) {
        Some("addProjectAccess") => ("addProjectAccess", "addProjectAccess", true),
        Some("removeProjectAccess") => ("removeProjectAccess", "removeProjectAccess", false),
        _ => {
            session.require_admin("volume_extension:type_update")?;
            return Err(Fault::invalid("There is no such action."));
        }
    };
    changeable(&door, &session, &format!("volume_extension:volume_type_access:{rule}"), &id)?;
    let input = object(&input, key)?;
    let project = text(&input, "project")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute project: it is missing."))?;
    let wrong = |_| Fault::invalid(format!("Invalid input for field/attribute project. Value: {project}."));
    let project: ProjectId = project.parse().map_err(wrong)?;
    let opened = door.control().open_volume_type(&session.caller, &id, project, open);
    let kind = opened.await.map_err(|error| match error.code {
        Code::Conflict => {
            Fault::conflict("Type access modification is not applicable to public volume type.")
        }
        _ => explained(error),
    })?;
    Ok(deed("update", &kind, StatusCode::ACCEPTED))
}
