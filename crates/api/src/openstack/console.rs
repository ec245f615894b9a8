//! Consoles by websocket: a guest's screen (RFB, RFC 6143) or its serial line, for noVNC and its like.
//!
//! ```text
//!   POST …/remote-consoles ─► a ticket, in memory for ten minutes ─► http://cloud:5000/console/vnc?path=…%3Ftoken%3D…
//!   GET  /console/vnc?token=…  with Upgrade: websocket            ─► the guest's bytes both ways; the ticket is used up
//!   GET  /console/vnc?path=…   by a browser                       ─► a page that says how to go on
//! ```
//! Who asked was checked when the ticket was made: it is all that the second call needs, so it opens one connection and is
//! kept by nobody. A restart of the daemon forgets tickets, and who has one asks anew.

use super::door::Door;
use crate::routing::{Router, get};
use crate::{request::unescape, streams::Duplex};
use axum::{
    extract::{
        FromRequestParts, Path, Request, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use control::Caller;
use futures::{SinkExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use model::{id::InstanceId, instance::Instance};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a ticket can be used (Nova: `token_ttl`).
pub const TICKET_LIFETIME: SignedDuration = SignedDuration::from_secs(600);
/// Most tickets that wait to be used; the oldest gives way.
pub const TICKETS_MAX: usize = 1_024;
/// From so many on, a project's own oldest gives way.
const TICKETS_OF_PROJECT: usize = TICKETS_MAX / 8;
/// Most bytes of one message of a client. Keys, pointers and what is pasted are small.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read at a time from a guest.
const READ_BYTES: usize = 32 * 1024;
/// Cause of a close that a message of the protocol has room for (RFC 6455, 5.5).
const CAUSE_BYTES_MAX: usize = 120;

/// What of a guest is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The screen, as RFB.
    Screen,
    /// The serial line, or a container's terminal.
    Serial,
}

impl Shown {
    /// Its name in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Screen => "vnc",
            Self::Serial => "serial",
        }
    }
}

/// Leave to open one console once.
#[derive(Debug, Clone)]
struct Ticket {
    instance: InstanceId,
    /// Who asked for it. It opens nothing when that does not hold any more.
    holder: Caller,
    shown: Shown,
    until: Timestamp,
}

/// Tickets that were given and not used.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<String, Ticket>>);

impl Tickets {
    /// A new ticket, as the text that stands for it.
    pub fn give(&self, holder: &Caller, instance: InstanceId, shown: Shown, now: Timestamp) -> String {
        let token = hex::encode(rand::random::<[u8; 32]>());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, ticket| ticket.until > now);
        let is_own = |ticket: &Ticket| ticket.holder.project == holder.project;
        let own = all.values().filter(|ticket| is_own(ticket)).count();
        // The project's own oldest gives way first: nobody takes the tickets of others while it has many.
        let has_many = own >= TICKETS_OF_PROJECT;
        if has_many || all.len() >= TICKETS_MAX {
            let in_way = all.iter().filter(|(_, ticket)| !has_many || is_own(ticket));
            let oldest = in_way.min_by_key(|(_, ticket)| ticket.until).map(|(token, _)| token.clone());
            oldest.map(|oldest| all.remove(&oldest));
        }
        let until = now + TICKET_LIFETIME;
        all.insert(token.clone(), Ticket { instance, holder: holder.clone(), shown, until });
        token
    }

    /// Takes a ticket, if it is one for this and its time is not over.
    fn take(&self, token: &str, shown: Shown, now: Timestamp) -> Option<Ticket> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(token).filter(|ticket| ticket.shown == shown)?;
        all.remove(token).filter(|ticket| ticket.until > now)
    }
}

/// The routes. They have no frame of a service around them: their only key is the ticket.
pub fn router() -> Router<Door> {
    Router::new().route("/console/{shown}", get(open))
}

/// Path and query of a screen, as noVNC's pages read them: `path` is where the websocket is.
pub fn screen_path(token: &str) -> String {
    format!("/console/vnc?path=console%2Fvnc%3Ftoken%3D{token}")
}

/// Path and query of a serial line's websocket.
pub fn serial_path(token: &str) -> String {
    format!("/console/serial?token={token}")
}

