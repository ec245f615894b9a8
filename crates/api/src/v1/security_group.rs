//! Security groups and their rules.

use super::{
    audit::{deed, known, note, note_as},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Head, List,
        list::WaitQuery,
        security_group::{
            CreateRule, CreateSecurityGroup, Rule as RuleView, SecurityGroup as View, UpdateSecurityGroup,
        },
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
    response::{IntoResponse, Response},
};
use control::{
    Caller, Error,
    security_group::{NewRule, NewSecurityGroup},
};
use model::{
    error::Code,
    id::RuleId,
    security_group::{IcmpMatch, Peer, Rule, SecurityGroup},
};

impl Served for SecurityGroup {
    type View = View;

    fn view(&self, scene: &Scene<'_>) -> View {
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            rules: self.rules.iter().map(|rule| rule_view(rule, scene)).collect(),
            is_default: self.is_default,
        }
    }
}

fn rule_view(rule: &Rule, scene: &Scene<'_>) -> RuleView {
    let (peer, peer_group) = match rule.peer {
        Peer::Any => (Some("any".to_string()), None),
        Peer::Net(net) if net.prefix_len() == 0 => (Some("any".to_string()), None),
        Peer::Net(net) => (Some(net.to_string()), None),
        Peer::Group(group) => (None, Some(scene.reference::<SecurityGroup>(group))),
    };
    RuleView {
        id: rule.id.0,
        direction: rule.direction,
        family: rule.family,
        protocol: rule.protocol_text().unwrap_or_else(|| "any".to_string()),
        ports: rule.ports.map(|p| p.to_string()),
        icmp_type: rule.icmp.map(|i| i.kind),
        icmp_code: rule.icmp.and_then(|i| i.code),
        peer,
        peer_group,
        description: rule.description.clone(),
    }
}

