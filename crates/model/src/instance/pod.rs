//! What the containers of a pod share beside its network and volumes.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most name servers (`MAXNS` of resolv.conf(5)).
pub const DNS_SERVERS_MAX: usize = 3;
/// Most search domains, as Kubernetes has it.
pub const DNS_SEARCH_MAX: usize = 32;
/// Most options of the resolver.
pub const DNS_OPTIONS_MAX: usize = 16;
/// Longest search domain and option in bytes.
pub const DNS_WORD_BYTES_MAX: usize = 253;

/// What they share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shared {
    /// They see each other's processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub processes: bool,
    /// How they look names up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// How names are looked up, as resolv.conf(5) has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Instead of what its networks tell, and not beside it: then names of other instances are known where these servers
    /// know them.
    pub instead: bool,
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options, like `ndots:2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Shared {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Dns {
    /// Refuses what no resolver takes.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let fits = |word: &String| {
            (1..=DNS_WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if self.servers.len() > DNS_SERVERS_MAX {
            return Err(format!("{} name servers: a resolver asks {DNS_SERVERS_MAX}", self.servers.len()));
        }
        if self.instead && self.servers.is_empty() {
            return Err("without the networks' name servers at least one is to be named".into());
        }
        for (what, all, most) in
            [("search domains", &self.search, DNS_SEARCH_MAX), ("options", &self.options, DNS_OPTIONS_MAX)]
        {
            if all.len() > most {
                return Err(format!("{} {what}: at most {most} are possible", all.len()));
            }
            if let Some(word) = all.iter().find(|word| !fits(word)) {
                return Err(format!(
                    "{word:.80?} among the {what}: 1 to {DNS_WORD_BYTES_MAX} characters without spaces"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_resolver_takes_is_refused() {
        let server = IpAddr::from([192, 0, 2, 1]);
        let good = Dns { instead: true, servers: vec![server; 3], ..Dns::default() };
        let words = |count: usize| vec!["x".to_string(); count];
        for (dns, fits) in [
            (Dns::default(), true),
            (good.clone(), true),
            (Dns { instead: true, ..Dns::default() }, false),
            (Dns { servers: vec![server; 4], ..good.clone() }, false),
            (Dns { search: words(DNS_SEARCH_MAX), options: words(DNS_OPTIONS_MAX), ..good.clone() }, true),
            (Dns { search: words(DNS_SEARCH_MAX + 1), ..good.clone() }, false),
            (Dns { options: words(DNS_OPTIONS_MAX + 1), ..good.clone() }, false),
            (Dns { search: vec!["a\nnameserver 192.0.2.9".into()], ..good.clone() }, false),
            (Dns { search: vec![String::new()], ..good.clone() }, false),
            (Dns { options: vec!["x".repeat(254)], ..good }, false),
        ] {
            assert_eq!(dns.check().is_ok(), fits, "{dns:?}");
        }
    }
}
