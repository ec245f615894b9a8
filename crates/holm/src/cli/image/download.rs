//! `holm image download`: an image's bytes into a file, whole or not at all.

use crate::cli::{
    completion,
    failure::{Failure, Result},
    session::Session,
    wait::{Line, bar, percent},
    wording,
};
use futures::StreamExt;
use std::{os::fd::AsFd, path::PathBuf};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Which image, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("images"))]
    pub image: String,
    /// File to write, which must not exist; - for standard output
    #[arg(long, short, value_name = "FILE")]
    pub file: PathBuf,
}

/// Fetches the bytes.
///
/// # Errors
/// As the server refuses, or the file cannot be written.
pub async fn run(session: &Session, args: Args) -> Result {
    let (total, bytes) = session.client.download_image(&args.image).await?;
    if args.file.as_os_str() == "-" {
        let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::output(&e))?;
        let mut output = tokio::fs::File::from_std(output.into());
        copy(session, &args.image, total, bytes, &mut output).await?;
        return Ok(());
    }
    let failed = |e: std::io::Error| Failure::local(format!("cannot write {}", args.file.display()), &e);
    let mut file = tokio::fs::File::create_new(&args.file).await.map_err(failed)?;
    match copy(session, &args.image, total, bytes, &mut file).await {
        Ok(count) => {
            session.say(format!(
                "image {} is in {} ({})",
                args.image,
                args.file.display(),
                wording::bytes(count)
            ));
            Ok(())
        }
        Err(failure) => {
            // Half an image is of no use to anybody.
            let _ = tokio::fs::remove_file(&args.file).await;
            Err(failure)
        }
    }
}

async fn copy(
    session: &Session,
    name: &str,
    total: Option<u64>,
    bytes: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<u64> {
    let mut line = Line::new(session);
    let mut bytes = std::pin::pin!(bytes);
    let mut count = 0;
    let failed = |e: std::io::Error| Failure::local(format!("image {name} did not come whole"), &e);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(failed)?;
        output.write_all(&chunk).await.map_err(failed)?;
        count += chunk.len() as u64;
        if session.stderr_is_terminal {
            let text = match total.filter(|total| *total > 0) {
                Some(total) => format!("{name}: {} {} %", bar(count, total), percent(count, total)),
                None => format!("{name}: {}", wording::bytes(count)),
            };
            line.tell(&text);
        }
    }
    output.flush().await.map_err(failed)?;
    line.clear();
    if total.is_some_and(|total| total != count) {
        let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(failed(cut));
    }
    Ok(count)
}
