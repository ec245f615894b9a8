//! A connection to a port of an instance, however it came about.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connection to a port of an instance.
#[derive(Debug)]
pub enum Dialed {
    /// Made by this process in the instance's network.
    Tcp(TcpStream),
    /// Made inside of the instance's own machine, and led here.
    Led(UnixStream),
}

impl Dialed {
    /// Whom it is with; the instance itself, where only that knows its address.
    pub fn peer(&self) -> IpAddr {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |at| at.ip()),
            Self::Led(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl AsyncRead for Dialed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Led(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Led(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Led(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Led(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
