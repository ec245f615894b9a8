//! Restart policies as one word, as docker spells them: `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:5`; and
//! `on-unhealthy`, which docker has not.

use model::plan::RestartPolicy;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// The word for a policy.
pub fn to_text(policy: RestartPolicy) -> String {
    match policy {
        RestartPolicy::No => "no".into(),
        RestartPolicy::Always => "always".into(),
        RestartPolicy::UnlessStopped => "unless-stopped".into(),
        RestartPolicy::OnUnhealthy => "on-unhealthy".into(),
        RestartPolicy::OnFailure { retries_max: 0 } => "on-failure".into(),
        RestartPolicy::OnFailure { retries_max } => format!("on-failure:{retries_max}"),
    }
}

/// The policy that a word means.
///
/// # Errors
/// Names the words that exist.
pub fn from_text(text: &str) -> Result<RestartPolicy, String> {
    let wrong = || {
        format!(
            "{text:?} is no restart policy: use no, always, unless-stopped, on-failure, on-failure:N or on-unhealthy"
        )
    };
    match text.replace('_', "-").as_str() {
        "no" => Ok(RestartPolicy::No),
        "always" => Ok(RestartPolicy::Always),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        "on-unhealthy" => Ok(RestartPolicy::OnUnhealthy),
        "on-failure" => Ok(RestartPolicy::OnFailure { retries_max: 0 }),
        other => {
            let count = other.strip_prefix("on-failure:").ok_or_else(wrong)?;
            let retries_max = count.parse().map_err(|_| wrong())?;
            Ok(RestartPolicy::OnFailure { retries_max })
        }
    }
}

/// Writes a policy as its word.
pub fn serialize<S: Serializer>(policy: &RestartPolicy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(*policy))
}

/// Reads a policy from its word.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RestartPolicy, D::Error> {
    from_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a policy that may be missing. Use with `#[serde(default)]`.
pub mod option {
    use super::*;

    /// Writes a policy as its word, `null` for none.
    pub fn serialize<S: Serializer>(
        policy: &Option<RestartPolicy>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match policy {
            Some(policy) => super::serialize(policy, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a policy from its word.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<RestartPolicy>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|t| from_text(&t).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_back() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:5", "on-unhealthy"] {
            assert_eq!(to_text(from_text(text).unwrap()), text);
        }
        assert_eq!(from_text("unless_stopped"), Ok(RestartPolicy::UnlessStopped));
        assert!(from_text("never").is_err());
        assert!(from_text("on-failure:x").is_err());
    }
}