/// Adds the routes of security groups.
pub fn routes(routes: Routes) -> Routes {
    let tag = "security_groups";
    routes
        .collection::<SecurityGroup>()
        .add(
            Method::POST,
            "/v1/security_groups",
            tag,
            Doc::new("Make a security group").details("It lets all traffic out and none in, beside its rules.")
                .wait().input::<CreateSecurityGroup>().answer::<View>(201, "Made."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/security_groups/{ref}",
            tag,
            Doc::new("Change a security group").wait().input::<UpdateSecurityGroup>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/security_groups/{ref}",
            tag,
            Doc::new("Delete a security group").details("Refused while a port has it or another group's rule names it.")
                .wait().empty(204, "Gone."),
            delete,
        )
        .add(
            Method::GET,
            "/v1/security_groups/{ref}/rules",
            tag,
            Doc::new("List the rules").page::<RuleView>(200, "All rules."),
            list_rules,
        )
        .add(
            Method::POST,
            "/v1/security_groups/{ref}/rules",
            tag,
            Doc::new("Add a rule")
                .details("Where neither family, peer nor protocol says which address family is meant, a rule is made for each.")
                .input::<CreateRule>().page::<RuleView>(201, "The new rules."),
            add_rule,
        )
        .add(
            Method::DELETE,
            "/v1/security_groups/{ref}/rules/{rule}",
            tag,
            Doc::new("Take a rule away").details("Flows that nothing allows any more end at once.").empty(204, "Gone."),
            delete_rule,
        )
}

/// A rule as control takes it.
fn new_rule(input: &CreateRule) -> control::Result<NewRule> {
    if input.peer.is_some() && input.peer_group.is_some() {
        return Err(Error::invalid("peer_group", "a rule has a peer or a peer group, not both"));
    }
    let icmp = match (input.icmp_type, input.icmp_code) {
        (None, Some(_)) => return Err(Error::invalid("icmp_type", "an ICMP code needs an ICMP type")),
        (None, None) => None,
        (Some(kind), code) => Some(IcmpMatch { kind, code }),
    };
    Ok(NewRule {
        direction: input.direction,
        family: input.family,
        protocol: input.protocol.clone().filter(|p| p != "any"),
        ports: input.ports.clone(),
        icmp,
        net: input.peer.clone().filter(|p| p != "any"),
        group: input.peer_group.clone(),
        description: input.description.clone(),
    })
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateSecurityGroup>,
) -> Result<Response> {
    check_wait::<SecurityGroup>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let outcome = make(&app, &caller, &input).await;
    let made = note(&app, &caller, deed("create", "security_group", &input.name), outcome).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn make(app: &App, caller: &Caller, input: &CreateSecurityGroup) -> control::Result<SecurityGroup> {
    let rules =
        input.rules.iter().enumerate().map(|(number, rule)| new_rule(rule).map_err(|e| within(e, number)));
    let new = NewSecurityGroup {
        name: input.name.clone(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        closed: input.closed,
        rules: rules.collect::<control::Result<_>>()?,
    };
    app.control().create_security_group(caller, &new).await
}

fn within(error: Error, number: usize) -> Error {
    let field = match &error.field {
        Some(field) => format!("rules[{number}].{field}"),
        None => format!("rules[{number}]"),
    };
    error.field(&field)
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateSecurityGroup>,
) -> Result<Response> {
    check_wait::<SecurityGroup>(&wait)?;
    let changed = app
        .control()
        .change::<SecurityGroup>(&caller, &reference, |group| {
            if group.is_default && input.name.as_ref().is_some_and(|name| name != group.meta.name.as_str()) {
                return Err(Error::new(Code::Conflict, "the default group keeps its name").field("name"));
            }
            describe(&mut group.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
        })
        .await;
    let changed = note(&app, &caller, deed("update", "security_group", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_security_group(&asker.0, id).await;
    remove::<SecurityGroup>(&app, &asker, &reference, &wait, act).await
}

async fn list_rules(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<List<RuleView>>> {
    let found = app.control().find::<SecurityGroup>(&caller, &reference)?;
    let scene = Scene::new(app.control(), &caller);
    let items = found.record.rules.iter().map(|rule| rule_view(rule, &scene)).collect();
    Ok(Json(List { items, next: None }))
}

async fn add_rule(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Input(input): Input<CreateRule>,
) -> Result<Response> {
    let group = app.control().find::<SecurityGroup>(&caller, &reference)?;
    let meta = &group.record.meta;
    let outcome = match new_rule(&input) {
        Ok(rule) => app.control().add_rule(&caller, &meta.id.to_string(), rule).await,
        Err(error) => Err(error),
    };
    let about = deed("add_rule", "security_group", &reference);
    let rules = note_as(&app, &caller, about, outcome, known(meta.id, &meta.name)).await?;
    let scene = Scene::new(app.control(), &caller);
    let items = rules.iter().map(|rule| rule_view(rule, &scene)).collect();
    Ok((StatusCode::CREATED, Json(List { items, next: None })).into_response())
}

async fn delete_rule(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, rule)): Path<(String, String)>,
) -> Result<StatusCode> {
    let group = app.control().find::<SecurityGroup>(&caller, &reference)?;
    let meta = &group.record.meta;
    let id = rule_meant(&group.record, &rule)?;
    let outcome = app.control().remove_rules(&caller, &meta.id.to_string(), &[id]).await;
    let about = deed("delete_rule", "security_group", &reference);
    note_as(&app, &caller, about, outcome, known(meta.id, &meta.name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The rule with this id or unique beginning of it (4 characters at least).
fn rule_meant(group: &SecurityGroup, text: &str) -> control::Result<RuleId> {
    let prefix = text.to_ascii_lowercase();
    let fits: Vec<RuleId> = group
        .rules
        .iter()
        .map(|rule| rule.id)
        .filter(|id| prefix.len() >= 4 && id.to_string().starts_with(&prefix))
        .collect();
    match fits.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::new(Code::NotFound, format!("group {} has no rule {text:?}", group.meta.name))),
        several => Err(Error::new(Code::Conflict, format!("{} rules begin with {text:?}", several.len()))
            .hint("give more of the id")),
    }
}
