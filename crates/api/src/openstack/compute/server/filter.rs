//! Filters of lists of servers. What is no filter for this caller is passed over, as Nova does.

use super::state::{State, is_status};
use crate::openstack::{Door, Fault, Microversion, Result, Session, paging::same_id, query::Query};
use control::Control;
use jiff::Timestamp;
use model::{
    instance::{Instance, InstanceStatus},
    node::Node,
};
use regex::{Regex, RegexBuilder};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

/// Most bytes that the automaton of a client's pattern may take.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// A server and its state, before it is known whether it is shown.
pub struct Row {
    /// The record.
    pub stored: Arc<Stored<Instance>>,
    /// What its node says.
    pub status: Option<Arc<Stored<InstanceStatus>>>,
    /// Nova's words for its phase.
    pub state: State,
}

impl Row {
    /// The row of an instance.
    pub fn of(control: &Control, stored: Arc<Stored<Instance>>) -> Self {
        let status = control.instance_status(stored.record.meta.id);
        let known = status.as_ref().map(|s| &s.record);
        let state = State::of(&stored.record, model::instance::phase::phase(&stored.record, known), known);
        Self { stored, status, state }
    }
}

/// What a list is asked for.
#[derive(Default)]
pub struct Filter {
    /// Of all projects.
    pub everywhere: bool,
    nothing: bool,
    statuses: Vec<String>,
    name: Option<Regex>,
    addresses: Vec<(bool, Regex)>,
    image: Option<String>,
    flavor: Option<String>,
    project: Option<String>,
    user: Option<String>,
    host: Option<String>,
    ids: Vec<String>,
    locked: Option<bool>,
    changed_since: Option<Timestamp>,
    changed_before: Option<Timestamp>,
    tags: [Option<BTreeSet<String>>; 4],
    plain: Vec<(String, String)>,
}

impl Filter {
    /// Reads the filters of a call.
    ///
    /// # Errors
    /// 400 for values that cannot be, 403 for all projects' servers.
    pub fn read(door: &Door, session: &Session, version: Microversion, query: &Query) -> Result<Self> {
        let mut filter = Self::default();
        filter.read_scope(session, query)?;
        filter.statuses = query.all("status").map(str::to_ascii_uppercase).collect();
        if filter.statuses.iter().any(|word| !is_status(word)) {
            filter.statuses.retain(|word| is_status(word));
            filter.nothing = filter.statuses.is_empty();
        }
        filter.name = query.get("name").map(|text| pattern("name", text)).transpose()?;
        for (key, is_v4) in [("ip", true), ("ip6", false)] {
            let Some(text) = query.get(key) else { continue };
            filter.addresses.push((is_v4, pattern(key, text)?));
        }
        filter.image = query.get("image").map(str::to_string);
        filter.ids = query.all("uuid").map(str::to_string).collect();
        if let Some(flavor) = query.get("flavor") {
            let known = door.control().flavor_by_openstack_id(&session.caller, flavor);
            // A flavor that is not there has no servers.
            filter.nothing |= known.is_none();
            filter.flavor = known.map(|found| found.record.meta.id.to_string());
        }
        filter.read_times(version, query)?;
        if version.has(2, 26) {
            let keys = ["tags", "tags-any", "not-tags", "not-tags-any"];
            filter.tags =
                keys.map(|key| query.get(key).map(|text| text.split(',').map(str::to_string).collect()));
        }
        if version.has(2, 73) {
            filter.locked = query.flag("locked")?;
        }
        for key in ["vm_state", "task_state", "power_state", "key_name", "config_drive", "description"] {
            filter.plain.extend(query.get(key).map(|value| (key.to_string(), value.to_string())));
        }
        Ok(filter)
    }

    fn read_scope(&mut self, session: &Session, query: &Query) -> Result<()> {
        let all = match query.get("all_tenants") {
            Some("") => true,
            Some(_) => query.flag("all_tenants")?.unwrap_or(false),
            None => false,
        };
        if all {
            session.require_admin("os_compute_api:servers:index:get_all_tenants")?;
        }
        self.everywhere = all;
        if !session.is_admin() {
            return Ok(());
        }
        // Servers that are gone leave no record: a list of these alone is empty.
        self.nothing = query.flag("deleted").unwrap_or(None).unwrap_or(false);
        let project = query.get("project_id").or(query.get("tenant_id")).filter(|text| *text != "None");
        self.project = project.filter(|_| all).map(str::to_string);
        self.user = query.get("user_id").map(str::to_string);
        self.host = query.get("host").map(str::to_string);
        Ok(())
    }

    fn read_times(&mut self, version: Microversion, query: &Query) -> Result<()> {
        let time = |key: &str| {
            query.get(key).map(|text| {
                read_time(text).ok_or_else(|| {
                    Fault::invalid(format!("Invalid input for query parameters {key}. Value: {text}."))
                })
            })
        };
        self.changed_since = time("changes-since").transpose()?;
        if version.has(2, 66) {
            self.changed_before = time("changes-before").transpose()?;
        }
        Ok(())
    }

