//! Records that older versions wrote stay readable: each golden file is what a version really stored, and
//! is never changed; a new version adds a file.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Record, decode, encode};

/// A record in its third shape: v1 had `ram` as text, v2 had no `vcpus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flavor {
    name: String,
    memory_mib: u64,
    vcpus: u32,
}

impl Record for Flavor {
    const TABLE: &'static str = "flavor";
    const VERSION: u32 = 3;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn upgrade(from: u32, mut value: Value) -> Result<Value, String> {
        let fields = value.as_object_mut().ok_or("a flavor is an object")?;
        if from < 2 {
            let ram = fields.remove("ram").ok_or("ram is missing")?;
            let ram = ram.as_str().and_then(|ram| ram.parse::<u64>().ok()).ok_or("ram is no number")?;
            fields.insert("memory_mib".into(), ram.into());
        }
        if from < 3 {
            fields.insert("vcpus".into(), 1.into());
        }
        Ok(value)
    }
}

#[test]
fn every_version_reads_as_today() {
    let wanted = Flavor { name: "small".into(), memory_mib: 512, vcpus: 1 };
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for version in 1..=Flavor::VERSION {
        let path = format!("{directory}/flavor.v{version}.json");
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let found: Flavor = decode(&golden).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found, wanted, "{path}");
        if version == Flavor::VERSION {
            let written = encode(&wanted).unwrap();
            assert_eq!(written, golden.trim_ascii_end(), "{path} is what this version writes");
        }
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let check = |stored: &str, wanted: &str| {
        let error = decode::<Flavor>(stored.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{stored}: {error:?} does not begin with {wanted:?}");
    };
    check("", "it is not a record envelope");
    check("[]", "it is not a record envelope");
    check(r#"{"v":3}"#, "it is not a record envelope: missing field `r`");
    check(
        r#"{"v":4,"r":{}}"#,
        "it was written in version 4 by a newer holm; this one knows versions up to 3",
    );
    check(r#"{"v":1,"r":{"name":"a","ram":"much"}}"#, "upgrade from version 1 failed: ram is no number");
    check(
        r#"{"v":3,"r":{"name":"a"}}"#,
        "it does not have the shape of version 3: missing field `memory_mib`",
    );
    check(
        r#"{"v":2,"r":{"name":"a"}}"#,
        "it does not have the shape of version 3: missing field `memory_mib`",
    );
}
