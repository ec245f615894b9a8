//! The table of routes. A route is added once, with its handler and what the OpenAPI document says of it, so that
//! the two cannot differ.

use super::{
    served::{Served, list, show},
    types::{
        ErrorBody,
        list::{ListQuery, WaitQuery},
    },
};
use crate::routing::{Router, on};
use crate::{app::App, client::Noun};
use axum::routing::MethodFilter;
use axum::{handler::Handler, http::Method};
use std::collections::BTreeMap;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, RefOr, Required,
        path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        response::ResponseBuilder,
        schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Schema, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

type Schemas = Vec<(String, RefOr<Schema>)>;
/// A media type and what has it.
type Form = (&'static str, RefOr<Schema>);

/// Routes and their description.
#[derive(Default)]
pub struct Routes {
    router: Router<App>,
    paths: BTreeMap<String, PathItem>,
    schemas: BTreeMap<String, RefOr<Schema>>,
    table: Vec<(Method, String)>,
}

/// What the OpenAPI document says of one route.
pub struct Doc {
    summary: &'static str,
    description: Option<&'static str>,
    parameters: Vec<Parameter>,
    body: Option<Form>,
    answers: Vec<(u16, &'static str, Option<Form>)>,
    schemas: Schemas,
}

impl Doc {
    /// A route that does this.
    pub fn new(summary: &'static str) -> Self {
        Self { summary, description: None, parameters: vec![], body: None, answers: vec![], schemas: vec![] }
    }

    /// More words.
    pub fn details(mut self, text: &'static str) -> Self {
        self.description = Some(text);
        self
    }

    /// Takes these query parameters.
    pub fn query<Q: IntoParams>(mut self) -> Self {
        self.parameters.extend(Q::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// May wait.
    pub fn wait(self) -> Self {
        self.query::<WaitQuery>()
    }

    /// Takes this JSON body.
    pub fn input<T: ToSchema>(mut self) -> Self {
        let schema = self.schema::<T>();
        self.body = Some(("application/json", schema));
        self
    }

    /// Takes bytes.
    pub fn bytes_in(mut self) -> Self {
        self.body = Some(("application/octet-stream", binary()));
        self
    }

    /// Answers this JSON.
    pub fn answer<T: ToSchema>(mut self, status: u16, text: &'static str) -> Self {
        let schema = self.schema::<T>();
        self.answers.push((status, text, Some(("application/json", schema))));
        self
    }

    /// Answers this JSON, unless it is said already what it answers.
    pub fn answer_else<T: ToSchema>(self, status: u16, text: &'static str) -> Self {
        if self.answers.is_empty() { self.answer::<T>(status, text) } else { self }
    }

    /// Answers a page of a list.
    pub fn page<T: ToSchema>(mut self, status: u16, text: &'static str) -> Self {
        let item = self.schema::<T>();
        let name = format!("{}List", T::name());
        let next = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Marker of the next page; missing on the last."));
        let page = ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(item))
            .property("next", next)
            .required("items")
            .build();
        self.schemas.push((name.clone(), RefOr::T(Schema::Object(page))));
        let schema = RefOr::Ref(Ref::from_schema_name(name));
        self.answers.push((status, text, Some(("application/json", schema))));
        self
    }

    /// Answers one JSON value per line.
    pub fn lines<T: ToSchema>(mut self, status: u16, text: &'static str) -> Self {
        let schema = self.schema::<T>();
        self.answers.push((status, text, Some(("application/x-ndjson", schema))));
        self
    }

    /// Answers bytes.
    pub fn bytes_out(mut self, status: u16, kind: &'static str, text: &'static str) -> Self {
        self.answers.push((status, text, Some((kind, binary()))));
        self
    }

    /// Answers nothing.
    pub fn empty(mut self, status: u16, text: &'static str) -> Self {
        self.answers.push((status, text, None));
        self
    }

    fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(name))
    }
}

fn binary() -> RefOr<Schema> {
    RefOr::T(Schema::Object(
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Binary)))
            .build(),
    ))
}

impl Routes {
    /// Adds a route. `tag` groups it in the document.
    pub fn add<H, T>(mut self, method: Method, path: &str, tag: &str, doc: Doc, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("only usual methods are routed");
        self.router = self.router.route(path, on(filter, handler));
        self.schemas.extend(doc.schemas.iter().cloned());
        let item = self.paths.entry(path.to_string()).or_default();
        let operation = Some(operation(&method, path, tag, doc));
        match method {
            Method::GET => item.get = operation,
            Method::POST => item.post = operation,
            Method::PUT => item.put = operation,
            Method::PATCH => item.patch = operation,
            Method::DELETE => item.delete = operation,
            other => unreachable!("{other} is not used by this API"),
        }
        self.table.push((method, path.to_string()));
        self
    }

