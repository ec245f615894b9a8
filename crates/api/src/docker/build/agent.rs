//! `RUN --mount=type=ssh`: a socket that leads to an SSH agent of the client, as long as the step's program runs.
//!
//! ```text
//!   program ── SSH_AUTH_SOCK, a file of a volume of the step ── this daemon ── the client's session ── its agent
//! ```
//!
//! The container reaches the socket alone: its file is mounted, not the directory, and the volume goes with the step.

use super::{builder::Builder, mounts::Extra};
use crate::{
    docker::buildkit::Session,
    error::{Failure, Result},
    streams::SocketAsked,
};
use control::{
    instance::{DiskAsked, VolumeAsked},
    volume::{Attach, NewVolume},
};
use model::{
    error::Code,
    instance::{
        Instance,
        content::{self, Shows},
        tag::Tag,
    },
    volume::Volume,
};
use std::sync::Arc;
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Name of a socket in its volume.
const SOCKET: &str = "agent";
/// Size of such a volume in GiB: nothing is written to it.
const VOLUME_GIB: u64 = 1;
/// Most connections to one agent at a time; more wait.
const CONNECTIONS_MAX: usize = 16;

/// An agent that a step's program finds.
#[derive(Debug, Clone)]
pub struct Agent {
    /// What the client calls it.
    id: String,
    /// Where the program finds it.
    pub target: String,
    /// The volume that has its socket.
    tag: Tag,
    /// Permissions, owner and group of the socket.
    made: (u32, u32, u32),
}

/// Agents that are lent, until this is dropped.
#[derive(Default)]
pub struct Lent(Vec<DropGuard>);

impl Builder {
    /// Adds the socket of an agent, if the client has it.
    pub(super) async fn lend_agent(
        &self,
        extra: &mut Extra,
        id: &str,
        target: &str,
        is_required: bool,
        made: (u32, u32, u32),
    ) -> Result<()> {
        let has = match &self.session {
            Some(session) => self.unless_cut(session.has_agent(id)).await?,
            None => false,
        };
        if !has && is_required {
            let message = format!("no SSH key {id:.100?} forwarded from the client");
            let hint = if id == "default" { "give it by --ssh default" } else { "give it by --ssh ID=PATH" };
            return Err(Failure::new(Code::NotFound, message).hint(hint));
        }
        if !has {
            return Ok(());
        }
        let tag = format!("agent-{}", extra.agents.len()).parse::<Tag>();
        let tag = tag.map_err(|_| Failure::new(Code::Internal, "a tag is none"))?;
        let new = NewVolume { size_gib: Some(VOLUME_GIB), ..NewVolume::default() };
        let attach = Attach { tag: Some(tag.clone()), delete_with_instance: Some(true), ..Attach::default() };
        extra.volumes.push(VolumeAsked { disk: DiskAsked::New(new), attach });
        extra.shown.push(content::Mount {
            shows: Shows::Volume(tag.clone()),
            path: target.into(),
            sub_path: Some(SOCKET.into()),
            group: None,
            read_only: true,
        });
        extra.agents.push(Agent { id: id.into(), target: target.into(), tag, made });
        Ok(())
    }

    /// Makes the sockets of a step's agents in its volumes, which are there, and answers them.
    pub(super) async fn open_agents(&self, room: &Instance, extra: &Extra) -> Result<Lent> {
        let mut lent = Lent::default();
        let Some(session) = self.session.as_ref().filter(|_| !extra.agents.is_empty()) else {
            return Ok(lent);
        };
        for agent in &extra.agents {
            let has_tag = |id: &&_| {
                let volume = self.door.control().get::<Volume>(**id);
                volume.is_some_and(|volume| volume.record.device_tag.as_ref() == Some(&agent.tag))
            };
            let missing = || Failure::new(Code::Internal, "the volume of an agent is not there");
            let volume = room.volumes.iter().find(has_tag).ok_or_else(missing)?;
            let (mode, uid, gid) = agent.made;
            let asked = SocketAsked { name: SOCKET, mode, uid, gid };
            let listener = self.door.app().streams().volume_socket(*volume, asked).await?;
            let over = self.cut.child_token();
            let (session, id) = (Arc::clone(session), agent.id.clone());
            self.door.app().tasks().spawn(over.clone().run_until_cancelled_owned(answer(
                listener,
                session,
                id,
                self.door.app().tasks().clone(),
                over.clone(),
            )));
            lent.0.push(over.drop_guard());
        }
        Ok(lent)
    }
}

/// Leads each connection to the agent.
async fn answer(
    listener: UnixListener,
    session: Arc<Session>,
    id: String,
    tasks: tokio_util::task::TaskTracker,
    over: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Closed never: the listener ends with this.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((program, _)) = listener.accept().await else { return };
        let (session, id) = (Arc::clone(&session), id.clone());
        let forward = async move {
            let _place = place;
            session.forward(&id, program).await;
        };
        tasks.spawn(over.clone().run_until_cancelled_owned(forward));
    }
}
