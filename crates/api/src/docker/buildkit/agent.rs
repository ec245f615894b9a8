//! SSH agents of a client: a session lends them to programs of its builds (`moby.sshforward.v1.SSH`). Keys never leave the client;
//! what goes through here is what a program and the agent say to each other, and it is not read.

use super::{
    grpc::{Code, framed},
    session::{Call, Session},
    wire::{AgentRequest, BytesMessage, Empty},
};
use crate::error::Result;
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Header with the agent that a connection is for.
const AGENT: &str = "buildkit.ssh.id";
/// How long a connection may be without a word: programs keep one as long as they run.
const SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 32 << 10;

impl Session {
    /// Whether the client lends an agent under this name.
    ///
    /// # Errors
    /// The client does not answer.
    pub async fn has_agent(&self, id: &str) -> Result<bool> {
        if !self.serves(CHECK) || !self.serves(FORWARD) {
            return Ok(false);
        }
        match self.call::<Empty>(CHECK, &AgentRequest { id: id.to_string() }).await {
            Ok(_) => Ok(true),
            Err(status) if matches!(status.code, Code::Unavailable | Code::Deadline) => Err(status.failure()),
            // Clients say of one that they do not lend that it is not set.
            Err(_) => Ok(false),
        }
    }

    /// Leads a program's connection to an agent of the client, until either ends it.
    pub async fn forward(&self, id: &str, program: UnixStream) {
        let name = [id.to_string()];
        let Call { send, mut answer } = match self.open(FORWARD, &[(AGENT, &name[..])]).await {
            Ok(call) => call,
            Err(status) => return tracing::debug!(message = status.message, "an agent was not reached"),
        };
        let (mut from_program, mut to_program) = program.into_split();
        let asking = async move {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = from_program.read(&mut piece).await {
                let data = Bytes::copy_from_slice(&piece[..count]);
                if send.send(framed(&BytesMessage { data })).await.is_err() {
                    return;
                }
            }
        };
        let answering = async move {
            while let Ok(Some(BytesMessage { data })) = answer.next(SILENCE).await {
                if to_program.write_all(&data).await.is_err() {
                    return;
                }
            }
        };
        // A program that has asked all may wait for the answer; an agent that is gone is the end of both.
        let mut asking = std::pin::pin!(asking);
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            () = &mut answering => {}
            () = &mut asking => answering.await,
        }
    }
}
