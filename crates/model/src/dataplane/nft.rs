//! An nftables table as a value: rendered whole at the start, and afterwards only what changed between two values.
//!
//! Both scripts are one transaction for the kernel: packets see the old rules or the new ones, never a mixture.
//! Syntax as in nft(8).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// A table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Name.
    pub name: String,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A set, or a map when its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Type of the keys, with ` : type` of the values for a map.
    pub kind: String,
    /// Keys are ranges.
    pub interval: bool,
    /// Elements, with their values for a map (else empty).
    pub elements: BTreeMap<String, String>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come from: `type filter hook forward priority filter; policy drop;` for a base chain.
    pub hook: Option<&'static str>,
    /// Rules.
    pub rules: Vec<String>,
}

/// An element that comes or goes between two values of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementChange<'a> {
    /// Name of the set or map.
    pub set: &'a str,
    /// Its [`Set::kind`].
    pub kind: &'a str,
    /// The key.
    pub key: &'a str,
    /// The value in a map, else empty.
    pub value: &'a str,
    /// It comes.
    pub added: bool,
}

impl Set {
    /// An empty set or map of this type.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_string(), interval: false, elements: BTreeMap::new() }
    }

    /// An empty set or map whose keys are ranges.
    pub fn ranges(kind: &str) -> Self {
        Self { interval: true, ..Self::new(kind) }
    }

    /// Puts a key into a set.
    pub fn insert(&mut self, key: impl Into<String>) {
        self.elements.insert(key.into(), String::new());
    }

    /// Puts a key and its value into a map.
    pub fn map(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.elements.insert(key.into(), value.into());
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    fn word(&self) -> &'static str {
        if self.kind.contains(" : ") { "map" } else { "set" }
    }

    fn declaration(&self) -> String {
        let flags = if self.interval { " flags interval;" } else { "" };
        format!("type {};{flags}", self.kind)
    }
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_string() } else { format!("{key} : {value}") }
}

impl Table {
    /// A table without anything in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// Adds a chain that packets enter at `hook`.
    pub fn base(&mut self, name: &str, hook: &'static str, rules: Vec<String>) {
        self.chains.insert(name.to_string(), Chain { hook: Some(hook), rules });
    }

    /// Adds a chain that rules jump to.
    pub fn chain(&mut self, name: impl Into<String>, rules: Vec<String>) {
        self.chains.insert(name.into(), Chain { hook: None, rules });
    }

    /// The script that makes the kernel's table equal to this one, whatever it was.
    pub fn replace_script(&self) -> String {
        let name = &self.name;
        let mut out = format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
        for (name, set) in &self.sets {
            let _ = writeln!(out, "  {} {name} {{\n    {}", set.word(), set.declaration());
            if !set.elements.is_empty() {
                let elements: Vec<String> = set.elements.iter().map(|(k, v)| element(k, v)).collect();
                let _ = writeln!(out, "    elements = {{ {} }}", elements.join(",\n                 "));
            }
            out.push_str("  }\n");
        }
        for (name, chain) in &self.chains {
            let _ = writeln!(out, "  chain {name} {{");
            if let Some(hook) = chain.hook {
                let _ = writeln!(out, "    {hook}");
            }
            for rule in &chain.rules {
                let _ = writeln!(out, "    {rule}");
            }
            out.push_str("  }\n");
        }
        out.push_str("}\n");
        out
    }

    /// The script that takes the table away.
    pub fn remove_script(&self) -> String {
        format!("add table inet {0}\ndelete table inet {0}\n", self.name)
    }

    /// The script that leads from `old`, which the kernel has, to this one; empty when there is nothing to do.
    pub fn update_script(&self, old: &Self) -> String {
        if self == old {
            return String::new();
        }
        if !self.is_alike(old) {
            return self.replace_script();
        }
        let mut out = String::new();
        self.add_frames(old, &mut out);
        self.change_elements(old, &mut out);
        self.change_rules(old, &mut out);
        self.remove_leftovers(old, &mut out);
        out
    }

    /// What leads from `old`, which the kernel has, to this one, if that is nothing but elements of sets that are no ranges.
    /// What goes is before what comes in its place.
    pub fn element_changes<'a>(&'a self, old: &'a Self) -> Option<Vec<ElementChange<'a>>> {
        let same_sets = self.sets.len() == old.sets.len()
            && self.sets.iter().zip(&old.sets).all(|((name, set), (old_name, old))| {
                name == old_name
                    && set.kind == old.kind
                    && set.interval == old.interval
                    && (!set.interval || set == old)
            });
        if self.name != old.name || self.chains != old.chains || !same_sets {
            return None;
        }
        let mut changes = Vec::new();
        for ((name, set), old) in self.sets.iter().zip(old.sets.values()) {
            for (from, to, added) in [(old, set, false), (set, old, true)] {
                let differ = from.elements.iter().filter(|(key, value)| to.elements.get(*key) != Some(value));
                let change = |(key, value): (&'a String, &'a String)| ElementChange {
                    set: name,
                    kind: &set.kind,
                    key,
                    value,
                    added,
                };
                changes.extend(differ.map(change));
            }
        }
        Some(changes)
    }

