//! One question by gRPC: `grpc.health.v1.Health/Check`, a single call over HTTP/2 without TLS.
//!
//! Of HTTP/2 (RFC 9113) this speaks what one call needs: the preface, one request, and the frames that a server may send
//! until the answer is there. Header fields of the answer are passed over and not unpacked: what counts is the message,
//! which a call that failed has not. Source of the message: grpc/health/v1/health.proto.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// First bytes of a client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame that a server may send, since nothing else was agreed on (section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// Most frames until the answer must be there.
const FRAMES_MAX: usize = 64;
/// Most bytes of the answer's message.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Types of frames (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
/// Flags: a settings or ping frame answers, a stream ends, header fields end, and bytes follow that say nothing.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The stream of the only call.
const STREAM: u32 = 1;
/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Asks for the health of a service; of the server as a whole where the name is empty. `Ok` is SERVING.
///
/// # Errors
/// What was answered instead, in words.
pub(super) async fn check<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    authority: &str,
    service: &str,
) -> Result<(), String> {
    let lost = |error: io::Error| format!("no answer: {error}");
    stream.write_all(&question(authority, service)).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut message = Vec::new();
    for _ in 0..FRAMES_MAX {
        let (kind, flags, at, body) = frame(&mut stream).await?;
        match (kind, at) {
            (SETTINGS, 0) if flags & ACK == 0 => {
                stream.write_all(&framed(SETTINGS, ACK, 0, &[])).await.map_err(lost)?;
            }
            (PING, 0) if flags & ACK == 0 => {
                stream.write_all(&framed(PING, ACK, 0, &body)).await.map_err(lost)?;
            }
            (DATA, STREAM) => {
                message
                    .extend_from_slice(unpadded(&body, flags).ok_or("no answer by HTTP/2: a broken frame")?);
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(format!("an answer of more than {MESSAGE_BYTES_MAX} bytes"));
                }
                if let Some(answer) = whole(&message) {
                    return judged(answer?);
                }
                if flags & END_STREAM != 0 {
                    return Err(refused(service));
                }
            }
            // Without a message before it: the call failed.
            (HEADERS, STREAM) if flags & END_STREAM != 0 => return Err(refused(service)),
            (RESET, STREAM) => return Err(format!("the call was reset ({})", number(&body, 0))),
            (GO_AWAY, 0) => return Err(format!("the server goes away ({})", number(&body, 4))),
            // More settings, windows, header fields: nothing that an answer depends on.
            _ => {}
        }
    }
    Err(format!("no answer within {FRAMES_MAX} frames"))
}

fn refused(service: &str) -> String {
    match service {
        "" => "it does not answer grpc.health.v1.Health/Check".to_string(),
        name => format!("it tells no health of the service {name:.80} by grpc.health.v1.Health/Check"),
    }
}

/// All that a client sends: the preface, its settings, and the request with its end.
fn question(authority: &str, service: &str) -> Vec<u8> {
    // HealthCheckRequest: field 1, a text.
    let mut message = vec![];
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    // A message's head: not compressed, and its length.
    let mut data = vec![0];
    data.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    data.extend_from_slice(&message);
    [
        PREFACE.to_vec(),
        framed(SETTINGS, 0, 0, &[]),
        framed(HEADERS, END_HEADERS, STREAM, &header_fields(authority)),
        framed(DATA, END_STREAM, STREAM, &data),
    ]
    .concat()
}

/// The header fields, packed without a table of their own (RFC 7541, sections 6.1 and 6.2.2; appendix A has the indices).
fn header_fields(authority: &str) -> Vec<u8> {
    // :method POST and :scheme http are in the table as a whole.
    let mut block = vec![0x83, 0x86];
    let known = |index: u8, value: &str, block: &mut Vec<u8>| {
        // An index above 14 does not fit in the four bits that are there for it.
        match index.checked_sub(15) {
            None => block.push(index),
            Some(more) => block.extend([15, more]),
        }
        text(value, block);
    };
    known(4, "/grpc.health.v1.Health/Check", &mut block);
    known(1, authority, &mut block);
    known(31, "application/grpc", &mut block);
    known(58, "holm-probe", &mut block);
    block.push(0);
    text("te", &mut block);
    text("trailers", &mut block);
    block
}

/// A text as it is, after its length (RFC 7541, section 5.2). All of them are short.
fn text(value: &str, block: &mut Vec<u8>) {
    debug_assert!(value.len() < 127);
    block.push(u8::try_from(value.len()).unwrap_or(0) & 0x7f);
    block.extend_from_slice(value.as_bytes());
}

fn framed(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// One frame: its type, flags, stream and body.
async fn frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u8, u8, u32, Vec<u8>), String> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_string(),
        _ => format!("no answer: {error}"),
    };
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.map_err(lost)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err("no answer by HTTP/2".into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(lost)?;
    // The highest bit is reserved.
    let at = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok((head[3], head[4], at, body))
}

/// What a data frame carries.
fn unpadded(body: &[u8], flags: u8) -> Option<&[u8]> {
    if flags & PADDED == 0 {
        return Some(body);
    }
    let (padding, rest) = body.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// The message, once it is there as a whole.
fn whole(bytes: &[u8]) -> Option<Result<&[u8], String>> {
    let (head, rest) = bytes.split_at_checked(5)?;
    if head[0] != 0 {
        return Some(Err("a compressed answer, which was not asked for".into()));
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    rest.get(..length).map(Ok)
}

/// `HealthCheckResponse`: field 1 is its status, 0 where it is missing. It has no other field, and others are passed over.
fn judged(message: &[u8]) -> Result<(), String> {
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let broken = || "an answer that is no HealthCheckResponse".to_string();
        let key = take_varint(&mut rest).ok_or_else(broken)?;
        let skipped = match key & 7 {
            0 => {
                let value = take_varint(&mut rest).ok_or_else(broken)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut rest).ok_or_else(broken)?).unwrap_or(usize::MAX),
            5 => 4,
            _ => return Err(broken()),
        };
        rest = rest.get(skipped..).ok_or_else(broken)?;
    }
    let word = usize::try_from(status).ok().and_then(|at| STATUSES.get(at));
    match status {
        SERVING => Ok(()),
        _ => Err(format!("it answered {}", word.map_or_else(|| status.to_string(), ToString::to_string))),
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 127 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << (7 * place).min(63);
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

fn number(body: &[u8], at: usize) -> u32 {
    body.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests;
