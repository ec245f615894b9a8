//! Who may depend on whom.
//!
//! ```text
//!   model <- store <- reconcile <- control <- api <- holm
//!                              \-- node <-----------/
//!                                   \-- sys
//! ```

use super::{Broken, Rule};
use serde_json::Value;
use std::{collections::BTreeMap, io, path::Path, process::Command};

/// Crates, and those of the house that they may use.
const EDGES: [(&str, &[&str]); 10] = [
    ("holm-model", &[]),
    ("holm-sys", &[]),
    ("holm-store", &["holm-model"]),
    ("holm-reconcile", &["holm-store"]),
    ("holm-control", &["holm-model", "holm-store", "holm-reconcile"]),
    ("holm-node", &["holm-model", "holm-store", "holm-reconcile", "holm-sys"]),
    ("holm-api", &["holm-model", "holm-store", "holm-reconcile", "holm-control"]),
    (
        "holm",
        &["holm-model", "holm-store", "holm-reconcile", "holm-sys", "holm-node", "holm-control", "holm-api"],
    ),
    ("xtask", &[]),
    // Real guests and packets: from outside, by the published client alone.
    ("holm-system-tests", &["holm-api", "holm-model", "holm-store", "holm-sys"]),
];

/// What tests alone may use besides, and why.
const TEST_EDGES: [(&str, &str, &str); 2] = [
    ("holm-node", "holm-control", "the life of instances is proven from a caller's wish to the driver"),
    ("holm-reconcile", "holm-model", "tests of the loop need a record"),
];

/// Outside libraries that stay in one crate of the house.
const HOMES: [(&str, &str, &str); 7] = [
    ("rusqlite", "holm-store", "SQL stays in the store"),
    ("etcd-client", "holm-store", "etcd stays in the store"),
    ("netlink-sys", "holm-sys", "the kernel's messages stay in sys"),
    ("netlink-packet-route", "holm-sys", "the kernel's messages stay in sys"),
    ("axum", "holm-api", "doors are in the api"),
    ("utoipa", "holm-api", "doors are in the api"),
    ("clap", "holm", "the command line is in the binary"),
];

/// Libraries that bring I/O, time, chance or tasks, and so never come into `model`.
const IMPURE: [&str; 5] = ["tokio", "rand", "async-trait", "futures", "tracing"];

/// A crate of the house.
#[derive(Debug, Clone, Default)]
pub(super) struct Crate {
    manifest: String,
    name: String,
    uses: Vec<(String, bool)>,
}

/// Asks cargo for the crates.
///
/// # Errors
/// Cargo cannot be run or refuses.
pub(super) fn read(root: &Path) -> io::Result<Vec<Crate>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages.map(|package| parse(root, package)).collect())
}

fn parse(root: &Path, package: &Value) -> Crate {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let manifest = text(&package["manifest_path"]);
    let manifest =
        Path::new(&manifest).strip_prefix(root).map_or(manifest.clone(), |p| p.display().to_string());
    let uses = package["dependencies"].as_array().into_iter().flatten();
    let uses = uses.map(|used| (text(&used["name"]), used["kind"] == "dev")).collect();
    Crate { manifest, name: text(&package["name"]), uses }
}

/// Edges that should not be.
pub(super) fn check(crates: &[Crate]) -> Vec<Broken> {
    let edges = BTreeMap::from(EDGES);
    let mut broken = vec![];
    for from in crates {
        let mut report = |rule, what| {
            broken.push(Broken { path: from.manifest.clone(), line: 1, rule, what });
        };
        let Some(allowed) = edges.get(from.name.as_str()) else {
            report(Rule::CrateEdge, format!("{} has no place in the house: give it one in xtask", from.name));
            continue;
        };
        for (to, in_tests) in &from.uses {
            let to = to.as_str();
            let ours = edges.contains_key(to);
            let for_tests =
                *in_tests && TEST_EDGES.iter().any(|(f, t, _)| (*f, *t) == (from.name.as_str(), to));
            if ours && !allowed.contains(&to) && !for_tests {
                report(Rule::CrateEdge, format!("{} must not know {to}", from.name));
            }
            if from.name == "holm-model" && !in_tests && IMPURE.contains(&to) {
                report(Rule::Pure, format!("model is pure: {to} does not belong there"));
            }
            for (library, home, why) in HOMES {
                if library == to && from.name != home && !in_tests {
                    report(Rule::LibraryHome, format!("{library} belongs to {home} alone: {why}"));
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        for (from, to, in_tests, wanted) in [
            ("holm-node", "holm-sys", false, None),
            ("holm-node", "serde", false, None),
            ("holm-node", "holm-control", true, None),
            ("holm-node", "holm-control", false, Some(Rule::CrateEdge)),
            ("holm-control", "holm-node", true, Some(Rule::CrateEdge)),
            ("holm-model", "holm-store", false, Some(Rule::CrateEdge)),
            ("holm-model", "tokio", false, Some(Rule::Pure)),
            ("holm-control", "rusqlite", false, Some(Rule::LibraryHome)),
            ("holm-new", "serde", false, Some(Rule::CrateEdge)),
        ] {
            let one = Crate { manifest: String::new(), name: from.into(), uses: vec![(to.into(), in_tests)] };
            let broken = check(&[one]);
            assert_eq!(broken.first().map(|b| b.rule), wanted, "{from} to {to}, in tests {in_tests}");
        }
    }
}