    /// Adds the list and the view of a noun.
    pub fn collection<R: Served>(self) -> Self {
        let noun = <R::View as Noun>::PATH;
        self.add(
            Method::GET,
            &format!("/v1/{noun}"),
            noun,
            Doc::new("List").query::<ListQuery>().page::<R::View>(200, "One page."),
            list::<R>,
        )
        .add(
            Method::GET,
            &format!("/v1/{noun}/{{ref}}"),
            noun,
            Doc::new("Show one").wait().answer::<R::View>(200, "The thing."),
            show::<R>,
        )
    }

    /// Every route: method and path.
    pub fn table(&self) -> &[(Method, String)] {
        &self.table
    }

    /// The router, without state and layers.
    pub fn router(self) -> Router<App> {
        self.router
    }

    /// The document.
    pub fn document(&self) -> OpenApi {
        let mut paths = Paths::new();
        paths.paths.extend(self.paths.clone());
        let mut schemas = self.schemas.clone();
        let mut errors: Schemas = vec![];
        errors.push((ErrorBody::name().into_owned(), <ErrorBody as utoipa::PartialSchema>::schema()));
        ErrorBody::schemas(&mut errors);
        schemas.extend(errors);
        let components = ComponentsBuilder::new()
            .schemas_from_iter(schemas)
            .security_scheme(
                "token",
                SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
            )
            .build();
        OpenApiBuilder::new()
            .info(InfoBuilder::new().title("holm").version("v1").description(Some(ABOUT)).build())
            .paths(paths)
            .components(Some(components))
            .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]))
            .build()
    }
}

const ABOUT: &str = "The native API of holm.

A thing is named by its name, its id or a unique beginning of its id. The header `X-Holm-Project` says which \
project a call is about. Changes follow JSON merge patch: a missing field stays, `null` takes a value away. Calls \
return at once; `?wait=SECONDS` makes them wait until the thing is settled. Every error has the one form of \
`ErrorBody`. Every answer has the header `x-request-id`.";

fn operation(method: &Method, path: &str, tag: &str, doc: Doc) -> utoipa::openapi::path::Operation {
    let mut builder = OperationBuilder::new()
        .tag(tag)
        .summary(Some(doc.summary))
        .description(doc.description)
        .operation_id(Some(operation_id(method, path)));
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        builder = builder.parameter(path_parameter(name));
    }
    for parameter in doc.parameters {
        builder = builder.parameter(parameter);
    }
    if let Some((kind, schema)) = doc.body {
        let body = RequestBodyBuilder::new()
            .content(kind, Content::new(Some(schema)))
            .required(Some(Required::True));
        builder = builder.request_body(Some(body.build()));
    }
    // One status may have several forms, as the client accepts.
    let mut responses: BTreeMap<u16, ResponseBuilder> = BTreeMap::new();
    for (status, text, content) in doc.answers {
        let mut response = responses.remove(&status).unwrap_or_default().description(text);
        if let Some((kind, schema)) = content {
            response = response.content(kind, Content::new(Some(schema)));
        }
        responses.insert(status, response);
    }
    for (status, response) in responses {
        builder = builder.response(status.to_string(), response.build());
    }
    let refusal = ResponseBuilder::new()
        .description("A refusal or failure.")
        .content("application/json", Content::new(Some(RefOr::Ref(Ref::from_schema_name(ErrorBody::name())))))
        .build();
    builder.response("default", refusal).build()
}

fn path_parameter(name: &str) -> Parameter {
    let text = match name {
        "ref" => "Name, id or unique beginning of the id.",
        "project" => "Name or id of the project.",
        _ => "Name, id or unique beginning of the id of the part.",
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(text))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .build()
}

/// `GET /v1/instances/{ref}/logs` is `get_instances_ref_logs`.
fn operation_id(method: &Method, path: &str) -> String {
    let words = path.trim_start_matches("/v1/").replace(['{', '}'], "").replace(['/', '-', '.'], "_");
    format!("{}_{}", method.as_str().to_lowercase(), words.trim_start_matches('_'))
}
