//! `/v2.0/<collection>/{id}/tags`: tags of every resource that has them.

use super::{
    attributes::{Attributes, wrong},
    head::{put_tag, tags, take_tag},
    listing::{self, IdText},
    refusal::About,
};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{Control, resolve::Noun};
use model::{
    floating_ip::FloatingIp, network::Network, port::Port, router::Router as VirtualRouter,
    security_group::SecurityGroup, subnet::Subnet, subnet_pool::SubnetPool,
};
use serde_json::{Value, json};

/// Longest tag in characters.
const TAG_CHARS_MAX: usize = 255;
/// Most tags of one resource.
const TAGS_MAX: usize = 50;

/// A noun whose records have tags here.
pub trait Tagged: Noun + Clone + PartialEq + 'static {
    /// How Neutron calls it.
    const ABOUT: About;
}

macro_rules! tagged {
    ($($noun:ty = $about:ident),*) => {$(impl Tagged for $noun { const ABOUT: About = About::$about; })*};
}

tagged!(
    Network = Network,
    Subnet = Subnet,
    Port = Port,
    VirtualRouter = Router,
    FloatingIp = FloatingIp,
    SecurityGroup = SecurityGroup,
    SubnetPool = SubnetPool
);

/// The routes of tags.
pub fn router() -> Router<Door> {
    Router::new()
        .merge(routes::<Network>("networks"))
        .merge(routes::<Subnet>("subnets"))
        .merge(routes::<Port>("ports"))
        .merge(routes::<VirtualRouter>("routers"))
        .merge(routes::<FloatingIp>("floatingips"))
        .merge(routes::<SecurityGroup>("security-groups"))
        .merge(routes::<SubnetPool>("subnetpools"))
}

fn routes<R: Tagged>(collection: &str) -> Router<Door>
where
    R::Id: From<IdText> + Send + Sync,
{
    let all = format!("/v2.0/{collection}/{{id}}/tags");
    let one = format!("{all}/{{tag}}");
    Router::new()
        .route(&all, get(list::<R>).put(replace::<R>).post(add_many::<R>).delete(clear::<R>))
        .route(&one, get(show::<R>).put(add::<R>).delete(remove::<R>))
}

fn check(tag: &str) -> Result<()> {
    if tag.is_empty() || tag.chars().count() > TAG_CHARS_MAX || tag.contains(['/', ',']) {
        return Err(wrong("tags", format!("'{tag:.40}' is not a tag of 1 to {TAG_CHARS_MAX} characters")));
    }
    Ok(())
}

fn read(body: Value) -> Result<Vec<String>> {
    let mut body = Attributes::of(body)?;
    let tags = body.texts("tags")?.ok_or_else(|| wrong("tags", "it is missing"))?;
    body.finish()?;
    tags.iter().try_for_each(|tag| check(tag))?;
    if tags.len() > TAGS_MAX {
        return Err(wrong("tags", format!("a resource has at most {TAGS_MAX} tags")));
    }
    Ok(tags)
}

fn found<R: Tagged>(control: &Control, session: &Session, id: &str) -> Result<R>
where
    R::Id: From<IdText>,
{
    listing::one::<R>(control, session, R::ABOUT, id).map(|found| found.record.clone())
}

fn missing(tag: &str) -> Fault {
    Fault::not_found("Tag", tag).kind("TagNotFound")
}

async fn list<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>>
where
    R::Id: From<IdText> + Send + Sync,
{
    let record = found::<R>(door.control(), &session, &id)?;
    Ok(Json(json!({ "tags": tags(&record.meta().labels) })))
}

async fn show<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode>
where
    R::Id: From<IdText> + Send + Sync,
{
    let record = found::<R>(door.control(), &session, &id)?;
    if tags(&record.meta().labels).contains(&tag) { Ok(StatusCode::NO_CONTENT) } else { Err(missing(&tag)) }
}

/// Changes the labels of a record and gives its tags.
async fn change<R: Tagged>(
    door: &Door,
    session: &Session,
    id: &str,
    edit: impl Fn(&mut model::meta::Labels) -> control::Result<()> + Send + Sync,
) -> Result<R>
where
    R::Id: From<IdText>,
{
    found::<R>(door.control(), session, id)?;
    let edit = |record: &mut R| edit(&mut record.meta_mut().labels);
    door.control().change::<R>(&session.caller, id, edit).await.map_err(R::ABOUT.refuse())
}

fn told<R: Tagged>(record: &R, reply: impl IntoResponse) -> Response {
    let meta = record.meta();
    Deed::new("tag", R::TABLE, meta.id, &meta.name).on(reply)
}

async fn replace<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response>
where
    R::Id: From<IdText> + Send + Sync,
{
    let all = read(body)?;
    let changed = change::<R>(&door, &session, &id, |labels| {
        labels.clear();
        all.iter().for_each(|tag| put_tag(labels, tag));
        Ok(())
    })
    .await?;
    let reply = Json(json!({ "tags": tags(&changed.meta().labels) }));
    Ok(told(&changed, reply))
}

async fn add_many<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response>
where
    R::Id: From<IdText> + Send + Sync,
{
    let more = read(body)?;
    let changed = change::<R>(&door, &session, &id, |labels| {
        more.iter().for_each(|tag| put_tag(labels, tag));
        Ok(())
    })
    .await?;
    let reply = Json(json!({ "tags": tags(&changed.meta().labels) }));
    Ok(told(&changed, (StatusCode::CREATED, reply)))
}

async fn clear<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Response>
where
    R::Id: From<IdText> + Send + Sync,
{
    let changed = change::<R>(&door, &session, &id, |labels| {
        labels.clear();
        Ok(())
    })
    .await?;
    Ok(told(&changed, StatusCode::NO_CONTENT))
}

async fn add<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response>
where
    R::Id: From<IdText> + Send + Sync,
{
    check(&tag)?;
    let changed = change::<R>(&door, &session, &id, |labels| {
        put_tag(labels, &tag);
        Ok(())
    })
    .await?;
    Ok(told(&changed, StatusCode::CREATED))
}

async fn remove<R: Tagged>(
    State(door): State<Door>,
    session: Session,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response>
where
    R::Id: From<IdText> + Send + Sync,
{
    let record = found::<R>(door.control(), &session, &id)?;
    if !tags(&record.meta().labels).contains(&tag) {
        return Err(missing(&tag));
    }
    let changed = change::<R>(&door, &session, &id, |labels| {
        take_tag(labels, &tag);
        Ok(())
    })
    .await?;
    Ok(told(&changed, StatusCode::NO_CONTENT))
}