    /// Whether a server passes.
    pub fn fits(&self, control: &Control, row: &Row) -> bool {
        let instance = &row.stored.record;
        let meta = &instance.meta;
        let changed = row.status.as_ref().map_or(meta.updated_at, |s| s.record.at.max(meta.updated_at));
        let is = |wanted: &Option<String>, id: Option<String>| {
            wanted.as_ref().is_none_or(|wanted| id.is_some_and(|id| same_id(&id, wanted)))
        };
        let image = instance.image.or_else(|| instance.containers.first()?.image);
        !self.nothing
            && (self.statuses.is_empty() || self.statuses.iter().any(|word| word == row.state.status))
            && self.name.as_ref().is_none_or(|pattern| pattern.is_match(meta.name.as_str()))
            && is(&self.image, image.map(|id| id.to_string()))
            && is(&self.flavor, instance.flavor.map(|id| id.to_string()))
            && is(&self.project, Some(meta.project.to_string()))
            && is(&self.user, Some(super::view::user_of(instance)))
            && (self.ids.is_empty() || self.ids.iter().any(|id| same_id(id, &meta.id.to_string())))
            && self.locked.is_none_or(|locked| locked == instance.lock.is_some())
            && self.changed_since.is_none_or(|since| changed >= since)
            && self.changed_before.is_none_or(|before| changed <= before)
            && self.fits_tags(instance)
            && self.plain.iter().all(|(key, value)| fits_plain(row, key, value))
            && self.fits_host(control, instance)
            && self.fits_addresses(control, instance)
    }

    fn fits_tags(&self, instance: &Instance) -> bool {
        let has = |tag: &String| instance.tags.iter().any(|own| own.as_str() == tag);
        let [all, any, not_all, not_any] = &self.tags;
        all.as_ref().is_none_or(|tags| tags.iter().all(has))
            && any.as_ref().is_none_or(|tags| tags.iter().any(has))
            && not_all.as_ref().is_none_or(|tags| !tags.iter().all(has))
            && not_any.as_ref().is_none_or(|tags| !tags.iter().any(has))
    }

    fn fits_host(&self, control: &Control, instance: &Instance) -> bool {
        let Some(wanted) = &self.host else { return true };
        let node = instance.node.and_then(|id| control.store().get::<Node>(&id.to_string()));
        node.is_some_and(|node| node.record.name.as_str() == wanted)
    }

    fn fits_addresses(&self, control: &Control, instance: &Instance) -> bool {
        if self.addresses.is_empty() {
            return true;
        }
        let ports = control.ports_of(&instance.ports);
        let own = || ports.iter().flat_map(|port| port.addresses.iter().map(|fixed| fixed.address));
        // With both filters given, one of them is enough.
        self.addresses.iter().any(|(is_v4, pattern)| {
            own().any(|address| address.is_ipv4() == *is_v4 && pattern.is_match(&address.to_string()))
        })
    }
}

fn fits_plain(row: &Row, key: &str, value: &str) -> bool {
    let instance = &row.stored.record;
    match key {
        "vm_state" => row.state.vm_state.eq_ignore_ascii_case(value),
        "task_state" => row.state.task.is_some_and(|task| task.eq_ignore_ascii_case(value)),
        "power_state" => row.state.power.to_string() == value,
        "key_name" => instance.keys.first().is_some_and(|(name, _)| name == value),
        "config_drive" => crate::openstack::query::truth(value) == Some(instance.config_drive),
        "description" => instance.meta.description.contains(value),
        _ => true,
    }
}

/// A client's pattern. Matching takes time in proportion to the text, whatever the pattern.
fn pattern(key: &str, text: &str) -> Result<Regex> {
    let built = RegexBuilder::new(text).case_insensitive(key == "name").size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|_| Fault::invalid(format!("Invalid input for query parameters {key}. Value: {text}.")))
}

/// A time as ISO 8601 writes it, in UTC unless it says otherwise.
fn read_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let civil = text.trim_end_matches('Z').parse::<jiff::civil::DateTime>().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_clients_write_them() {
        for (text, wanted) in [
            ("2026-11-21T04:34:02Z", true),
            ("2026-11-21T04:34:02+00:00", true),
            ("2026-11-21T04:34:02.123456", true),
            ("2051-01-01T12:34:00Z", true),
            ("2011/01/01", false),
            ("yesterday", false),
        ] {
            assert_eq!(read_time(text).is_some(), wanted, "{text}");
        }
        assert!(pattern("name", "web.*1").is_ok() && pattern("ip", "10.0.[").is_err());
        assert!(pattern("name", "(a{1000}){1000}").is_err());
    }
}
