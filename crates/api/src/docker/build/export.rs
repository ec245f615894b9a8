//! `--output`: what was built, given to the client. Its files as a directory or a tar are those of a container that stands on the
//! image and never runs; an archive of the image is what `docker save` makes.

use super::{builder::Builder, copy::idle, stage::Base};
use crate::{
    docker::{buildkit::Session, image::found},
    error::{Failure, Result},
    streams::PushStep,
};
use model::{error::Code, image_reference::Reference};
use std::sync::Arc;

/// Something that the client wants of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its number among all that were asked for.
    pub number: usize,
    /// What.
    pub kind: OutputKind,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// The files, in a directory.
    Files,
    /// The files, as a tar.
    Tar,
    /// The image with these names, as an archive that is an OCI layout and docker's own at once.
    Archive(Vec<String>),
}

impl Builder {
    /// Gives the client all that it wants.
    pub(super) async fn export(&self, base: &Base) -> Result<()> {
        for output in &self.asked.outputs {
            self.check()?;
            let missing = || Failure::new(Code::Invalid, "only a client with a session can be given files");
            let session = self.session.as_ref().ok_or_else(missing)?;
            match &output.kind {
                OutputKind::Files => {
                    self.tell.begin(|| "exporting to client directory".into()).await;
                    self.export_files(base, session, output.number, false).await?;
                }
                OutputKind::Tar => {
                    self.tell.begin(|| "exporting to client tarball".into()).await;
                    self.export_files(base, session, output.number, true).await?;
                }
                OutputKind::Archive(names) => {
                    self.tell.begin(|| "exporting to image archive".into()).await;
                    let names = names.iter().map(|name| found::parse(name)).collect::<Result<_>>()?;
                    let wanted = vec![(base.content.clone(), names)];
                    let archive = self.door.app().streams().images_out(wanted).await?;
                    self.unless_cut(session.send_file(output.number, archive)).await?;
                }
            }
            self.tell.end().await;
        }
        Ok(())
    }

    async fn export_files(
        &self,
        base: &Base,
        session: &Arc<Session>,
        number: usize,
        is_tar: bool,
    ) -> Result<()> {
        let room = self.enter(base, idle(None), Some(vec![])).await?;
        let streams = self.door.app().streams();
        let outcome = self.unless_cut(async {
            let all = streams.export(&room).await?;
            if is_tar {
                return session.send_file(number, all).await;
            }
            // A client asks for contents in an order of its own.
            let files = streams.source_archive(all, "").await?;
            session.send_directory(number, files).await
        });
        let outcome = outcome.await;
        self.leave(room.meta.id).await;
        outcome
    }

    /// Sends the image to the registries of its names.
    pub(super) async fn push_all(&self, base: &Base) -> Result<()> {
        for name in self.asked.tags.iter().filter(|_| self.asked.pushes) {
            let reference: Reference = found::parse(name)?;
            self.tell.begin(|| format!("pushing {reference}")).await;
            self.unless_cut(self.push(base, &reference)).await?;
            self.tell.end().await;
        }
        Ok(())
    }

    async fn push(&self, base: &Base, reference: &Reference) -> Result<()> {
        let login = match &self.session {
            Some(session) => session.login(reference).await?,
            None => None,
        };
        let reach = self.caller.reach();
        let mut steps = self.door.app().streams().push(&base.content, reference, login, reach).await?;
        while let Some(step) = steps.recv().await {
            match step {
                PushStep::Blob(digest) => self.tell.done(format!("pushing layer {digest}")).await,
                PushStep::Done { digest, .. } => {
                    self.tell.done(format!("pushing manifest for {reference}@{digest}")).await;
                    return Ok(());
                }
                PushStep::Failed(fault) => {
                    return Err(Failure::new(fault.code, fault.message).hint(&fault.hint));
                }
            }
        }
        Err(Failure::new(Code::Unavailable, format!("{reference} was not pushed to its end")))
    }
}
