//! Where the files of a build are: in an archive that came with the call, or with a client that is asked for them.
//!
//! A client's directories are asked for one by one: the Dockerfile, what is to be left out, and the context only when a
//! step copies from it.

use super::builder::{Builder, wrong};
use crate::{
    docker::buildkit::{Session, Wanted, take},
    error::{Failure, Result},
    streams::{Reader, SourceFiles},
};
use model::{
    dockerfile::{
        DOCKERFILE_BYTES_MAX,
        ignore::{IGNORE_BYTES_MAX, Ignore},
    },
    error::Code,
};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What is left out, where the Dockerfile has no file of its own for that.
const IGNORE: &str = ".dockerignore";

/// Where the files of a build are.
pub enum Context {
    /// In an archive.
    Archive(Reader),
    /// With a client.
    Client(Client),
}

/// A client that has them.
pub struct Client {
    /// How it is asked.
    pub session: Arc<Session>,
    /// What it calls the directory of the Dockerfile.
    pub dockerfile: String,
    /// What it calls the context.
    pub context: String,
}

/// The files that are copied from.
pub(super) enum Files {
    /// Here.
    Here(Arc<dyn SourceFiles>),
    /// With a client, until they are needed.
    Client { client: Client, ignore: Ignore, taken: OnceCell<Arc<dyn SourceFiles>> },
}

impl Builder {
    /// Reads the Dockerfile, and what is left out of the context.
    pub(super) async fn read_context(&self, context: Context) -> Result<(Vec<u8>, Files)> {
        match context {
            Context::Archive(archive) => self.read_archive(archive).await,
            Context::Client(client) => self.read_client(client).await,
        }
    }

    /// Something of a client's or a registry's, unless nobody waits for it any more.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.cut.cancelled() => {
                self.check()?;
                Err(Failure::new(Code::Conflict, "cancelled"))
            }
        }
    }

    async fn read_archive(&self, archive: Reader) -> Result<(Vec<u8>, Files)> {
        let streams = self.door.app().streams();
        let context =
            self.unless_cut(async { Ok::<_, Failure>(streams.source_archive(archive, "").await?) }).await?;
        let name = &self.asked.dockerfile;
        let text = context.read(name, DOCKERFILE_BYTES_MAX as u64).await?;
        let text = text.ok_or_else(|| {
            let message = format!("Cannot locate specified Dockerfile: {name:.200}");
            Failure::new(Code::Invalid, message).hint("name it by -f, with a path below the context")
        })?;
        let ignore = match context.read(IGNORE, IGNORE_BYTES_MAX as u64).await? {
            None => Ignore::default(),
            Some(text) => Ignore::read(&text).map_err(|error| wrong(&error))?,
        };
        let context = if ignore.is_empty() { context } else { context.without(ignore).await? };
        Ok((text, Files::Here(context)))
    }

    async fn read_client(&self, client: Client) -> Result<(Vec<u8>, Files)> {
        client.session.check_files()?;
        let name = self.asked.dockerfile.clone();
        self.tell.begin(|| format!("[internal] load build definition from {name}")).await;
        let own_ignore = format!("{name}{IGNORE}");
        let lower_case = lower_case(&name);
        let paths = [&name, &own_ignore].into_iter().chain(&lower_case).cloned().collect();
        let wanted = Wanted { directory: client.dockerfile.clone(), paths, excludes: vec![] };
        let files = self.unless_cut(take(&self.door, &client.session, &wanted)).await?;
        let mut text = files.read(&name, DOCKERFILE_BYTES_MAX as u64).await?;
        if let (None, Some(other)) = (&text, &lower_case) {
            text = files.read(other, DOCKERFILE_BYTES_MAX as u64).await?;
        }
        let text = text.ok_or_else(|| {
            let message = format!("failed to read dockerfile: open {name:.200}: no such file or directory");
            Failure::new(Code::Invalid, message).hint("name it by -f")
        })?;
        self.tell.end().await;
        self.tell.begin(|| format!("[internal] load {IGNORE}")).await;
        let mut ignore = files.read(&own_ignore, IGNORE_BYTES_MAX as u64).await?;
        if ignore.is_none() {
            let paths = vec![IGNORE.to_string()];
            let wanted = Wanted { directory: client.context.clone(), paths, excludes: vec![] };
            let files = self.unless_cut(take(&self.door, &client.session, &wanted)).await?;
            ignore = files.read(IGNORE, IGNORE_BYTES_MAX as u64).await?;
        }
        let ignore = Ignore::read(&ignore.unwrap_or_default()).map_err(|error| wrong(&error))?;
        self.tell.end().await;
        Ok((text, Files::Client { client, ignore, taken: OnceCell::new() }))
    }

    /// The files that are copied from.
    pub(super) async fn files(&self, files: &Files) -> Result<Arc<dyn SourceFiles>> {
        let (client, ignore, taken) = match files {
            Files::Here(files) => return Ok(Arc::clone(files)),
            Files::Client { client, ignore, taken } => (client, ignore, taken),
        };
        let fetch = async {
            self.tell.begin(|| "[internal] load build context".into()).await;
            let wanted =
                Wanted { directory: client.context.clone(), paths: vec![], excludes: ignore.patterns() };
            let files = self.unless_cut(take(&self.door, &client.session, &wanted)).await?;
            // A client leaves out what it is asked to, or not.
            let files = if ignore.is_empty() { files } else { files.without(ignore.clone()).await? };
            self.tell.end().await;
            Ok::<_, Failure>(files)
        };
        taken.get_or_try_init(|| fetch).await.cloned()
    }
}

/// The name that a Dockerfile may have instead.
fn lower_case(name: &str) -> Option<String> {
    let (directory, base) = name.rsplit_once('/').map_or(("", name), |(directory, base)| (directory, base));
    let lower = base.to_ascii_lowercase();
    let joined = if directory.is_empty() { lower } else { format!("{directory}/{lower}") };
    (base == "Dockerfile").then_some(joined)
}
