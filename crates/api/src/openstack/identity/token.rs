//! A session as Keystone shows it: the body of a token.

use super::{catalog, listing::time};
use crate::openstack::{base::Base, door::Door};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use control::session::{Place, Session};
use model::domain::{Domain, domain_text};
use serde_json::{Value, json};

/// A domain in a token.
fn domain(domain: &Domain) -> Value {
    json!({ "id": domain_text(domain.id), "name": domain.name })
}

/// The body of a token; its catalog only where the client wants it and there is something to call.
pub fn view(door: &Door, base: &Base, session: &Session, with_catalog: bool) -> Value {
    let claims = &session.claims;
    let user = &session.user.record;
    let audit = [Some(claims.audit), claims.parent];
    let audit_ids: Vec<String> = audit.iter().flatten().map(|id| URL_SAFE_NO_PAD.encode(id)).collect();
    let mut token = json!({
        "methods": claims.methods.names(),
        "user": {
            "domain": domain(&session.domain.record),
            "id": user.id.hex(),
            "name": user.name,
            "password_expires_at": null,
        },
        "audit_ids": audit_ids,
        "expires_at": time(claims.ends),
        "issued_at": time(claims.began),
    });
    match &session.place {
        Place::Unscoped => {}
        Place::System => token["system"] = json!({ "all": true }),
        Place::Domain(at) => token["domain"] = domain(&at.record),
        Place::Project(project, at) => {
            let meta = &project.record.meta;
            token["project"] =
                json!({ "domain": domain(&at.record), "id": meta.id.hex(), "name": meta.name });
            token["is_domain"] = json!(false);
        }
    }
    if !matches!(session.place, Place::Unscoped) {
        let roles = session.roles.iter().map(|r| json!({ "id": r.record.id.hex(), "name": r.record.name }));
        token["roles"] = roles.collect();
        if with_catalog {
            token["catalog"] = catalog::view(door, base);
        }
    }
    if let Some(credential) = &session.credential {
        let record = &credential.record;
        token["application_credential"] =
            json!({ "id": record.id.hex(), "name": record.name, "restricted": !record.unrestricted });
        if let Some(rules) = &record.access_rules {
            token["application_credential"]["access_rules"] =
                rules.iter().map(super::application_credential::rule).collect();
        }
    }
    json!({ "token": token })
}
