//! What every noun of the API has: a view, a list with filters, a way to be found, and a settled state to wait for.

use super::{
    scene::Scene,
    types::{
        List,
        list::{LIMIT_DEFAULT, LIMIT_MAX, ListQuery, WAIT_S_MAX, WaitQuery},
    },
};
use crate::{
    app::{App, Asker},
    client,
    error::{Failure, Result},
    request::Params,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{Caller, Control, resolve::Noun};
use model::error::Code;
use std::{sync::Arc, time::Duration};
use store::{Change, Stored};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

/// A noun of the API.
pub trait Served: Noun<Id: Into<Uuid> + Send + Sync> + Clone {
    /// What clients see of it.
    type View: client::Noun + ToSchema;
    /// Filters beside `name`, `label` and `project`.
    const FILTERS: &'static [&'static str] = &[];
    /// Words that `phase` may be.
    const PHASES: &'static [&'static str] = &[];

    /// Makes the view.
    fn view(&self, scene: &Scene<'_>) -> Self::View;

    /// Which of [`Self::PHASES`] it is in.
    fn phase_word(&self, _scene: &Scene<'_>) -> &'static str {
        ""
    }

    /// Whether it passes the filters that only this noun has, `phase` aside.
    ///
    /// # Errors
    /// A filter names something that is not there.
    fn fits(&self, _query: &ListQuery, _scene: &Scene<'_>) -> control::Result<bool> {
        Ok(true)
    }

    /// Whether nothing more happens by itself.
    fn is_settled(&self, _scene: &Scene<'_>) -> bool {
        true
    }

    /// All that the caller may see; of all projects if `everywhere`.
    ///
    /// # Errors
    /// `forbidden`.
    fn all(control: &Control, caller: &Caller, everywhere: bool) -> control::Result<Vec<Arc<Stored<Self>>>> {
        if everywhere { control.list_everywhere::<Self>(caller) } else { Ok(control.list::<Self>(caller)) }
    }

    /// The one that `reference` means.
    ///
    /// # Errors
    /// `not_found`, `conflict` if several fit.
    fn find(control: &Control, caller: &Caller, reference: &str) -> control::Result<Arc<Stored<Self>>> {
        control.find::<Self>(caller, reference)
    }
}

/// Moves the caller to the project that a list asks for.
///
/// # Errors
/// `not_found`, `forbidden` for all projects at once.
pub fn look_at(control: &Control, caller: &Caller, project: Option<&str>) -> Result<(Caller, bool)> {
    match project {
        None => Ok((caller.clone(), false)),
        Some("*") => {
            caller.require(control::Role::Admin, "looking at every project")?;
            Ok((caller.clone(), true))
        }
        Some(reference) => {
            let found = control.find_project(caller, reference)?;
            let project = found.record.meta.id;
            Ok((Caller { project, ..caller.clone() }, false))
        }
    }
}

/// GET of a collection.
pub async fn list<R: Served>(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<ListQuery>,
) -> Result<Json<List<R::View>>> {
    refuse_foreign_filters::<R>(&query)?;
    let (caller, everywhere) = look_at(app.control(), &caller, query.project.as_deref())?;
    let scene = Scene::new(app.control(), &caller);
    let mut found = R::all(app.control(), &caller, everywhere)?;
    let label =
        query.label.as_deref().map(|text| text.split_once('=').map_or((text, None), |(k, v)| (k, Some(v))));
    found.retain(|stored| {
        let meta = stored.record.meta();
        query.name.as_deref().is_none_or(|name| meta.name.as_str() == name)
            && label.is_none_or(|(key, value)| {
                meta.labels.get(key).is_some_and(|has| value.is_none_or(|wanted| wanted == has))
            })
            && query.phase.as_deref().is_none_or(|phase| stored.record.phase_word(&scene) == phase)
    });
    let mut kept = Vec::with_capacity(found.len());
    for stored in found {
        if stored.record.fits(&query, &scene)? {
            kept.push(stored);
        }
    }
    let key = |stored: &Arc<Stored<R>>| {
        let meta = stored.record.meta();
        let id: Uuid = meta.id.into();
        (meta.name.to_string(), id)
    };
    kept.sort_by_cached_key(key);
    if let Some(marker) = &query.marker {
        let marker = read_marker(marker)?;
        kept.retain(|stored| key(stored) > marker);
    }
    let limit = page_size(query.limit)?;
    let next = (kept.len() > limit).then(|| {
        let (name, id) = key(&kept[limit - 1]);
        format!("{id}/{name}")
    });
    let items = kept.iter().take(limit).map(|stored| stored.record.view(&scene)).collect();
    Ok(Json(List { items, next }))
}

fn read_marker(text: &str) -> Result<(String, Uuid)> {
    let parts = text.split_once('/').and_then(|(id, name)| Some((name.to_string(), id.parse().ok()?)));
    parts.ok_or_else(|| {
        Failure::new(Code::Invalid, format!("{text:?} is no marker"))
            .field("marker")
            .hint("give `next` of the page before")
    })
}

/// How many entries a page has.
///
/// # Errors
/// `invalid` outside 1 to [`LIMIT_MAX`].
pub fn page_size(limit: Option<u32>) -> Result<usize> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit as usize),
        limit => Err(Failure::new(Code::Invalid, format!("limit {limit}: 1 to {LIMIT_MAX} are possible"))
            .field("limit")),
    }
}

