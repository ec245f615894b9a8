//! Streams of the client: consoles, programs, logs and changes.

use super::{Client, Error, build, full, path, with_query};
use crate::{
    frame::{FrameCodec, PROTOCOL},
    v1::types::{
        build::BuildLine,
        event::{Change, EventQuery},
        instance::Instance,
        stream::{AttachQuery, ConsoleLogQuery, ConsoleQuery, ExecRequest, LogFormat, LogLine, LogQuery},
    },
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use tokio_util::codec::Framed;

/// Longest line of a line-wise stream in bytes.
pub const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Plain bytes both ways, after the upgrade.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;
/// Frames both ways, after the upgrade: see [`crate::frame`].
pub type FrameStream = Framed<Upgraded, FrameCodec>;
/// Changes as they come.
pub type Changes = Lines<Change>;
/// What a build tells as it goes on.
pub type BuildLines = Lines<BuildLine>;
/// Lines of a log as they come.
pub type LogLines = Lines<LogLine>;

/// An answer with one JSON value per line.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), kind: PhantomData }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or a line cannot be read.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| Error::Protocol(format!("a line cannot be read: {e}")));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Error::Protocol("a line does not end".to_string()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => return Err(Error::Protocol(format!("the stream broke off: {e}"))),
            }
        }
    }
}

/// An answer whose bytes come as they are written.
#[derive(Debug)]
pub struct ByteStream(Incoming);

impl ByteStream {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(e)) => return Err(Error::Protocol(format!("the stream broke off: {e}"))),
            }
        }
    }
}

impl Client {
    /// Changes from now on, until the receiver is dropped.
    pub async fn follow_events(&self, query: &EventQuery) -> Result<Changes, Error> {
        let query = EventQuery { follow: Some(1), ..query.clone() };
        let request = self.request(Method::GET, &with_query("/v1/events", &query));
        Ok(Lines::new(self.open(build(request, full(Vec::new()))?).await?.into_body()))
    }

    /// Lines of a container's log.
    pub async fn logs(&self, instance: &str, query: &LogQuery) -> Result<LogLines, Error> {
        let query = LogQuery { format: Some(LogFormat::Ndjson), ..query.clone() };
        self.open_logs(instance, &query).await.map(Lines::new)
    }

    /// Bytes of a container's log.
    pub async fn logs_plain(&self, instance: &str, query: &LogQuery) -> Result<ByteStream, Error> {
        let query = LogQuery { format: Some(LogFormat::Plain), ..query.clone() };
        self.open_logs(instance, &query).await.map(ByteStream)
    }

    async fn open_logs(&self, instance: &str, query: &LogQuery) -> Result<Incoming, Error> {
        let path = format!("{}/logs", path::<Instance>(instance));
        let request = self.request(Method::GET, &with_query(&path, query));
        Ok(self.open(build(request, full(Vec::new()))?).await?.into_body())
    }

    /// The end of what the console showed.
    pub async fn console_log(&self, instance: &str, query: &ConsoleLogQuery) -> Result<Bytes, Error> {
        let path = format!("{}/console-log", path::<Instance>(instance));
        let request = self.request(Method::GET, &with_query(&path, query));
        let answer = self.open(build(request, full(Vec::new()))?).await?;
        super::read_all(answer.into_body()).await
    }

    /// The serial console or the first container's terminal.
    pub async fn console(&self, instance: &str, query: &ConsoleQuery) -> Result<Upgraded, Error> {
        let path = format!("{}/console", path::<Instance>(instance));
        self.upgrade(Method::GET, &with_query(&path, query), Vec::new()).await
    }

    /// The screen, as RFB (VNC).
    pub async fn vnc(&self, instance: &str) -> Result<Upgraded, Error> {
        let path = format!("{}/vnc", path::<Instance>(instance));
        self.upgrade(Method::GET, &path, Vec::new()).await
    }

    /// Runs a program in a container.
    pub async fn exec(&self, instance: &str, request: &ExecRequest) -> Result<FrameStream, Error> {
        let path = format!("{}/exec", path::<Instance>(instance));
        let body = serde_json::to_vec(request).map_err(|e| Error::Invalid(e.to_string()))?;
        let stream = self.upgrade(Method::POST, &path, body).await?;
        Ok(Framed::new(stream, FrameCodec))
    }

    /// Joins the standard streams of a container's own program.
    pub async fn attach(&self, instance: &str, query: &AttachQuery) -> Result<FrameStream, Error> {
        let path = format!("{}/attach", path::<Instance>(instance));
        let stream = self.upgrade(Method::GET, &with_query(&path, query), Vec::new()).await?;
        Ok(Framed::new(stream, FrameCodec))
    }

    async fn upgrade(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Upgraded, Error> {
        let mut request = self
            .request(method, path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, PROTOCOL);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let answer = self.open(build(request, full(body))?).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Protocol(format!("{path} did not switch to {PROTOCOL}")));
        }
        hyper::upgrade::on(answer)
            .await
            .map(TokioIo::new)
            .map_err(|e| Error::Protocol(format!("the upgrade failed: {e}")))
    }
}
