//! Archives into files and from files: save, load, import, export.

use super::{
    engine::{self, query},
    progress,
};
use crate::cli::{
    failure::{Failure, Result},
    input::Input,
    session::Session,
};
use api::client::DockerBody;
use futures::StreamExt;
use hyper::Method;
use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use tokio::io::{AsyncRead, AsyncWriteExt};

/// Images to load.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// The archive [default: standard input]
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// A root file system to make an image of.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// A tar of it; - for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Name of the image: shop/web:1
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub name: Option<String>,
    /// Change as a Dockerfile writes it, like 'CMD ["serve"]' (may be given several times)
    #[arg(long, short, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Why
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
}

/// Writes what is answered into a file, whole or not at all, or to standard output.
///
/// # Errors
/// As the door refuses; standard output is a terminal; the file cannot be written.
pub async fn fetch(session: &Session, path: &str, file: Option<PathBuf>) -> Result {
    if file.is_none() && session.stdout_is_terminal {
        return Err(Failure::usage("cowardly refusing to save to a terminal")
            .hint("use -o FILE, or redirect the output: > FILE"));
    }
    let (_, bytes) = session.client.docker_bytes(path).await?;
    let mut bytes = std::pin::pin!(bytes);
    let Some(file) = file else {
        let out = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::output(&e))?;
        let mut out = tokio::fs::File::from_std(out.into());
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|e| Failure::local("the archive did not come whole", &e))?;
            out.write_all(&piece).await.map_err(|e| Failure::output(&e))?;
        }
        return out.flush().await.map_err(|e| Failure::output(&e));
    };
    let failed = |e: std::io::Error| Failure::local(format!("cannot write {}", file.display()), &e);
    let partial = file.with_file_name(format!(
        ".{}.{}",
        file.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let copied = async {
        let mut out = tokio::fs::File::create_new(&partial).await?;
        while let Some(piece) = bytes.next().await {
            out.write_all(&piece?).await?;
        }
        out.flush().await?;
        tokio::fs::rename(&partial, &file).await
    };
    let outcome = copied.await;
    if outcome.is_err() {
        // Half an archive is of no use to anybody.
        let _ = tokio::fs::remove_file(&partial).await;
    }
    outcome.map_err(failed)
}

/// A file, or standard input.
async fn open(session: &Session, file: Option<&Path>) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
    match file {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|e| Failure::local(format!("cannot read {}", path.display()), &e))?;
            Ok(Box::new(file))
        }
        None if session.stdin_is_terminal => {
            Err(Failure::usage("an archive was expected on standard input").hint("name it: -i FILE"))
        }
        None => Ok(Box::new(Box::pin(Input::stdin().into_reader()))),
    }
}

/// `holm save`.
///
/// # Errors
/// As [`fetch`].
pub async fn save(session: &Session, images: &[String], file: Option<PathBuf>) -> Result {
    let names: Vec<(&str, &str)> = images.iter().map(|name| ("names", name.as_str())).collect();
    fetch(session, &format!("/images/get{}", query(&names)), file).await
}

/// `holm load`.
///
/// # Errors
/// As the door refuses; the archive cannot be read.
pub async fn load(session: &Session, args: &LoadArgs) -> Result {
    let archive = open(session, args.input.as_deref()).await?;
    let lines =
        session.client.docker_lines(Method::POST, "/images/load", DockerBody::Archive(archive), None).await?;
    progress::show(session, lines).await.map(drop)
}

/// `holm import`.
///
/// # Errors
/// As the door refuses; the archive cannot be read.
pub async fn import(session: &Session, args: &ImportArgs) -> Result {
    let is_input = args.file.as_os_str() == "-";
    let archive = open(session, (!is_input).then_some(args.file.as_path())).await?;
    let (repository, tag) = args.name.as_deref().map_or(("", ""), super::image::split_tag);
    let mut asked =
        engine::query(&[("fromSrc", "-"), ("repo", repository), ("tag", tag), ("message", &args.message)]);
    for change in &args.change {
        asked.push_str(&query(&[("changes", change)]).replacen('?', "&", 1));
    }
    let path = format!("/images/create{asked}");
    let lines = session.client.docker_lines(Method::POST, &path, DockerBody::Archive(archive), None).await?;
    progress::show(session, lines).await.map(drop)
}
