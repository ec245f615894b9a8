//! Faults: each gets a clear error or a visible state, nothing half done stays, and the rest goes on.

use api::v1::types::{
    image::{CreateImage, Image},
    instance::{CreateInstance, Instance},
    list::WaitQuery,
};
use lab::{Cloud, Lab, Options};
use model::{error::Code, instance::phase::Phase};
use std::{fs, time::Duration};
use sys::netns::NetNs;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn one_store_has_one_daemon() {
    let lab = Lab::with(Options::default());
    let mut second = lab.second_daemon();
    assert!(!second.wait(LONG).success(), "a second daemon ends");
    let said = second.log_end();
    assert!(
        said.contains("error:")
            && (said.contains("in use") || said.contains("another") || said.contains("already")),
        "{said}"
    );
    assert!(lab.project("shop").list::<Instance>().is_empty(), "the first goes on");
    lab.finish();
}

#[test]
fn a_corrupted_store_is_left_alone() {
    let mut lab = Lab::with(Options::default());
    lab.project("shop");
    lab.daemon().stop();
    let path = lab.state().join("holm.db");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len().min(64 * 1024);
    bytes[..end].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    for name in ["holm.db-wal", "holm.db-shm"] {
        let _ = fs::remove_file(lab.state().join(name));
    }
    lab.launch_daemon();
    assert!(!lab.daemon().wait(LONG).success(), "it does not start");
    let said = lab.daemon().log_end();
    assert!(said.contains("holm.db"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was not touched");
}

#[test]
fn a_missing_qemu_fails_vms_alone() {
    let lab = Lab::with(Options {
        registry: true,
        arguments: vec!["--qemu".into(), "/nonexistent/qemu".into()],
        ..Options::default()
    });
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    shop.launch(&shop.idle_container("box"));
    let words = match shop.ask(shop.client.create::<Instance>(&shop.micro("db"), &WaitQuery::default())) {
        Err(error) => format!("{error} {}", error.hint()),
        Ok(_) => {
            let fault = lab::until(LONG, || shop.instance("db").fault).expect("a fault");
            assert_eq!(shop.instance("db").phase, Phase::Failed);
            format!("{} {}", fault.message, fault.hint)
        }
    };
    assert!(words.contains("/nonexistent/qemu") || words.to_lowercase().contains("qemu"), "{words}");
    assert!(shop.exec("box", "true").ok(), "containers go on");
    shop.empty();
    lab.finish();
}

#[test]
fn racing_creates_never_exceed_a_quota() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.set_quota("instances", 5);
    let made = shop.must("race", async {
        let calls = (0..50).map(|number| {
            let request =
                CreateInstance { start: Some(false), ..shop.idle_container(&format!("racer-{number}")) };
            let client = shop.client.clone();
            async move { client.create::<Instance>(&request, &WaitQuery::default()).await }
        });
        Ok(futures::future::join_all(calls).await)
    });
    let (good, bad): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!(good.len(), 5);
    for error in bad.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.code(), Code::QuotaExceeded, "{error}");
        assert!(error.to_string().contains('5') && !error.hint().is_empty(), "{error} {}", error.hint());
    }
    assert_eq!(shop.used("instances"), 5);
    assert_eq!(shop.list::<Instance>().len(), 5);
    shop.empty();
    lab.finish();
}

#[test]
fn a_full_disk_is_told_and_nothing_half_done_stays() {
    let lab = Lab::with(Options { registry: true, state_bytes_max: Some(100 << 20), ..Options::default() });
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("box"));
    shop.ask(shop.client.create::<Instance>(&shop.container("web", "web"), &WaitQuery::default()))
        .expect("accepted");
    let fault = lab::until(LONG, || shop.instance("web").fault).expect("a fault");
    let words = format!("{} {}", fault.message, fault.hint).to_lowercase();
    assert!(words.contains("no room") || words.contains("space"), "{words}");
    assert_eq!(fault.code, Code::NoCapacity, "{fault:?}");
    let partial = fs::read_dir(lab.state().join("blobs/partial")).unwrap().count();
    assert_eq!(partial, 0, "nothing half done keeps the disk full");
    assert!(shop.exec("box", "true").ok(), "the rest goes on");
    shop.delete::<Instance>("web");
    no_room_for_an_upload(&lab, &shop);
    shop.launch(&shop.idle_container("another"));
    shop.empty();
    lab.finish();
}

