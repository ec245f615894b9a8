//! SSH keys.

use super::{
    audit::{deed, note, note_as},
    described::{describe, dress, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head, Reference,
        keypair::{CreateKeypair, Keypair as View, RevokedKeypair, UpdateKeypair},
        list::WaitQuery,
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{instance::keys::Revoked, keypair::NewKeypair};
use model::keypair::Keypair;

impl Served for Keypair {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        let instances = scene.control.instances_of(self.meta.project);
        let holds = |keys: &[(String, String)]| keys.iter().any(|(_, key)| *key == self.public_key);
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            public_key: self.public_key.clone(),
            fingerprint: self.fingerprint.clone(),
            kind: self.kind,
            user: self.user.map(|id| Reference { id: id.0, name: scene.control.user_name(id) }),
            instances: instances
                .iter()
                .filter(|i| holds(&i.record.keys))
                .map(|i| Reference::to(&i.record.meta))
                .collect(),
        }
    }
}

/// Adds the routes of SSH keys.
pub fn routes(routes: Routes) -> Routes {
    let tag = "keypairs";
    routes
        .collection::<Keypair>()
        .add(
            Method::POST,
            "/v1/keypairs",
            tag,
            Doc::new("Import a public key").wait().input::<CreateKeypair>().answer::<View>(201, "Imported."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/keypairs/{ref}",
            tag,
            Doc::new("Change a key's record").wait().input::<UpdateKeypair>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::POST,
            "/v1/keypairs/{ref}/revoke",
            tag,
            Doc::new("Take a key from all instances")
                .details(
                    "Guests that run are told by their agents. The key itself stays. A user's own key is taken from \
                     the instances of its project; by an admin, from those of every project.",
                )
                .answer::<RevokedKeypair>(200, "Taken."),
            revoke,
        )
        .add(
            Method::DELETE,
            "/v1/keypairs/{ref}",
            tag,
            Doc::new("Delete a key")
                .details("Instances that let its holder in go on doing so: revoke it first to end that.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateKeypair>,
) -> Result<Response> {
    check_wait::<Keypair>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let make = async {
        let new = NewKeypair {
            name: input.name.clone(),
            kind: input.kind,
            public_key: input.public_key.clone(),
            user: None,
        };
        let made = app.control().add_keypair(&caller, new).await?;
        dress(app.control(), &caller, made, &input.description, &input.labels).await
    };
    let made = note(&app, &caller, deed("create", "keypair", &input.name), make.await).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateKeypair>,
) -> Result<Response> {
    check_wait::<Keypair>(&wait)?;
    let changed = app
        .control()
        .change::<Keypair>(&caller, &reference, |key| {
            describe(&mut key.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
        })
        .await;
    let changed = note(&app, &caller, deed("update", "keypair", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn revoke(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<RevokedKeypair>> {
    let revoked = app.control().revoke_keypair(&caller, &reference).await;
    let subject = |revoked: &Revoked| {
        let meta = &revoked.keypair.record.meta;
        (meta.id.to_string(), meta.name.to_string())
    };
    let revoked = note_as(&app, &caller, deed("revoke", "keypair", &reference), revoked, subject).await?;
    let instances = revoked.instances.iter().map(|instance| Reference::to(&instance.meta)).collect();
    Ok(Json(RevokedKeypair { instances }))
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_keypair(&asker.0, None, id).await.map(|_| ());
    remove::<Keypair>(&app, &asker, &reference, &wait, act).await
}
