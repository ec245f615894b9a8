//! `holm image users`: what stands on an image, what has layers of it, and what its end would free.

use crate::cli::{
    failure::Result,
    output::{self, Cell, Column, Format, Shown, column, wide},
    session::Session,
    wording,
};
use api::v1::types::image::{ImageUser, ImageUsers};
use model::image::Hold;

impl Shown for ImageUser {
    const COLUMNS: &'static [Column<Self>] = &[
        column("USER", |u| Cell::text(&u.noun)),
        column("NAME", |u| match u.name.as_str() {
            "" => Cell::text("(of another project)"),
            name => Cell::text(name),
        }),
        wide("ID", |u| Cell::maybe(u.id)),
        column("HOW", |u| Cell::text(how(u))),
        column("HOLDS IT", |u| Cell::flag(u.firm)),
        wide("PROJECT", |u| Cell::maybe(u.project.as_ref().map(|project| &project.name))),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }
}

fn how(user: &ImageUser) -> String {
    let layers = match user.layers {
        1 => "1 layer".to_string(),
        count => format!("{count} layers"),
    };
    match user.hold {
        Hold::StandsOn => "runs from it".into(),
        Hold::DiskOf if user.noun == "snapshot" => "of a disk on it".into(),
        Hold::DiskOf => "a disk on it".into(),
        Hold::Boots => "boots with it".into(),
        Hold::Reads => "is being made of it".into(),
        Hold::SameContent => "another name of it".into(),
        Hold::BuiltOn => format!("built on it ({layers})"),
        Hold::SharesLayers => format!("has {layers} of it"),
    }
}

/// Tells who uses an image.
///
/// # Errors
/// As the server refuses.
pub async fn list(session: &Session, image: &str) -> Result {
    let told = session.client.image_users(image).await?;
    // The sums are part of the answer, so that programs get the whole of it.
    match session.printer.format {
        Some(Format::Json) => return output::write(output::json(&told)?.as_bytes()),
        Some(Format::Yaml) => return output::write(output::yaml(&told)?.as_bytes()),
        _ => {}
    }
    if !told.users.is_empty() {
        session.printer.list(&told.users)?;
    }
    session.say(summary(image, &told));
    Ok(())
}

fn summary(image: &str, told: &ImageUsers) -> String {
    let firm = told.users.iter().filter(|user| user.firm).count();
    let can = match firm {
        0 => format!("nothing stands on image {image}"),
        1 => format!("image {image} stays as long as one user needs it"),
        count => format!("image {image} stays as long as {count} users need it"),
    };
    let own = wording::bytes(told.own_bytes);
    match told.shared_bytes {
        0 => format!("{can}; its end frees {own}"),
        shared => {
            let shared = wording::bytes(shared);
            format!("{can}; its end frees {own}, and {shared} stay that other images have as well")
        }
    }
}
