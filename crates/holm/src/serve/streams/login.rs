//! A console that somebody was logged in at without a password: closed to the next one when they leave.

use model::id::InstanceId;
use node::{
    driver::{Driver, DriverError},
    instance::sentence,
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// A console's bytes, and the end of the log in with them.
pub struct LoggedIn {
    stream: UnixStream,
    driver: Arc<dyn Driver>,
    id: InstanceId,
}

/// Opens the console of an instance and has its guest let root in there.
///
/// # Errors
/// As the driver. What was half done is ended.
pub async fn open(driver: Arc<dyn Driver>, id: InstanceId) -> Result<LoggedIn, DriverError> {
    // The console is open first, so that nothing that root is greeted with is missed.
    let stream = driver.console(id).await?;
    let console = LoggedIn { stream, driver: Arc::clone(&driver), id };
    driver.open_login(id).await?;
    Ok(console)
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        let (driver, id) = (Arc::clone(&self.driver), self.id);
        tokio::spawn(async move {
            match driver.close_login(id).await {
                // Where nobody can close it nobody has opened it.
                Ok(()) | Err(DriverError::Unsupported { .. }) => {}
                Err(error) => {
                    let error = sentence(&error);
                    tracing::warn!(instance = %id, error, "the log in at the console could not be ended");
                }
            }
        });
    }
}

impl AsyncRead for LoggedIn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LoggedIn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
