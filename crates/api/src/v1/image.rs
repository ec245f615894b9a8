//! Images.

pub(crate) mod content;
mod sharing;
mod users;

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Fault, Head,
        image::{
            CreateImage, Image as View, ImageContent, ImageState, ImportImage, KernelBoot, Progress,
            TagImage, UpdateImage,
        },
        list::{ListQuery, WaitQuery},
        patch::apply_labels,
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{
    Caller, Control,
    image::{Import, NewImage},
};
use model::{
    error::Code,
    image::{Answer, Image, ImageKind, ImageSource, ImageState as Kept, Visibility},
};
use std::sync::Arc;
use store::Stored;

impl Served for Image {
    type View = View;
    const FILTERS: &'static [&'static str] = &["phase", "kind", "visibility", "membership", "tag", "hidden"];
    const PHASES: &'static [&'static str] = &["waiting", "staged", "fetching", "ready", "failed", "deleting"];

    fn view(&self, scene: &Scene<'_>) -> View {
        let status = scene.control.image_status(self.meta.id);
        let status = status.as_ref().map(|s| &s.record);
        let kept = self.state(status);
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            kind: self.kind,
            visibility: self.visibility,
            reference: match &self.source {
                ImageSource::Registry { reference } => Some(reference.clone()),
                _ => None,
            },
            arch: self.arch.clone(),
            boot: self.boot.as_ref().map(|boot| KernelBoot {
                kernel: scene.reference::<Image>(boot.kernel),
                initrd: boot.initrd.map(|id| scene.reference::<Image>(id)),
                cmdline: boot.cmdline.clone(),
            }),
            uefi: self.uefi,
            min_disk_gib: self.min_disk_gib,
            min_memory_mib: self.min_memory_mib,
            protected: self.protected,
            login: self.login.clone(),
            properties: self.properties.clone(),
            tags: self.tags.clone(),
            hidden: self.hidden,
            deactivated: self.deactivated,
            disk_format: self.disk_format,
            container_format: self.container_format,
            url: match &self.source {
                ImageSource::Web { url, .. } => Some(url.clone()),
                _ => None,
            },
            state: word(self, kept),
            progress: match kept {
                Kept::Fetching { done_bytes, total_bytes } => {
                    Some(Progress { done_bytes: *done_bytes, total_bytes: *total_bytes })
                }
                _ => None,
            },
            content: match kept {
                Kept::Ready(content) => Some(content_view(content)),
                _ => None,
            },
            fault: match kept {
                Kept::Failed(fault) => Some(Fault::from(fault)),
                _ => status.filter(|s| s.asked >= self.asked).and_then(|s| s.stale.as_ref()).map(Fault::from),
            },
        }
    }

    fn phase_word(&self, scene: &Scene<'_>) -> &'static str {
        let status = scene.control.image_status(self.meta.id);
        word(self, self.state(status.as_ref().map(|s| &s.record))).as_str()
    }

    fn all(control: &Control, caller: &Caller, everywhere: bool) -> control::Result<Vec<Arc<Stored<Self>>>> {
        if everywhere { control.list_everywhere::<Self>(caller) } else { Ok(control.images_open_to(caller)) }
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        let own = match self.kind {
            ImageKind::Disk => "disk",
            ImageKind::Kernel => "kernel",
            ImageKind::Initrd => "initrd",
            ImageKind::Oci => "oci",
            ImageKind::System => "system",
        };
        Ok(query.kind.as_ref().is_none_or(|kind| kind == own)
            && query.tag.as_ref().is_none_or(|tag| self.tags.contains(tag))
            && self.hidden == query.hidden.unwrap_or(false)
            && is_asked_for(self, query, scene)?)
    }

    fn is_settled(&self, scene: &Scene<'_>) -> bool {
        let status = scene.control.image_status(self.meta.id);
        let status = status.as_ref().map(|s| &s.record);
        match self.state(status) {
            // One that is here and was asked for anew is settled when the registry has answered.
            Kept::Ready(_) => status.is_some_and(|s| s.asked >= self.asked),
            Kept::Failed(_) => true,
            // An upload that has not begun waits for the user, not for holm.
            Kept::Waiting | Kept::Staged { .. } => self.source == ImageSource::Upload,
            Kept::Fetching { .. } => false,
        }
    }
}

/// Whether a list shows an image that is open to the caller: by default those of the project and those that are in
/// its lists, else what the list asks for.
fn is_asked_for(image: &Image, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
    let project = scene.caller.project;
    let everywhere = query.project.as_deref() == Some("*");
    if let Some(word) = &query.membership {
        let answer = match word.as_str() {
            "pending" => Some(Answer::Pending),
            "accepted" => Some(Answer::Accepted),
            "rejected" => Some(Answer::Rejected),
            "all" => None,
            _ => {
                let message = format!("{word:?}: write pending, accepted, rejected or all");
                return Err(control::Error::invalid("membership", message));
            }
        };
        let member = image.members.get(&project).filter(|_| image.visibility == Visibility::Shared);
        return Ok(member.is_some_and(|m| answer.is_none_or(|answer| m.answer == answer)));
    }
    let listed = everywhere || image.meta.project == project || image.is_listed_for(project);
    Ok(match query.visibility.as_deref() {
        None => listed,
        Some("community") => image.visibility == Visibility::Community,
        Some(word @ ("private" | "shared" | "public")) => listed && image.visibility.as_str() == word,
        Some(word) => {
            let message = format!("{word:?}: write private, shared, community or public");
            return Err(control::Error::new(Code::Invalid, message).field("visibility"));
        }
    })
}

