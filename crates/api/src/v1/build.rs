//! Building images from Dockerfiles: the same builds as by the Docker door.

use super::{
    routes::{Doc, Routes},
    types::build::{BuildLine, BuildQuery},
};
use crate::{
    app::{App, Asker},
    docker::build::{Asked, lines},
    error::{Failure, Result},
    request::Params,
};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use model::error::Code;
use serde_json::Value;
use std::{collections::BTreeMap, convert::Infallible};

/// Adds the route.
pub fn routes(routes: Routes) -> Routes {
    routes.add(
        Method::POST,
        "/v1/builds",
        "images",
        Doc::new("Build an image of containers from a Dockerfile")
            .details("The body is the context: a tar, plain or compressed by gzip or zstd. The build ends with the call.")
            .query::<BuildQuery>()
            .bytes_in()
            .lines::<BuildLine>(200, "What it tells, as it goes on."),
        build,
    )
}

fn texts(field: &str, text: Option<&str>) -> Result<BTreeMap<String, String>> {
    let Some(text) = text else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|error| {
        Failure::new(Code::Invalid, format!("{field} is no JSON object of texts: {error}")).field(field)
    })
}

fn asked(query: &BuildQuery) -> Result<Asked> {
    let tags = query.tags.as_deref().unwrap_or("").split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let mut asked = Asked {
        tags: tags.map(str::to_string).collect(),
        dockerfile: query.dockerfile.clone().unwrap_or_else(|| "Dockerfile".into()),
        no_cache: query.no_cache.is_some_and(|on| on > 0),
        pull: query.pull.is_some_and(|on| on > 0),
        args: texts("args", query.args.as_deref())?,
        labels: texts("labels", query.labels.as_deref())?,
        target: query.target.clone().filter(|target| !target.is_empty()),
        network: query.network.clone().unwrap_or_else(|| "default".into()),
        ..Asked::default()
    };
    let bytes =
        query.memory_mib.unwrap_or(0).checked_mul(1 << 20).and_then(|bytes| i64::try_from(bytes).ok());
    asked.host.memory =
        bytes.ok_or_else(|| Failure::new(Code::Invalid, "so much memory cannot be").field("memory_mib"))?;
    asked.checked()
}

async fn build(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(query): Params<BuildQuery>,
    request: Request,
) -> Result<Response> {
    let told = lines(&app, caller, asked(&query)?, request.into_body()).await?;
    let told = told.filter_map(async |line| {
        let line = serde_json::to_string(&translated(&line)?).ok()?;
        Some(Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(told)).into_response())
}

/// A line of docker's form in this door's; bars of pulls are left out.
fn translated(line: &Value) -> Option<BuildLine> {
    let text = |name: &str| line.get(name)?.as_str().map(str::to_string);
    if let Some(error) = text("error") {
        let code = line["errorDetail"]["code"].as_i64().and_then(|code| i32::try_from(code).ok());
        return Some(BuildLine { error: Some(error), code, ..BuildLine::default() });
    }
    if let Some(image) = line["aux"]["ID"].as_str() {
        return Some(BuildLine { image: Some(image.to_string()), ..BuildLine::default() });
    }
    let is_bar = line["progressDetail"].as_object().is_some_and(|bar| !bar.is_empty());
    let status = || text("status").filter(|_| !is_bar).map(|status| format!("{status}\n"));
    Some(BuildLine { text: Some(text("stream").or_else(status)?), ..BuildLine::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_translated() {
        for (line, wanted) in [
            (json!({"stream": "Step 1/2 : FROM x\n"}), json!({"text": "Step 1/2 : FROM x\n"})),
            (json!({"status": "Pulling", "id": "latest"}), json!({"text": "Pulling\n"})),
            (json!({"aux": {"ID": "sha256:00"}}), json!({"image": "sha256:00"})),
            (json!({"error": "no", "errorDetail": {"code": 3}}), json!({"error": "no", "code": 3})),
        ] {
            assert_eq!(serde_json::to_value(translated(&line).unwrap()).unwrap(), wanted, "{line}");
        }
        assert_eq!(translated(&json!({"status": "x", "progressDetail": {"current": 1}})), None);
    }

    #[test]
    fn what_is_asked_is_checked() {
        let query = BuildQuery {
            tags: Some("web, shop/web:1".into()),
            args: Some(r#"{"A": "1"}"#.into()),
            ..BuildQuery::default()
        };
        let read = asked(&query).unwrap();
        assert_eq!(read.tags, ["docker.io/library/web:latest", "docker.io/shop/web:1"]);
        assert_eq!(read.args["A"], "1");
        for (query, field) in [
            (BuildQuery { args: Some("x".into()), ..BuildQuery::default() }, "args"),
            (BuildQuery { labels: Some("[]".into()), ..BuildQuery::default() }, "labels"),
            (BuildQuery { memory_mib: Some(u64::MAX), ..BuildQuery::default() }, "memory_mib"),
        ] {
            assert_eq!(asked(&query).expect_err(field).error.field.as_deref(), Some(field));
        }
    }
}
