//! Reading bodies as Nova does: every value has a form, and what nobody knows is refused.

use crate::openstack::{Fault, Result, query::truth};
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name, description and metadata value in characters.
pub const TEXT_CHARS_MAX: usize = 255;

/// An object of a body.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    what: &'a str,
    fields: &'a Map<String, Value>,
}

impl<'a> Form<'a> {
    /// The object under `key` of a body.
    ///
    /// # Errors
    /// 400 if it is none or something stands beside it.
    pub fn under(body: &'a Value, key: &'a str) -> Result<Self> {
        let all = Self::of(body, "body")?;
        all.refuse_others(&[key])?;
        let inner = all.get(key).ok_or_else(|| Fault::invalid(format!("'{key}' is a required property")))?;
        Self::of(inner, key)
    }

    /// A value as an object; `what` names it in refusals.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn of(value: &'a Value, what: &'a str) -> Result<Self> {
        let fields = value.as_object().ok_or_else(|| wrong(what, value, "it is no object"))?;
        Ok(Self { what, fields })
    }

    /// Refuses fields that are not in `known`.
    ///
    /// # Errors
    /// 400, with the field.
    pub fn refuse_others(&self, known: &[&str]) -> Result<()> {
        match self.fields.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Fault::invalid(format!(
                "Invalid input for field/attribute {}. Additional properties are not allowed ('{key}' was unexpected)",
                self.what
            ))),
        }
    }

    /// A field, `null` included.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key)
    }

    /// A field that is there and not `null`.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// All fields.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.fields
    }

    /// A text.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| wrong(key, v, "it is no string"))).transpose()
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn needed(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| {
            Fault::invalid(format!(
                "Invalid input for field/attribute {}. '{key}' is a required property",
                self.what
            ))
        })
    }

    /// A name: 1 to 255 characters, and none of its ends a space.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn name(&self, key: &str) -> Result<Option<&'a str>> {
        match self.raw(key) {
            None => Ok(None),
            Some(value) => check_name(key, value).map(Some),
        }
    }

    /// A truth value, also as text.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let read = |value: &Value| match value {
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) => truth(text).ok_or_else(|| wrong(key, value, "it is no boolean")),
            value => Err(wrong(key, value, "it is no boolean")),
        };
        self.get(key).map(read).transpose()
    }

    /// A whole number that is not negative, also as text.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|value| number(key, value)).transpose()
    }

    /// A list.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        let read = |value: &'a Value| {
            value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(key, value, "it is no array"))
        };
        self.get(key).map(read).transpose()
    }

    /// An IPv4 address; the empty text and `null` take it away.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn ipv4(&self, key: &str) -> Result<Option<Option<Ipv4Addr>>> {
        self.address(key)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn ipv6(&self, key: &str) -> Result<Option<Option<Ipv6Addr>>> {
        self.address(key)
    }

    fn address<T: std::str::FromStr>(&self, key: &str) -> Result<Option<Option<T>>> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) if text.is_empty() => Ok(Some(None)),
            Some(value) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                address.map(|a| Some(Some(a))).ok_or_else(|| wrong(key, value, "it is no such address"))
            }
        }
    }
}

/// The refusal of a value.
pub fn wrong(key: &str, value: &Value, why: &str) -> Fault {
    let shown: String = value.to_string().chars().take(80).collect();
    Fault::invalid(format!("Invalid input for field/attribute {key}. Value: {shown}. {why}"))
}

/// A whole number that is not negative, also as text.
///
/// # Errors
/// 400 for anything else.
pub fn number(key: &str, value: &Value) -> Result<u64> {
    let read = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    read.ok_or_else(|| wrong(key, value, "it is no whole number"))
}

fn check_name<'a>(key: &str, value: &'a Value) -> Result<&'a str> {
    let text = value.as_str().ok_or_else(|| wrong(key, value, "it is no string"))?;
    let chars = text.chars().count();
    if !(1..=TEXT_CHARS_MAX).contains(&chars) {
        return Err(wrong(key, value, "a name has 1 to 255 characters"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(wrong(key, value, "a name has no space at its ends and no control characters"));
    }
    Ok(text)
}

/// Metadata: texts by keys, each of 1 to 255 characters.
///
/// # Errors
/// 400 for anything else.
pub fn metadata(key: &str, value: &Value) -> Result<model::meta::Labels> {
    let fields = value.as_object().ok_or_else(|| wrong(key, value, "it is no object"))?;
    let one = |(name, value): (&String, &Value)| {
        let text = value.as_str().ok_or_else(|| wrong(name, value, "it is no string"))?;
        let fits = |text: &str| text.chars().count() <= TEXT_CHARS_MAX;
        if name.is_empty() || !fits(name) || !fits(text) {
            return Err(wrong(
                key,
                &Value::from(name.as_str()),
                "a key and a value have at most 255 characters",
            ));
        }
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_:. ".contains(c));
        if !plain {
            return Err(wrong(key, &Value::from(name.as_str()), "a key has letters, digits and -_:. alone"));
        }
        Ok((name.clone(), text.to_string()))
    };
    fields.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_are_read_and_refused() {
        let body =
            json!({"server": {"name": "a", "n": "3", "on": "True", "none": null, "v4": "", "v6": "fd00::1"}});
        let form = Form::under(&body, "server").unwrap();
        assert_eq!(form.name("name").unwrap(), Some("a"));
        assert_eq!((form.number("n").unwrap(), form.flag("on").unwrap()), (Some(3), Some(true)));
        assert_eq!(form.text("none").unwrap(), None);
        assert_eq!(form.ipv4("v4").unwrap(), Some(None));
        assert_eq!(form.ipv6("v6").unwrap(), Some(Some("fd00::1".parse().unwrap())));
        assert!(form.needed("absent").is_err() && form.refuse_others(&["name"]).is_err());
        for bad in [json!(""), json!(" a"), json!("x".repeat(256)), json!(5), json!(null), json!("a\nb")] {
            let body = json!({"server": {"name": bad}});
            assert!(Form::under(&body, "server").unwrap().name("name").is_err(), "{body}");
        }
        assert!(Form::under(&json!({"server": {}, "x": 1}), "server").is_err());
        assert!(Form::under(&json!({"server": []}), "server").is_err());
    }

    #[test]
    fn metadata_has_limits() {
        for (value, fits) in [
            (json!({"a": "b"}), true),
            (json!({"a": "x".repeat(255)}), true),
            (json!({"a": "x".repeat(256)}), false),
            (json!({"": "x"}), false),
            (json!({"a": 1}), false),
            (json!({"a/b": "x"}), false),
            (json!([]), false),
        ] {
            assert_eq!(metadata("metadata", &value).is_ok(), fits, "{value}");
        }
    }
}