fn word(image: &Image, kept: &Kept) -> ImageState {
    match kept {
        _ if image.meta.is_deleting() => ImageState::Deleting,
        Kept::Waiting => ImageState::Waiting,
        Kept::Staged { .. } => ImageState::Staged,
        Kept::Fetching { .. } => ImageState::Fetching,
        Kept::Ready(_) => ImageState::Ready,
        Kept::Failed(_) => ImageState::Failed,
    }
}

fn content_view(content: &model::image::ImageContent) -> ImageContent {
    ImageContent {
        digest: content.digest.clone(),
        size_bytes: content.size_bytes,
        virtual_bytes: content.virtual_bytes,
        format: content.format,
        oci: content.oci.clone(),
        sent_format: content.sent_format,
        md5: content.hashes.as_ref().map(|hashes| hashes.md5.clone()),
        sha512: content.hashes.as_ref().map(|hashes| hashes.sha512.clone()),
    }
}

/// Adds the routes of images.
pub fn routes(routes: Routes) -> Routes {
    let tag = "images";
    let routes = users::routes(sharing::routes(content::routes(routes)));
    routes
        .collection::<Image>()
        .add(
            Method::POST,
            "/v1/images",
            tag,
            Doc::new("Make an image")
                .details("With `reference` it is pulled from a registry; one of the same name and reference is pulled anew. Without one, send its bytes to `/v1/images/{ref}/content`.")
                .wait().input::<CreateImage>().answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/images/{ref}",
            tag,
            Doc::new("Change an image").wait().input::<UpdateImage>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/images/{ref}",
            tag,
            Doc::new("Delete an image").details("Refused while something stands on it; `/users` tells what.").wait().empty(204, "Gone."),
            delete,
        )
        .add(
            Method::POST,
            "/v1/images/{ref}/import",
            tag,
            Doc::new("Import an image's bytes")
                .details("From where they lie ready, or from a web server that the operator allows. The image tells how far it is, and its fault.")
                .wait().input::<ImportImage>().answer::<View>(202, "Asked for."),
            import,
        )
        .add(
            Method::POST,
            "/v1/images/{ref}/tag",
            tag,
            Doc::new("Give an image's content another name")
                .details("Of OCI images. Each name is an image of its own; another image that has the name loses it.")
                .wait().input::<TagImage>().answer::<View>(201, "Named."),
            tag_image,
        )
}

async fn tag_image(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<TagImage>,
) -> Result<Response> {
    check_wait::<Image>(&wait)?;
    let tagged = app.control().tag_image(&caller, &reference, &input.name).await;
    let tagged = note(&app, &caller, deed("tag", "image", &reference), tagged).await?;
    answer(&app, &caller, StatusCode::CREATED, &tagged, &wait).await
}

async fn import(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<ImportImage>,
) -> Result<Response> {
    check_wait::<Image>(&wait)?;
    let from = match input {
        ImportImage::Staged => Import::Staged,
        ImportImage::Web { url } => Import::Web { url },
    };
    let asked = app.control().import_image(&caller, &reference, from).await;
    let asked = note(&app, &caller, deed("import", "image", &reference), asked).await?;
    answer(&app, &caller, StatusCode::ACCEPTED, &asked, &wait).await
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateImage>,
) -> Result<Response> {
    check_wait::<Image>(&wait)?;
    let name = input.name.clone().or(input.reference.clone()).unwrap_or_default();
    let made = make(&app, &caller, input).await;
    let made = note(&app, &caller, deed("create", "image", &name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn make(app: &App, caller: &Caller, input: CreateImage) -> control::Result<Image> {
    let default_kind = if input.reference.is_some() { ImageKind::Oci } else { ImageKind::Disk };
    let boot = input.boot;
    let new = NewImage {
        id: None,
        name: input.name.unwrap_or_default(),
        description: input.description,
        kind: input.kind.unwrap_or(default_kind),
        reference: input.reference,
        visibility: input.visibility.unwrap_or(Visibility::Private),
        arch: input.arch,
        kernel: boot.as_ref().and_then(|b| b.kernel.clone()),
        initrd: boot.as_ref().and_then(|b| b.initrd.clone()),
        cmdline: boot.map(|b| b.cmdline),
        uefi: input.uefi,
        min_disk_gib: input.min_disk_gib,
        min_memory_mib: input.min_memory_mib,
        login: input.login,
        properties: input.properties,
        labels: input.labels,
        tags: input.tags,
        protected: input.protected,
        hidden: input.hidden,
        disk_format: input.disk_format,
        container_format: input.container_format,
        name_repeats: false,
    };
    app.control().create_image(caller, new).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateImage>,
) -> Result<Response> {
    check_wait::<Image>(&wait)?;
    let changed = app
        .control()
        .update_image(&caller, &reference, |image| {
            describe(&mut image.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
            image.visibility = input.visibility.unwrap_or(image.visibility);
            image.min_disk_gib = input.min_disk_gib.unwrap_or(image.min_disk_gib);
            image.min_memory_mib = input.min_memory_mib.unwrap_or(image.min_memory_mib);
            image.protected = input.protected.unwrap_or(image.protected);
            if let Some(login) = &input.login {
                image.login.clone_from(login);
            }
            apply_labels(&mut image.properties, &input.properties);
            image.tags.extend(input.add_tags.iter().cloned());
            image.tags.retain(|tag| !input.remove_tags.contains(tag));
            image.hidden = input.hidden.unwrap_or(image.hidden);
            Ok(())
        })
        .await;
    let changed = note(&app, &caller, deed("update", "image", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_image(&asker.0, id).await.map(|_| ());
    remove::<Image>(&app, &asker, &reference, &wait, act).await
}
