//! Probes: questions to a container of a pod, each with a consequence of its own.
//!
//! ```text
//!   startup     until it has succeeded no other is asked; failed too often, the container is started again
//!   readiness   a name that several share leads to those alone whose last answers were good
//!   liveness    failed too often, the container is started again
//! ```
//! What starts a container again is its restart policy: one that is never started again stays ended.

use super::{DURATION_MS, HealthCheck, OutOfBounds, RETRIES, START_PERIOD_MS_MAX};
use serde::{Deserialize, Serialize};

/// Longest path and longest header of a question in bytes.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Most headers of a question.
pub const HEADERS_MAX: usize = 16;
/// Longest name of a service that is asked by gRPC, in bytes.
pub const SERVICE_BYTES_MAX: usize = 253;
/// What the texts of a question are to be.
pub const LINES_RULE: &str = "a path begins with / and has no spaces; neither it nor a header nor a service's name has control characters";

/// The probes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Whether it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Whether it can be given work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Whether it is of use at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// Milliseconds from the container's start to the first.
    pub delay_ms: u64,
    /// Milliseconds from the end of one to the next.
    pub interval_ms: u64,
    /// Milliseconds that one may take.
    pub timeout_ms: u64,
    /// Successes in a row until it counts as good.
    pub successes: u32,
    /// Failures in a row until it counts as bad.
    pub failures: u32,
}

/// What is asked of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Action {
    /// A program in it ends with 0.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// The pod takes a connection.
    Tcp {
        /// Port.
        port: u16,
    },
    /// The pod answers by HTTP with a status from 200 to 399.
    Http {
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Further headers; `Host` instead of the address.
        headers: Vec<(String, String)>,
        /// By HTTPS. The certificate is not verified: the pod is asked at its own address, in its own network.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
    },
    /// The pod answers `grpc.health.v1.Health/Check` with SERVING, without TLS.
    Grpc {
        /// Port.
        port: u16,
        /// Whose health is asked for; empty for the server's as a whole.
        service: String,
    },
}

/// What a check is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To be told.
    #[default]
    Health,
    /// See [`Probes::startup`].
    Startup,
    /// See [`Probes::readiness`].
    Readiness,
    /// See [`Probes::liveness`].
    Liveness,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Health, Self::Startup, Self::Readiness, Self::Liveness];

    /// Name in keys and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }

    /// Whether it is the one that containers of every kind have.
    pub fn is_health(&self) -> bool {
        *self == Self::Health
    }

    /// Whether a container that fails it is started again.
    pub fn restarts(self) -> bool {
        matches!(self, Self::Startup | Self::Liveness)
    }
}

impl Probes {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Those that there are.
    pub fn all(&self) -> Vec<(Purpose, &Probe)> {
        [
            (Purpose::Startup, &self.startup),
            (Purpose::Readiness, &self.readiness),
            (Purpose::Liveness, &self.liveness),
        ]
        .into_iter()
        .filter_map(|(purpose, probe)| Some((purpose, probe.as_ref()?)))
        .collect()
    }
}

impl Probe {
    /// The same as a check that is made again and again.
    pub fn check(&self) -> HealthCheck {
        HealthCheck {
            action: self.action.clone(),
            delay_ms: Some(self.delay_ms),
            interval_ms: self.interval_ms,
            timeout_ms: self.timeout_ms,
            successes: self.successes,
            retries: self.failures,
            start_period_ms: 0,
            start_interval_ms: self.interval_ms,
        }
    }

    /// Refuses what is out of bounds.
    ///
    /// # Errors
    /// The first such value.
    pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
        let (least, most) = (*DURATION_MS.start(), *DURATION_MS.end());
        let (few, many) = (u64::from(*RETRIES.start()), u64::from(*RETRIES.end()));
        self.action.check_bounds()?;
        check_all(&[
            ("delay_ms", self.delay_ms, 0, START_PERIOD_MS_MAX),
            ("interval_ms", self.interval_ms, least, most),
            ("timeout_ms", self.timeout_ms, least, most),
            ("successes", u64::from(self.successes), few, many),
            ("failures", u64::from(self.failures), few, many),
        ])
    }

    /// Whether a text of a question would end the line that it is put on (RFC 9112, section 2.2).
    pub fn breaks_lines(&self) -> bool {
        self.action.breaks_lines()
    }
}

