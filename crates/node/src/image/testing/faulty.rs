//! A tiny HTTP server that does what it is told, faults included.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub cut_at: Option<usize>,
    /// Waits before each byte of the body.
    pub delay: Option<Duration>,
    /// Waits before the head.
    pub silence: Option<Duration>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_at: None, delay: None, silence: None }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    pub fn cut_at(mut self, count: usize) -> Self {
        self.cut_at = Some(count);
        self
    }
}

/// The server; ends with this value.
pub struct FaultyServer {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

impl FaultyServer {
    /// Answers each request by `handler`, which is told how many requests for the same path came before.
    pub async fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(handler, None).await
    }

    /// The same over TLS.
    pub async fn start_with(
        handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, handler) = (seen.clone(), Arc::new(handler) as Arc<Handler>);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, handler, tls) = (log.clone(), handler.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &log, &*handler).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &log, &*handler).await,
                            Err(error) => Err(error),
                        },
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    pub fn requests(&self, part: &str) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("not poisoned")
            .iter()
            .filter(|seen| seen.path.contains(part))
            .cloned()
            .collect()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    log: &Mutex<Vec<Seen>>,
    handler: &Handler,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
        if head.len() == 1 && byte == 0x16 {
            // A TLS hello to a plain server: answered as real servers do.
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request").await?;
            return stream.shutdown().await;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let seen = Seen {
        method: first.next().unwrap_or_default().to_string(),
        path: first.next().unwrap_or_default().to_string(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
    };
    let before = {
        let mut log = log.lock().expect("not poisoned");
        let before = log.iter().filter(|old| old.path == seen.path).count();
        log.push(seen.clone());
        before
    };
    let reply = handler(&seen, before);
    if let Some(silence) = reply.silence {
        tokio::time::sleep(silence).await;
    }
    let mut answer = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str(&format!("content-length: {}\r\n\r\n", reply.body.len()));
    stream.write_all(answer.as_bytes()).await?;
    let body =
        if seen.method == "HEAD" { &[] } else { &reply.body[..reply.cut_at.unwrap_or(reply.body.len())] };
    match reply.delay {
        None => stream.write_all(body).await?,
        Some(delay) => {
            for byte in body {
                stream.write_u8(*byte).await?;
                stream.flush().await?;
                tokio::time::sleep(delay).await;
            }
        }
    }
    stream.shutdown().await
}
