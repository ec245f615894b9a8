//! SSH keys.

use super::{
    audit::{deed, note_as},
    described::{describe, dress},
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head, Reference,
        keypair::{CreateKeypair, Keypair as View, RevokedKeypair, UpdateKeypair},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
};
use axum::{
    Json,
    extract::{Path, State},
    http::Method,
};
use control::{Caller, Control, instance::keys::Revoked, keypair::NewKeypair};
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

impl Kept for Keypair {
    fn name_asked(new: &CreateKeypair) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateKeypair) -> control::Result<Self> {
        let CreateKeypair { name, description, labels, kind, public_key } = new;
        control::change::check_labels(&labels)?;
        let made = control.add_keypair(caller, NewKeypair { name, kind, public_key, user: None }).await?;
        dress(control, caller, made, &description, &labels).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateKeypair,
    ) -> control::Result<Self> {
        let edit = |key: &mut Self| {
            describe(&mut key.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_keypair(caller, None, id).await.map(drop)
    }
}

/// Adds the routes of SSH keys.
pub fn routes(routes: Routes) -> Routes {
    let tag = "keypairs";
    routes
        .kept::<Keypair>(
            Doc::new("Import a public key").answer::<View>(201, "Imported."),
            Doc::new("Change a key's record"),
            Doc::new("Delete a key")
                .details("Instances that let its holder in go on doing so: revoke it first to end that."),
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
