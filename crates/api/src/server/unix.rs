//! The local socket: the kernel says who is at the other end.

use super::{Accept, Bounds, Connections, ServerError, guard::Guarded};
use crate::{auth::Peer, limits::WRITE_STALL_TIMEOUT_LOCAL};
use axum::Router;
use std::{
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Who may open the socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// Group that may open it beside the owner.
    pub gid: Option<u32>,
}

/// A bound local socket.
#[derive(Debug)]
pub struct UnixServer {
    listener: UnixListener,
    path: PathBuf,
    bounds: Bounds,
}

impl UnixServer {
    /// Binds the socket: mode 0660 with a group, 0600 without. A socket that nobody listens on is replaced.
    ///
    /// # Errors
    /// Another process listens there, or the path cannot be used.
    pub async fn bind(path: &Path, access: SocketAccess) -> Result<Self, ServerError> {
        let shown = path.display();
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServerError::InUse(shown.to_string()));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ServerError::io(format!("removing the old socket {shown}"))(error));
            }
            _ => {}
        }
        // Until its mode is set nobody may connect: it is made under another name in the same directory.
        let making = path.with_extension(format!("new-{}", std::process::id()));
        let _ = std::fs::remove_file(&making);
        let listener =
            UnixListener::bind(&making).map_err(ServerError::io(format!("binding the socket {shown}")))?;
        let mode = if access.gid.is_some() { 0o660 } else { 0o600 };
        chown(&making, None, access.gid)
            .and_then(|()| std::fs::set_permissions(&making, std::fs::Permissions::from_mode(mode)))
            .and_then(|()| std::fs::rename(&making, path))
            .map_err(ServerError::io(format!("preparing the socket {shown}")))?;
        let bounds = Bounds { stall_timeout: WRITE_STALL_TIMEOUT_LOCAL, ..Bounds::default() };
        Ok(Self { listener, path: path.to_path_buf(), bounds })
    }

    /// The same with other bounds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Serves until `stopping` is cancelled and what is on its way has ended; then the socket is gone.
    pub async fn serve(self, router: Router, stopping: CancellationToken) {
        let connections = Connections::new(router, self.bounds, stopping);
        connections.run(&self.listener, |stream: Guarded<UnixStream>| async move { Ok(stream) }).await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

impl Accept for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let peer = stream.peer_cred()?;
        let peer = Peer::Unix { uid: peer.uid(), pid: peer.pid().unwrap_or(0) };
        Ok((stream, peer))
    }
}
