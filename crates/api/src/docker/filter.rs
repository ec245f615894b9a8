//! Filters of lists, as docker's clients write them: JSON, in two forms.
//!
//! ```text
//!   {"status": ["running", "paused"], "label": ["tier=web"]}              since 1.22
//!   {"status": {"running": true, "paused": true}}                        what the docker command sends
//! ```

use super::query::Query;
use crate::error::{Failure, Result};
use model::{error::Code, meta::Labels};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most values of all filters of one call.
const VALUES_MAX: usize = 512;

/// The filters of a call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// The filters of a query, which are among `known`.
    ///
    /// # Errors
    /// `invalid`, with the filter that is not known.
    pub fn of(query: &Query, known: &[&str]) -> Result<Self> {
        let filters = match query.text("filters") {
            Some(text) => Self::parse(text)?,
            None => Self::default(),
        };
        match filters.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Failure::new(Code::Invalid, format!("invalid filter '{name}'"))
                .hint(format!("the filters are {}", known.join(", ")))),
            None => Ok(filters),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let wrong = || Failure::new(Code::Invalid, format!("invalid filters: {text:.100}"));
        let all: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = BTreeMap::new();
        let mut count = 0;
        for (name, values) in all {
            let values: Vec<String> = match values {
                Value::Array(values) => values
                    .iter()
                    .map(|v| v.as_str().map(str::to_string))
                    .collect::<Option<_>>()
                    .ok_or_else(wrong)?,
                Value::Object(values) => values
                    .into_iter()
                    .filter(|(_, on)| on.as_bool() == Some(true))
                    .map(|(value, _)| value)
                    .collect(),
                _ => return Err(wrong()),
            };
            count += values.len();
            if count > VALUES_MAX {
                return Err(Failure::new(
                    Code::TooLarge,
                    format!("filters have at most {VALUES_MAX} values"),
                ));
            }
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// What was given for a filter; empty where it was not.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a filter was given.
    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether a filter was not given, or one of its values fits.
    pub fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// A switch among filters.
    ///
    /// # Errors
    /// `invalid` for all but true and false.
    pub fn switch(&self, name: &str) -> Result<Option<bool>> {
        match self.values(name) {
            [] => Ok(None),
            [one] if matches!(one.as_str(), "true" | "1") => Ok(Some(true)),
            [one] if matches!(one.as_str(), "false" | "0") => Ok(Some(false)),
            other => Err(Failure::new(Code::Invalid, format!("invalid filter '{name}={}'", other.join(",")))),
        }
    }

    /// Whether labels have all that `label` asks for: `key` or `key=value`.
    pub fn fit_labels(&self, labels: &Labels) -> bool {
        let has = |asked: &str| match asked.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|has| has == value),
            None => labels.contains_key(asked),
        };
        self.values("label").iter().all(|asked| has(asked))
            && !self.values("label!").iter().any(|asked| has(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, known: &[&str]) -> Result<Filters> {
        Filters::of(&Query::parse(&format!("filters={}", text.replace('=', "%3D"))).unwrap(), known)
    }

    #[test]
    fn both_forms_are_read() {
        let known = ["status", "label"];
        for text in [
            r#"{"status":["paused","running"]}"#,
            r#"{"status":{"running":true,"paused":true,"dead":false}}"#,
        ] {
            let filters = of(text, &known).unwrap();
            assert_eq!(filters.values("status"), ["paused", "running"], "{text}");
            assert!(filters.any("status", |s| s == "running") && filters.any("label", |_| false));
        }
        for bad in ["[]", "{", r#"{"status":"running"}"#, r#"{"status":[1]}"#, r#"{"colour":["red"]}"#] {
            assert!(of(bad, &known).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=VALUES_MAX).map(|n| n.to_string()).collect();
        assert!(of(&serde_json::json!({ "status": many }).to_string(), &known).is_err());
    }

    #[test]
    fn labels_all_have_to_fit() {
        let labels = Labels::from([("tier".into(), "web".into()), ("x".into(), String::new())]);
        for (text, fits) in [
            (r#"{"label":["tier"]}"#, true),
            (r#"{"label":["tier=web","x"]}"#, true),
            (r#"{"label":["tier=db"]}"#, false),
            (r#"{"label":["tier=web","y"]}"#, false),
            ("{}", true),
        ] {
            assert_eq!(of(text, &["label"]).unwrap().fit_labels(&labels), fits, "{text}");
        }
    }
}
