//! `/v2.0/security-group-rules`.

use super::{
    attributes::{Attributes, Bodies, wrong},
    head::time,
    listing,
    refusal::About,
    security_groups::ABOUT,
};
use crate::openstack::{Base, Door, Fault, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Control, security_group::NewRule};
use model::{
    id::RuleId,
    security_group::{Direction, Family, IcmpMatch, Peer, Protocol, Rule, SecurityGroup},
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes of rules.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/security-group-rules", get(list).post(create))
        .route("/v2.0/security-group-rules/{id}", get(show).delete(delete))
}

/// A rule as clients see it.
pub fn rule_view(group: &SecurityGroup, rule: &Rule) -> Value {
    let project = group.meta.project.hex();
    let (net, peer) = match rule.peer {
        Peer::Any => (None, None),
        Peer::Net(net) => (Some(net.to_string()), None),
        Peer::Group(id) => (None, Some(id.to_string())),
    };
    let (least, most) = match (rule.ports, rule.icmp) {
        (Some(ports), _) => (Some(u32::from(ports.first)), Some(u32::from(ports.last))),
        (None, Some(icmp)) => (Some(u32::from(icmp.kind)), icmp.code.map(u32::from)),
        (None, None) => (None, None),
    };
    let protocol = match rule.protocol_text() {
        Some(text) if text == "icmpv6" => Some("ipv6-icmp".to_string()),
        other => other,
    };
    let made = time(group.meta.created_at);
    json!({
        "id": rule.id.to_string(),
        "tenant_id": project,
        "project_id": project,
        "security_group_id": group.meta.id.to_string(),
        "ethertype": if rule.family == Family::Ipv4 { "IPv4" } else { "IPv6" },
        "direction": if rule.direction == Direction::Ingress { "ingress" } else { "egress" },
        "protocol": protocol,
        "port_range_min": least,
        "port_range_max": most,
        "remote_ip_prefix": net.clone(),
        "normalized_cidr": net,
        "remote_group_id": peer,
        "description": Some(&rule.description).filter(|text| !text.is_empty()),
        "created_at": made.clone(),
        "updated_at": made,
        "revision_number": 0,
    })
}

/// Every rule that a caller may see, with its group.
fn visible(control: &Control, session: &Session) -> Vec<Arc<Stored<SecurityGroup>>> {
    listing::all::<SecurityGroup>(control, session)
}

