//! Security groups and their rules.

use crate::{Caller, Control, Error, Result, Role, schema::by_project, transact::Transaction};
use ipnet::IpNet;
use model::{
    error::Code,
    id::{ProjectId, RuleId, SecurityGroupId},
    instance::Instance,
    meta::{Labels, Meta},
    name::Name,
    port::Port,
    quota::Resource,
    security_group::{
        Direction, Family, IcmpMatch, Peer, PortRange, Protocol, RULES_MAX, Rule, SecurityGroup,
    },
    subnet::Subnet,
};
use std::sync::Arc;
use store::Stored;

/// A rule to be made.
#[derive(Debug, Clone)]
pub struct NewRule {
    /// Into or out of the instance.
    pub direction: Direction,
    /// Address family; told by the peer or the protocol when `None`, else both.
    pub family: Option<Family>,
    /// Protocol, any when `None`.
    pub protocol: Option<String>,
    /// Ports as `80` or `8000-8080`.
    pub ports: Option<String>,
    /// ICMP type and code.
    pub icmp: Option<IcmpMatch>,
    /// Range of the other side; a single address is a range of one.
    pub net: Option<String>,
    /// Group of the other side.
    pub group: Option<String>,
    /// Free text.
    pub description: String,
}

/// A security group to be made.
#[derive(Debug, Clone, Default)]
pub struct NewSecurityGroup {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Leave out the rules that let all traffic out.
    pub closed: bool,
    /// Rules beside those.
    pub rules: Vec<NewRule>,
}

impl NewSecurityGroup {
    /// A group with nothing but a name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_string(), ..Self::default() }
    }
}

/// Where a default group that was made anew holds its project's only place: names alone may be shared.
const DEFAULT_PLACE: &str = "slot/default_security_group";

/// Gives the place of a default group back. Those that projects began with hold none.
fn release_place(tx: &mut Transaction, group: &SecurityGroup) {
    if group.is_default {
        let (project, id) = (group.meta.project.to_string(), group.meta.id.to_string());
        tx.raw().release_if_owned(DEFAULT_PLACE, &project, &id);
    }
}

/// Rules stand on the groups that they name.
fn stand_on_peers(tx: &mut Transaction, rules: &[Rule]) {
    for rule in rules {
        if let Peer::Group(group) = rule.peer {
            tx.stand_on::<SecurityGroup>(group);
        }
    }
}

/// Adds rules that are not there yet, and gives these.
fn put_rules(group: &mut SecurityGroup, rules: Vec<Rule>) -> Result<Vec<Rule>> {
    let is_new = |rule: &Rule| !group.rules.iter().any(|r| r.same_effect(rule));
    let added: Vec<Rule> = rules.into_iter().filter(is_new).collect();
    if added.is_empty() {
        let message = format!("security group {} has this rule already", group.meta.name);
        return Err(Error::new(Code::Taken, message));
    }
    group.rules.extend(added.iter().cloned());
    if group.rules.len() > RULES_MAX {
        let message = format!("a security group has at most {RULES_MAX} rules");
        return Err(Error::new(Code::TooLarge, message).hint("use ranges, or a second group"));
    }
    Ok(added)
}

fn within(error: Error, number: usize) -> Error {
    let field = match &error.field {
        Some(field) => format!("rules[{number}].{field}"),
        None => format!("rules[{number}]"),
    };
    error.field(&field)
}

/// Reads an address range; a single address is a range of one, host bits are cleared.
///
/// # Errors
/// `invalid`, with the forms that are understood.
pub fn parse_range(field: &str, text: &str) -> Result<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net.trunc());
    }
    text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| {
        Error::invalid(field, format!("{text:?} is not an address or range"))
            .hint("write it like 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32")
    })
}

impl Control {
    /// Makes a security group with its rules, or none; out is open, in is closed, as on every cloud.
    ///
    /// # Errors
    /// `invalid`, `taken`, `quota_exceeded`.
    pub async fn create_security_group(
        &self,
        caller: &Caller,
        new: &NewSecurityGroup,
    ) -> Result<SecurityGroup> {
        caller.require(Role::Member, "creating a security group")?;
        let id = SecurityGroupId::from_random(rand::random());
        let name = self.name_asked(&new.name, "group", &id.short())?;
        let mut draft = self.new_group(id, caller.project, name, &new.description);
        draft.meta.labels.clone_from(&new.labels);
        if new.closed {
            draft.rules.clear();
        }
        self.transact(|tx| {
            let mut group = draft.clone();
            for (number, rule) in new.rules.iter().enumerate() {
                let added = self.rules_asked(caller, rule).map_err(|e| within(e, number))?;
                stand_on_peers(tx, &added);
                put_rules(&mut group, added).map_err(|e| within(e, number))?;
            }
            self.add_group(tx, &group);
            Ok(group)
        })
        .await
    }

