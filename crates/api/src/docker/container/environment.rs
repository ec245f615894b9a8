//! Environments as docker writes them: `NAME=value`, and `NAME` alone for a variable that shall not be there.

use crate::error::{Failure, Result};
use model::error::Code;
use std::collections::{BTreeMap, BTreeSet};

/// Most variables.
const VARIABLES_MAX: usize = 4_096;

/// What is to be set, and what is not to be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables with their values.
    pub set: BTreeMap<String, String>,
    /// Variables that the image sets and that shall go.
    pub removed: BTreeSet<String>,
}

impl Environment {
    /// The first variable that shall go and that the image sets.
    pub fn removed_from<'a>(&'a self, image: &[String]) -> Option<&'a String> {
        let sets = |name: &String| image.iter().any(|pair| pair.split('=').next() == Some(name));
        self.removed.iter().find(|name| sets(name))
    }
}

/// Reads an environment.
///
/// # Errors
/// `invalid` for a variable without a name or with a NUL byte, `too_large`.
pub fn read(pairs: &[String]) -> Result<Environment> {
    if pairs.len() > VARIABLES_MAX {
        return Err(Failure::new(
            Code::TooLarge,
            format!("an environment has at most {VARIABLES_MAX} variables"),
        ));
    }
    let mut all = Environment::default();
    for pair in pairs {
        let (name, value) =
            pair.split_once('=').map_or((pair.as_str(), None), |(name, value)| (name, Some(value)));
        if name.is_empty() || pair.contains('\0') {
            return Err(Failure::new(Code::Invalid, format!("invalid environment variable: {pair:?}")));
        }
        match value {
            Some(value) => {
                all.removed.remove(name);
                all.set.insert(name.to_string(), value.to_string());
            }
            None => {
                all.set.remove(name);
                all.removed.insert(name.to_string());
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_word_on_a_variable_counts() {
        let read = |pairs: &[&str]| super::read(&pairs.iter().map(|p| (*p).to_string()).collect::<Vec<_>>());
        let all = read(&["A=1", "B=x=y", "A=2", "C", "B2=", "D=1", "D"]).unwrap();
        let set: Vec<(&str, &str)> = all.set.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(set, [("A", "2"), ("B", "x=y"), ("B2", "")]);
        assert_eq!(all.removed_from(&["PATH=/bin".into(), "D=9".into()]), Some(&"D".to_string()));
        assert_eq!(all.removed_from(&["PATH=/bin".into()]), None);
        assert!(read(&["=x"]).is_err() && read(&["a\0=x"]).is_err());
    }
}
