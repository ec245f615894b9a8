//! Docker's verbs for images: images, pull, push, rmi, tag, history.

use super::{
    columns::{self, Columns, Listing},
    engine::{self, filters, flag, image_path, list, number, query, text},
    login, progress, words,
};
use crate::cli::{completion, failure::Result, noun::for_each, output, session::Session};
use api::client::DockerBody;
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Longest step of a history that is shown without `--no-trunc`.
const STEP_MAX: usize = 45;

const IMAGES: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];
const WITH_DIGESTS: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];
const ALL: Columns = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED AT", "CreatedAt"),
    ("SIZE", "Size"),
    ("CONTAINERS", "Containers"),
];
const HISTORY: Columns = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

/// Which images.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Images of containers alone, in docker's columns; `holm image ls` shows disks and roots as well.\n-q prints ids alone."
)]
pub struct ImagesArgs {
    /// Only this repository, or one of its tags
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub name: Option<String>,
    /// Those in between, too: holm has none
    #[arg(long, short)]
    pub all: bool,
    /// Digests, too
    #[arg(long)]
    pub digests: bool,
    /// Only those that fit: reference=web*, dangling=true, label=a=b, … (may be given several times)
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Cut nothing off
    #[arg(long)]
    pub no_trunc: bool,
    /// A template like '{{.Repository}}:{{.Tag}}', `table` and a template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// What is pulled.
#[derive(Debug, Clone, clap::Args)]
pub struct PullArgs {
    /// Image as docker spells it: httpd, debian:12, registry.example/web@sha256:…
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Machine that it is for; only this host's
    #[arg(long, value_name = "OS/ARCH", default_value = "", hide_default_value = true)]
    pub platform: String,
}

/// What is pushed.
#[derive(Debug, Clone, clap::Args)]
pub struct PushArgs {
    /// Image as docker spells it
    #[arg(value_name = "IMAGE", add = completion::names("images"))]
    pub image: String,
    /// All tags of the repository
    #[arg(long, short)]
    pub all_tags: bool,
}

/// What is removed.
#[derive(Debug, Clone, clap::Args)]
pub struct RemoveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE", add = completion::names("images"))]
    pub images: Vec<String>,
    /// All of its names, and those of containers that are stopped
    #[arg(long, short)]
    pub force: bool,
}

/// Another name.
#[derive(Debug, Clone, clap::Args)]
pub struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE", add = completion::names("images"))]
    pub image: String,
    /// The name: shop/web:1
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Whose history.
#[derive(Debug, Clone, clap::Args)]
pub struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE", add = completion::names("images"))]
    pub image: String,
    /// Cut nothing off
    #[arg(long)]
    pub no_trunc: bool,
    /// Sizes and times for people: true or false
    #[arg(long, short = 'H', default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub human: bool,
    /// A template like '{{.CreatedBy}}', `table` and a template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// The name and the tag of `shop/web:1`.
pub fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

/// `holm images`.
///
/// # Errors
/// As the door refuses.
pub async fn images(session: &Session, args: &ImagesArgs) -> Result {
    let mut asked = args.filter.clone();
    asked.extend(args.name.as_ref().map(|name| format!("reference={name}")));
    let asked = query(&[("all", flag(args.all)), ("filters", &filters(&asked)?)]);
    let found = engine::get(session, &format!("/images/json{asked}")).await?;
    let images = found.as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, args, session.printer.now)).collect();
    let usual = if args.digests { WITH_DIGESTS } else { IMAGES };
    columns::print(session, &Listing { usual, all: ALL, id: "ID", format: args.format.as_deref() }, &rows)
}

/// A row for each name of an image.
fn rows(image: &Value, args: &ImagesArgs, now: Timestamp) -> Vec<Value> {
    const NONE: &str = "<none>";
    let words = |field: &str| -> Vec<&str> { list(image, field).iter().filter_map(Value::as_str).collect() };
    let (tags, digests) = (words("RepoTags"), words("RepoDigests"));
    let digest_of = |repository: &str| {
        let of = digests.iter().filter_map(|text| text.split_once('@')).find(|(name, _)| *name == repository);
        of.map_or(NONE, |(_, digest)| digest)
    };
    let mut names: Vec<(&str, &str, &str)> = tags
        .iter()
        .map(|name| split_tag(name))
        .map(|(repository, tag)| (repository, tag, digest_of(repository)))
        .collect();
    for (repository, digest) in digests.iter().filter_map(|text| text.split_once('@')) {
        if !names.iter().any(|(named, ..)| *named == repository) {
            names.push((repository, NONE, digest));
        }
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    let (id, created) = (text(image, "Id"), number(image, "Created"));
    let containers = number(image, "Containers");
    let row = |(repository, tag, digest): (&str, &str, &str)| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": if args.no_trunc { id.to_string() } else { words::short_id(id) },
            "CreatedSince": words::ago(created, now),
            "CreatedAt": words::moment(created),
            "Size": words::size(number(image, "Size") as f64, 3),
            "Containers": if containers < 0 { "N/A".to_string() } else { containers.to_string() },
        })
    };
    names.into_iter().map(row).collect()
}