fn find(control: &Control, session: &Session, id: &str) -> Result<(Arc<Stored<SecurityGroup>>, Rule)> {
    for group in visible(control, session) {
        if let Some(rule) = group.record.rules.iter().find(|rule| rule.id.to_string() == id) {
            let rule = rule.clone();
            return Ok((group, rule));
        }
    }
    let message = format!("Security group rule {id} does not exist.");
    Err(Fault::new(model::error::Code::NotFound, message).kind("SecurityGroupRuleNotFound"))
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let groups = visible(door.control(), &session);
    let rules = groups.iter().flat_map(|g| g.record.rules.iter().map(|rule| rule_view(&g.record, rule)));
    listing::reply(rules.collect(), "security_group_rules", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let (group, rule) = find(door.control(), &session, &id)?;
    Ok(Json(json!({ "security_group_rule": shape::fields(rule_view(&group.record, &rule), &query) })))
}

fn bad(kind: &str, message: String) -> Fault {
    Fault::invalid(message).kind(kind)
}

/// A number of a rule that must lie within bounds.
fn bounded(value: Option<i64>, most: i64, what: &str) -> Result<()> {
    match value {
        Some(value) if !(0..=most).contains(&value) => {
            let kind = if what == "port" {
                "SecurityGroupInvalidPortValue"
            } else {
                "SecurityGroupInvalidIcmpValue"
            };
            Err(bad(kind, format!("Invalid value for {what} {value}")))
        }
        _ => Ok(()),
    }
}

/// Ports of a protocol that has them, as text; type and code of ICMP.
type Matches = (Option<String>, Option<IcmpMatch>);

/// What `port_range_min` and `port_range_max` mean for a protocol, by Neutron's rules.
fn matches(protocol: Option<Protocol>, least: Option<i64>, most: Option<i64>) -> Result<Matches> {
    if least.is_none() && most.is_none() {
        return Ok((None, None));
    }
    let Some(protocol) = protocol else {
        let message = "Must also specify protocol if port range is given.";
        return Err(bad("SecurityGroupProtocolRequiredWithPorts", message.into()));
    };
    if protocol.is_icmp() {
        bounded(least, 255, "ICMP type (port-range-min)")?;
        bounded(most, 255, "ICMP code (port-range-max)")?;
        let Some(kind) = least else {
            let message = format!(
                "ICMP code (port-range-max) {} is provided but ICMP type (port-range-min) is missing.",
                most.unwrap_or_default()
            );
            return Err(bad("SecurityGroupMissingIcmpType", message));
        };
        let byte = |value: i64| u8::try_from(value).ok();
        let icmp = byte(kind).map(|kind| IcmpMatch { kind, code: most.and_then(byte) });
        return Ok((None, icmp));
    }
    bounded(least, 65_535, "port")?;
    bounded(most, 65_535, "port")?;
    let (Some(least), Some(most)) = (least, most) else {
        return Err(invalid_range());
    };
    if least > most {
        return Err(invalid_range());
    }
    if !protocol.has_ports() {
        let message = format!("Invalid port range for protocol {protocol}: it has no ports.");
        return Err(bad("SecurityGroupInvalidProtocolForPort", message));
    }
    Ok((Some(format!("{least}-{most}")), None))
}

fn invalid_range() -> Fault {
    let message = "For TCP/UDP protocols, port_range_min must be <= port_range_max";
    bad("SecurityGroupInvalidPortRange", message.into())
}

fn read_protocol(body: &mut Attributes, family: Family) -> Result<(Option<Protocol>, Option<String>)> {
    let text = match body.take("protocol") {
        None | Some(Value::Null) => return Ok((None, None)),
        Some(Value::String(text)) if text.is_empty() || text == "any" => return Ok((None, None)),
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(wrong("protocol", format!("'{other}' is not a protocol"))),
    };
    let protocol: Protocol = text.parse().map_err(|_| {
        let message = format!("Security group rule protocol {text} not supported. Only protocol values [None, names of IANA protocols] and integer representations [0 to 255] are supported.");
        bad("SecurityGroupRuleInvalidProtocol", message)
    })?;
    // "icmp" on IPv6 has always meant that family's own.
    let protocol = match (protocol, family) {
        (Protocol::ICMP, Family::Ipv6) if !text.bytes().all(|b| b.is_ascii_digit()) => Protocol::ICMPV6,
        (protocol, _) => protocol,
    };
    let by_number = text.bytes().all(|b| b.is_ascii_digit());
    let kept = if by_number { protocol.0.to_string() } else { protocol.to_string() };
    Ok((Some(protocol), Some(kept)))
}

fn new_rule(control: &Control, session: &Session, mut body: Attributes) -> Result<(String, NewRule)> {
    body.owner(control, &session.caller)?;
    let group = body.required("security_group_id")?;
    listing::one::<SecurityGroup>(control, session, ABOUT, &group)?;
    let direction = match body.required("direction")?.as_str() {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        other => return Err(wrong("direction", format!("'{other}' is not in ['ingress', 'egress']"))),
    };
    let family = match body
        .nullable("ethertype")?
        .flatten()
        .unwrap_or("IPv4".into())
        .to_ascii_lowercase()
        .as_str()
    {
        "ipv4" | "" => Family::Ipv4,
        "ipv6" => Family::Ipv6,
        other => {
            let message = format!(
                "Security group rule for ethertype '{other}' not supported. Allowed values are ['IPv4', 'IPv6']."
            );
            return Err(bad("SecurityGroupRuleInvalidEtherType", message));
        }
    };
    let (protocol, text) = read_protocol(&mut body, family)?;
    let (least, most) = (body.number("port_range_min")?, body.number("port_range_max")?);
    let (ports, icmp) = matches(protocol, least, most)?;
    let net = body.nullable("remote_ip_prefix")?.flatten().filter(|text| !text.is_empty());
    let peer = body.nullable("remote_group_id")?.flatten().filter(|text| !text.is_empty());
    body.only("remote_address_group_id", &[])?;
    let description = body.nullable("description")?.flatten().unwrap_or_default();
    body.finish()?;
    if let Some(peer) = &peer {
        listing::one::<SecurityGroup>(control, session, ABOUT, peer)?;
    }
    if net.is_some() && peer.is_some() {
        let message = "Only remote_ip_prefix or remote_group_id may be provided.";
        return Err(bad("SecurityGroupMultipleRemoteEntites", message.into()));
    }
    if let Some(text) = &net {
        let range = super::attributes::range("remote_ip_prefix", text)?;
        if Family::of(range.addr()) != family {
            let message = format!("Conflicting value ethertype for CIDR {text}");
            return Err(bad("SecurityGroupRuleParameterConflict", message));
        }
    }
    let new = NewRule {
        direction,
        family: Some(family),
        protocol: text,
        ports,
        icmp,
        net,
        group: peer,
        description,
    };
    Ok((group, new))
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let bodies = Bodies::read(body, "security_group_rule", "security_group_rules")?;
    let is_many = bodies.is_many();
    let control = door.control();
    let all: Vec<(String, NewRule)> =
        bodies.into_all().into_iter().map(|body| new_rule(control, &session, body)).collect::<Result<_>>()?;
    let made = control.add_rules(&session.caller, &all).await.map_err(|error| match error.code {
        model::error::Code::Invalid => ABOUT.refuse()(error).kind("SecurityGroupRuleParameterConflict"),
        _ => ABOUT.refuse()(error),
    })?;
    let views: Vec<Value> = made
        .iter()
        .filter_map(|(group, rule)| Some(rule_view(&control.get::<SecurityGroup>(*group)?.record, rule)))
        .collect();
    let reply = if is_many {
        json!({ "security_group_rules": views })
    } else {
        json!({ "security_group_rule": views.first() })
    };
    let rule: RuleId = made[0].1.id;
    Ok(Deed::new("add_rule", "security_group", rule, "").on((StatusCode::CREATED, Json(reply))))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let (group, rule) = find(control, &session, &id)?;
    let meta = &group.record.meta;
    control
        .remove_rules(&session.caller, &meta.id.to_string(), &[rule.id])
        .await
        .map_err(About::SecurityGroup.refuse())?;
    Ok(Deed::new("delete_rule", "security_group", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_ports_or_icmp_as_the_protocol_says() {
        let (tcp, icmp) = (Some(Protocol::TCP), Some(Protocol::ICMP));
        assert_eq!(matches(tcp, Some(22), Some(80)).unwrap(), (Some("22-80".into()), None));
        assert_eq!(matches(None, None, None).unwrap(), (None, None));
        let ping = IcmpMatch { kind: 8, code: Some(0) };
        assert_eq!(matches(icmp, Some(8), Some(0)).unwrap(), (None, Some(ping)));
        for (protocol, least, most, words) in [
            (tcp, Some(-16), Some(80), "Invalid value for port -16"),
            (tcp, Some(80), Some(79), "port_range_min must be <= port_range_max"),
            (tcp, Some(80), Some(65_536), "Invalid value for port 65536"),
            (tcp, None, Some(6), "port_range_min must be <= port_range_max"),
            (icmp, Some(1), Some(256), "Invalid value for ICMP code"),
            (icmp, None, Some(6), "ICMP type (port-range-min) is missing"),
            (icmp, Some(300), Some(1), "Invalid value for ICMP type"),
            (None, Some(1), Some(2), "Must also specify protocol"),
            (Some(Protocol(47)), Some(1), Some(2), "no ports"),
        ] {
            let refused = matches(protocol, least, most).unwrap_err();
            assert!(refused.message.contains(words), "{protocol:?} {least:?} {most:?}: {}", refused.message);
        }
    }
}
