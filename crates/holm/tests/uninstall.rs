//! `holm uninstall`, the real one: a daemon with guests is killed, and the host becomes what it was before it.
//!
//! All of it happens in network and mount namespaces of the test's own, with a "LAN" beside, so that whatever is found
//! there afterwards is holm's doing. What cannot be told apart from other tests on the machine is compared by name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Sections of `scripts/machine-state` that belong to the namespaces of the test alone.
const OWN_SECTIONS: [&str; 8] = [
    "nftables",
    "network settings",
    "interfaces",
    "addresses",
    "routes",
    "rules",
    "proxy and permanent neighbours",
    "traffic control",
];

const STORY: &str = r#"
set -euo pipefail
ip link set lo up
ip link add lan0 type veth peer name lan1
# An address the kernel makes itself comes when the carrier is seen and stays tentative for a second or so.
for link in lan0 lan1; do ip link set $link addrgenmode none; done
ip address add 192.0.2.1/24 dev lan0
ip link set lan0 up
ip link set lan1 up
mkdir -p "$RUN"
# The carrier is seen a moment after the links are up, and brings the route of multicast; the kernel does no more by itself.
settled() {
  for link in lan0 lan1; do ip -6 route show table local type multicast dev $link | grep -q . || return 1; done
  ! ip -6 address show tentative | grep -q .
}
for _ in $(seq 100); do ! settled || break; sleep 0.1; done
settled
"$STATE_OF" >"$DIR/before"

serve() {
  "$HOLM" serve --state "$DIR/state" --run "$RUN" --prefix "$PREFIX" >>"$DIR/log" 2>&1 &
  DAEMON=$!
  for _ in $(seq 400); do "$HOLM" node list >/dev/null 2>&1 && return; sleep 0.05; done
  cat "$DIR/log"; exit 1
}
serve
"$HOLM" image import box --oci-layout "$IMAGES/busybox/current/layout"
"$HOLM" run --detach --name sleeper box sleep 1000
"$HOLM" floating-ip create --name door
"$HOLM" floating-ip attach door sleeper
for _ in $(seq 400); do "$HOLM" exec sleeper true && break; sleep 0.05; done
"$STATE_OF" >"$DIR/during"

# Not while a daemon runs, and not without a yes.
if "$HOLM" uninstall --state "$DIR/state" --run "$RUN" --prefix "$PREFIX" -y 2>"$DIR/refused"; then exit 11; fi
kill -9 $DAEMON
wait $DAEMON || true
if "$HOLM" uninstall --state "$DIR/state" --run "$RUN" --prefix "$PREFIX" </dev/null 2>"$DIR/unasked"; then exit 12; fi
[ -d "$RUN" ]

for _ in 1 2; do "$HOLM" uninstall --state "$DIR/state" --run "$RUN" --prefix "$PREFIX" -y; done
"$STATE_OF" >"$DIR/after"
[ ! -e "$RUN" ]
[ -e "$DIR/state/holm.db" ]

# What was kept is enough to go on from.
mkdir -p "$RUN"
serve
"$HOLM" image list -o name | grep -q .
kill $DAEMON
wait $DAEMON || true
"$HOLM" uninstall --state "$DIR/state" --run "$RUN" --prefix "$PREFIX" -y --data
"$STATE_OF" >"$DIR/purged"
[ ! -e "$DIR/state" ]
"#;

fn images() -> PathBuf {
    let cache = std::env::var_os("HOLM_IMAGE_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/holm/images")));
    cache.expect("HOME or HOLM_IMAGE_CACHE tells where the images of the tests are")
}

/// The lines that only holm could have changed, each with its section.
fn facts(path: &Path, names: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut section = "";
    let mut facts = vec![];
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            section = title;
        } else if OWN_SECTIONS.contains(&section) || names.iter().any(|name| line.contains(name)) {
            facts.push(format!("{section}: {line}"));
        }
    }
    facts
}

#[test]
fn the_host_is_what_it_was_before_holm() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let number = std::process::id();
    // At most five characters.
    let prefix = format!("u{:04x}", number & 0xffff);
    let run = PathBuf::from(format!("/run/holm-uninstall-{number}"));
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/machine-state").canonicalize().unwrap();
    let done = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--net", "bash", "-c", STORY])
        .env("HOLM", env!("CARGO_BIN_EXE_holm"))
        .env("HOLM_SOCKET", run.join("holm.sock"))
        .env("DIR", dir.path())
        .env("RUN", &run)
        .env("PREFIX", &prefix)
        .env("IMAGES", images())
        .env("STATE_OF", script)
        .output()
        .unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let said =
        format!("{}{}{log}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}: {said}", done.status);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("refused").contains("stop the daemon first"), "{}", read("refused"));
    assert!(read("unasked").contains("add -y"), "{}", read("unasked"));

    let run_name = run.to_string_lossy().into_owned();
    let dir_name = dir.path().to_string_lossy().into_owned();
    let names = [prefix.as_str(), run_name.as_str(), dir_name.as_str()];
    let before = facts(&dir.path().join("before"), &names);
    assert!(before.len() > 100, "there is something to compare");
    assert_ne!(facts(&dir.path().join("during"), &names), before, "holm does change the host");
    for later in ["after", "purged"] {
        let now = facts(&dir.path().join(later), &names);
        let gone: Vec<_> = before.iter().filter(|fact| !now.contains(fact)).collect();
        let new: Vec<_> = now.iter().filter(|fact| !before.contains(fact)).collect();
        // The directory of the daemon is made by the story itself before it looks first.
        let gone: Vec<_> = gone.into_iter().filter(|fact| !fact.contains(&run_name)).collect();
        assert!(gone.is_empty() && new.is_empty(), "{later}: gone {gone:#?}, new {new:#?}\n{said}");
    }
}