/// `holm pull`.
///
/// # Errors
/// As the door or the registry refuses.
pub async fn pull(session: &Session, args: &PullArgs) -> Result {
    let last = args.image.rsplit('/').next().unwrap_or_default();
    let is_named = last.contains([':', '@']);
    if !is_named && !session.quiet {
        output::write(b"Using default tag: latest\n")?;
    }
    let whole = if is_named { args.image.clone() } else { format!("{}:latest", args.image) };
    let (name, tag) = match whole.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => split_tag(&whole),
    };
    let asked = query(&[("fromImage", name), ("tag", tag), ("platform", &args.platform)]);
    let login = login::header_for(&args.image)?;
    let path = format!("/images/create{asked}");
    let lines = session.client.docker_lines(Method::POST, &path, DockerBody::Empty, login.as_deref()).await?;
    progress::show(session, lines).await?;
    let full = whole.parse::<model::image_reference::Reference>().map_or(whole, |name| name.to_string());
    output::write(format!("{full}\n").as_bytes())
}

/// `holm push`.
///
/// # Errors
/// As the door or the registry refuses.
pub async fn push(session: &Session, args: &PushArgs) -> Result {
    let (name, tag) = split_tag(&args.image);
    let tag = match tag {
        "" if args.all_tags => "",
        "" => {
            if !session.quiet {
                output::write(b"Using default tag: latest\n")?;
            }
            "latest"
        }
        _ if args.all_tags => {
            return Err(crate::cli::failure::Failure::usage("tag can't be used with --all-tags/-a"));
        }
        tag => tag,
    };
    let login = login::header_for(&args.image)?;
    let path = format!("{}{}", image_path(name, "/push"), query(&[("tag", tag)]));
    let lines = session.client.docker_lines(Method::POST, &path, DockerBody::Empty, login.as_deref()).await?;
    progress::show(session, lines).await.map(drop)
}

/// `holm rmi`.
///
/// # Errors
/// As the door refuses.
pub async fn remove(session: &Session, args: &RemoveArgs) -> Result {
    for_each(session, &args.images, async |name| {
        let path = format!("{}{}", image_path(&name, ""), query(&[("force", flag(args.force))]));
        let done = session.client.docker(Method::DELETE, &path, DockerBody::Empty).await?;
        let mut lines = String::new();
        for line in done.as_array().into_iter().flatten() {
            for word in ["Untagged", "Deleted"] {
                if let Some(what) = line[word].as_str() {
                    lines.push_str(&format!("{word}: {what}\n"));
                }
            }
        }
        output::write(lines.as_bytes())
    })
    .await
}

/// `holm tag`.
///
/// # Errors
/// As the door refuses.
pub async fn tag(session: &Session, args: &TagArgs) -> Result {
    let (repository, tag) = split_tag(&args.name);
    let path = format!("{}{}", image_path(&args.image, "/tag"), query(&[("repo", repository), ("tag", tag)]));
    engine::post(session, &path, None).await.map(drop)
}

/// `holm history` and `holm image history`: how an image was made, the last step first.
///
/// # Errors
/// As the door refuses.
pub async fn history(session: &Session, args: &HistoryArgs) -> Result {
    let found = engine::get(session, &image_path(&args.image, "/history")).await?;
    let now = session.printer.now;
    let rows: Vec<Value> = found
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            let (id, by, created) =
                (text(step, "Id"), text(step, "CreatedBy").replace('\t', " "), number(step, "Created"));
            let bytes = number(step, "Size");
            json!({
                "ID": if args.no_trunc || id == "<missing>" { id.to_string() } else { words::short_id(id) },
                "CreatedSince": if args.human { since(created, now) } else { rfc3339(created) },
                "CreatedAt": rfc3339(created),
                "CreatedBy": if args.no_trunc { by } else { words::shortened(&by, STEP_MAX) },
                "Size": if args.human { words::size(bytes as f64, 3) } else { bytes.to_string() },
                "Comment": text(step, "Comment"),
            })
        })
        .collect();
    columns::print(
        session,
        &Listing { usual: HISTORY, all: HISTORY, id: "ID", format: args.format.as_deref() },
        &rows,
    )
}

/// Steps that do not say when they were made are told without a time.
fn since(created_s: i64, now: Timestamp) -> String {
    if created_s > 0 { words::ago(created_s, now) } else { "N/A".to_string() }
}

fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_stands_behind_the_last_colon() {
        for (name, split) in [
            ("web", ("web", "")),
            ("web:1", ("web", "1")),
            ("localhost:5000/web", ("localhost:5000/web", "")),
            ("localhost:5000/a/web:1", ("localhost:5000/a/web", "1")),
        ] {
            assert_eq!(split_tag(name), split);
        }
    }
}
