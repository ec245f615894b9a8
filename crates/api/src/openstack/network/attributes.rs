//! Bodies: attributes are taken out one by one, each read as Neutron reads it; what is left over is refused.

use crate::openstack::{Fault, Result, query::truth};
use control::{Caller, Control, Role};
use ipnet::IpNet;
use model::{address::Mac, id::ProjectId, meta::Meta, name::Name};
use serde_json::{Map, Value};
use std::{fmt::Display, net::IpAddr};

/// Longest name in characters.
const NAME_CHARS_MAX: usize = 255;
/// Longest description in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Most resources of one call.
const BULK_MAX: usize = 256;

/// The attributes of one resource in a body.
#[derive(Debug, Clone)]
pub struct Attributes(Map<String, Value>);

/// What a body holds: one resource, or several.
#[derive(Debug, Clone)]
pub enum Bodies {
    /// `{"port": {…}}`.
    One(Attributes),
    /// `{"ports": [{…}, …]}`.
    Many(Vec<Attributes>),
}

impl Bodies {
    /// Reads a body for a resource.
    ///
    /// # Errors
    /// 400 when it holds neither form.
    pub fn read(body: Value, one: &str, many: &str) -> Result<Self> {
        let Value::Object(mut body) = body else {
            return Err(Fault::invalid("Body is not an object").kind("HTTPBadRequest"));
        };
        if let Some(Value::Array(all)) = body.remove(many) {
            if all.is_empty() || all.len() > BULK_MAX {
                return Err(Fault::invalid(format!("1 to {BULK_MAX} resources are possible in a call")));
            }
            return Ok(Self::Many(all.into_iter().map(Attributes::of).collect::<Result<_>>()?));
        }
        let inner = body.remove(one).ok_or_else(|| {
            Fault::invalid(format!("Unable to find '{one}' in request body")).kind("HTTPBadRequest")
        })?;
        Ok(Self::One(Attributes::of(inner)?))
    }

    /// All resources.
    pub fn into_all(self) -> Vec<Attributes> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(all) => all,
        }
    }

    /// Whether the reply is a list.
    pub fn is_many(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

/// A wrong attribute, as Neutron says it.
pub fn wrong(key: &str, reason: impl Display) -> Fault {
    Fault::invalid(format!("Invalid input for {key}. Reason: {reason}.")).kind("HTTPBadRequest")
}

/// A value that does not fit together with others.
pub fn unfit(reason: impl Display) -> Fault {
    Fault::invalid(format!("Invalid input for operation: {reason}.")).kind("InvalidInput")
}

impl Attributes {
    /// Reads one resource of a body.
    ///
    /// # Errors
    /// 400 when it is no object.
    pub fn of(value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(Fault::invalid("The resource is not an object").kind("HTTPBadRequest")),
        }
    }

    /// Reads the one resource of an update.
    ///
    /// # Errors
    /// 400 when it is not there.
    pub fn read(body: Value, one: &str) -> Result<Self> {
        match Bodies::read(body, one, "")? {
            Bodies::One(attributes) => Ok(attributes),
            Bodies::Many(_) => Err(Fault::invalid("One resource is changed at a time")),
        }
    }

    /// Takes an attribute as it is.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Takes a text.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn text(&mut self, key: &str) -> Result<Option<String>> {
        let max = if key == "description" { DESCRIPTION_CHARS_MAX } else { NAME_CHARS_MAX };
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > max => {
                Err(wrong(key, format!("'{text:.40}…' exceeds maximum length of {max}")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, format!("'{other}' is not a valid string"))),
        }
    }

    /// Takes a text or null, which is `Some(None)`.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn nullable(&mut self, key: &str) -> Result<Option<Option<String>>> {
        if self.0.get(key).is_some_and(Value::is_null) {
            self.0.remove(key);
            return Ok(Some(None));
        }
        Ok(self.text(key)?.map(Some))
    }

    /// Takes the id of another resource that must be named.
    ///
    /// # Errors
    /// 400 when it is missing.
    pub fn required(&mut self, key: &str) -> Result<String> {
        self.text(key)?.ok_or_else(|| {
            Fault::invalid(format!("Failed to parse request. Required attribute '{key}' not specified"))
                .kind("HTTPBadRequest")
        })
    }

    /// Takes a truth value, in any form that Neutron takes.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let read = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => truth(text),
            Value::Number(number) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            _ => None,
        };
        read.map(Some).ok_or_else(|| wrong(key, format!("'{value}' cannot be converted to boolean")))
    }

    /// Takes a whole number; texts of digits are numbers too, and null is no number.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&mut self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.take(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let read = match &value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        read.map(Some).ok_or_else(|| wrong(key, format!("'{value}' is not an integer")))
    }

    /// Takes a list; null is an empty one.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(vec![])),
            Some(Value::Array(all)) => Ok(Some(all)),
            Some(other) => Err(wrong(key, format!("'{other}' is not a list"))),
        }
    }

    /// Takes a list of texts.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(all) = self.list(key)? else { return Ok(None) };
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(key, format!("'{other}' is not a valid string"))),
        };
        all.into_iter().map(text).collect::<Result<_>>().map(Some)
    }

    /// Takes an attribute that this cloud has in one form only.
    ///
    /// # Errors
    /// 400 for any other value than null, the empty ones and those of `allowed`.
    pub fn only(&mut self, key: &str, allowed: &[Value]) -> Result<()> {
        let Some(value) = self.take(key) else { return Ok(()) };
        let is_empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            _ => false,
        };
        if is_empty || allowed.contains(&value) {
            return Ok(());
        }
        Err(wrong(key, format!("'{value}' is not supported by this cloud")))
    }

    /// Who the new resource belongs to: the caller's project, or the one that an admin names.
    ///
    /// # Errors
    /// 403 when another project is named by somebody else than an admin, 400 for what is no id.
    pub fn owner(&mut self, control: &Control, caller: &Caller) -> Result<Caller> {
        let (tenant, project) = (self.text("tenant_id")?, self.text("project_id")?);
        let Some(named) = project.or(tenant).filter(|text| !text.is_empty()) else {
            return Ok(caller.clone());
        };
        let id: ProjectId =
            named.parse().map_err(|_| wrong("project_id", format!("'{named}' is not a valid id")))?;
        if id == caller.project {
            return Ok(caller.clone());
        }
        if caller.role < Role::Admin {
            return Err(Fault::forbidden("Specifying 'project_id' other than the caller's is not allowed"));
        }
        if control.get::<model::project::Project>(id).is_none() {
            return Err(Fault::not_found("Project", &named));
        }
        Ok(Caller { project: id, ..caller.clone() })
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// 400 with the names.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        Err(Fault::invalid(format!("Unrecognized attribute(s) '{}'", names.join(", ")))
            .kind("HTTPBadRequest"))
    }
}

