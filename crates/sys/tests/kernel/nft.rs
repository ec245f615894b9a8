//! Rules: all of a script or nothing, in the namespace that was named, with the line that was wrong.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sys::netlink::Netlink;
use sys::netns::NetNs;
use sys::nft::{self, NftError, Standby};

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
