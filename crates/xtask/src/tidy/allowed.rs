//! Places that may break a rule for now. The list only shrinks: an entry that is not needed any more breaks a rule.

use super::{Broken, Rule};

/// A file that may break a rule for now.
pub(super) struct Allowance {
    /// The file.
    pub path: &'static str,
    /// The rule.
    pub rule: Rule,
    /// Why, and what ends it.
    pub reason: &'static str,
}

/// All of them.
pub(super) const ALLOWED: [Allowance; 3] = [
    long_test(
        "crates/api/tests/door/nouns.rs",
        "a story for each group of nouns; each noun is to get its own",
    ),
    long_test(
        "crates/node/src/image/testing/layers.rs",
        "a table of attacks; each becomes a function that makes its archive",
    ),
    long_test(
        "crates/node/tests/network/services.rs",
        "advertisements and leases of a guest become tests of their own",
    ),
];

/// Tests that are longer than a function should be.
const fn long_test(path: &'static str, reason: &'static str) -> Allowance {
    Allowance { path, rule: Rule::FunctionLength, reason }
}

/// Takes away what is allowed, and adds the allowances that nothing needs.
pub(super) fn take(broken: Vec<Broken>, allowed: &[Allowance]) -> Vec<Broken> {
    let fits =
        |allowance: &Allowance, place: &Broken| (allowance.path, allowance.rule) == (&place.path, place.rule);
    let idle = allowed.iter().filter(|a| !broken.iter().any(|place| fits(a, place))).map(|a| Broken {
        path: a.path.into(),
        line: 1,
        rule: Rule::Allowed,
        what: format!(
            "may break the rule {} ({}), and does not: take the allowance away",
            a.rule.as_str(),
            a.reason
        ),
    });
    let idle: Vec<Broken> = idle.collect();
    let mut rest = broken;
    rest.retain(|place| !allowed.iter().any(|a| fits(a, place)));
    rest.extend(idle);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowances_cover_their_file_and_end_with_its_fault() {
        let place = |path: &str| Broken { path: path.into(), line: 7, rule: Rule::Head, what: String::new() };
        let allowed = [Allowance { path: "a.rs", rule: Rule::Head, reason: "it is being moved" }];
        assert_eq!(take(vec![place("a.rs"), place("b.rs")], &allowed), [place("b.rs")]);
        let idle = take(vec![place("b.rs")], &allowed);
        assert_eq!((idle.len(), idle[1].rule), (2, Rule::Allowed));
    }
}
