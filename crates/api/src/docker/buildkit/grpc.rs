//! gRPC over HTTP/2, as far as BuildKit's clients need it: calls with one message each way, and streams.
//!
//! ```text
//!   a call     POST /package.Service/Method, content-type: application/grpc
//!   a message  0 (not compressed) │ length, 4 bytes, big-endian │ a protocol buffer
//!   its end    trailers: grpc-status, grpc-message (percent-encoded), grpc-status-details-bin (base64)
//! ```
//!
//! Source: gRPC's "PROTOCOL-HTTP2". Compression is not spoken: no client begins with it.

use super::wire::{Any, RpcStatus};
use crate::error::Failure;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use prost::Message;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Most bytes of a message. What BuildKit's clients send by themselves is far below it.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of details in the end of a call: they are a header.
const DETAILS_BYTES_MAX: usize = 256 << 10;
/// Bytes in front of a message.
const PREFIX_BYTES: usize = 5;

/// What a call's type is called.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// How a call ended if it did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Why.
    pub code: Code,
    /// In words.
    pub message: String,
    /// For programs.
    pub details: Vec<Any>,
}

/// Codes of gRPC (`google.rpc.Code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The caller went.
    Cancelled = 1,
    /// Told by the message alone: clients show it without a word in front.
    Unknown = 2,
    /// It cannot be asked so.
    Invalid = 3,
    /// It took too long.
    Deadline = 4,
    /// There is no such thing.
    NotFound = 5,
    /// A limit.
    Exhausted = 8,
    /// It is not served.
    Unimplemented = 12,
    /// The other side is not there.
    Unavailable = 14,
}

impl Code {
    fn of(number: i32) -> Self {
        match number {
            1 => Self::Cancelled,
            3 => Self::Invalid,
            4 => Self::Deadline,
            5 => Self::NotFound,
            8 => Self::Exhausted,
            12 => Self::Unimplemented,
            14 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// What calls give.
pub type Result<T> = std::result::Result<T, Status>;

impl Status {
    /// A code and its reason.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), details: vec![] }
    }

    /// As it is told within a message.
    pub fn of_message(status: RpcStatus) -> Self {
        Self { code: Code::of(status.code), message: status.message, details: status.details }
    }

    /// As a failure of this door.
    pub fn failure(&self) -> Failure {
        use model::error::Code as Kind;
        let kind = match self.code {
            Code::NotFound => Kind::NotFound,
            Code::Exhausted => Kind::TooLarge,
            Code::Deadline => Kind::Timeout,
            Code::Unimplemented => Kind::Unsupported,
            _ => Kind::Invalid,
        };
        Failure::new(kind, &self.message)
    }

    /// The headers that end a call with it.
    pub fn trailers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from(self.code as u16));
        if let Ok(value) = HeaderValue::from_str(&escaped(&self.message)) {
            map.insert("grpc-message", value);
        }
        if !self.details.is_empty() {
            let whole = RpcStatus {
                code: self.code as i32,
                message: self.message.clone(),
                details: self.details.clone(),
            };
            let bytes = whole.encode_to_vec();
            if bytes.len() <= DETAILS_BYTES_MAX
                && let Ok(value) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(bytes))
            {
                map.insert("grpc-status-details-bin", value);
            }
        }
        map
    }

    /// What the headers that end a call say; `None` if they are none.
    fn read(headers: &HeaderMap) -> Option<Result<()>> {
        let text = headers.get("grpc-status")?.to_str().unwrap_or("2");
        if text == "0" {
            return Some(Ok(()));
        }
        let message = headers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or("");
        Some(Err(Self::new(Code::of(text.parse().unwrap_or(2)), unescaped(message))))
    }
}

/// The headers that end a call which went well.
pub fn went_well() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))])
}

/// A text as a header has it: percent-encoded but for what can be printed.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let decoded = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A value for a header of a call to a client: as it is, or as BuildKit's clients read it where it cannot be (`true` then).
pub fn metadata(text: &str) -> (String, bool) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text {
        return (text.to_string(), false);
    }
    (query_escaped(text), true)
}

/// A text as a query has it (Go's `url.QueryEscape`).
pub fn query_escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // No message made here comes near this.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut out).expect("a buffer that grows has room");
    out.freeze()
}

/// Messages that come.
pub struct Messages<B = Incoming> {
    body: B,
    kept: BytesMut,
    end: Option<Result<()>>,
}

