//! Reading the fields of an object so that none is lost: what nobody asked for is told as a warning.

use super::Refusal;
use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
};

/// What a file asks for and does not get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Kind and name of the object, like `pod/web`.
    pub object: String,
    /// Path of the field in it.
    pub path: String,
    /// What becomes of it.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.path, self.message)
    }
}

/// The warnings of one file.
#[derive(Debug, Default)]
pub struct Warnings(RefCell<BTreeSet<Warning>>);

impl Warnings {
    /// Notes one, once.
    pub fn add(&self, object: &str, path: &str, message: impl Into<String>) {
        let warning = Warning { object: object.into(), path: path.into(), message: message.into() };
        self.0.borrow_mut().insert(warning);
    }

    /// All of them, in order.
    pub fn take(self) -> Vec<Warning> {
        self.0.into_inner().into_iter().collect()
    }
}

/// The fields of a mapping. Those that nobody has asked for when it goes are warned of.
#[derive(Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    object: String,
    path: String,
    asked: RefCell<BTreeSet<&'a str>>,
    warnings: &'a Warnings,
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for (name, value) in self.map {
            if !asked.contains(name.as_str()) && !is_nothing(value) {
                self.warnings.add(&self.object, &self.at(name), "not honoured");
            }
        }
    }
}

/// What says no more than a missing field does.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

impl<'a> Fields<'a> {
    /// Fields of the object of this kind and name.
    pub fn new(map: &'a Map<String, Value>, object: &str, path: &str, warnings: &'a Warnings) -> Self {
        Self { map, object: object.into(), path: path.into(), asked: RefCell::default(), warnings }
    }

    /// The path of a field.
    pub fn at(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_string(),
            path => format!("{path}.{name}"),
        }
    }

    /// A refusal of a field.
    pub fn wrong(&self, name: &str, message: impl Into<String>) -> Refusal {
        Refusal::new(&self.object, &self.at(name), message)
    }

    /// A warning of a field.
    pub fn warn(&self, name: &str, message: impl Into<String>) {
        self.warnings.add(&self.object, &self.at(name), message);
    }

    /// A field as it is; `None` where it is missing or null.
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        let (name, value) = self.map.get_key_value(name)?;
        self.asked.borrow_mut().insert(name);
        Some(value).filter(|value| !value.is_null())
    }

    /// Fields that say nothing here, or what is so anyway.
    pub fn pass_over(&self, names: &[&str]) {
        for name in names {
            let _ = self.raw(name);
        }
    }

    /// Refuses a field that is there and says something.
    ///
    /// # Errors
    /// With this reason.
    pub fn refuse(&self, name: &str, reason: &str) -> Result<(), Refusal> {
        match self.raw(name) {
            Some(value) if !is_nothing(value) => Err(self.wrong(name, reason)),
            _ => Ok(()),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Something else is there.
    pub fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.raw(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name, "is to be a text: put it in quotes")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// It is missing or empty.
    pub fn needed(&self, name: &str) -> Result<String, Refusal> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// One of several words; the first when it is missing.
    ///
    /// # Errors
    /// Another word.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(words[0].1) };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, format!("{text:.40} is not one of {}", all.join(", ")))
        })
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// Something else, or one out of bounds.
    pub fn number(&self, name: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        match value.as_u64().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("is to be a whole number from {} to {}", bounds.start(), bounds.end());
                Err(self.wrong(name, message))
            }
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.raw(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "is to be true or false")),
        }
    }

    /// A mapping.
    ///
    /// # Errors
    /// Something else.
    pub fn child(&self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        match self.raw(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(self.fields(map, self.at(name)))),
            Some(_) => Err(self.wrong(name, "is to be a mapping")),
        }
    }

    fn fields(&self, map: &'a Map<String, Value>, path: String) -> Fields<'a> {
        Fields { map, object: self.object.clone(), path, asked: RefCell::default(), warnings: self.warnings }
    }

    fn list(&self, name: &str) -> Result<&'a [Value], Refusal> {
        match self.raw(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(self.wrong(name, "is to be a list")),
        }
    }

    /// A list of mappings.
    ///
    /// # Errors
    /// Something else.
    pub fn children(&self, name: &str) -> Result<Vec<Fields<'a>>, Refusal> {
        let child = |(number, value): (usize, &'a Value)| match value {
            Value::Object(map) => Ok(self.fields(map, self.at(&format!("{name}[{number}]")))),
            _ => Err(self.wrong(&format!("{name}[{number}]"), "is to be a mapping")),
        };
        self.list(name)?.iter().enumerate().map(child).collect()
    }

    /// A list of texts; `None` where it is missing.
    ///
    /// # Errors
    /// Something else.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        if self.raw(name).is_none() {
            return Ok(None);
        }
        let text = |(number, value): (usize, &Value)| match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong(&format!("{name}[{number}]"), "is to be a text: put it in quotes")),
        };
        self.list(name)?.iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A mapping from texts to texts.
    ///
    /// # Errors
    /// Something else.
    pub fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let map = match self.raw(name) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(self.wrong(name, "is to be a mapping of texts")),
        };
        let pair = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            Value::Null => Ok((key.clone(), String::new())),
            _ => Err(self.wrong(&format!("{name}.{key}"), "is to be a text: put it in quotes")),
        };
        map.iter().map(pair).collect()
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    /// The object that these are fields of.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The path of these fields.
    pub fn path(&self) -> &str {
        &self.path
    }
}
