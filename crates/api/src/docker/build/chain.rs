//! Keys of steps: each depends on the one before, so that one that changed changes all behind it.

use sha2::{Digest, Sha256};

/// Key of a step, in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key that a stage begins with: what it is built on, and what holds for all of it.
    pub fn base(parts: &[&str]) -> Self {
        Self("base".into()).next(parts)
    }

    /// The key of a step behind this one, of all that it depends on.
    #[must_use]
    pub fn next(&self, parts: &[&str]) -> Self {
        let mut sum = Sha256::new();
        for part in std::iter::once(&self.0.as_str()).chain(parts) {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
        Self(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As docker shows ids.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_all_before_it() {
        let base = Key::base(&["sha256:a", ""]);
        let one = base.next(&["RUN x"]);
        assert_eq!(one, Key::base(&["sha256:a", ""]).next(&["RUN x"]));
        assert_ne!(one, base.next(&["RUN y"]));
        assert_ne!(one, Key::base(&["sha256:b", ""]).next(&["RUN x"]));
        assert_ne!(base.next(&["ab", "c"]), base.next(&["a", "bc"]));
        assert_eq!(one.short().len(), 12);
    }
}