impl<B: Body<Data = Bytes> + Unpin> Messages<B>
where
    B::Error: fmt::Display,
{
    /// Those of a body. The head may tell the end already.
    pub fn new(body: B, head: &HeaderMap) -> Self {
        Self { body, kept: BytesMut::new(), end: Status::read(head) }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// How the call ended, limits, what is no message, and nothing for `patience`.
    pub async fn next<M: Message + Default>(&mut self, patience: Duration) -> Result<Option<M>> {
        let Some(bytes) = self.next_bytes(patience).await? else { return Ok(None) };
        let wrong = |error| Status::new(Code::Invalid, format!("a message cannot be read: {error}"));
        M::decode(bytes).map(Some).map_err(wrong)
    }

    async fn next_bytes(&mut self, patience: Duration) -> Result<Option<Bytes>> {
        loop {
            if let Some(whole) = self.whole()? {
                return Ok(Some(whole));
            }
            if let Some(end) = self.end.take() {
                // An end that is told once is the end for good.
                self.end = Some(end.clone());
                end?;
                if self.kept.is_empty() {
                    return Ok(None);
                }
                return Err(Status::new(Code::Invalid, "a message is cut off"));
            }
            let stalled =
                |_| Status::new(Code::Deadline, format!("nothing came for {} s", patience.as_secs()));
            match timeout(patience, self.body.frame()).await.map_err(stalled)? {
                None => self.end = Some(Ok(())),
                Some(Err(error)) => {
                    return Err(Status::new(Code::Unavailable, format!("the client is gone: {error}")));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.kept.extend_from_slice(&data),
                    Err(frame) => {
                        let told = frame.into_trailers().ok();
                        self.end = told.as_ref().and_then(Status::read).or(Some(Ok(())));
                    }
                },
            }
        }
    }

    /// Takes a message that is there as a whole.
    fn whole(&mut self) -> Result<Option<Bytes>> {
        if self.kept.len() < PREFIX_BYTES {
            return Ok(None);
        }
        if self.kept[0] != 0 {
            return Err(Status::new(Code::Unimplemented, "compressed messages are not read"));
        }
        let length = u32::from_be_bytes([self.kept[1], self.kept[2], self.kept[3], self.kept[4]]) as usize;
        if length > MESSAGE_BYTES_MAX {
            let message = format!("a message of {length} bytes is larger than {MESSAGE_BYTES_MAX}");
            return Err(Status::new(Code::Exhausted, message));
        }
        if self.kept.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.kept.advance(PREFIX_BYTES);
        Ok(Some(self.kept.split_to(length).freeze()))
    }

    /// The one message of a call, and its end.
    ///
    /// # Errors
    /// As [`Self::next`]; none, or more than one.
    pub async fn only<M: Message + Default>(&mut self, patience: Duration) -> Result<M> {
        let missing = || Status::new(Code::Invalid, "the message is missing");
        let message = self.next(patience).await?.ok_or_else(missing)?;
        match self.next_bytes(patience).await? {
            None => Ok(message),
            Some(_) => Err(Status::new(Code::Invalid, "there is more than one message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::buildkit::wire::StatusRequest;
    use http_body_util::Full;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn messages(bytes: Vec<u8>) -> Messages<Full<Bytes>> {
        Messages::new(Full::new(bytes.into()), &HeaderMap::new())
    }

    #[tokio::test]
    async fn messages_are_framed() {
        let one = StatusRequest { reference: "x".repeat(300) };
        let bytes = [framed(&one), framed(&StatusRequest::default())].concat();
        let mut both = messages(bytes.clone());
        assert_eq!(both.next::<StatusRequest>(PATIENCE).await.unwrap(), Some(one.clone()));
        assert_eq!(both.next::<StatusRequest>(PATIENCE).await.unwrap(), Some(StatusRequest::default()));
        assert_eq!(both.next::<StatusRequest>(PATIENCE).await.unwrap(), None);
        assert_eq!(messages(framed(&one).to_vec()).only::<StatusRequest>(PATIENCE).await.unwrap(), one);
        assert!(messages(bytes).only::<StatusRequest>(PATIENCE).await.is_err(), "there are two");
        assert!(messages(vec![]).only::<StatusRequest>(PATIENCE).await.is_err(), "there is none");
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let too_large = [&[0][..], &(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes()].concat();
        for (bytes, words) in [
            (too_large, "larger than"),
            (vec![1, 0, 0, 0, 0], "compressed"),
            (vec![0, 0, 0, 0, 2, 1], "cut off"),
            (vec![0, 0, 0, 0, 2, 10, 9], "cannot be read"),
        ] {
            let error = messages(bytes).next::<StatusRequest>(PATIENCE).await.unwrap_err();
            assert!(error.message.contains(words), "{words}: {error:?}");
        }
    }

    #[test]
    fn ends_are_told_in_headers() {
        let status = Status::new(Code::Unknown, "line\n2: 100 % ä");
        assert_eq!(status.trailers()["grpc-message"], "line%0A2: 100 %25 %C3%A4");
        assert_eq!(Status::read(&status.trailers()), Some(Err(status)));
        assert_eq!(Status::read(&went_well()), Some(Ok(())));
        assert_eq!(Status::read(&HeaderMap::new()), None);
        assert_eq!(unescaped("%zz%2"), "%zz%2");
        assert_eq!(metadata("**/x y"), ("**/x y".into(), false));
        assert_eq!(metadata("ä/x y%"), ("%C3%A4%2Fx+y%25".into(), true));
    }
}
