//! Queries and bodies as docker's clients send them.

use crate::{
    error::{Failure, Result},
    request::{read_body, unescape},
};
use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use model::error::Code;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A query string. Of what is given several times, the last counts, but for [`Query::all`].
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        Self::parse(parts.uri.query().unwrap_or(""))
    }
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// `invalid` for broken escapes.
    pub fn parse(query: &str) -> Result<Self> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let read = |text: &str| unescape(&text.replace('+', " "));
            all.entry(read(key)?).or_default().push(read(value)?);
        }
        Ok(Self(all))
    }

    /// A text; `None` where it is missing or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// All values that were given, in their order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(name).map_or(&[][..], Vec::as_slice).iter().map(String::as_str)
    }

    /// A switch, as docker reads it: all but nothing, `0`, `no`, `false` and `none` is on.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| {
            !matches!(text.to_ascii_lowercase().trim(), "" | "0" | "no" | "false" | "none")
        })
    }

    /// A switch that is on where it is missing.
    pub fn flag_or_on(&self, name: &str) -> bool {
        self.text(name).is_none() || self.flag(name)
    }

    /// A whole number.
    ///
    /// # Errors
    /// `invalid`, with the parameter.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Failure::new(Code::Invalid, format!("invalid value of {name}: {text:?} is no whole number"))
        })
    }
}

/// A JSON body, which may be missing where the type has a default. What a client sends and nobody reads here is looked
/// at by the type itself.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let headers = request.headers().clone();
        let bytes = read_body(request.into_body()).await?;
        if bytes.is_empty() || bytes.as_ref() == b"null" {
            return Ok(Self(T::default()));
        }
        crate::request::read_json_body(&headers, &bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_docker_does() {
        let query = Query::parse("a=1&b=true&c=0&d=False&e=&f&g=yes&t=-1&x=z").unwrap();
        for (name, on) in
            [("a", true), ("b", true), ("c", false), ("d", false), ("e", false), ("g", true), ("no", false)]
        {
            assert_eq!(query.flag(name), on, "{name}");
        }
        assert!(query.flag_or_on("missing") && !query.flag_or_on("c"));
        assert_eq!(query.number("t").unwrap(), Some(-1));
        assert!(query.number("x").is_err() && query.number("missing").unwrap().is_none());
        assert_eq!(Query::parse("q=a%20b+c").unwrap().text("q"), Some("a b c"));
    }
}
