//! Sharing images with other projects, and withdrawing them.

use crate::{
    app::{App, Asker},
    error::Result,
    request::Input,
    v1::{
        audit::{deed, known, note, note_as},
        routes::{Doc, Routes},
        scene::Scene,
        served::answer,
        types::{
            List, Reference,
            image::{AnswerShare, Image as View, ImageMember},
            list::WaitQuery,
        },
    },
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::Caller;
use model::{
    id::ProjectId,
    image::{Image, Member},
};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "images";
    let member = "/v1/images/{ref}/members/{project}";
    routes
        .add(
            Method::GET,
            "/v1/images/{ref}/members",
            tag,
            Doc::new("List whom an image is shared with")
                .details("Its owner sees all, a member itself.")
                .answer::<List<ImageMember>>(200, "Projects."),
            list,
        )
        .add(
            Method::PUT,
            member,
            tag,
            Doc::new("Share an image with a project")
                .details("The image must be of the visibility `shared`.")
                .answer::<ImageMember>(200, "Shared; the project has not answered yet."),
            share,
        )
        .add(
            Method::PATCH,
            member,
            tag,
            Doc::new("Accept or reject an image")
                .details("By the project that it is shared with.")
                .input::<AnswerShare>()
                .answer::<ImageMember>(200, "Answered."),
            answer_share,
        )
        .add(Method::DELETE, member, tag, Doc::new("Take an image back").empty(204, "Taken back."), unshare)
        .add(
            Method::POST,
            "/v1/images/{ref}/deactivate",
            tag,
            Doc::new("Withdraw an image")
                .details(
                    "Nobody starts from it or gets its bytes until it is reactivated; what runs goes on.",
                )
                .answer::<View>(200, "Withdrawn."),
            deactivate,
        )
        .add(
            Method::POST,
            "/v1/images/{ref}/reactivate",
            tag,
            Doc::new("Let a withdrawn image be used again").answer::<View>(200, "Usable."),
            reactivate,
        )
}

fn view(app: &App, caller: &Caller, project: ProjectId, member: &Member) -> ImageMember {
    let scene = Scene::new(app.control(), caller);
    let project = match caller.sees(project) {
        true => scene.project(project),
        false => Reference { id: project.into(), name: String::new() },
    };
    let Member { answer, created_at, updated_at } = member.clone();
    ImageMember { project, answer, created_at, updated_at }
}

async fn list(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<List<ImageMember>>> {
    let members = app.control().image_members(&caller, &reference)?;
    let items = members.iter().map(|(project, member)| view(&app, &caller, *project, member)).collect();
    Ok(Json(List { items, next: None }))
}

/// Notes a deed on a member, and shows the member.
async fn tell(
    app: &App,
    caller: &Caller,
    action: &str,
    reference: &str,
    outcome: control::Result<(Image, ProjectId)>,
) -> Result<Json<ImageMember>> {
    let (image, project) = note_as(app, caller, deed(action, "image", reference), outcome, |(image, _)| {
        known(image.meta.id, &image.meta.name)(&())
    })
    .await?;
    let member = image.members.get(&project).ok_or_else(|| {
        control::Error::new(model::error::Code::Conflict, "the image was taken back in the same moment")
    })?;
    Ok(Json(view(app, caller, project, member)))
}

async fn share(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, project)): Path<(String, String)>,
) -> Result<Json<ImageMember>> {
    let outcome = app.control().share_image(&caller, &reference, &project).await;
    tell(&app, &caller, "share", &reference, outcome).await
}

async fn answer_share(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, project)): Path<(String, String)>,
    Input(input): Input<AnswerShare>,
) -> Result<Json<ImageMember>> {
    let outcome = app.control().answer_share(&caller, &reference, &project, input.answer).await;
    tell(&app, &caller, "answer", &reference, outcome).await
}

async fn unshare(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, project)): Path<(String, String)>,
) -> Result<StatusCode> {
    let outcome = app.control().unshare_image(&caller, &reference, &project).await.map(|(image, _)| image);
    note(&app, &caller, deed("unshare", "image", &reference), outcome).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn deactivate(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Response> {
    withdraw(&app, &caller, &reference, true).await
}

async fn reactivate(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Response> {
    withdraw(&app, &caller, &reference, false).await
}

async fn withdraw(app: &App, caller: &Caller, reference: &str, deactivated: bool) -> Result<Response> {
    let outcome = app.control().set_image_deactivated(caller, reference, deactivated).await;
    let action = if deactivated { "deactivate" } else { "reactivate" };
    let image = note(app, caller, deed(action, "image", reference), outcome).await?;
    answer(app, caller, StatusCode::OK, &image, &WaitQuery::default()).await
}