/// An image that a user sends is refused while it comes, and leaves nothing.
fn no_room_for_an_upload(lab: &Lab, shop: &Cloud) {
    let request = serde_json::json!({"name": "large", "kind": "disk"});
    let request: CreateImage = serde_json::from_value(request).unwrap();
    shop.must("name it", shop.client.create::<Image>(&request, &WaitQuery::default()));
    let path = lab.directory().join("large");
    fs::write(&path, vec![7; 64 << 20]).unwrap();
    let refused = shop.ask(async {
        let file = tokio::fs::File::open(&path).await.expect("image file");
        shop.client.upload_image("large", file, Some(64 << 20), None, |_| ()).await
    });
    let error = refused.expect_err("no room");
    assert_eq!(error.code(), Code::NoCapacity, "{error}");
    assert!(error.to_string().contains("no room") && error.hint().contains("holm image rm"), "{error}");
    let left: Vec<_> = fs::read_dir(lab.state().join("images")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    shop.delete::<Image>("large");
}

/// A network or router that was deleted in the moment before the daemon was killed.
#[test]
fn a_namespace_that_no_record_asks_for_goes_with_the_next_start() {
    let mut lab = Lab::with(Options::default());
    let handles = lab.run().join("netns");
    let names = |handles: &std::path::Path| -> Vec<String> {
        fs::read_dir(handles)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    lab.project("shop");
    let kept =
        lab::until(LONG, || Some(names(&handles)).filter(|names| names.len() >= 3)).expect("namespaces");
    lab.kill_daemon();
    let id = "0123456789abcdef0123456789abcdef";
    for kind in ["n", "r", "x"] {
        NetNs::create(&handles.join(format!("{kind}-{id}"))).unwrap();
    }
    lab.start_daemon();
    let is_gone = || names(&handles).iter().all(|name| !name.ends_with(id)).then_some(());
    lab::until(LONG, is_gone).unwrap_or_else(|| panic!("{:?}", names(&handles)));
    assert!(kept.iter().all(|name| names(&handles).contains(name)), "what is wished for stays");
    lab.finish();
}

#[test]
fn a_storm_with_crashes_converges_guests_and_all() {
    let mut lab = Lab::new();
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let mut shop = lab.project("shop");
    shop.launch(&shop.idle_container("steady"));
    let steady = shop.instance("steady").started_at;
    for round in 0..4 {
        for number in 0..6 {
            let name = format!("storm-{round}-{number}");
            let request = shop.idle_container(&name);
            shop.ask(shop.client.create::<Instance>(&request, &WaitQuery::default())).expect("create");
            if rand::Rng::random_bool(&mut random, 0.4) {
                let _ = shop.ask(shop.client.delete::<Instance>(&name, &WaitQuery::default()));
            }
        }
        std::thread::sleep(Duration::from_millis(rand::Rng::random_range(&mut random, 0..700)));
        lab.kill_daemon();
        lab.start_daemon();
        shop = lab.project("shop");
    }
    let unsettled = || {
        let all = shop.list::<Instance>().into_iter();
        all.filter(|i| i.phase != Phase::Running)
            .map(|i| (i.head.name, i.phase, i.exit, i.fault))
            .collect::<Vec<_>>()
    };
    lab::until(LONG, || unsettled().is_empty().then_some(()));
    assert_eq!(unsettled(), [], "all that is wanted runs and the rest is gone");
    assert_eq!(shop.instance("steady").started_at, steady, "what ran was left alone");
    for instance in shop.list::<Instance>() {
        assert!(shop.exec(&instance.head.name, "true").ok(), "{}", instance.head.name);
    }
    shop.empty();
    lab.finish();
}