    fn new_group(
        &self,
        id: SecurityGroupId,
        project: ProjectId,
        name: Name,
        description: &str,
    ) -> SecurityGroup {
        let mut meta = Meta::new(id, project, name, self.now());
        meta.description = description.to_string();
        let open = |family| Rule {
            id: RuleId::from_random(rand::random()),
            direction: Direction::Egress,
            family,
            protocol: None,
            by_number: false,
            ports: None,
            icmp: None,
            peer: Peer::Any,
            description: String::new(),
        };
        let rules = vec![open(Family::Ipv4), open(Family::Ipv6)];
        SecurityGroup { meta, rules, is_default: false, stateful: true }
    }

    fn add_group(&self, tx: &mut Transaction, group: &SecurityGroup) {
        let project = group.meta.project;
        let rules = i64::try_from(group.rules.len()).unwrap_or(i64::MAX);
        self.charge(tx, project, &[(Resource::SecurityGroups, 1), (Resource::SecurityGroupRules, rules)]);
        tx.create(group);
    }

    /// The group `default` of a new project: its members reach each other.
    pub(crate) fn add_default_group(&self, tx: &mut Transaction, project: ProjectId) -> SecurityGroupId {
        let name = "default".parse().expect("a constant name parses");
        let id = SecurityGroupId::from_random(rand::random());
        let mut group = self.new_group(id, project, name, "Members reach each other; out is open");
        group.is_default = true;
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut rule = group.rules[0].clone();
            rule.id = RuleId::from_random(rand::random());
            (rule.direction, rule.family, rule.peer) =
                (Direction::Ingress, family, Peer::Group(group.meta.id));
            group.rules.push(rule);
        }
        self.add_group(tx, &group);
        id
    }

    /// Removes the groups of a project that goes.
    pub(crate) fn drop_groups(&self, tx: &mut Transaction, project: ProjectId) {
        for group in self.store.mirror().list::<SecurityGroup>() {
            if group.record.meta.project == project {
                release_place(tx, &group.record);
                tx.forget_arrivals::<SecurityGroup>(group.record.meta.id);
                tx.delete(&group);
            }
        }
    }

    /// The group `default` of a project for a port that names none. Where an admin removed it, it is made anew in
    /// the same transaction, once however many ask at the same time.
    pub(crate) fn default_group_of(&self, tx: &mut Transaction, project: ProjectId) -> SecurityGroupId {
        if let Ok(found) = self.default_group(project) {
            return found.record.meta.id;
        }
        if let Some(id) = tx.default_group_of(project) {
            return id;
        }
        let id = self.add_default_group(tx, project);
        tx.claim(DEFAULT_PLACE, &project.to_string(), &id.to_string());
        tx.note_default_group(project, id);
        id
    }

    /// The project's group `default`.
    ///
    /// # Errors
    /// `not_found`, if an admin removed it and no port has needed it since.
    pub fn default_group(&self, project: ProjectId) -> Result<Arc<Stored<SecurityGroup>>> {
        let all = self.store.by_index(&by_project::<SecurityGroup>(), &project.to_string());
        all.into_iter()
            .find(|g| g.record.is_default)
            .ok_or_else(|| Error::new(Code::NotFound, "the project has no default security group"))
    }

    /// Ids of the groups named.
    ///
    /// # Errors
    /// `not_found`.
    pub fn groups_asked(&self, caller: &Caller, names: &[String]) -> Result<Vec<SecurityGroupId>> {
        let mut ids = vec![];
        for name in names {
            let id = self.find_for::<SecurityGroup>(caller, "security_groups", name)?.record.meta.id;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Adds a rule; one for each family when neither peer nor protocol tells which. A rule that is there already is
    /// not added twice.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `quota_exceeded`, `too_large`, `taken` if all of it is there already.
    pub async fn add_rule(&self, caller: &Caller, group: &str, new: NewRule) -> Result<Vec<Rule>> {
        let added = self.add_rules(caller, &[(group.to_string(), new)]).await?;
        Ok(added.into_iter().map(|(_, rule)| rule).collect())
    }

    /// Adds rules to groups, all or none.
    ///
    /// # Errors
    /// As [`Self::add_rule`].
    pub async fn add_rules(
        &self,
        caller: &Caller,
        new: &[(String, NewRule)],
    ) -> Result<Vec<(SecurityGroupId, Rule)>> {
        self.transact(|tx| {
            let mut changed: Vec<(Arc<Stored<SecurityGroup>>, SecurityGroup)> = vec![];
            let mut all = vec![];
            for (group, new) in new {
                let found = self.find_own::<SecurityGroup>(caller, group, "adding a rule")?;
                let id = found.record.meta.id;
                let place = changed.iter().position(|(f, _)| f.record.meta.id == id).unwrap_or_else(|| {
                    changed.push((Arc::clone(&found), found.record.clone()));
                    changed.len() - 1
                });
                let added = put_rules(&mut changed[place].1, self.rules_asked(caller, new)?)?;
                stand_on_peers(tx, &added);
                all.extend(added.into_iter().map(|rule| (id, rule)));
            }
            for (found, mut next) in changed {
                let count = next.rules.len() - found.record.rules.len();
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.charge(tx, next.meta.project, &[(Resource::SecurityGroupRules, count)]);
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(all)
        })
        .await
    }

    fn rules_asked(&self, caller: &Caller, new: &NewRule) -> Result<Vec<Rule>> {
        let protocol = match new.protocol.as_deref() {
            None | Some("any" | "all") => None,
            Some(text) => Some(text.parse::<Protocol>().map_err(|e| Error::invalid("protocol", e))?),
        };
        let ports = match &new.ports {
            Some(text) => Some(text.parse::<PortRange>().map_err(|e| Error::invalid("ports", e))?),
            None => None,
        };
        let peer = match (&new.net, &new.group) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("peer", "a rule names an address range or a group, not both"));
            }
            (Some(text), None) => Peer::Net(parse_range("peer", text)?),
            (None, Some(name)) => {
                Peer::Group(self.find_for::<SecurityGroup>(caller, "group", name)?.record.meta.id)
            }
            (None, None) => Peer::Any,
        };
        let told = match (new.family, &new.net, protocol) {
            (Some(family), _, _) => Some(family),
            (None, Some(text), _) => Some(Family::of(parse_range("peer", text)?.addr())),
            (None, None, Some(Protocol::ICMPV6)) => Some(Family::Ipv6),
            _ => None,
        };
        let families = told.map_or(vec![Family::Ipv4, Family::Ipv6], |family| vec![family]);
        families
            .into_iter()
            .map(|family| {
                // "icmp" without a family means each family's own ICMP.
                let protocol = match (protocol, family, told) {
                    (Some(Protocol::ICMP), Family::Ipv6, _) => Some(Protocol::ICMPV6),
                    (protocol, _, _) => protocol,
                };
                let is_number = |text: &String| text.bytes().all(|b| b.is_ascii_digit());
                let rule = Rule {
                    id: RuleId::from_random(rand::random()),
                    direction: new.direction,
                    family,
                    protocol,
                    by_number: new.protocol.as_ref().is_some_and(is_number),
                    ports,
                    icmp: new.icmp,
                    peer,
                    description: new.description.clone(),
                };
                rule.check().map(|()| rule).map_err(|e| Error::invalid("rule", e))
            })
            .collect()
    }

    /// Takes rules out of a group. Flows that no other rule lets pass end at once.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn remove_rules(&self, caller: &Caller, group: &str, rules: &[RuleId]) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<SecurityGroup>(caller, group, "removing a rule")?;
            let mut next = found.record.clone();
            next.rules.retain(|rule| !rules.contains(&rule.id));
            let gone = found.record.rules.len() - next.rules.len();
            if gone < rules.len() {
                return Err(Error::new(Code::NotFound, "the security group has no such rule").field("rule"));
            }
            let count = i64::try_from(gone).unwrap_or(i64::MAX);
            self.charge(tx, next.meta.project, &[(Resource::SecurityGroupRules, -count)]);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(())
        })
        .await
    }

    /// Removes a group that no port has and no other group's rule names. A project keeps its default group, but an
    /// admin of another project may take it away, as tools do that clear a project before they delete it.
    ///
    /// # Errors
    /// `in_use`, `conflict` for the default group, `not_found`, `forbidden`.
    pub async fn delete_security_group(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<SecurityGroup>(caller, reference, "deleting a security group")?;
            let meta = &found.record.meta;
            let is_cleared = caller.role == Role::Admin && caller.project != meta.project;
            if found.record.is_default && !is_cleared {
                return Err(Error::new(Code::Conflict, "the default security group cannot be deleted")
                    .hint("remove its rules instead"));
            }
            let seen = self.arrivals::<SecurityGroup>(meta.id);
            if let Some(user) = self.user_of_group(meta.id) {
                return Err(Error::new(
                    Code::InUse,
                    format!("security group {} is used by {user}", meta.name),
                ));
            }
            let count = i64::try_from(found.record.rules.len()).unwrap_or(i64::MAX);
            self.charge(
                tx,
                meta.project,
                &[(Resource::SecurityGroups, -1), (Resource::SecurityGroupRules, -count)],
            );
            release_place(tx, &found.record);
            tx.delete_unused(&found, seen);
            Ok(())
        })
        .await
    }

    fn user_of_group(&self, id: SecurityGroupId) -> Option<String> {
        let ports = self.store.mirror().list::<Port>();
        if let Some(port) = ports.iter().find(|p| p.record.security_groups.contains(&id)) {
            let instance = port.record.instance().and_then(|i| self.get::<Instance>(i));
            return Some(match instance {
                Some(instance) => format!("instance {}", instance.record.meta.name),
                None => format!("port {}", port.record.meta.id),
            });
        }
        let subnets = self.store.list::<Subnet>();
        if let Some(subnet) = subnets.iter().find(|s| s.record.security_groups.contains(&id)) {
            return Some(format!("subnet {}", subnet.record.meta.name));
        }
        let groups = self.store.mirror().list::<SecurityGroup>();
        let names = |g: &SecurityGroup| g.meta.id != id && g.rules.iter().any(|r| r.peer == Peer::Group(id));
        groups.iter().find(|g| names(&g.record)).map(|g| format!("a rule of group {}", g.record.meta.name))
    }
}
