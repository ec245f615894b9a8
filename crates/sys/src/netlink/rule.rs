//! Rules that say which routing table is asked, by the source of a packet (ip-rule(8)).

use std::fmt;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};

use super::Netlink;
use super::address::family;
use crate::error::Result;

/// Packets from a range ask a table, before those of rules with a greater priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Where packets come from.
    pub source: IpNet,
    /// The table that is asked.
    pub table: u32,
    /// Place among the rules; the main table's is 32766.
    pub priority: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: from {} lookup {}", self.priority, self.source, self.table)
    }
}

impl Netlink {
    /// Adds a rule; the same one there already is fine.
    pub fn add_rule(&self, rule: &Rule) -> Result<()> {
        let message = RouteNetlinkMessage::NewRule(message(rule));
        match self.change("add rule", rule, message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Deletes exactly this rule; none like it is fine.
    pub fn delete_rule(&self, rule: &Rule) -> Result<()> {
        match self.change("delete rule", rule, RouteNetlinkMessage::DelRule(message(rule)), 0) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => Ok(()),
            result => result,
        }
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let source = rule.source.trunc();
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: family(source.addr()),
        src_len: source.prefix_len(),
        table: u8::try_from(rule.table).unwrap_or(0),
        action: RuleAction::ToTable,
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Source(source.addr()),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
    ];
    message
}
