//! The native API, version 1: JSON over HTTP/1.1 on a unix socket or TLS.
//!
//! One file per noun: its routes, its handlers and its view. What all nouns do alike is in [`served`], what the
//! OpenAPI document says of each route is said where the route is added ([`routes`]).

mod address_scope;
mod advice;
pub(crate) mod audit;
mod build;
mod deployment;
mod described;
mod exposed;
mod flavor;
mod floating_ip;
mod history;
pub(crate) mod image;
mod instance;
mod kept;
mod keypair;
mod network;
mod node;
mod port;
mod project;
mod router;
pub mod routes;
mod scene;
mod security_group;
mod served;
mod server_group;
mod snapshot;
mod subnet;
mod subnet_pool;
mod token;
pub mod types;
mod volume;

pub use deployment::copy_asked;

use crate::routing::get;
use crate::{
    app::{App, frame, unknown_path},
    error::Failure,
};
use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use model::error::Code;
use routes::Routes;
use std::sync::Arc;

/// Path of the OpenAPI document.
pub const DOCUMENT_PATH: &str = "/openapi.json";

/// All routes of this version.
pub fn all_routes() -> Routes {
    let groups: [fn(Routes) -> Routes; 23] = [
        project::routes,
        flavor::routes,
        keypair::routes,
        image::routes,
        build::routes,
        network::routes,
        subnet::routes,
        subnet_pool::routes,
        address_scope::routes,
        self::router::routes,
        port::routes,
        security_group::routes,
        floating_ip::routes,
        volume::routes,
        snapshot::routes,
        server_group::routes,
        instance::routes,
        deployment::routes,
        exposed::routes,
        advice::routes,
        node::routes,
        history::routes,
        token::routes,
    ];
    groups.into_iter().fold(Routes::default(), |routes, add| add(routes))
}

/// The OpenAPI document, as it is served.
pub fn document() -> String {
    let mut text = all_routes().document().to_pretty_json().expect("a document of strings becomes JSON");
    text.push('\n');
    text
}

/// The door: all routes with their frame.
pub fn router(app: App) -> axum::Router {
    let routes = all_routes();
    let known: Arc<[String]> = routes.table().iter().map(|(_, path)| path.clone()).collect();
    let document = document();
    let serve_document = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document) }
    };
    let fallback = move |request: Request| {
        let failure = unknown_path(request.uri().path(), &known);
        async move { failure }
    };
    routes
        .router()
        .route(DOCUMENT_PATH, get(serve_document))
        .axum()
        .fallback(fallback)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), frame))
        .with_state(app)
}

async fn wrong_method(method: Method, request: Request) -> Response {
    Failure::new(Code::Invalid, format!("{} does not take {method}", request.uri().path()))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .hint("the header Allow says what it takes; /openapi.json describes every path")
        .into_response()
}
