//! The stream of changes: which things changed, never how, so that a slow client can lose changes but never
//! believe something false.

use super::event_view;
use crate::{
    app::App,
    error::Result,
    limits::ALIVE_INTERVAL,
    pool::StreamPlace,
    v1::types::event::{Change, EventQuery},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::{Caller, Control, Role, resolve::Noun};
use futures::{StreamExt, stream};
use model::{
    deployment::Deployment, flavor::Flavor, floating_ip::FloatingIp, id::ProjectId, image::Image,
    instance::Instance, keypair::Keypair, network::Network, operation::Event, port::Port, project::Project,
    router::Router, security_group::SecurityGroup, server_group::ServerGroup, subnet::Subnet, volume::Volume,
};
use std::{collections::HashSet, convert::Infallible};
use store::Change as Stirred;

/// Starts the stream.
pub fn follow(
    app: &App,
    caller: Caller,
    everywhere: bool,
    query: EventQuery,
    headers: &HeaderMap,
) -> Result<Response> {
    let slot = app.stream_slot(&caller)?;
    let ended = slot.ended();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_sse = accept.contains("text/event-stream");
    let follower = Follower {
        // Subscribed before anything is read: nothing is missed between.
        changes: app.control().store().subscribe(),
        eyes: Eyes::new(app.control().clone(), caller, everywhere, query),
        _slot: slot,
    };
    let lines = stream::unfold(follower, move |mut follower| async move {
        let change = follower.next().await?;
        let json = serde_json::to_string(&change).expect("texts become JSON");
        let line = if is_sse { format!("data: {json}\n\n") } else { format!("{json}\n") };
        Some((Ok::<_, Infallible>(Bytes::from(line)), follower))
    });
    let body = Body::from_stream(lines.take_until(ended.cancelled_owned()));
    let kind = if is_sse { "text/event-stream" } else { "application/x-ndjson" };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let fresh = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([kind, fresh], body).into_response())
}

struct Follower {
    changes: store::Changes,
    eyes: Eyes,
    _slot: StreamPlace,
}

impl Follower {
    async fn next(&mut self) -> Option<Change> {
        loop {
            match tokio::time::timeout(ALIVE_INTERVAL, self.changes.next()).await {
                Err(_) => return Some(Change::Alive),
                Ok(None) => return None,
                Ok(Some(Stirred::Resync)) => {
                    self.eyes.look_again();
                    return Some(Change::Lost);
                }
                Ok(Some(Stirred::Record { table, key, deleted, .. })) => {
                    if let Some(change) = self.eyes.see(table, &key, deleted) {
                        return Some(change);
                    }
                }
            }
        }
    }
}

/// What a caller may see of the changes. What is gone has no owner any more, so it remembers what it could see.
struct Eyes {
    control: Control,
    caller: Caller,
    everywhere: bool,
    query: EventQuery,
    seen: HashSet<(&'static str, String)>,
}

impl Eyes {
    fn new(control: Control, caller: Caller, everywhere: bool, query: EventQuery) -> Self {
        let mut eyes = Self { control, caller, everywhere, query, seen: HashSet::new() };
        eyes.look_again();
        eyes
    }

    fn look_again(&mut self) {
        self.seen.clear();
        self.look_at::<Project>();
        self.look_at::<Flavor>();
        self.look_at::<Keypair>();
        self.look_at::<Image>();
        self.look_at::<Network>();
        self.look_at::<Subnet>();
        self.look_at::<Router>();
        self.look_at::<Port>();
        self.look_at::<SecurityGroup>();
        self.look_at::<FloatingIp>();
        self.look_at::<Volume>();
        self.look_at::<ServerGroup>();
        self.look_at::<Instance>();
        self.look_at::<Deployment>();
    }

    fn look_at<R: Noun>(&mut self) {
        for stored in self.control.store().list::<R>() {
            if self.may_see(&stored.record) {
                self.seen.insert((R::TABLE, stored.record.key()));
            }
        }
    }

    fn may_see<R: Noun>(&self, record: &R) -> bool {
        (self.owns(record.meta().project) || record.is_listed_for(self.caller.project)) && !record.is_hidden()
    }

    fn owns(&self, project: ProjectId) -> bool {
        self.everywhere || self.caller.project == project
    }

    fn see(&mut self, table: &'static str, key: &str, gone: bool) -> Option<Change> {
        if table == "event" {
            return self.see_event(key);
        }
        // A status is part of what it tells about.
        let noun = table.strip_suffix("_status").unwrap_or(table);
        let is_status = noun != table;
        let visible = match noun {
            "project" => self.sees::<Project>(key),
            "flavor" => self.sees::<Flavor>(key),
            "keypair" => self.sees::<Keypair>(key),
            "image" => self.sees::<Image>(key),
            "network" => self.sees::<Network>(key),
            "subnet" => self.sees::<Subnet>(key),
            "router" => self.sees::<Router>(key),
            "port" => self.sees::<Port>(key),
            "security_group" => self.sees::<SecurityGroup>(key),
            "floating_ip" => self.sees::<FloatingIp>(key),
            "server_group" => self.sees::<ServerGroup>(key),
            "volume" => self.sees::<Volume>(key),
            "instance" => self.sees::<Instance>(key),
            "deployment" => self.sees::<Deployment>(key),
            "node" => Some(("node", true)),
            _ => None,
        };
        let (noun, visible) = visible?;
        let gone = gone && !is_status;
        let entry = (noun, key.to_string());
        let told = if gone { self.seen.remove(&entry) || noun == "node" } else { visible };
        if visible && !gone {
            self.seen.insert(entry);
        }
        let wanted = self.query.noun.as_ref().is_none_or(|n| n.replace('-', "_") == noun)
            && self.query.subject.as_ref().is_none_or(|s| s == key);
        (told && wanted).then(|| Change::Changed { noun: noun.to_string(), id: key.to_string(), gone })
    }

    fn sees<R: Noun>(&self, key: &str) -> Option<(&'static str, bool)> {
        let found = self.control.store().get::<R>(key);
        Some((R::TABLE, found.is_some_and(|stored| self.may_see(&stored.record))))
    }

    fn see_event(&self, key: &str) -> Option<Change> {
        let stored = self.control.store().get::<Event>(key)?;
        let event = &stored.record;
        let mine = match event.project {
            Some(project) => self.owns(project),
            None => self.caller.role == Role::Admin,
        };
        (mine && super::concerns(&self.query, &event.subject.noun, &event.subject.id))
            .then(|| Change::Event(event_view(event)))
    }
}