/// Name and description of a change.
#[derive(Debug, Clone, Default)]
pub struct About {
    name: Option<String>,
    description: Option<String>,
}

impl About {
    /// Takes both out of a body.
    ///
    /// # Errors
    /// 400 for what is no text.
    pub fn take(attributes: &mut Attributes) -> Result<Self> {
        Ok(Self { name: attributes.text("name")?, description: attributes.text("description")? })
    }

    /// Sets both on a record; a name of nothing is the one that is made up for `word`.
    ///
    /// # Errors
    /// `invalid` for the name.
    pub fn apply<Id>(&self, meta: &mut Meta<Id>, word: &str, short_id: &str) -> control::Result<()> {
        match self.name.as_deref() {
            Some("") => meta.name = Name::made_up(word, short_id),
            Some(name) => {
                meta.name = Name::as_written(name).map_err(|e| control::Error::invalid("name", e))?
            }
            None => {}
        }
        if let Some(description) = &self.description {
            meta.description.clone_from(description);
        }
        Ok(())
    }
}

/// Reads an address.
///
/// # Errors
/// 400 for anything else.
pub fn address(key: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| wrong(key, format!("'{text}' is not a valid IP address")))
}

/// Reads a range; an address alone is the range of it.
///
/// # Errors
/// 400 for anything else.
pub fn range(key: &str, text: &str) -> Result<IpNet> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| wrong(key, format!("'{text}' is not a valid IP subnet")))
}

/// Reads an Ethernet address.
///
/// # Errors
/// 400 for anything else.
pub fn mac(key: &str, text: &str) -> Result<Mac> {
    text.parse().map_err(|_| wrong(key, format!("'{text}' is not a valid MAC address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attributes(value: Value) -> Attributes {
        Attributes::of(value).unwrap()
    }

    #[test]
    fn values_are_read_as_neutron_reads_them() {
        let mut all = attributes(json!({
            "name": "a", "up": "True", "zero": 0, "two": 2, "number": "17", "none": null, "list": null, "odd": 1.5,
        }));
        assert_eq!(all.text("name").unwrap().as_deref(), Some("a"));
        assert_eq!(all.flag("up").unwrap(), Some(true));
        assert_eq!(all.flag("zero").unwrap(), Some(false));
        assert!(all.flag("two").is_err() && all.number("odd").is_err());
        assert_eq!(all.number("number").unwrap(), Some(17));
        assert_eq!(all.nullable("none").unwrap(), Some(None));
        assert_eq!(all.list("list").unwrap(), Some(vec![]));
        all.finish().unwrap();
        assert!(attributes(json!({"name": null})).text("name").is_err());
        assert!(attributes(json!({"name": "x".repeat(256)})).text("name").is_err());
        let left = attributes(json!({"x": 1})).finish().unwrap_err();
        assert_eq!(left.message, "Unrecognized attribute(s) 'x'");
    }

    #[test]
    fn bodies_are_one_or_many() {
        let read = |body: Value| Bodies::read(body, "port", "ports");
        assert!(!read(json!({"port": {}})).unwrap().is_many());
        assert_eq!(read(json!({"ports": [{}, {}]})).unwrap().into_all().len(), 2);
        for bad in [json!([]), json!({}), json!({"ports": []}), json!({"port": 1}), json!({"net": {}})] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_this_cloud_has_in_one_form_is_taken_in_that_form() {
        let mut all = attributes(json!({"a": {}, "b": "normal", "c": "direct"}));
        assert!(all.only("a", &[]).is_ok() && all.only("b", &[json!("normal")]).is_ok());
        assert!(all.only("c", &[json!("normal")]).is_err());
    }
}
