//! Sharing images with other projects, what these say to it, and withdrawing images.

use crate::cli::{
    completion,
    failure::{Failure, Result},
    noun,
    output::{Cell, Column, Shown, column},
    session::Session,
};
use api::v1::types::{
    image::{AnswerShare, Image, ImageMember, UpdateImage},
    list::WaitQuery,
};
use model::image::{Answer, ImageKind, Visibility};

/// Which image, and whom with.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("images"))]
    pub image: String,
    /// Id of the project
    #[arg(value_name = "PROJECT")]
    pub project: String,
}

impl Shown for ImageMember {
    const COLUMNS: &'static [Column<Self>] = &[
        column("PROJECT", |m| Cell::text(m.project.id)),
        column("NAME", |m| Cell::text(&m.project.name)),
        column("ANSWER", |m| Cell::text(m.answer.as_str())),
        column("AGE", |m| Cell::Time(m.created_at)),
    ];

    fn name(&self) -> String {
        self.project.id.to_string()
    }
}

/// Lists members.
pub async fn list(session: &Session, image: &str) -> Result {
    session.printer.list(&session.client.image_members(image).await?)
}

/// Shares.
pub async fn share(session: &Session, args: &Args) -> Result {
    let found = session.client.get::<Image>(&args.image).await?;
    if found.visibility == Visibility::Private {
        let request = UpdateImage { visibility: Some(Visibility::Shared), ..UpdateImage::default() };
        session.client.update::<Image>(&args.image, &request, &WaitQuery::default()).await?;
    }
    let member = session.client.share_image(&args.image, &args.project).await?;
    session.say(format!("image {} is shared with project {}", found.head.name, member.name()));
    session.next(format!("holm --project {} image accept {}", args.project, found.head.id));
    Ok(())
}

/// Takes back.
pub async fn unshare(session: &Session, args: &Args) -> Result {
    session.client.unshare_image(&args.image, &args.project).await?;
    session.say(format!("image {} is not shared with project {} any more", args.image, args.project));
    Ok(())
}

/// Makes a root file system public, and says how others get it.
pub async fn publish(session: &Session, name: &str) -> Result {
    let found = session.client.get::<Image>(name).await?;
    if found.kind != ImageKind::System {
        let message = format!("image {name} is no root file system: only those are published");
        return Err(Failure::usage(message).hint(
            "`holm image import NAME --file ROOT.tar.xz --kind system` makes one; `docker push` publishes images of containers",
        ));
    }
    if found.visibility != Visibility::Public {
        let request = UpdateImage { visibility: Some(Visibility::Public), ..UpdateImage::default() };
        session.client.update::<Image>(name, &request, &WaitQuery::default()).await?;
    }
    match session.client.version().await?.image_server {
        Some(origin) => {
            session.say(format!(
                "image {} is public: everybody who reaches {origin} may fetch it",
                found.head.name
            ));
            session.next(format!("holm image import NAME --url simplestreams:{origin}#{}", found.head.name));
        }
        None => {
            session.say(format!("image {} is public in this cloud", found.head.name));
            session.warn(
                "nobody else gets it: `holm serve --image-server ADDRESS:PORT` switches the image server on",
            );
        }
    }
    Ok(())
}

/// Accepts or rejects for the session's own project.
pub async fn answer(session: &Session, id: &str, answer: Answer) -> Result {
    let project = session.client.version().await?.caller.project.id.to_string();
    session.client.answer_share(id, &project, &AnswerShare { answer }).await?;
    session.say(format!("image {id} is {}", answer.as_str()));
    Ok(())
}

/// Withdraws, or lets be used again.
pub async fn withdraw(session: &Session, name: &str, deactivated: bool) -> Result {
    let image = session.client.set_image_deactivated(name, deactivated).await?;
    let what = if deactivated { "is deactivated" } else { "can be used again" };
    noun::tell(session, &image, what)
}
