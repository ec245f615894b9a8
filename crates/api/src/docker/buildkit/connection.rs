//! Connections that leave HTTP/1 for HTTP/2: `Upgrade: h2c`.

use crate::{
    docker::door::Door,
    error::{Failure, Result},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use control::Caller;
use hyper::upgrade::{OnUpgrade, Upgraded};
use model::error::Code;
use tokio_util::task::TaskTracker;

/// Most bytes of a call's headers.
pub const HEADERS_BYTES_MAX: u32 = 1 << 20;

/// Runs what HTTP/2 does beside a connection, as tasks that the server knows of.
#[derive(Clone)]
pub struct Tasks(pub TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// Leaves HTTP/1, and works on the connection until `work` ends or the server does.
///
/// # Errors
/// `invalid` for a call that asks for no such upgrade, `too_many` streams.
pub fn leave<F>(
    door: &Door,
    caller: &Caller,
    request: &mut Request,
    work: impl FnOnce(Upgraded) -> F + Send + 'static,
) -> Result<Response>
where
    F: Future<Output = ()> + Send + 'static,
{
    let asks = request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes() == b"h2c");
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks);
    let upgrade = upgrade.ok_or_else(|| {
        Failure::new(Code::Invalid, "this call leaves HTTP/1.1, and asks for it by Upgrade: h2c")
    })?;
    let slot = door.app().stream_slot(caller)?;
    let ended = slot.ended();
    door.app().tasks().spawn(async move {
        let _slot = slot;
        match upgrade.await {
            Ok(connection) => tokio::select! {
                () = work(connection) => {}
                () = ended.cancelled() => {}
            },
            Err(error) => tracing::debug!(%error, "a connection was not taken up"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    Ok(response)
}
