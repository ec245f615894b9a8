//! `holm security-group`: what traffic passes. `holm security-group rule add web tcp 80 --from 203.0.113.7`.

use super::{
    completion,
    failure::{Failure, Result},
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, page::Page, wide},
    session::Session,
    wording::counted,
};
use api::v1::types::{
    list::WaitQuery,
    security_group::{CreateRule, CreateSecurityGroup, Rule, SecurityGroup, UpdateSecurityGroup},
};
use jiff::Timestamp;
use model::security_group::{Direction, Family};

/// Verbs of `holm security-group`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List security groups
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a security group with its rules
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("security_groups"))]
        name: String,
    },
    /// Make a security group; it lets all traffic out and none in
    Create(CreateArgs),
    /// Change a group's name, description and labels
    Set(SetArgs),
    /// Add, remove or list rules
    #[command(subcommand)]
    Rule(RuleVerb),
    /// Delete security groups that nothing uses
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Verbs of `holm security-group rule`.
#[derive(Debug, clap::Subcommand)]
pub enum RuleVerb {
    /// Let traffic pass, in unless told otherwise
    Add(RuleArgs),
    /// Take rules away; flows that nothing allows any more end at once
    #[command(visible_aliases = ["delete", "rm"])]
    Remove {
        /// Group
        #[arg(value_name = "GROUP", add = completion::names("security_groups"))]
        group: String,
        /// Ids of rules, or unique beginnings of them
        #[arg(value_name = "RULE", required = true)]
        rules: Vec<String>,
    },
    /// List the rules of a group
    #[command(visible_alias = "ls")]
    List {
        /// Group
        #[arg(value_name = "GROUP", add = completion::names("security_groups"))]
        group: String,
    },
}

/// A new group.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Let nothing out either, but what rules allow
    #[arg(long)]
    pub closed: bool,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a group.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("security_groups"))]
    pub group: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A new rule.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  holm security-group rule add web tcp 80                       from anywhere
  holm security-group rule add web tcp 22 --from 203.0.113.7    from one address
  holm security-group rule add db tcp 5432 --from-group web     from the members of another group
  holm security-group rule add web udp 8000-8080 --from 10.0.0.0/8
  holm security-group rule add web icmp
  holm security-group rule add closed tcp 443 --to 0.0.0.0/0    out of the instance")]
pub struct RuleArgs {
    /// Group
    #[arg(value_name = "GROUP", add = completion::names("security_groups"))]
    pub group: String,
    /// tcp, udp, icmp, icmpv6, any, another protocol's name, or a number
    #[arg(value_name = "PROTOCOL", default_value = "any")]
    pub protocol: String,
    /// Destination port or ports: 80 or 8000-8080 [default: all]; for icmp TYPE or TYPE/CODE
    #[arg(value_name = "PORTS")]
    pub ports: Option<String>,
    /// Let in from this address or range [default: anywhere]
    #[arg(long, value_name = "CIDR", conflicts_with_all = ["from_group", "to", "to_group", "out"])]
    pub from: Option<String>,
    /// Let in from the members of this group
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["to", "to_group", "out"], add = completion::names("security_groups"))]
    pub from_group: Option<String>,
    /// Let out to this address or range
    #[arg(long, value_name = "CIDR", conflicts_with = "to_group")]
    pub to: Option<String>,
    /// Let out to the members of this group
    #[arg(long, value_name = "GROUP", add = completion::names("security_groups"))]
    pub to_group: Option<String>,
    /// Let out, to anywhere unless --to says otherwise
    #[arg(long)]
    pub out: bool,
    /// Only this family: 4 or 6 [default: the peer's, or both]
    #[arg(long, value_name = "4|6", value_parser = family)]
    pub family: Option<Family>,
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
}

fn family(text: &str) -> std::result::Result<Family, String> {
    match text {
        "4" | "ipv4" => Ok(Family::Ipv4),
        "6" | "ipv6" => Ok(Family::Ipv6),
        _ => Err("write 4 or 6".into()),
    }
}

impl RuleArgs {
    fn request(&self) -> Result<CreateRule> {
        let is_out = self.out || self.to.is_some() || self.to_group.is_some();
        let is_icmp = matches!(self.protocol.as_str(), "icmp" | "icmpv6" | "ipv6-icmp");
        let (icmp_type, icmp_code) = match &self.ports {
            Some(text) if is_icmp => icmp(text)?,
            _ => (None, None),
        };
        Ok(CreateRule {
            direction: if is_out { Direction::Egress } else { Direction::Ingress },
            family: self.family,
            protocol: Some(self.protocol.clone()),
            ports: self.ports.clone().filter(|_| !is_icmp),
            icmp_type,
            icmp_code,
            peer: if is_out { self.to.clone() } else { self.from.clone() },
            peer_group: if is_out { self.to_group.clone() } else { self.from_group.clone() },
            description: self.description.clone(),
        })
    }
}

