//! The calls that every noun of Identity has: list, show, create, update, delete.

use super::listing::list;
use crate::openstack::{
    audit::Deed, base::Base, body::Body, door::Door, fault::Result, query::Query, session::Bearer,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Control, session::Session};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// A record that Identity shows. `control` decides who may do what; here is only what Keystone calls it.
pub trait Noun: Send + Sync + Sized + 'static {
    /// The word for one, which its bodies are wrapped in.
    const ONE: &'static str;
    /// The word for several, which is its path, too.
    const MANY: &'static str;
    /// The body of a wish.
    type Input: DeserializeOwned + Send;

    /// As Keystone shows it.
    fn view(&self, base: &Base) -> Value;

    /// Its id and its name, for the record of what was done.
    fn known_as(&self) -> (String, String);

    /// All that the asker may see and that the query's domain has.
    ///
    /// # Errors
    /// 400, 403.
    fn all(control: &Control, asker: &Session, query: &Query) -> Result<Vec<Arc<Stored<Self>>>>;

    /// The one with this id.
    ///
    /// # Errors
    /// 403 for those whom the rule does not allow, 404.
    fn find(control: &Control, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Self>>>;

    /// Makes one.
    ///
    /// # Errors
    /// 400, 403, 409 for a name that is taken.
    fn create(
        control: &Control,
        asker: &Session,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self>> + Send;

    /// Changes the one with this id.
    ///
    /// # Errors
    /// 400, 403, 404, 409.
    fn change(
        control: &Control,
        asker: &Session,
        id: &str,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self>> + Send;

    /// Removes the one with this id.
    ///
    /// # Errors
    /// 403, 404, 409.
    fn remove(control: &Control, asker: &Session, id: &str) -> impl Future<Output = Result<()>> + Send;
}

/// The routes of these calls.
pub fn routes<N: Noun>() -> Router<Door> {
    let many = N::MANY;
    Router::new()
        .route(&format!("/v3/{many}"), get(index::<N>).post(create::<N>))
        .route(&format!("/v3/{many}/{{id}}"), get(show::<N>).patch(update::<N>).delete(delete::<N>))
}

/// These records as an answer's list.
///
/// # Errors
/// 400 for a limit that is no number.
pub fn listed<N: Noun>(
    records: impl IntoIterator<Item = Arc<Stored<N>>>,
    base: &Base,
    query: &Query,
) -> Result<Json<Value>> {
    let views = records.into_iter().map(|stored| stored.record.view(base)).collect();
    Ok(Json(list(N::MANY, views, base, query)?))
}

fn wrapped<N: Noun>(record: &N, base: &Base) -> Json<Value> {
    Json(json!({ N::ONE: record.view(base) }))
}

fn deed<N: Noun>(action: &str, record: &N) -> Deed {
    let (id, name) = record.known_as();
    Deed::new(action, N::ONE, id, name)
}

async fn index<N: Noun>(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    listed(N::all(door.control(), &session, &query)?, &base, &query)
}

async fn show<N: Noun>(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let rule = format!("identity:get_{}", N::ONE);
    Ok(wrapped(&N::find(door.control(), &session, &id, &rule)?.record, &base))
}

async fn create<N: Noun>(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<N::Input>,
) -> Result<Response> {
    let made = N::create(door.control(), &session, input).await?;
    Ok(deed("create", &made).on((StatusCode::CREATED, wrapped(&made, &base))))
}

async fn update<N: Noun>(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<N::Input>,
) -> Result<Response> {
    let changed = N::change(door.control(), &session, &id, input).await?;
    Ok(deed("update", &changed).on(wrapped(&changed, &base)))
}

async fn delete<N: Noun>(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    N::remove(door.control(), &session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
