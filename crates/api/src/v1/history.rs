//! Operations and events: what was asked, what happened, and the stream of changes.

mod follow;

use super::{
    routes::{Doc, Routes},
    scene::Scene,
    served::{look_at, page_size},
    types::{
        Fault, List,
        event::{Change, Event as EventView, EventQuery},
        operation::Operation as OperationView,
    },
};
use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    request::Params,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, Method},
    response::{IntoResponse, Response},
};
use control::{Caller, Control};
use jiff::Timestamp;
use model::{
    error::Code,
    operation::{Event, Operation},
};
use std::sync::Arc;
use store::Stored;
use uuid::Uuid;

/// Adds the routes of operations and events.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(
            Method::GET,
            "/v1/operations",
            "operations",
            Doc::new("List what was asked, newest first").query::<EventQuery>()
                .page::<OperationView>(200, "One page."),
            list_operations,
        )
        .add(
            Method::GET,
            "/v1/operations/{ref}",
            "operations",
            Doc::new("Show one").answer::<OperationView>(200, "The operation."),
            show_operation,
        )
        .add(
            Method::GET,
            "/v1/events",
            "events",
            Doc::new("List what happened, newest first; or follow changes")
                .details("With `follow=1` the answer does not end: one change per line (NDJSON), or server-sent events with `Accept: text/event-stream`.")
                .query::<EventQuery>().page::<EventView>(200, "One page.").lines::<Change>(200, "One page, or changes as they come."),
            events,
        )
}

fn operation_view(operation: &Operation, scene: &Scene<'_>) -> OperationView {
    OperationView {
        id: operation.id.0,
        project: scene.project(operation.project),
        action: operation.action.clone(),
        noun: operation.subject.noun.clone(),
        subject: operation.subject.id.clone(),
        name: operation.name.clone(),
        actor: operation.actor.clone(),
        request_id: operation.request_id.clone(),
        started_at: operation.started_at,
        ended_at: operation.ended_at,
        fault: operation.fault.as_ref().map(Fault::from),
    }
}

/// An event as clients see it.
pub fn event_view(event: &Event) -> EventView {
    EventView {
        id: event.id.0,
        at: event.at,
        project: event.project.map(|id| id.0),
        noun: event.subject.noun.clone(),
        subject: event.subject.id.clone(),
        reason: event.reason.clone(),
        message: event.message.clone(),
        warning: event.warning,
    }
}

fn operations_seen(control: &Control, caller: &Caller, everywhere: bool) -> Vec<Arc<Stored<Operation>>> {
    if everywhere { control.store().list::<Operation>() } else { control.operations(caller) }
}

async fn list_operations(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<EventQuery>,
) -> Result<Json<List<OperationView>>> {
    if query.follow.is_some() {
        return Err(Failure::new(Code::Invalid, "operations cannot be followed")
            .field("follow")
            .hint("follow /v1/events"));
    }
    let (caller, everywhere) = look_at(app.control(), &caller, query.project.as_deref())?;
    let mut found = operations_seen(app.control(), &caller, everywhere);
    found.retain(|o| concerns(&query, &o.record.subject.noun, &o.record.subject.id));
    let page = newest_first(found, &query, |o| (o.record.started_at, o.record.id.0))?;
    let scene = Scene::new(app.control(), &caller);
    let items = page.items.iter().map(|o| operation_view(&o.record, &scene)).collect();
    Ok(Json(List { items, next: page.next }))
}

async fn show_operation(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<OperationView>> {
    let is_admin = caller.role == control::Role::Admin;
    let all = operations_seen(app.control(), &caller, is_admin);
    let prefix = reference.to_ascii_lowercase();
    let fits: Vec<_> =
        all.iter().filter(|o| prefix.len() >= 4 && o.record.id.to_string().starts_with(&prefix)).collect();
    match fits.as_slice() {
        [one] => Ok(Json(operation_view(&one.record, &Scene::new(app.control(), &caller)))),
        [] => Err(Failure::new(Code::NotFound, format!("no operation {reference:?}"))
            .hint("old operations are forgotten")),
        several => Err(Failure::new(Code::Conflict, format!("{} operations begin so", several.len()))),
    }
}

fn concerns(query: &EventQuery, noun: &str, subject: &str) -> bool {
    query.noun.as_ref().is_none_or(|wanted| wanted.replace('-', "_") == noun)
        && query.subject.as_ref().is_none_or(|wanted| wanted == subject)
}

async fn events(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let (caller, everywhere) = look_at(app.control(), &caller, query.project.as_deref())?;
    if query.follow == Some(1) {
        return follow::follow(&app, caller, everywhere, query, &headers);
    }
    let mut found =
        if everywhere { app.control().store().list::<Event>() } else { app.control().events(&caller) };
    found.retain(|e| concerns(&query, &e.record.subject.noun, &e.record.subject.id));
    let page = newest_first(found, &query, |e| (e.record.at, e.record.id.0))?;
    let items = page.items.iter().map(|e| event_view(&e.record)).collect();
    Ok(Json(List { items, next: page.next }).into_response())
}

/// One page of what has a time, newest first.
fn newest_first<R>(
    mut all: Vec<Arc<Stored<R>>>,
    query: &EventQuery,
    key: impl Fn(&Arc<Stored<R>>) -> (Timestamp, Uuid),
) -> Result<List<Arc<Stored<R>>>> {
    all.sort_by_key(|one| std::cmp::Reverse(key(one)));
    if let Some(marker) = &query.marker {
        let wrong = || Failure::new(Code::Invalid, format!("{marker:?} is no marker")).field("marker");
        let (id, time) = marker.split_once('/').ok_or_else(wrong)?;
        let last = (time.parse().map_err(|_| wrong())?, id.parse().map_err(|_| wrong())?);
        all.retain(|one| key(one) < last);
    }
    let limit = page_size(query.limit)?;
    let next = (all.len() > limit).then(|| {
        let (time, id) = key(&all[limit - 1]);
        format!("{id}/{time}")
    });
    all.truncate(limit);
    Ok(List { items: all, next })
}
