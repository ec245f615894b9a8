//! Nouns that callers make, change and delete by calls of one form: what differs is what a new one is made of and what a change
//! does to it. The routes, the wait, the operation that is noted and the answer are the same for all.

use super::{
    audit::{deed, known, note, note_as},
    routes::{Doc, Routes},
    served::{Served, answer, check_wait, farewell},
    types::list::WaitQuery,
};
use crate::{
    app::{App, Asker},
    client::{Create, Noun, Update},
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{Caller, Control};
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// What clients send to make one.
pub type New<R> = <<R as Served>::View as Create>::Request;
/// What clients send to change one.
pub type Change<R> = <<R as Served>::View as Update>::Request;

/// A noun that callers make, change and delete.
pub trait Kept:
    Served<View: Create<Request: DeserializeOwned + ToSchema> + Update<Request: DeserializeOwned + ToSchema>>
{
    /// The name that is asked for, by which a refusal is noted; empty for none.
    fn name_asked(new: &New<Self>) -> &str;

    /// Makes one.
    ///
    /// # Errors
    /// What `control` refuses.
    fn make(
        control: &Control,
        caller: &Caller,
        new: New<Self>,
    ) -> impl Future<Output = control::Result<Self>> + Send;

    /// Changes the one that `reference` means.
    ///
    /// # Errors
    /// What `control` refuses.
    fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: Change<Self>,
    ) -> impl Future<Output = control::Result<Self>> + Send;

    /// Deletes the one with this id.
    ///
    /// # Errors
    /// What `control` refuses.
    fn delete(
        control: &Control,
        caller: &Caller,
        id: &str,
    ) -> impl Future<Output = control::Result<()>> + Send;

    /// What a change is noted as.
    fn action(_change: &Change<Self>) -> &'static str {
        "update"
    }
}

impl Routes {
    /// Adds the list and the view of a noun, and how it is made, changed and deleted. The documents say what is special of these.
    pub fn kept<R: Kept>(self, made: Doc, changed: Doc, deleted: Doc) -> Self {
        let noun = <R::View as Noun>::PATH;
        let (all, one) = (format!("/v1/{noun}"), format!("/v1/{noun}/{{ref}}"));
        let made = made.wait().input::<New<R>>().answer_else::<R::View>(201, "Made.");
        let changed = changed.wait().input::<Change<R>>().answer_else::<R::View>(200, "Changed.");
        self.collection::<R>()
            .add(Method::POST, &all, noun, made, create::<R>)
            .add(Method::PATCH, &one, noun, changed, update::<R>)
            .add(Method::DELETE, &one, noun, deleted.wait().empty(204, "Gone."), delete::<R>)
    }
}

async fn create<R: Kept>(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(new): Input<New<R>>,
) -> Result<Response> {
    check_wait::<R>(&wait)?;
    let name = R::name_asked(&new).to_string();
    let made = R::make(app.control(), &caller, new).await;
    let made = note(&app, &caller, deed("create", R::TABLE, &name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update<R: Kept>(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(change): Input<Change<R>>,
) -> Result<Response> {
    check_wait::<R>(&wait)?;
    let action = R::action(&change);
    let changed = R::alter(app.control(), &caller, &reference, change).await;
    let changed = note(&app, &caller, deed(action, R::TABLE, &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete<R: Kept>(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    check_wait::<R>(&wait)?;
    let found = R::find(app.control(), &caller, &reference)?;
    let meta = found.record.meta();
    let outcome = R::delete(app.control(), &caller, &meta.id.to_string()).await;
    note_as(&app, &caller, deed("delete", R::TABLE, &reference), outcome, known(meta.id, &meta.name)).await?;
    farewell::<R>(&app, &caller, meta.id, &wait).await
}
