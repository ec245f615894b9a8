//! Rules: all of a script or nothing, in the namespace that was named, with the line that was wrong.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sys::netlink::Netlink;
use sys::netns::NetNs;
use sys::nft::{self, ElementChange, Elements, NftError, Standby};

fn namespace() -> NetNs {
    let namespace = NetNs::anonymous().expect("we are root");
    Netlink::open(&namespace).expect("a socket").set_up("lo").expect("up");
    namespace
}

#[test]
fn rules_drop_packets_in_their_namespace_only() {
    let (filtered, free) = (namespace(), namespace());
    nft::apply(
        &filtered,
        "table inet holm {\n chain in { type filter hook input priority 0; udp dport 7777 drop; }\n}\n",
    )
    .expect("applied");
    for (namespace, passes) in [(&filtered, false), (&free, true)] {
        let receiver = namespace.run(|| UdpSocket::bind("127.0.0.1:7777")).expect("ran").expect("bound");
        receiver.set_read_timeout(Some(Duration::from_millis(if passes { 5000 } else { 200 }))).expect("set");
        receiver.send_to(b"x", "127.0.0.1:7777").expect("sent");
        assert_eq!(receiver.recv(&mut [0]).is_ok(), passes);
    }
    let json = nft::list_json(&filtered, "inet holm").expect("listed");
    assert!(json["nftables"].as_array().is_some_and(|items| items.len() >= 4), "{json}");
    assert!(nft::list_json(&free, "inet holm").is_err(), "no such table there");
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_applied() {
    let namespace = namespace();
    let script =
        "add table inet holm\nadd chain inet holm one\nadd rule inet holm one tcp dport nonsense accept\n";
    for refused in [nft::check(&namespace, script), nft::apply(&namespace, script)] {
        match refused.expect_err("nonsense is no port") {
            NftError::Refused { line, text, message } => {
                assert_eq!(line, Some(3), "{message}");
                assert!(text.is_some_and(|text| text.contains("nonsense")));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(nft::list_json(&namespace, "inet holm").is_err(), "not even the table was made");
    let error = nft::apply(&namespace, "add rule inet gone one accept\n").expect_err("no such table");
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn a_script_larger_than_any_pipe_is_applied_whole() {
    let namespace = namespace();
    let elements: Vec<String> =
        (0..20_000u32).map(|n| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)).collect();
    let script = format!(
        "add table inet holm\nadd set inet holm members {{ type ipv4_addr; }}\n\
         add element inet holm members {{ {} }}\n",
        elements.join(", ")
    );
    assert!(script.len() > 1 << 17);
    nft::apply(&namespace, &script).expect("applied");
    // And one that is refused after a long text.
    assert!(nft::apply(&namespace, &format!("{script}nonsense\n")).is_err());
}

const SETS: &str = "table inet holm {
  set attached { type ifname; }
  set macs { type ifname . ether_addr; }
  set bound4 { type ifname . ether_addr . ipv4_addr; }
  set bound6 { type ifname . ether_addr . ipv6_addr; }
  set doors { type ipv6_addr . inet_service; }
  map verdicts { type ifname : verdict; }
  map leads { type ipv4_addr : ipv4_addr; }
  chain web { accept; }
}
";

const ELEMENTS: [(&str, &str, &str, &str); 9] = [
    ("attached", "ifname", "\"p1\"", ""),
    ("macs", "ifname . ether_addr", "\"p1\" . fa:16:3e:0a:00:01", ""),
    ("bound4", "ifname . ether_addr . ipv4_addr", "\"p1\" . fa:16:3e:0a:00:01 . 10.0.0.5", ""),
    ("bound6", "ifname . ether_addr . ipv6_addr", "\"p1\" . fa:16:3e:0a:00:01 . fd00::5", ""),
    ("doors", "ipv6_addr . inet_service", "fd00::5 . 8080", ""),
    ("verdicts", "ifname : verdict", "\"a\"", "goto web"),
    ("verdicts", "ifname : verdict", "\"b\"", "jump web"),
    ("verdicts", "ifname : verdict", "\"c\"", "accept"),
    ("leads", "ipv4_addr : ipv4_addr", "10.0.0.5", "192.0.2.7"),
];

fn changes(added: bool) -> Vec<ElementChange<'static>> {
    ELEMENTS.map(|(set, kind, key, value)| ElementChange { set, kind, key, value, added }).to_vec()
}

/// The table without the numbers that the kernel gave its parts.
fn listed(namespace: &NetNs) -> String {
    let mut json = nft::list_json(namespace, "inet holm").expect("listed");
    for item in json["nftables"].as_array_mut().expect("a list") {
        item.as_object_mut().expect("an object").values_mut().for_each(|part| {
            part.as_object_mut().expect("an object").remove("handle");
        });
    }
    json.to_string()
}

#[test]
fn elements_are_what_nft_would_have_made_of_them() {
    let (spoken, written) = (Arc::new(namespace()), namespace());
    for namespace in [&*spoken, &written] {
        nft::apply(namespace, SETS).expect("applied");
    }
    let empty = listed(&written);
    let elements = Elements::new(Arc::clone(&spoken));
    assert!(elements.change("holm", &changes(true)).expect("added"));
    for (set, _, key, value) in ELEMENTS {
        let value = if value.is_empty() { String::new() } else { format!(" : {value}") };
        nft::apply(&written, &format!("add element inet holm {set} {{ {key}{value} }}")).expect("added");
    }
    assert_eq!(listed(&spoken), listed(&written));
    // One that is there already is fine.
    assert!(elements.change("holm", &changes(true)).expect("the same again"));
    let [before, after] = ["goto web", "accept"].map(|value| ElementChange {
        set: "verdicts",
        kind: "ifname : verdict",
        key: "\"a\"",
        value,
        added: value == "accept",
    });
    assert!(elements.change("holm", &[before, after]).expect("another value in one go"));
    assert!(listed(&spoken).contains("[\"a\",{\"accept\":null}]"), "{}", listed(&spoken));
    assert!(
        elements
            .change(
                "holm",
                &[ElementChange { added: false, ..after }, ElementChange { added: true, ..before }]
            )
            .expect("and back")
    );
    assert!(elements.change("holm", &changes(false)).expect("removed"));
    assert_eq!(listed(&spoken), empty);
}

#[test]
fn elements_change_all_or_none() {
    let namespace = Arc::new(namespace());
    nft::apply(&namespace, SETS).expect("applied");
    let elements = Elements::new(Arc::clone(&namespace));
    let before = listed(&namespace);
    let missing = ElementChange { added: false, key: "\"gone\"", ..changes(true)[0] };
    for at in [0, 4, ELEMENTS.len()] {
        let mut all = changes(true);
        all.insert(at, missing);
        let error = elements.change("holm", &all).expect_err("what is not there cannot go");
        assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
        assert_eq!(listed(&namespace), before, "nothing of it");
    }
    elements.change("gone", &changes(true)).expect_err("no such table");
    assert!(elements.change("holm", &changes(true)).expect("the next one is none the worse for it"));
    let unknown = ElementChange { key: "\"tap*\"", ..changes(true)[0] };
    assert!(!elements.change("holm", &[unknown]).expect("left to nft"));
}

#[test]
fn a_run_is_held_ready_and_nothing_depends_on_it() {
    let namespace = Arc::new(namespace());
    let standby = Standby::new(Arc::clone(&namespace), Arc::default());
    standby.apply("add table inet holm\n").expect("the first is loaded for it");
    for number in 0..3 {
        let held = until("a run is held ready", || processes_in(&namespace).first().copied());
        if number == 1 {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(held), nix::sys::signal::SIGKILL)
                .expect("killed");
        }
        standby.apply(&format!("add chain inet holm c{number}\n")).expect("applied");
    }
    let refused = standby.apply("add chain inet holm d\nadd rule inet holm gone accept\n");
    let Err(NftError::Refused { line, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(line, Some(2), "its own words are told");
    let json = nft::list_json(&namespace, "inet holm").expect("listed").to_string();
    assert!((0..3).all(|number| json.contains(&format!("\"c{number}\""))), "{json}");
    assert!(!json.contains("\"d\""), "all of a script or nothing: {json}");
    drop(standby);
    until("nothing holds the namespace", || processes_in(&namespace).is_empty().then_some(()));
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs of nft inside a namespace.
fn processes_in(namespace: &NetNs) -> Vec<i32> {
    let inode = namespace.inode().expect("an inode");
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_nft = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let place = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino());
        name.trim() == "nft" && place.is_ok_and(|place| place == inode)
    };
    pids.filter(is_nft).collect()
}
