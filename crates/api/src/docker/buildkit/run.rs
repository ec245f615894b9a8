//! A build for a client that gives its files by a session, from its beginning to its end.

use super::{
    asked::{Files, Read},
    fault,
    grpc::{Code, Result, Status},
    progress::Progress,
    session::Session,
    wire::StatusResponse,
};
use crate::docker::{
    build::{Builder, Client, Context, Tell},
    door::Door,
    image::Logins,
};
use control::Caller;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A build that is to be done.
pub struct Run {
    /// Where.
    pub door: Door,
    /// Who asks for it.
    pub caller: Caller,
    /// Who gives its files.
    pub session: Arc<Session>,
    /// What is asked for.
    pub read: Read,
    /// Where its steps are told.
    pub events: mpsc::Sender<StatusResponse>,
    /// Makes ids of steps its own.
    pub seed: String,
}

impl Run {
    /// Builds, and gives the image's id. Dropped, and when the session or the server ends, it is cut off and leaves nothing.
    ///
    /// # Errors
    /// Why there is no image, with the lines of the Dockerfile that are meant.
    pub async fn build(self) -> Result<String> {
        let Self { door, caller, session, read, events, seed } = self;
        let place = door.app().build_place(&caller).map_err(|failure| fault::refused(&failure))?;
        let name = read.asked.dockerfile.clone();
        let context = match read.files {
            Files::Directories { dockerfile, context } => {
                Context::Client(Client { session: Arc::clone(&session), dockerfile, context })
            }
            Files::Archive(id) => {
                Context::Archive(session.archive(&id).await.map_err(|failure| fault::refused(&failure))?)
            }
        };
        let cut = CancellationToken::new();
        let _end = cut.clone().drop_guard();
        let (lost, stopping) = (session.ended.clone(), door.app().stopping().clone());
        let (over, watched) = (CancellationToken::new(), cut.clone());
        let ended = over.clone();
        let tasks = door.app().tasks().clone();
        tasks.spawn(async move {
            tokio::select! {
                () = lost.cancelled() => watched.cancel(),
                () = stopping.cancelled() => watched.cancel(),
                () = over.cancelled() => {}
            }
        });
        let tell = Tell::Steps(Progress::new(events, seed));
        let builder =
            Builder::new(door, caller, read.asked, Logins::default(), tell, cut).of_session(session);
        let (done, outcome) = oneshot::channel();
        tasks.spawn(async move {
            let (_place, _over) = (place, ended.drop_guard());
            let _ = done.send(builder.build(context).await);
        });
        match outcome.await {
            Ok(Ok(image)) => Ok(image),
            Ok(Err(failed)) => Err(fault::failed(&failed, &name)),
            Err(_) => Err(Status::new(Code::Unknown, "holm made a mistake and lost this build")),
        }
    }
}
