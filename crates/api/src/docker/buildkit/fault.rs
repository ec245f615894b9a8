//! Refusals as BuildKit's clients show them: in words, and with the lines of the Dockerfile that they are about.

use super::{
    grpc::{Code, Status},
    wire::Any,
};
use crate::{docker::build::Failed, docker::frame::told, error::Failure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

/// What a client calls the part of an error that says where it is. Its value is JSON.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
/// Most bytes of a Dockerfile that is sent back to its client.
const SOURCE_BYTES_MAX: usize = 64 << 10;

/// A refusal.
pub fn refused(failure: &Failure) -> Status {
    // Clients put the names of other codes in front of the text.
    Status::new(Code::Unknown, told(failure))
}

/// A build that failed; `name` is its Dockerfile's.
pub fn failed(failed: &Failed, name: &str) -> Status {
    let mut status = refused(&failed.failure);
    if failed.line > 0 && failed.dockerfile.len() <= SOURCE_BYTES_MAX {
        let end = last_line(&failed.dockerfile, failed.line);
        let source = json!({
            "info": { "filename": name, "data": STANDARD.encode(&failed.dockerfile), "language": "Dockerfile" },
            "ranges": [{ "start": { "line": failed.line }, "end": { "line": end } }],
        });
        status.details.push(Any { type_url: SOURCE.into(), value: source.to_string().into_bytes() });
    }
    status
}

/// The last line of an instruction that begins on `first`: those that end with a backslash go on.
fn last_line(text: &[u8], first: u32) -> u32 {
    let lines = text.split(|byte| *byte == b'\n').skip(first.saturating_sub(1) as usize);
    let goes_on = |line: &&[u8]| line.trim_ascii_end().ends_with(b"\\");
    first + u32::try_from(lines.take_while(goes_on).count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn an_error_says_where_it_is() {
        let text = b"FROM busybox\nRUN a \\\n  b\nRUN c\n".to_vec();
        let failure = Failure::new(model::error::Code::Conflict, "why");
        let one = |line| Failed { failure: failure.clone(), line, dockerfile: text.clone() };
        let status = failed(&one(2), "Dockerfile");
        assert_eq!((status.code, status.message.as_str()), (Code::Unknown, "why"));
        let told: Value = serde_json::from_slice(&status.details[0].value).unwrap();
        assert_eq!(told["ranges"], json!([{ "start": { "line": 2 }, "end": { "line": 3 } }]));
        assert_eq!(told["info"]["filename"], "Dockerfile");
        assert!(failed(&one(0), "Dockerfile").details.is_empty());
        assert_eq!(last_line(&text, 4), 4);
        assert_eq!(last_line(&text, 9), 9);
    }
}
