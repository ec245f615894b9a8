//! Address scopes.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head,
        list::WaitQuery,
        subnet_pool::{AddressScope as View, CreateAddressScope, UpdateAddressScope},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{Error, address_scope::NewAddressScope};
use model::address_scope::AddressScope;

impl Served for AddressScope {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            family: if self.ipv4 { 4 } else { 6 },
            shared: self.shared,
        }
    }
}

/// Adds the routes of address scopes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "address_scopes";
    routes
        .collection::<AddressScope>()
        .add(
            Method::POST,
            "/v1/address_scopes",
            tag,
            Doc::new("Make an address scope")
                .details("Subnet pools of one scope never share an address. Shared ones: admin only.")
                .wait()
                .input::<CreateAddressScope>()
                .answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/address_scopes/{ref}",
            tag,
            Doc::new("Change an address scope")
                .wait()
                .input::<UpdateAddressScope>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/address_scopes/{ref}",
            tag,
            Doc::new("Delete an address scope")
                .details("Refused while a subnet pool is in it.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateAddressScope>,
) -> Result<Response> {
    check_wait::<AddressScope>(&wait)?;
    let make = async {
        if !matches!(input.family, 4 | 6) {
            return Err(Error::invalid("family", "an address family is 4 or 6"));
        }
        let new = NewAddressScope {
            name: input.name.clone(),
            description: input.description.clone(),
            labels: input.labels.clone(),
            ipv4: input.family == 4,
            shared: input.shared,
        };
        app.control().create_address_scope(&caller, new).await
    };
    let made = note(&app, &caller, deed("create", "address_scope", &input.name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateAddressScope>,
) -> Result<Response> {
    check_wait::<AddressScope>(&wait)?;
    let edit = |scope: &mut AddressScope| {
        describe(&mut scope.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
    };
    let changed = app.control().change::<AddressScope>(&caller, &reference, edit).await;
    let changed = note(&app, &caller, deed("update", "address_scope", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_address_scope(&asker.0, id).await;
    remove::<AddressScope>(&app, &asker, &reference, &wait, act).await
}
