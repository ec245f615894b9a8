//! Queries: filters in the order in which they were given. A key may come several times.

use super::fault::{Fault, Result};
use crate::request::unescape;
use axum::{extract::FromRequestParts, http::request::Parts};

/// Most parameters of a call.
pub const PARAMETERS_MAX: usize = 256;

/// The parameters of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    path: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads `a=1&b=2`; `path` is what the call named, for links to the next page.
    ///
    /// # Errors
    /// 400 for broken escapes and for too many.
    pub fn parse(path: &str, text: &str) -> Result<Self> {
        let mut pairs = vec![];
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let plain = |text: &str| unescape(&text.replace('+', " ")).map_err(|e| Fault::from(e.error));
            pairs.push((plain(key)?, plain(value)?));
        }
        if pairs.len() > PARAMETERS_MAX {
            return Err(Fault::invalid(format!("more than {PARAMETERS_MAX} parameters")));
        }
        Ok(Self { path: path.to_string(), pairs })
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A truth value: `1 t true on y yes` and `0 f false off n no`, in any case, as oslo reads them.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|text| truth(text).ok_or_else(|| wrong(key, text))).transpose()
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|text| text.parse().map_err(|_| wrong(key, text))).transpose()
    }

    /// Path and query of the same call with another marker, for a link to the next page.
    pub fn with_marker(&self, marker: &str) -> String {
        let kept = self.pairs().filter(|(key, _)| *key != "marker");
        let all: Vec<String> =
            kept.chain([("marker", marker)]).map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
        format!("{}?{}", self.path, all.join("&"))
    }

    /// Path of the call, as the service sees it.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Reads a truth value as oslo does.
pub fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

fn wrong(key: &str, text: &str) -> Fault {
    Fault::invalid(format!("Invalid input for {key}: {text:?}."))
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
fn escape(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        Self::parse(parts.uri.path(), parts.uri.query().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_written_again() {
        let query = Query::parse("/v2.0/ports", "a=1&b=x%20y&a=2&on=True&marker=m").unwrap();
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((query.get("b"), query.get("c")), (Some("x y"), None));
        assert_eq!((query.flag("on").unwrap(), query.flag("c").unwrap()), (Some(true), None));
        assert_eq!(query.number("a").unwrap(), Some(1));
        assert!(query.flag("b").is_err() && query.number("b").is_err());
        assert_eq!(query.with_marker("n"), "/v2.0/ports?a=1&b=x%20y&a=2&on=True&marker=n");
        assert!(Query::parse("/", &"a=1&".repeat(PARAMETERS_MAX + 1)).is_err());
        assert!(Query::parse("/", "a=%zz").is_err());
    }
}
