//! What no file may mention, and what no file may be called.

use super::{Broken, Rule};

/// Rooms that nobody can find anything in.
const NAMES: [&str; 7] = ["utils", "util", "helpers", "helper", "common", "misc", "stuff"];
/// Where this is built is nobody's business. In two parts, so that this file may be read, too.
const WORKPLACE: &str = concat!("/wo", "rk/");

/// A file called after nothing, or in a directory that is.
pub(super) fn check_name(path: &str) -> Option<Broken> {
    let parts = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    let name = parts.into_iter().find(|part| NAMES.contains(part))?;
    Some(Broken {
        path: path.into(),
        line: 1,
        rule: Rule::Name,
        what: format!("{name} tells nothing: name it after what it holds"),
    })
}

/// Mentions of the place where it was written.
pub(super) fn check(path: &str, text: &str) -> Vec<Broken> {
    let lines = text.lines().enumerate().filter(|(_, line)| mentions(line));
    lines
        .map(|(n, _)| Broken {
            path: path.into(),
            line: n + 1,
            rule: Rule::Workplace,
            what: format!("mentions {WORKPLACE}, which is on one machine alone"),
        })
        .collect()
}

/// Whether a line has an absolute path there. A directory of that name further down is another one.
fn mentions(line: &str) -> bool {
    line.match_indices(WORKPLACE).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "._-}/\"*$)".contains(c) || c == '\''))
            || line[..at].ends_with('"')
            || line[..at].ends_with('\'')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_tell_nothing() {
        for (path, wanted) in [
            ("crates/node/src/utils.rs", true),
            ("crates/node/src/common/disk.rs", true),
            ("crates/node/tests/helpers.rs", true),
            ("docs/common-errors.md", false),
            ("crates/node/src/disk.rs", false),
        ] {
            assert_eq!(check_name(path).is_some(), wanted, "{path}");
        }
    }

    #[test]
    fn absolute_paths_there_alone() {
        let line = |before: &str, after: &str| format!("{before}{WORKPLACE}{after}");
        for (text, wanted) in [
            (line("see ", "notes.md"), true),
            (line("\"", "target\""), true),
            (line("", "x"), true),
            (line("overlay", "upper"), false),
            (line("{run}", "upper"), false),
        ] {
            assert_eq!(check("f.md", &text).len(), usize::from(wanted), "{text}");
        }
        assert_eq!(check("f.md", &format!("a\n{}", line(" ", "x")))[0].line, 2);
    }
}
