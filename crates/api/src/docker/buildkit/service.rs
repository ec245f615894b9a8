//! What BuildKit's clients call: `moby.buildkit.v1.Control`, and the gateway by which they build within a build of their own.

use super::{
    asked,
    connection::{HEADERS_BYTES_MAX, Tasks, leave},
    fault,
    grpc::{Code, MEDIA_TYPE, Messages, Result, Status, framed, went_well},
    run::Run,
    solve::Solve,
    wire::{
        BridgeSolve, BridgeSolved, Capability, Empty, Info, Outcome, Platform, Pong, PruneRequest, Reference,
        ReturnRequest, SolveRequest, SolveResponse, StatusRequest, Usage, UsageRecord, Version, Worker,
        Workers,
    },
};
use crate::{
    app::Asker,
    docker::{
        build::{self, arch},
        door::Door,
    },
    error,
    limits::BODY_TIMEOUT,
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use control::Caller;
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use jiff::{SignedDuration, Timestamp};
use prost::Message;
use std::{collections::BTreeMap, convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

/// Most calls of one connection at a time.
const CALLS_MAX: u32 = 64;
/// Header with the id of the build that a call of the gateway is about.
const BUILD: &str = "buildkit-controlapi-buildid";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a call is answered with.
enum Answer {
    /// One message.
    One(Bytes),
    /// Several.
    Many(BoxStream<'static, Bytes>),
}

fn one(message: &impl Message) -> Result<Answer> {
    Ok(Answer::One(framed(message)))
}

/// POST: the client calls BuildKit's daemon.
pub async fn open(
    State(door): State<Door>,
    Asker(caller): Asker,
    mut request: Request,
) -> error::Result<Response> {
    let (shared, who) = (door.clone(), caller.clone());
    leave(&door, &who, &mut request, move |connection| async move {
        let mut http = http2::Builder::new(Tasks(shared.app().tasks().clone()));
        http.max_concurrent_streams(CALLS_MAX).max_header_list_size(HEADERS_BYTES_MAX);
        let calls = service_fn(move |request| {
            let called = Called { door: shared.clone(), caller: caller.clone() };
            async move { Ok::<_, Infallible>(called.answer(request).await) }
        });
        if let Err(error) = http.serve_connection(connection, calls).await {
            tracing::debug!(%error, "a connection of BuildKit's client broke off");
        }
    })
}

/// Who calls what.
struct Called {
    door: Door,
    caller: Caller,
}

impl Called {
    async fn answer(self, request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        let method = request.uri().path().to_string();
        let work = AssertUnwindSafe(self.call(&method, request)).catch_unwind();
        let answer = work.await.unwrap_or_else(|_panic| {
            tracing::error!(method, "a call of BuildKit's was lost");
            Err(Status::new(Code::Unknown, "holm made a mistake and lost this call: look into its log"))
        });
        if let Err(status) = &answer {
            tracing::debug!(method, code = ?status.code, "a call of BuildKit's was refused");
        }
        let mut response = hyper::Response::new(body(answer));
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        response
    }

    async fn call(&self, method: &str, request: hyper::Request<Incoming>) -> Result<Answer> {
        let (parts, body) = request.into_parts();
        let mut messages = Messages::new(body, &HeaderMap::new());
        match method {
            "/moby.buildkit.v1.Control/Info" => one(&Info { version: Some(version()) }),
            "/moby.buildkit.v1.Control/ListWorkers" => one(&Workers { all: vec![self.worker()] }),
            "/moby.buildkit.v1.Control/DiskUsage" => one(&Usage { records: self.usage().await }),
            "/moby.buildkit.v1.Control/Prune" => {
                let asked: PruneRequest = messages.only(BODY_TIMEOUT).await?;
                let gone = self.prune(&asked).await?;
                let pieces: Vec<Bytes> = gone.iter().map(framed).collect();
                Ok(Answer::Many(stream::iter(pieces).boxed()))
            }
            "/moby.buildkit.v1.Control/Solve" => {
                let asked: SolveRequest = messages.only(BODY_TIMEOUT).await?;
                one(&self.solve(asked).await?)
            }
            "/moby.buildkit.v1.Control/Status" => {
                let asked: StatusRequest = messages.only(BODY_TIMEOUT).await?;
                self.status(&asked).await
            }
            "/moby.buildkit.v1.frontend.LLBBridge/Ping" => one(&self.pong()),
            "/moby.buildkit.v1.frontend.LLBBridge/Solve" => {
                let solve = self.of(&parts.headers).await?;
                let asked: BridgeSolve = messages.only(BODY_TIMEOUT).await?;
                one(&self.bridge_solve(&solve, asked).await?)
            }
            "/moby.buildkit.v1.frontend.LLBBridge/Return" => {
                let solve = self.of(&parts.headers).await?;
                let asked: ReturnRequest = messages.only(BODY_TIMEOUT).await?;
                returned(&solve, asked)?;
                one(&Empty {})
            }
            // All is done by the time that a result has an id.
            "/moby.buildkit.v1.frontend.LLBBridge/Evaluate" => one(&Empty {}),
            other => Err(Status::new(Code::Unimplemented, format!("{other:.200} is not served"))),
        }
    }

    /// The build that a call of the gateway is about.
    async fn of(&self, headers: &HeaderMap) -> Result<Arc<Solve>> {
        let reference = headers.get(BUILD).and_then(|value| value.to_str().ok()).unwrap_or("");
        self.door.buildkit().solves.get(self.caller.project, reference).await
    }

    /// The one that builds.
    fn worker(&self) -> Worker {
        let platform = Platform { architecture: arch().into(), os: "linux".into() };
        Worker {
            id: "holm".into(),
            // Clients take one with the second label for able to give images as archives.
            labels: BTreeMap::from([
                ("org.mobyproject.buildkit.worker.executor".into(), "containers".into()),
                ("org.mobyproject.buildkit.worker.snapshotter".into(), "overlayfs".into()),
            ]),
            platforms: vec![platform],
            version: Some(version()),
        }
    }

    fn pong(&self) -> Pong {
        let all = |ids: &[&str]| {
            ids.iter().map(|id| Capability { id: (*id).into(), enabled: true }).collect::<Vec<_>>()
        };
        Pong {
            gateway: all(&["solve.base", "return", "returnmap", "proto.refarray", "gateway.evaluate"]),
            steps: all(&["source.local", "meta.description", "exporter.multiple"]),
            workers: vec![self.worker()],
        }
    }

    /// A build, from its first call to its end.
    async fn solve(&self, asked: SolveRequest) -> Result<SolveResponse> {
        if asked.definition.as_ref().is_some_and(|definition| !definition.steps.is_empty()) {
            let message = "steps that a client compiled are not read: builds are made of Dockerfiles";
            return Err(Status::new(Code::Unimplemented, message));
        }
        let mut exporters = asked.exporters;
        if exporters.is_empty() && !asked.exporter.is_empty() {
            exporters
                .push(super::wire::Exporter { kind: asked.exporter, attributes: asked.exporter_attributes });
        }
        let results = asked::results(&exporters, asked.cache.as_ref());
        let results = results.map_err(|failure| fault::refused(&failure))?;
        let solves = &self.door.buildkit().solves;
        let mut going = solves.begin(self.caller.project, &asked.reference, &asked.session, results)?;
        let solve = Arc::clone(&going.solve);
        let image = if asked.frontend.is_empty() {
            let lost = |_| Status::new(Code::Cancelled, "the client's build was lost");
            let id = (&mut going.returned).await.map_err(lost)??;
            id.and_then(|id| solve.result(&id))
        } else {
            Some(self.build(&solve, &asked.frontend, &asked.frontend_attributes).await?)
        };
        Ok(SolveResponse { exporter: told(&solve, image) })
    }

    async fn status(&self, asked: &StatusRequest) -> Result<Answer> {
        let solve = self.door.buildkit().solves.get(self.caller.project, &asked.reference).await?;
        let heard = || Status::new(Code::Invalid, "somebody hears how this build goes already");
        let events = solve.status().ok_or_else(heard)?;
        let pieces = stream::unfold(events, |mut events| async move {
            let event = events.recv().await?;
            Some((framed(&event), events))
        });
        Ok(Answer::Many(pieces.boxed()))
    }

    async fn bridge_solve(&self, solve: &Solve, asked: BridgeSolve) -> Result<BridgeSolved> {
        let compiled = asked.definition.as_ref().is_some_and(|definition| !definition.steps.is_empty());
        if compiled || !asked.inputs.is_empty() {
            let message = "steps that a client compiled are not read: builds are made of Dockerfiles";
            return Err(Status::new(Code::Unimplemented, message));
        }
        let image = self.build(solve, &asked.frontend, &asked.options).await?;
        let reference = Some(Reference { id: solve.keep(image)? });
        Ok(BridgeSolved { result: Some(Outcome { reference, metadata: BTreeMap::new() }) })
    }

    /// Builds, and gives the image's id. It ends with the call that it is for.
    async fn build(
        &self,
        solve: &Solve,
        frontend: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<String> {
        let refused = |failure: error::Failure| fault::refused(&failure);
        let read = asked::read(frontend, options, &solve.results).map_err(refused)?;
        let session = self.door.buildkit().sessions.get(self.caller.project, &solve.session).await?;
        let gone = || Status::new(Code::Cancelled, "the build has ended");
        let run = Run {
            door: self.door.clone(),
            caller: self.caller.clone(),
            session,
            read,
            events: solve.events().ok_or_else(gone)?,
            seed: solve.reference.clone(),
        };
        run.build().await
    }

    /// The steps that are kept.
    async fn usage(&self) -> Vec<UsageRecord> {
        let records = build::kept(&self.door, &self.caller).await;
        records.into_iter().map(record).collect()
    }

    async fn prune(&self, asked: &PruneRequest) -> Result<Vec<UsageRecord>> {
        let refused = |why: &str| Err(Status::new(Code::Invalid, why));
        // Clients without a filter send an empty one.
        if asked.filters.iter().any(|filter| !filter.is_empty()) {
            return refused("only steps that were not used for a while can be meant (--filter until=24h)");
        }
        if asked.reserved > 0 || asked.used_max > 0 || asked.free_min > 0 {
            return refused("space to keep is not honoured by holm: steps are pruned by their age");
        }
        let unused = SignedDuration::from_nanos(asked.keep_duration.max(0));
        let until = (asked.keep_duration > 0).then(|| self.door.control().now() - unused);
        let before = self.usage().await;
        let gone = self.door.control().prune_steps(&self.caller, until).await;
        let gone = gone.map_err(|error| fault::refused(&error.into()))?;
        let gone: Vec<String> = gone.iter().map(|step| step.id.to_string()).collect();
        let steps = before.into_iter().filter(|record| gone.contains(&record.id));
        let caches = build::prune_caches(&self.door, &self.caller, until).await;
        Ok(steps.chain(caches.into_iter().map(record)).collect())
    }
}

/// The client's own build has ended.
fn returned(solve: &Solve, asked: ReturnRequest) -> Result<()> {
    let outcome = match asked.error {
        Some(error) if error.code != 0 => Err(Status::of_message(error)),
        _ => Ok(asked.result.and_then(|result| result.reference).map(|reference| reference.id)),
    };
    if let Ok(Some(id)) = &outcome
        && !id.is_empty()
        && solve.result(id).is_none()
    {
        return Err(Status::new(Code::NotFound, format!("there is no result {id:.200}")));
    }
    if solve.give(outcome) {
        return Ok(());
    }
    Err(Status::new(Code::Invalid, "this build has ended already"))
}

/// What an image's exporter tells.
fn told(solve: &Solve, image: Option<String>) -> BTreeMap<String, String> {
    let results = &solve.results;
    let is_image = |output: &build::Output| matches!(output.kind, build::OutputKind::Archive(_));
    let has_image = results.image.is_some() || results.outputs.iter().any(is_image);
    let Some(image) = image.filter(|_| has_image) else { return BTreeMap::new() };
    let mut all = BTreeMap::from([
        ("containerimage.config.digest".to_string(), image.clone()),
        ("containerimage.digest".to_string(), image),
    ]);
    if let Some(names) = results.image.as_ref().filter(|names| !names.is_empty()) {
        all.insert("image.name".into(), names.join(","));
    }
    all
}

fn version() -> Version {
    Version { package: "holm".into(), version: env!("CARGO_PKG_VERSION").into(), revision: String::new() }
}

fn record(kept: build::Kept) -> UsageRecord {
    let shared = kept.is_shared();
    let at = |time: Timestamp| Some(time.into());
    UsageRecord {
        id: kept.id,
        in_use: kept.in_use,
        size: i64::try_from(kept.size_bytes).unwrap_or(i64::MAX),
        created_at: at(kept.created_at),
        used_at: at(kept.used_at),
        uses: i64::try_from(kept.uses).unwrap_or(i64::MAX),
        description: kept.what,
        kind: kept.kind.into(),
        shared,
    }
}

/// The messages of an answer, and its end.
fn body(answer: Result<Answer>) -> Body {
    let (pieces, end) = match answer {
        Ok(Answer::One(message)) => (stream::iter([message]).boxed(), went_well()),
        Ok(Answer::Many(messages)) => (messages, went_well()),
        Err(status) => (stream::empty().boxed(), status.trailers()),
    };
    let frames = pieces.map(Frame::data).chain(stream::iter([Frame::trailers(end)]));
    UnsyncBoxBody::new(StreamBody::new(frames.map(Ok).boxed()))
}
