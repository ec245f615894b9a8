//! `/v2.0/subnetpools`.

use super::{
    attributes::{self, About as Described, Attributes, Bodies, wrong},
    head::with_head,
    listing,
    refusal::About,
};
use crate::openstack::{Base, Door, Fault, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router, get, put};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Control, subnet_pool::NewSubnetPool};
use ipnet::IpNet;
use model::{address_scope::AddressScope, subnet_pool::SubnetPool};
use serde_json::{Value, json};

const ABOUT: About = About::SubnetPool;

/// The routes of subnet pools.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/subnetpools", get(list).post(create))
        .route("/v2.0/subnetpools/{id}", get(show).put(update).delete(delete))
        .route("/v2.0/subnetpools/{id}/add_prefixes", put(add_prefixes))
}

fn view(pool: &SubnetPool) -> Value {
    let rest = json!({
        "prefixes": pool.ranges.iter().map(IpNet::to_string).collect::<Vec<_>>(),
        "ip_version": if pool.is_ipv4() { 4 } else { 6 },
        "default_prefixlen": pool.default_prefix_len,
        "min_prefixlen": pool.min_prefix_len,
        "max_prefixlen": pool.max_prefix_len,
        "default_quota": pool.quota,
        "address_scope_id": pool.scope.map(|scope| scope.to_string()),
        "shared": pool.shared,
        "is_default": pool.is_default,
    });
    with_head(pool, "pool", &pool.meta.id.short(), rest)
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let all = listing::all::<SubnetPool>(door.control(), &session);
    let views = all.iter().map(|pool| view(&pool.record)).collect();
    listing::reply(views, "subnetpools", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<SubnetPool>(door.control(), &session, ABOUT, &id)?;
    Ok(Json(json!({ "subnetpool": shape::fields(view(&found.record), &query) })))
}

/// What a new pool and a changed one may say alike.
struct Settings {
    ranges: Option<Vec<IpNet>>,
    default: Option<u8>,
    min: Option<u8>,
    max: Option<u8>,
    /// `Some(None)` for no limit.
    quota: Option<Option<u64>>,
    scope: Option<Option<String>>,
    is_default: Option<bool>,
}

impl Settings {
    fn take(control: &Control, session: &Session, body: &mut Attributes) -> Result<Self> {
        let mut length = |key: &str| -> Result<Option<u8>> {
            let number = body.number(key)?;
            let read = |n: i64| u8::try_from(n).map_err(|_| wrong(key, format!("'{n}' is out of range")));
            number.map(read).transpose()
        };
        let (default, min, max) =
            (length("default_prefixlen")?, length("min_prefixlen")?, length("max_prefixlen")?);
        let ranges = body.texts("prefixes")?;
        let quota = body.take("default_quota");
        let scope = body.nullable("address_scope_id")?;
        if let Some(Some(scope)) = &scope {
            listing::one::<AddressScope>(control, session, About::AddressScope, scope)?;
        }
        Ok(Self {
            ranges: ranges
                .map(|all| all.iter().map(|text| attributes::range("prefixes", text)).collect())
                .transpose()?,
            default,
            min,
            max,
            quota: quota.map(read_quota).transpose()?,
            scope,
            is_default: body.flag("is_default")?,
        })
    }
}

fn read_quota(value: Value) -> Result<Option<u64>> {
    match &value {
        Value::Null => Ok(None),
        Value::Number(number) if number.as_i64() == Some(-1) => Ok(None),
        Value::Number(number) if number.is_u64() => Ok(number.as_u64()),
        Value::String(text) => text.parse().map(Some).map_err(|_| wrong("default_quota", "it is no number")),
        _ => Err(wrong("default_quota", format!("'{value}' must be non-negative"))),
    }
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let mut body = match Bodies::read(body, "subnetpool", "subnetpools")? {
        Bodies::One(body) => body,
        Bodies::Many(_) => return Err(Fault::invalid("Subnet pools are made one at a time")),
    };
    let control = door.control();
    let owner = body.owner(control, &session.caller)?;
    let name = body.required("name")?;
    let description = body.text("description")?.unwrap_or_default();
    let shared = body.flag("shared")?.unwrap_or(false);
    let settings = Settings::take(control, &session, &mut body)?;
    body.finish()?;
    let new = NewSubnetPool {
        name,
        description,
        ranges: settings.ranges.unwrap_or_default(),
        min_prefix_len: settings.min,
        default_prefix_len: settings.default,
        max_prefix_len: settings.max,
        quota: settings.quota.flatten(),
        scope: settings.scope.flatten(),
        shared,
        is_default: settings.is_default.unwrap_or(false),
        ..NewSubnetPool::default()
    };
    let made = control.create_subnet_pool(&owner, new).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "subnetpool": view(&made) });
    Ok(Deed::new("create", "subnet_pool", made.meta.id, &made.meta.name)
        .on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    listing::one::<SubnetPool>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::read(body, "subnetpool")?;
    let described = Described::take(&mut body)?;
    let settings = Settings::take(control, &session, &mut body)?;
    body.finish()?;
    let scope = settings.scope.as_ref().map(Option::as_deref);
    let edit = |pool: &mut SubnetPool| {
        let short = pool.meta.id.short();
        described.apply(&mut pool.meta, "pool", &short)?;
        if let Some(ranges) = &settings.ranges {
            pool.ranges.clone_from(ranges);
        }
        pool.default_prefix_len = settings.default.unwrap_or(pool.default_prefix_len);
        pool.min_prefix_len = settings.min.unwrap_or(pool.min_prefix_len);
        pool.max_prefix_len = settings.max.unwrap_or(pool.max_prefix_len);
        pool.quota = settings.quota.unwrap_or(pool.quota);
        pool.is_default = settings.is_default.unwrap_or(pool.is_default);
        Ok(())
    };
    let changed =
        control.update_subnet_pool(&session.caller, &id, scope, edit).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "subnetpool": view(&changed) });
    Ok(Deed::new("update", "subnet_pool", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn add_prefixes(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    listing::one::<SubnetPool>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::of(body)?;
    let more = body.texts("prefixes")?.ok_or_else(|| wrong("prefixes", "it is missing"))?;
    body.finish()?;
    let more: Vec<IpNet> =
        more.iter().map(|text| attributes::range("prefixes", text)).collect::<Result<_>>()?;
    let edit = |pool: &mut SubnetPool| {
        pool.ranges.extend(&more);
        Ok(())
    };
    let changed =
        control.update_subnet_pool(&session.caller, &id, None, edit).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "prefixes": view(&changed)["prefixes"] });
    Ok(Deed::new("add_prefixes", "subnet_pool", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<SubnetPool>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_subnet_pool(&session.caller, &id).await.map_err(ABOUT.refuse())?;
    Ok(Deed::new("delete", "subnet_pool", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
