//! Members: the projects that an image is shared with, and what they say to it.

use super::{
    record::{find, find_own},
    view::time,
};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use model::{
    id::ProjectId,
    image::{Answer, Image, Member, Visibility},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/images/{id}/members", get(list).post(share))
        .route("/v2/images/{id}/members/{member}", get(show).put(answer).delete(unshare))
}

fn view(image: &Image, project: ProjectId, member: &Member) -> Value {
    json!({
        "image_id": image.meta.id,
        "member_id": project.hex(),
        "status": member.answer.as_str(),
        "created_at": time(member.created_at),
        "updated_at": time(member.updated_at),
        "schema": "/v2/schemas/member",
    })
}

fn no_member(id: &str, member: &str) -> Fault {
    Fault::status(StatusCode::NOT_FOUND, format!("{member} not found in the member list of the image {id}."))
}

/// The member that a call names, if the caller may see it.
fn seen(door: &Door, session: &Session, id: &str, member: &str) -> Result<(ProjectId, Member)> {
    let found = find(door.control(), &session.caller, id)?;
    let project: ProjectId = member.parse().map_err(|_| no_member(id, member))?;
    let known = found.record.members.get(&project).ok_or_else(|| no_member(id, member))?;
    if session.caller.sees(found.record.meta.project) || project == session.caller.project {
        return Ok((project, known.clone()));
    }
    Err(no_member(id, member))
}

fn refuse_unless_shared(image: &Image) -> Result<()> {
    if image.visibility == Visibility::Shared {
        return Ok(());
    }
    Err(Fault::forbidden("Only shared images have members."))
}

async fn list(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let found = find(door.control(), &session.caller, &id)?;
    let image = &found.record;
    refuse_unless_shared(image)?;
    let members = door.control().image_members(&session.caller, &image.meta.id.to_string())?;
    let members: Vec<Value> = members.iter().map(|(project, member)| view(image, *project, member)).collect();
    Ok(Json(json!({ "members": members, "schema": "/v2/schemas/members" })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path((id, member)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let (project, known) = seen(&door, &session, &id, &member)?;
    let found = find(door.control(), &session.caller, &id)?;
    Ok(Json(view(&found.record, project, &known)))
}

/// Shows the member of an image that a deed was about.
fn tell(verb: &str, image: &Image, project: ProjectId) -> Result<Response> {
    let id = image.meta.id.to_string();
    let member = image.members.get(&project).ok_or_else(|| no_member(&id, &project.hex()))?;
    Ok(Deed::new(verb, "image", id, &image.meta.name).on(Json(view(image, project, member))))
}

#[derive(Debug, Deserialize)]
struct Shared {
    member: String,
}

async fn share(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Shared>,
) -> Result<Response> {
    let found = find_own(door.control(), &session.caller, &id)?;
    refuse_unless_shared(&found.record)?;
    let project: ProjectId = input
        .member
        .parse()
        .map_err(|_| Fault::invalid(format!("Member {} is no id of a project.", input.member)))?;
    let id = found.record.meta.id.to_string();
    let (image, project) = door.control().share_image(&session.caller, &id, &project.to_string()).await?;
    tell("share", &image, project)
}

#[derive(Debug, Deserialize)]
struct Answered {
    status: String,
}

async fn answer(
    State(door): State<Door>,
    session: Session,
    Path((id, member)): Path<(String, String)>,
    Body(input): Body<Answered>,
) -> Result<Response> {
    let answer = match input.status.as_str() {
        "pending" => Answer::Pending,
        "accepted" => Answer::Accepted,
        "rejected" => Answer::Rejected,
        word => return Err(Fault::invalid(format!("Invalid status: {word}"))),
    };
    let found = find(door.control(), &session.caller, &id)?;
    let (project, _) = seen(&door, &session, &id, &member)?;
    let id = found.record.meta.id.to_string();
    let (image, project) =
        door.control().answer_share(&session.caller, &id, &project.to_string(), answer).await?;
    tell("answer", &image, project)
}

async fn unshare(
    State(door): State<Door>,
    session: Session,
    Path((id, member)): Path<(String, String)>,
) -> Result<Response> {
    let found = find_own(door.control(), &session.caller, &id)?;
    refuse_unless_shared(&found.record)?;
    let (project, _) = seen(&door, &session, &id, &member)?;
    let id = found.record.meta.id.to_string();
    let (image, _) = door.control().unshare_image(&session.caller, &id, &project.to_string()).await?;
    Ok(Deed::new("unshare", "image", id, &image.meta.name).on(StatusCode::NO_CONTENT))
}
