//! Limits of this door. A limit is a name here, and a test goes just past it.

use std::time::Duration;

/// Most bytes of a JSON body.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of an image's content.
pub const IMAGE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024 * 1024;
/// Most bytes of a path with its query.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of all headers of a request.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Longest request id that is taken over from a client.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Most connections of one listener at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most of these from one remote address, unless the operator says otherwise; further ones are closed.
pub const CONNECTIONS_OF_ADDRESS: usize = 256;
/// Most streams (consoles, programs, logs, changes) at a time.
pub const STREAMS_MAX: usize = 512;
/// Most of these of one project, but for peers of the local sockets.
pub const STREAMS_OF_PROJECT: usize = 128;
/// Most images that are built at a time.
pub const BUILDS_MAX: usize = 32;
/// Most of these of one project, but for peers of the local sockets.
pub const BUILDS_OF_PROJECT: usize = 8;
/// Most bytes of what one image is built from.
pub const CONTEXT_BYTES_MAX: u64 = 32 << 30;
/// Most bytes of the console's log in one answer.
pub const CONSOLE_LOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for a client to send all headers, also of the next request on a kept connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a client to send a JSON body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that an upload may stand still.
pub const UPLOAD_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a client may take nothing of what is sent to it. People look at a page of a log for a while.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// The same on the local sockets, whose users may turn off the engine anyway: a log may wait in a pager over night.
pub const WRITE_STALL_TIMEOUT_LOCAL: Duration = Duration::from_secs(24 * 3600);
/// Time for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to answer a call that does not wait for anything.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to make an image of an instance's files.
pub const SAVE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Time for running calls to end when the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between signs of life on a stream of changes.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(15);