fn icmp(text: &str) -> Result<(Option<u8>, Option<u8>)> {
    let number = |text: &str| {
        text.parse().map(Some).map_err(|_| {
            Failure::usage(format!("{text:?} is no ICMP number"))
                .hint("write TYPE or TYPE/CODE, like 8 or 3/4")
        })
    };
    match text.split_once('/') {
        None => Ok((number(text)?, None)),
        Some((kind, code)) => Ok((number(kind)?, number(code)?)),
    }
}

/// A rule in one line: `in tcp 80 from any`.
pub fn rule_in_words(rule: &Rule) -> String {
    let (direction, word) = match rule.direction {
        Direction::Ingress => ("in", "from"),
        Direction::Egress => ("out", "to"),
    };
    let ports = rule.ports.as_ref().map_or(String::new(), |p| format!(" {p}"));
    let icmp = rule.icmp_type.map_or(String::new(), |t| format!(" type {t}"));
    format!("{direction} {} {}{ports}{icmp} {word} {}", family_word(rule.family), rule.protocol, peer(rule))
}

fn family_word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn peer(rule: &Rule) -> String {
    match (&rule.peer_group, &rule.peer) {
        (Some(group), _) => format!("group {}", group.name),
        (None, Some(peer)) => peer.clone(),
        (None, None) => "any".into(),
    }
}

impl Shown for SecurityGroup {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |g| Cell::text(&g.head.name)),
        wide("ID", |g| Cell::text(g.head.id)),
        column("RULES", |g| Cell::text(g.rules.len())),
        column("DEFAULT", |g| Cell::flag(g.is_default)),
        column("DESCRIPTION", |g| Cell::text(&g.head.description)),
        wide("PROJECT", |g| Cell::text(&g.head.project.name)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }

    fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::of(&self.head, now);
        page.line(
            "Default",
            if self.is_default { "yes: ports that name no group have this one" } else { "no" },
        );
        let rows =
            self.rules.iter().map(|rule| Rule::COLUMNS.iter().map(|c| c.cell(rule)).collect()).collect();
        let heads: Vec<&str> = Rule::COLUMNS.iter().map(Column::head).collect();
        page.table("Rules (nothing else passes, but answers)", &heads, rows);
        page
    }
}

impl Shown for Rule {
    const COLUMNS: &'static [Column<Self>] = &[
        column("DIRECTION", |r| Cell::text(if r.direction == Direction::Ingress { "in" } else { "out" })),
        column("FAMILY", |r| Cell::text(family_word(r.family))),
        column("PROTOCOL", |r| Cell::text(&r.protocol)),
        column("PORTS", |r| Cell::text(ports(r))),
        column("PEER", |r| Cell::text(peer(r))),
        column("DESCRIPTION", |r| Cell::text(&r.description)),
        column("ID", |r| Cell::text(r.id)),
    ];

    fn name(&self) -> String {
        self.id.to_string()
    }
}

fn ports(rule: &Rule) -> String {
    match (&rule.ports, rule.icmp_type, rule.icmp_code) {
        (Some(ports), _, _) => ports.clone(),
        (None, Some(kind), None) => format!("type {kind}"),
        (None, Some(kind), Some(code)) => format!("type {kind} code {code}"),
        (None, None, _) => "all".into(),
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => noun::list::<SecurityGroup>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<SecurityGroup>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateSecurityGroup {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
                rules: vec![],
                closed: args.closed,
            };
            let made = session.client.create::<SecurityGroup>(&request, &WaitQuery::default()).await?;
            noun::tell(session, &made, "is made")?;
            session.next(format!("holm security-group rule add {} tcp 80", made.head.name));
            Ok(())
        }
        Verb::Set(args) => {
            let request = UpdateSecurityGroup {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
            };
            noun::change::<SecurityGroup>(session, &args.group, &request).await
        }
        Verb::Rule(verb) => rule(session, verb).await,
        Verb::Delete(args) => noun::delete::<SecurityGroup>(session, &args).await,
    }
}

async fn rule(session: &Session, verb: RuleVerb) -> Result {
    match verb {
        RuleVerb::Add(args) => {
            let made = session.client.add_rule(&args.group, &args.request()?).await?;
            for rule in &made {
                session.say(format!("security group {} lets pass: {}", args.group, rule_in_words(rule)));
            }
            match session.printer.format {
                None => Ok(()),
                Some(_) => session.printer.list(&made),
            }
        }
        RuleVerb::Remove { group, rules } => {
            for rule in &rules {
                session.client.delete_rule(&group, rule).await?;
            }
            session.say(format!("security group {group} has {} less", counted(rules.len(), "rule")));
            Ok(())
        }
        RuleVerb::List { group } => {
            let group: SecurityGroup = session.client.get(&group).await?;
            session.printer.list(&group.rules)
        }
    }
}