impl Action {
    /// Refuses what is out of bounds.
    ///
    /// # Errors
    /// The first such value.
    pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
        const PORT: &str = "port or length of the command";
        match self {
            Self::Exec { argv } => check_all(&[(PORT, argv.len() as u64, 1, 1024)]),
            Self::Tcp { port } => check_all(&[(PORT, u64::from(*port), 1, 65_535)]),
            Self::Grpc { port, service } => check_all(&[
                (PORT, u64::from(*port), 1, 65_535),
                ("service", service.len() as u64, 0, SERVICE_BYTES_MAX as u64),
            ]),
            Self::Http { port, path, headers, .. } => {
                let lengths = headers.iter().map(|(name, value)| name.len() + value.len());
                let longest = lengths.chain([path.len()]).max().unwrap_or(0) as u64;
                check_all(&[
                    ("path and headers", longest, 1, TEXT_BYTES_MAX as u64),
                    ("headers", headers.len() as u64, 0, HEADERS_MAX as u64),
                    (PORT, u64::from(*port), 1, 65_535),
                ])
            }
        }
    }

    /// Whether a text of a question would end the line that it is put on (RFC 9112, section 2.2).
    pub fn breaks_lines(&self) -> bool {
        let breaks = |text: &String| text.bytes().any(|byte| byte.is_ascii_control());
        match self {
            Self::Http { path, headers, .. } => {
                breaks(path)
                    || path.contains(' ')
                    || !path.starts_with('/')
                    || headers.iter().any(|(name, value)| {
                        breaks(name) || breaks(value) || name.contains([' ', ':']) || name.is_empty()
                    })
            }
            Self::Grpc { service, .. } => breaks(service),
            Self::Exec { .. } | Self::Tcp { .. } => false,
        }
    }
}

fn check_all(all: &[(&'static str, u64, u64, u64)]) -> Result<(), OutOfBounds> {
    match all.iter().find(|(_, given, least, most)| !(*least..=*most).contains(given)) {
        Some(&(name, given, least, most)) => Err(OutOfBounds { name, given, least, most }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(action: Action) -> Probe {
        Probe { action, delay_ms: 0, interval_ms: 10_000, timeout_ms: 1_000, successes: 1, failures: 3 }
    }

    fn http(path: &str, headers: &[(&str, &str)]) -> Action {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Action::Http { port: 80, path: path.into(), headers, tls: false }
    }

    fn grpc(service: &str) -> Action {
        Action::Grpc { port: 80, service: service.into() }
    }

    #[test]
    fn bounds_are_kept() {
        let exec = Action::Exec { argv: vec!["true".into()] };
        let good = probe(exec);
        assert_eq!(good.check_bounds(), Ok(()));
        for (probe, name) in [
            (Probe { delay_ms: 86_400_001, ..good.clone() }, "delay_ms"),
            (Probe { interval_ms: 99, ..good.clone() }, "interval_ms"),
            (Probe { timeout_ms: 0, ..good.clone() }, "timeout_ms"),
            (Probe { successes: 0, ..good.clone() }, "successes"),
            (Probe { failures: 1_001, ..good.clone() }, "failures"),
            (probe(Action::Exec { argv: vec![] }), "port or length of the command"),
            (probe(Action::Tcp { port: 0 }), "port or length of the command"),
            (probe(http(&format!("/{}", "x".repeat(TEXT_BYTES_MAX)), &[])), "path and headers"),
            (probe(http("/", &[("a", "b"); HEADERS_MAX + 1])), "headers"),
            (probe(grpc(&"x".repeat(SERVICE_BYTES_MAX + 1))), "service"),
        ] {
            assert_eq!(probe.check_bounds().map_err(|e| e.name), Err(name), "{probe:?}");
        }
    }

    #[test]
    fn no_text_of_a_question_can_be_a_second_one() {
        for (action, breaks) in [
            (http("/ok?a=b", &[("X-A", "b c")]), false),
            (http("ok", &[]), true),
            (http("/a b", &[]), true),
            (http("/\r\nX: y", &[]), true),
            (http("/", &[("A\n", "b")]), true),
            (http("/", &[("A", "b\r\n")]), true),
            (http("/", &[("", "b")]), true),
            (http("/", &[("A:", "b")]), true),
            (Action::Tcp { port: 1 }, false),
            (grpc("shop.v1.Shop"), false),
            (grpc("a\nb"), true),
        ] {
            assert_eq!(probe(action.clone()).breaks_lines(), breaks, "{action:?}");
        }
    }
}