async fn open(State(door): State<Door>, Path(shown): Path<String>, request: Request) -> Response {
    let shown = match shown.as_str() {
        "vnc" => Shown::Screen,
        "serial" => Shown::Serial,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let token = token_of(request.uri().query().unwrap_or(""));
    let (mut parts, _) = request.into_parts();
    if !is_websocket(&parts.headers) {
        return page();
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let now = door.control().now();
    let ticket = token.and_then(|token| door.tickets().take(&token, shown, now));
    let Some(Ticket { instance, holder, .. }) = ticket.filter(|t| door.control().still_holds(&t.holder))
    else {
        return closed(StatusCode::FORBIDDEN);
    };
    let Some(instance) = door.control().get::<Instance>(instance) else {
        return closed(StatusCode::FORBIDDEN);
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols(["binary"]).max_message_size(MESSAGE_BYTES_MAX),
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(place) = door.app().stream_slot(&holder) else {
        return closed(StatusCode::SERVICE_UNAVAILABLE);
    };
    let streams = door.app().streams();
    let guest = match shown {
        Shown::Screen => streams.vnc(&instance.record).await,
        Shown::Serial => streams.console(&instance.record).await,
    };
    let (ended, tasks) = (place.ended(), door.app().tasks().clone());
    upgrade.on_upgrade(move |socket| {
        tasks.track_future(async move {
            let _place = place;
            match guest {
                Ok(guest) => tokio::select! {
                    () = join(socket, guest) => {}
                    () = ended.cancelled() => {}
                },
                Err(error) => close(socket, &error.message).await,
            }
        })
    })
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The token of a query: `token=…`, or inside of `path=…?token=…`.
fn token_of(query: &str) -> Option<String> {
    query.split('&').find_map(|pair| match pair.split_once('=')? {
        ("token", token) => Some(token.to_string()),
        ("path", path) => unescape(path).ok()?.split_once("token=").map(|(_, token)| token.to_string()),
        _ => None,
    })
}

/// A refusal that ends the connection and says nothing more.
fn closed(status: StatusCode) -> Response {
    let mut reply = status.into_response();
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// Carries bytes both ways until either side ends.
async fn join(socket: WebSocket, guest: Duplex) {
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(guest);
    let out = async {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if sink.send(Message::Binary(buffer[..count].to_vec().into())).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let input = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = input => {}
    }
}

/// Ends a websocket with the cause.
async fn close(mut socket: WebSocket, cause: &str) {
    let cause = &cause[..cause.floor_char_boundary(CAUSE_BYTES_MAX)];
    let frame = CloseFrame { code: close_code::ERROR, reason: cause.into() };
    let _ = socket.send(Message::Close(Some(frame))).await;
}

/// What a browser is shown that comes without a viewer.
fn page() -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; script-src 'unsafe-inline'"),
    ];
    (headers, Html(include_str!("console.html"))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> InstanceId {
        InstanceId(uuid::Uuid::from_u128(number))
    }

    fn holder(project: u8) -> Caller {
        let project = model::id::ProjectId::from_random([project; 16]);
        let (actor, request_id) = ("test".into(), "r".into());
        Caller { project, role: control::Role::Member, actor, request_id, proof: control::Proof::Peer }
    }

    fn taken(tickets: &Tickets, token: &str, shown: Shown, now: Timestamp) -> Option<InstanceId> {
        tickets.take(token, shown, now).map(|ticket| ticket.instance)
    }

    #[test]
    fn a_ticket_opens_its_own_console_once_and_in_time() {
        let (tickets, now) = (Tickets::default(), Timestamp::UNIX_EPOCH);
        let token = tickets.give(&holder(1), id(1), Shown::Screen, now);
        assert_eq!(taken(&tickets, "x", Shown::Screen, now), None);
        assert_eq!(taken(&tickets, &token, Shown::Serial, now), None, "it is for the screen");
        assert_eq!(taken(&tickets, &token, Shown::Screen, now), Some(id(1)));
        assert_eq!(taken(&tickets, &token, Shown::Screen, now), None, "it is used up");
        let late = tickets.give(&holder(1), id(1), Shown::Serial, now);
        assert_eq!(taken(&tickets, &late, Shown::Serial, now + TICKET_LIFETIME), None);
    }

    #[test]
    fn the_oldest_ticket_of_who_has_most_gives_way() {
        let (tickets, now) = (Tickets::default(), Timestamp::UNIX_EPOCH);
        let of_another = tickets.give(&holder(2), id(0), Shown::Screen, now);
        let first = tickets.give(&holder(1), id(0), Shown::Screen, now);
        let later = now + SignedDuration::from_secs(1);
        let give = |n| tickets.give(&holder(1), id(n as u128), Shown::Screen, later);
        let others: Vec<String> = (1..=TICKETS_OF_PROJECT).map(give).collect();
        assert_eq!(taken(&tickets, &first, Shown::Screen, later), None);
        assert!(others.iter().all(|token| taken(&tickets, token, Shown::Screen, later).is_some()));
        assert!(taken(&tickets, &of_another, Shown::Screen, later).is_some());
    }

    #[test]
    fn tokens_are_found_as_clients_send_them() {
        for (query, token) in [
            ("token=ab", Some("ab")),
            ("path=console%2Fvnc%3Ftoken%3Dab", Some("ab")),
            ("autoconnect=1&path=%3Ftoken%3Dab", Some("ab")),
            ("path=console/vnc", None),
            ("", None),
        ] {
            assert_eq!(token_of(query).as_deref(), token, "{query}");
        }
        assert_eq!(token_of(screen_path("ab").split_once('?').unwrap().1).as_deref(), Some("ab"));
        assert_eq!(token_of(serial_path("ab").split_once('?').unwrap().1).as_deref(), Some("ab"));
    }
}