    /// Whether what stays keeps its frame: types of sets and hooks of chains cannot be changed in place.
    fn is_alike(&self, old: &Self) -> bool {
        let sets = self.sets.iter().all(|(name, set)| {
            old.sets.get(name).is_none_or(|other| other.kind == set.kind && other.interval == set.interval)
        });
        let chains = self
            .chains
            .iter()
            .all(|(name, chain)| old.chains.get(name).is_none_or(|other| other.hook == chain.hook));
        self.name == old.name && sets && chains
    }

    fn add_frames(&self, old: &Self, out: &mut String) {
        let table = &self.name;
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            let hook = chain.hook.map(|hook| format!(" {{ {hook} }}")).unwrap_or_default();
            let _ = writeln!(out, "add chain inet {table} {name}{hook}");
        }
        for (name, set) in self.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            let _ = writeln!(out, "add {} inet {table} {name} {{ {} }}", set.word(), set.declaration());
        }
    }

    fn change_elements(&self, old: &Self, out: &mut String) {
        let none = BTreeMap::new();
        let names: BTreeSet<&String> = self.sets.keys().chain(old.sets.keys()).collect();
        for name in names {
            let before = old.sets.get(name).map_or(&none, |set| &set.elements);
            let after = self.sets.get(name).map_or(&none, |set| &set.elements);
            let gone = before.iter().filter(|(k, v)| after.get(*k) != Some(v));
            let come = after.iter().filter(|(k, v)| before.get(*k) != Some(v));
            for (verb, elements) in [("delete", gone.collect::<Vec<_>>()), ("add", come.collect())] {
                if !elements.is_empty() {
                    let list: Vec<String> = elements.into_iter().map(|(k, v)| element(k, v)).collect();
                    let _ =
                        writeln!(out, "{verb} element inet {} {name} {{ {} }}", self.name, list.join(", "));
                }
            }
        }
    }

    fn change_rules(&self, old: &Self, out: &mut String) {
        let table = &self.name;
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            let _ = writeln!(out, "flush chain inet {table} {name}");
        }
        for (name, chain) in &self.chains {
            let before = old.chains.get(name);
            if before.is_some_and(|before| before.rules == chain.rules) {
                continue;
            }
            if before.is_some() {
                let _ = writeln!(out, "flush chain inet {table} {name}");
            }
            for rule in &chain.rules {
                let _ = writeln!(out, "add rule inet {table} {name} {rule}");
            }
        }
    }

    fn remove_leftovers(&self, old: &Self, out: &mut String) {
        let table = &self.name;
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            let _ = writeln!(out, "delete chain inet {table} {name}");
        }
        for (name, set) in old.sets.iter().filter(|(name, _)| !self.sets.contains_key(*name)) {
            let _ = writeln!(out, "delete {} inet {table} {name}", set.word());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t");
        let mut map = Set::new("ifname : verdict");
        map.map("\"p1\"", "goto web");
        table.sets.insert("ports".into(), map);
        table.base(
            "ingress",
            "type filter hook forward priority filter; policy drop;",
            vec!["oifname vmap @ports".into()],
        );
        table.chain("web", vec!["tcp dport 80 accept".into()]);
        table
    }

    #[test]
    fn nothing_changed_is_no_script() {
        assert_eq!(table().update_script(&table()), "");
    }

    #[test]
    fn a_port_more_is_an_element_more() {
        let mut new = table();
        new.sets.get_mut("ports").unwrap().map("\"p2\"", "goto web");
        assert_eq!(new.update_script(&table()), "add element inet t ports { \"p2\" : goto web }\n");
    }

    #[test]
    fn elements_alone_are_told_as_such() {
        let mut new = table();
        new.sets.get_mut("ports").unwrap().map("\"p1\"", "accept");
        let old = table();
        let change = |value, added| ElementChange {
            set: "ports",
            kind: "ifname : verdict",
            key: "\"p1\"",
            value,
            added,
        };
        assert_eq!(new.element_changes(&old), Some(vec![change("goto web", false), change("accept", true)]));
        assert_eq!(old.element_changes(&old), Some(vec![]));
        new.chain("db", vec![]);
        assert_eq!(new.element_changes(&old), None);
    }

    #[test]
    fn a_group_goes_after_what_points_to_it() {
        let mut new = table();
        new.chains.remove("web");
        new.chain("db", vec!["tcp dport 5432 accept".into()]);
        new.sets.get_mut("ports").unwrap().map("\"p1\"", "goto db");
        assert_eq!(
            new.update_script(&table()),
            "add chain inet t db\n\
             delete element inet t ports { \"p1\" : goto web }\n\
             add element inet t ports { \"p1\" : goto db }\n\
             flush chain inet t web\n\
             add rule inet t db tcp dport 5432 accept\n\
             delete chain inet t web\n"
        );
    }

    #[test]
    fn a_changed_type_is_a_new_table() {
        let mut new = table();
        new.sets.insert("ports".into(), Set::new("ifname"));
        assert!(new.update_script(&table()).starts_with("add table inet t\ndelete table inet t\n"));
    }
}
