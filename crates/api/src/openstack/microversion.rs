//! Microversions: which form of the API a client wants, by a header of each call (API-SIG, "Microversion Specification").
//!
//! ```text
//!   OpenStack-API-Version: compute 2.96      X-OpenStack-Nova-API-Version: 2.96  (Nova's old one; the first wins)
//! ```

use super::{
    door::Service,
    fault::{Fault, Result},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
};
use std::{fmt, str::FromStr};

const VERSION_HEADER: HeaderName = HeaderName::from_static("openstack-api-version");
const NOVA_HEADER: HeaderName = HeaderName::from_static("x-openstack-nova-api-version");

/// A microversion, like 2.96.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion {
    /// Before the dot.
    pub major: u16,
    /// After it.
    pub minor: u16,
}

impl Microversion {
    /// A version.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether it has what came with `major.minor`.
    pub fn has(self, major: u16, minor: u16) -> bool {
        self >= Self::new(major, minor)
    }

    /// Refuses callers of an older version, as if the path did not exist.
    ///
    /// # Errors
    /// 404.
    pub fn require(self, major: u16, minor: u16) -> Result<()> {
        if self.has(major, minor) {
            return Ok(());
        }
        Err(Fault::status(
            StatusCode::NOT_FOUND,
            format!("API version {self} is not supported on this method."),
        ))
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Microversion {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let number = |digits: &str| {
            let plain =
                digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            if plain { digits.parse::<u16>().map_err(|_| ()) } else { Err(()) }
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Microversion {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let version = parts.extensions.get::<Self>().copied();
        Ok(version.expect("the frame of a service with microversions puts it there"))
    }
}

/// The versions of a service that has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// What the header calls the service.
    pub word: &'static str,
    /// The oldest, which is meant when none is asked for.
    pub min: Microversion,
    /// The newest.
    pub max: Microversion,
}

/// The versions of a service; none for those without.
pub fn range(service: Service) -> Option<Range> {
    let (word, min, max) = match service {
        Service::Compute => ("compute", super::compute::MIN, super::compute::MAX),
        Service::Volume => ("volume", super::volume::MIN, super::volume::MAX),
        Service::Placement => ("placement", super::placement::MIN, super::placement::MAX),
        Service::Identity | Service::Image | Service::Network => return None,
    };
    Some(Range { word, min, max })
}

impl Range {
    /// What a client asks for, as it wrote it: `latest`, a number, or nothing.
    fn asked<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let named = headers
            .get_all(VERSION_HEADER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .filter_map(|text| text.trim().split_once(' '))
            .find(|(word, _)| word.eq_ignore_ascii_case(self.word))
            .map(|(_, version)| version.trim());
        let old = || headers.get(NOVA_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
        if self.word == "compute" { named.or_else(old) } else { named }
    }

    /// The version of a call.
    ///
    /// # Errors
    /// 400 for what is no version, 406 for one that is not served.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Microversion> {
        let Some(text) = self.asked(headers) else {
            return Ok(self.min);
        };
        if text == "latest" {
            return Ok(self.max);
        }
        let version: Microversion = text.parse().map_err(|()| {
            Fault::invalid(format!(
                "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            ))
        })?;
        if version < self.min || version > self.max {
            let message = format!(
                "Version {version} is not supported by the API. Minimum is {} and maximum is {}.",
                self.min, self.max
            );
            return Err(Fault::status(StatusCode::NOT_ACCEPTABLE, message));
        }
        Ok(version)
    }

    /// Says in a reply which version it has: the one that was agreed on, or what was asked for in a refusal.
    pub fn answer(&self, asked: &HeaderMap, agreed: Option<Microversion>, reply: &mut HeaderMap) {
        let agreed = agreed.map(|version| version.to_string());
        let shown = agreed.as_deref().or_else(|| self.asked(asked)).unwrap_or_default();
        let mut add = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                reply.insert(&name, value);
            }
            reply.append(header::VARY, HeaderValue::from_str(name.as_str()).expect("a header's name"));
        };
        add(VERSION_HEADER, &format!("{} {shown}", self.word));
        if self.word == "compute" {
            add(NOVA_HEADER, shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVA: Range =
        Range { word: "compute", min: Microversion::new(2, 1), max: Microversion::new(2, 96) };

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn versions_are_agreed_on() {
        let (new, old) = ("openstack-api-version", "x-openstack-nova-api-version");
        for (given, agreed) in [
            (vec![], Ok("2.1")),
            (vec![(new, "compute 2.61")], Ok("2.61")),
            (vec![(new, "Compute latest")], Ok("2.96")),
            (vec![(new, "volume 3.0, compute 2.9")], Ok("2.9")),
            (vec![(new, "volume 3.0")], Ok("2.1")),
            (vec![(old, "2.2")], Ok("2.2")),
            (vec![(old, "2.2"), (new, "compute 2.3")], Ok("2.3")),
            (vec![(new, "compute 2.97")], Err(406)),
            (vec![(new, "compute 2.0")], Err(406)),
            (vec![(new, "compute 3.1")], Err(406)),
            (vec![(new, "compute 2.01")], Err(400)),
            (vec![(new, "compute two")], Err(400)),
        ] {
            let outcome = NOVA.negotiate(&headers(&given));
            let shown = outcome.map(|v| v.to_string()).map_err(|f| f.status_in(Service::Compute).as_u16());
            assert_eq!(shown.as_deref().map_err(|e| *e), agreed, "{given:?}");
        }
    }

    #[test]
    fn replies_say_their_version_in_both_headers() {
        let mut reply = HeaderMap::new();
        NOVA.answer(&HeaderMap::new(), Some(Microversion::new(2, 5)), &mut reply);
        assert_eq!(reply["openstack-api-version"], "compute 2.5");
        assert_eq!(reply["x-openstack-nova-api-version"], "2.5");
        let vary: Vec<_> = reply.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["openstack-api-version", "x-openstack-nova-api-version"]);
    }
}
