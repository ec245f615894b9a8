//! Security groups and their rules.

use super::{
    audit::{deed, known, note_as},
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Head, List,
        security_group::{
            CreateRule, CreateSecurityGroup, Rule as RuleView, SecurityGroup as View, UpdateSecurityGroup,
        },
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::Input,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use control::{
    Caller, Control, Error,
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

impl Kept for SecurityGroup {
    fn name_asked(new: &CreateSecurityGroup) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateSecurityGroup) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let rule = |(number, rule)| new_rule(rule).map_err(|error| within(error, number));
        let new = NewSecurityGroup {
            rules: new.rules.iter().enumerate().map(rule).collect::<control::Result<_>>()?,
            name: new.name,
            description: new.description,
            labels: new.labels,
            closed: new.closed,
        };
        control.create_security_group(caller, &new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateSecurityGroup,
    ) -> control::Result<Self> {
        let edit = |group: &mut Self| {
            if group.is_default && change.name.as_ref().is_some_and(|name| name != group.meta.name.as_str()) {
                return Err(Error::new(Code::Conflict, "the default group keeps its name").field("name"));
            }
            describe(&mut group.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_security_group(caller, id).await
    }
}

/// Adds the routes of security groups.
pub fn routes(routes: Routes) -> Routes {
    let tag = "security_groups";
    routes
        .kept::<SecurityGroup>(
            Doc::new("Make a security group").details("It lets all traffic out and none in, beside its rules."),
            Doc::new("Change a security group"),
            Doc::new("Delete a security group").details("Refused while a port has it or another group's rule names it."),
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

fn within(error: Error, number: usize) -> Error {
    let field = match &error.field {
        Some(field) => format!("rules[{number}].{field}"),
        None => format!("rules[{number}]"),
    };
    error.field(&field)
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