fn refuse_foreign_filters<R: Served>(query: &ListQuery) -> Result<()> {
    let given = [
        ("phase", query.phase.is_some()),
        ("kind", query.kind.is_some()),
        ("visibility", query.visibility.is_some()),
        ("membership", query.membership.is_some()),
        ("tag", query.tag.is_some()),
        ("hidden", query.hidden.is_some()),
        ("network", query.network.is_some()),
        ("instance", query.instance.is_some()),
        ("volume", query.volume.is_some()),
    ];
    for (filter, given) in given {
        if given && !R::FILTERS.contains(&filter) {
            let own: Vec<&str> = ["name", "label", "project"].iter().chain(R::FILTERS).copied().collect();
            return Err(Failure::new(
                Code::Invalid,
                format!("{} cannot be filtered by {filter}", one::<R>()),
            )
            .field(filter)
            .hint(format!("the filters are {}", own.join(", "))));
        }
    }
    check_phase::<R>(query.phase.as_deref())
}

/// `a volume`, `an instance`.
fn one<R: Served>() -> String {
    let article = if R::WORD.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {}", R::WORD)
}

fn check_phase<R: Served>(phase: Option<&str>) -> Result<()> {
    match phase {
        Some(phase) if !R::PHASES.contains(&phase) => {
            let failure =
                Failure::new(Code::Invalid, format!("{} has no phase {phase:?}", one::<R>())).field("phase");
            if R::PHASES.is_empty() {
                return Err(failure);
            }
            Err(failure.hint(format!("the phases are {}", R::PHASES.join(", "))))
        }
        _ => Ok(()),
    }
}

/// GET of one.
pub async fn show<R: Served>(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Json<R::View>> {
    check_wait::<R>(&wait)?;
    let id = R::find(app.control(), &caller, &reference)?.record.meta().id;
    let view = settled::<R>(&app, &caller, id, &wait).await?;
    view.map(Json).ok_or_else(|| gone::<R>(&reference))
}

fn gone<R: Served>(reference: &str) -> Failure {
    Failure::new(Code::NotFound, format!("{} {reference} is gone", R::WORD))
}

/// Refuses a wait that cannot be, before anything is changed.
///
/// # Errors
/// `invalid`.
pub fn check_wait<R: Served>(wait: &WaitQuery) -> Result<()> {
    if wait.wait.is_some_and(|seconds| seconds > WAIT_S_MAX) {
        return Err(
            Failure::new(Code::Invalid, format!("a call waits {WAIT_S_MAX} seconds at most")).field("wait")
        );
    }
    check_phase::<R>(wait.phase.as_deref())
}

/// The view once the thing is settled (or in the phase asked for), or the time is over; `None` once it is gone.
///
/// # Errors
/// None by itself; the store's end ends the wait.
pub async fn settled<R: Served>(
    app: &App,
    caller: &Caller,
    id: R::Id,
    wait: &WaitQuery,
) -> Result<Option<R::View>> {
    let control = app.control();
    let key = id.to_string();
    let mut changes = control.store().subscribe();
    let deadline = Instant::now() + Duration::from_secs(u64::from(wait.wait.unwrap_or(0)));
    loop {
        {
            let Some(stored) = control.get::<R>(id) else {
                return Ok(None);
            };
            let scene = Scene::new(control, caller);
            let done = match wait.phase.as_deref() {
                Some(phase) => stored.record.phase_word(&scene) == phase,
                None => stored.record.is_settled(&scene) && !stored.record.meta().is_deleting(),
            };
            if done || wait.wait.unwrap_or(0) == 0 || Instant::now() >= deadline {
                return Ok(Some(stored.record.view(&scene)));
            }
        }
        let touched = async {
            loop {
                match changes.next().await {
                    // Status records have the key of what they tell about.
                    Some(Change::Record { key: changed, .. }) if *changed != *key => {}
                    Some(_) => return true,
                    None => return false,
                }
            }
        };
        let goes_on = tokio::select! {
            outcome = timeout_at(deadline, touched) => outcome.unwrap_or(true),
            () = app.stopping().cancelled() => false,
        };
        if !goes_on {
            let scene = Scene::new(control, caller);
            return Ok(control.get::<R>(id).map(|stored| stored.record.view(&scene)));
        }
    }
}

/// The answer to a call that made or changed a record: waits, then shows it.
///
/// # Errors
/// `not_found` if it went meanwhile.
pub async fn answer<R: Served>(
    app: &App,
    caller: &Caller,
    status: StatusCode,
    record: &R,
    wait: &WaitQuery,
) -> Result<Response> {
    let view = settled::<R>(app, caller, record.meta().id, wait).await?;
    // What ends at once may be gone before the answer: then the answer is what was made.
    let view = view.unwrap_or_else(|| record.view(&Scene::new(app.control(), caller)));
    Ok((status, Json(view)).into_response())
}

/// The answer to a delete: 204 once it is gone, 202 with the thing while it is going.
///
/// # Errors
/// None by itself.
pub async fn farewell<R: Served>(
    app: &App,
    caller: &Caller,
    id: R::Id,
    wait: &WaitQuery,
) -> Result<Response> {
    match settled::<R>(app, caller, id, wait).await? {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(view) => Ok((StatusCode::ACCEPTED, Json(view)).into_response()),
    }
}
