//! Logging in: the challenge of a registry (RFC 9110 section 11, Docker's "Token Authentication Specification") and
//! the tokens it leads to.

use super::Credentials;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a token is used when nothing is said (Docker's specification).
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
/// Tokens are given up this long before they end.
const LIFETIME_MARGIN: Duration = Duration::from_secs(10);
/// Tokens that are kept.
const TOKENS_MAX: usize = 256;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 48 << 10;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from this address.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The first challenge of a `WWW-Authenticate` header that is understood; Bearer goes before Basic.
pub(super) fn parse_challenge<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parse_parameters(rest);
            let get =
                |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// `name="value, with \"quotes\"", other=token`
fn parse_parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut chars = text.chars().peekable();
    while parameters.len() < 16 {
        let key: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
        if chars.next().is_none() {
            break;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
            while chars.next_if(|c| *c != ',').is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        chars.next();
        parameters.push((key.trim_matches([' ', ',']).to_ascii_lowercase(), value));
    }
    parameters
}

/// The address that gives a token for pulling `repository`.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut url = realm.to_string();
    url.push(if realm.contains('?') { '&' } else { '?' });
    if let Some(service) = service {
        url.push_str(&format!("service={}&", percent_encode(service)));
    }
    url.push_str(&format!("scope={}", percent_encode(scope)));
    url
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

pub(super) fn basic(credentials: &Credentials) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credentials.user, credentials.password)))
}

/// The answer of a token server, as the header that is sent with it and how long it lasts.
pub(super) fn parse_token(body: &[u8]) -> Option<(String, Duration)> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token)?;
    let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !printable {
        return None;
    }
    let lifetime =
        answer.expires_in.map_or(LIFETIME_DEFAULT, |s| Duration::from_secs(s.clamp(60, 24 * 3600)));
    Some((format!("Bearer {token}"), lifetime))
}

/// What opens a repository: host, repository and user.
pub(super) type TokenKey = (String, String, Option<String>);

/// Authorization headers that worked, until they end.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    headers: Mutex<HashMap<TokenKey, (String, Instant)>>,
}

impl Tokens {
    pub(super) fn get(&self, key: &TokenKey) -> Option<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(key).filter(|(_, until)| Instant::now() < *until).map(|(header, _)| header.clone())
    }

    pub(super) fn put(&self, key: TokenKey, header: String, lifetime: Duration) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.len() >= TOKENS_MAX {
            headers.clear();
        }
        headers.insert(key, (header, Instant::now() + lifetime.saturating_sub(LIFETIME_MARGIN)));
    }

    pub(super) fn forget(&self, key: &TokenKey) {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read() {
        let bearer = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse_challenge(["Basic realm=\"x\"", bearer].into_iter()),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(parse_challenge(["basic realm=x"].into_iter()), Some(Challenge::Basic));
        assert_eq!(parse_challenge(["Negotiate", "Bearer service=x"].into_iter()), None);
        assert_eq!(
            token_url("https://a/t?x=1", Some("my service"), "repository:a/b:pull"),
            "https://a/t?x=1&service=my%20service&scope=repository:a/b:pull"
        );
    }

    #[test]
    fn tokens_are_read_and_end() {
        let (header, lifetime) = parse_token(br#"{"access_token":"abc","expires_in":300}"#).expect("a token");
        assert_eq!((header.as_str(), lifetime), ("Bearer abc", Duration::from_secs(300)));
        for bad in [r#"{}"#, r#"{"token":""}"#, "{\"token\":\"a\\r\\nb\"}", "x"] {
            assert_eq!(parse_token(bad.as_bytes()), None, "{bad}");
        }
        let tokens = Tokens::default();
        let key = ("h".to_string(), "r".to_string(), None);
        tokens.put(key.clone(), header, LIFETIME_MARGIN);
        assert_eq!(tokens.get(&key), None, "ended at once");
    }

    proptest! {
        #[test]
        fn any_header_is_answered(text in "\\PC{0,60}") {
            let _ = parse_challenge([text.as_str(), &format!("Bearer {text}")].into_iter());
        }
    }
}
