//! Deployments: copies that are missing are made, those too many go, nothing is doubled, and refusals are told.

use crate::{container, node_status, said_of};
use control::{
    Caller, Control, Error, Role,
    bootstrap::Beginning,
    deployment::{Counts, DeploymentChange, NewDeployment, Pasts, Template},
    instance::NewInstance,
};
use jiff::Timestamp;
use model::{
    deployment::{Deployment, DeploymentStatus, Kind, OBJECT_LABEL, REVISION_LABEL, autoscale::Autoscale},
    error::Code,
    id::{DeploymentId, InstanceId, NodeId},
    instance::{Instance, InstanceStatus, State},
    meta::Labels,
    operation::Event,
    quota::Resource,
    seal::{KEY_BYTES, SealKey},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use store::{Memory, Store, Tx};

/// Enough for copies to go one after the other.
const ROUNDS: usize = 25;
const SECRET: &str = "hunter2-is-here";

struct Lab {
    control: Control,
    caller: Caller,
    now_s: Arc<AtomicI64>,
}

impl Lab {
    async fn new() -> Self {
        let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
        let now_s = Arc::new(AtomicI64::new(1_800_000_000));
        let clock = Arc::clone(&now_s);
        let clock = move || Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap();
        let control = Control::with_clock(store, Arc::new(clock)).with_seal_key(SealKey::new([7; KEY_BYTES]));
        let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
        control.bootstrap(&beginning).await.unwrap();
        let node = NodeId::from_random([9; 16]);
        control.join_node(node, "here").await.unwrap();
        let mut tx = Tx::new();
        tx.put(&node_status(node));
        control.store().commit(tx).await.unwrap();
        let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
        let project = control.find_project(&root, "default").unwrap().record.meta.id;
        let caller = Caller {
            project,
            role: Role::Member,
            actor: "test".into(),
            request_id: "r".into(),
            proof: Default::default(),
        };
        Self { control, caller, now_s }
    }

    fn admin(&self) -> Caller {
        Caller { role: Role::Admin, ..self.caller.clone() }
    }

    async fn make(&self, replicas: u32, recreate: bool) -> DeploymentId {
        let new = NewDeployment {
            name: "web".into(),
            description: String::new(),
            labels: Labels::new(),
            kind: Kind::Deployment,
            replicas,
            template: template("aaaaa11111", recreate),
            autoscale: None,
        };
        self.control.create_deployment(&self.caller, new).await.unwrap().meta.id
    }

    async fn scale(&self, replicas: u32) {
        let change = DeploymentChange { replicas: Some(replicas), ..DeploymentChange::default() };
        self.control.change_deployment(&self.caller, "web", &change).await.unwrap();
    }

    async fn change_to(&self, revision: &str, recreate: bool) {
        let template = Some(template(revision, recreate));
        let change = DeploymentChange { template, ..DeploymentChange::default() };
        self.control.change_deployment(&self.caller, "web", &change).await.unwrap();
    }

    async fn restart(&self, at_s: i64) {
        let restarted_at = Some(Timestamp::from_second(at_s).unwrap());
        let change = DeploymentChange { restarted_at, ..DeploymentChange::default() };
        self.control.change_deployment(&self.caller, "web", &change).await.unwrap();
    }

    async fn run(&self, id: DeploymentId) -> Result<Option<Duration>, Error> {
        self.control.reconcile_deployment(id, &translate).await
    }

    /// The node: all that is to run runs, all that is to go is gone.
    async fn node_does_its_work(&self) {
        for found in self.control.store().list::<Instance>() {
            let instance = &found.record;
            let is_on = instance.power == model::instance::Power::On;
            let ended = State::Stopped {
                code: Some(0),
                cause: "it ended".into(),
                failed: false,
                at: Timestamp::UNIX_EPOCH,
            };
            let state = if is_on { State::Running { since: Timestamp::UNIX_EPOCH } } else { ended };
            let gone = instance.meta.is_deleting();
            let mut tx = Tx::new();
            tx.put(&InstanceStatus { state, boot: instance.boots, gone, ..said_of(instance) });
            self.control.store().commit(tx).await.unwrap();
            self.control.finalize_instance(instance.meta.id).await.unwrap();
            self.control.finalize_instance(instance.meta.id).await.unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let all = self.control.store().list::<Instance>();
        let mut names: Vec<String> = all.iter().map(|found| found.record.meta.name.to_string()).collect();
        names.sort();
        names
    }

    fn counts(&self, id: DeploymentId) -> Counts {
        self.control.count_copies(&self.control.get::<Deployment>(id).unwrap().record)
    }

    fn status(&self, id: DeploymentId) -> DeploymentStatus {
        self.control.deployment_status(id).unwrap().record.clone()
    }

    fn told(&self, reason: &str) -> usize {
        self.control.store().list::<Event>().iter().filter(|event| event.record.reason == reason).count()
    }

    /// Time passes, the node works and the deployment is looked at, until nothing is left to do.
    async fn settle(&self, id: DeploymentId) {
        for _ in 0..ROUNDS {
            self.run(id).await.unwrap();
            self.node_does_its_work().await;
            self.now_s.fetch_add(20, Ordering::SeqCst);
        }
        let before = self.names();
        assert_eq!(self.run(id).await.unwrap(), None, "it does not come to an end");
        self.node_does_its_work().await;
        assert_eq!(self.names(), before, "it does not come to an end");
    }
}

fn template(revision: &str, recreate: bool) -> Template {
    Template {
        bytes: format!("{{\"secret\":\"{SECRET}\"}}").into_bytes(),
        revision: revision.into(),
        recreate,
        is_single: false,
        aliases: vec![],
    }
}

fn translate(_: &Control, caller: &Caller, template: &[u8], name: &str) -> control::Result<NewInstance> {
    assert!(String::from_utf8_lossy(template).contains(SECRET) && caller.role == Role::Member);
    Ok(container(name))
}

#[tokio::test]
async fn as_many_copies_are_there_as_are_wanted() {
    let lab = Lab::new().await;
    let id = lab.make(3, false).await;
    assert_eq!(lab.names(), Vec::<String>::new());
    lab.settle(id).await;
    assert_eq!(lab.names(), ["web-aaaaa-1", "web-aaaaa-2", "web-aaaaa-3"]);
    assert_eq!(lab.counts(id), Counts { all: 3, current: 3, ready: 3 });
    let one = lab.control.find::<Instance>(&lab.caller, "web-aaaaa-1").unwrap();
    let labels = &one.record.meta.labels;
    assert_eq!(
        (labels[OBJECT_LABEL].as_str(), labels[REVISION_LABEL].as_str()),
        ("deployment/web", "aaaaa11111")
    );

    // One that somebody deletes comes again while it is still going, under another name.
    lab.control.delete_instance(&lab.caller, "web-aaaaa-2").await.unwrap();
    lab.run(id).await.unwrap();
    assert_eq!(lab.names(), ["web-aaaaa-1", "web-aaaaa-2", "web-aaaaa-3", "web-aaaaa-4"]);
    lab.settle(id).await;
    assert_eq!(lab.names(), ["web-aaaaa-1", "web-aaaaa-3", "web-aaaaa-4"]);
    lab.scale(1).await;
    lab.settle(id).await;
    assert_eq!(lab.names(), ["web-aaaaa-1"], "the last ones go first");
    lab.scale(5).await;
    lab.settle(id).await;
    assert_eq!(lab.names().len(), 5);
    lab.scale(0).await;
    lab.settle(id).await;
    assert_eq!(lab.names(), Vec::<String>::new());

    // Nothing is done where there is nothing to do, and nothing is written.
    let before = lab.control.store().mirror().revision();
    for _ in 0..3 {
        assert_eq!(lab.run(id).await.unwrap(), None);
    }
    assert_eq!(lab.control.store().mirror().revision(), before);
    for found in lab.control.store().list::<Deployment>() {
        let text = serde_json::to_string(&found.record).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn another_revision_takes_over_copy_by_copy() {
    for recreate in [false, true] {
        let lab = Lab::new().await;
        let id = lab.make(2, recreate).await;
        lab.settle(id).await;
        lab.change_to("bbbbb22222", recreate).await;
        lab.run(id).await.unwrap();
        let expected: &[&str] = match recreate {
            false => &["web-aaaaa-1", "web-aaaaa-2", "web-bbbbb-1"],
            true => &["web-aaaaa-1", "web-aaaaa-2"],
        };
        assert_eq!(lab.names(), expected, "one more at most, or the old ones first");
        // It does not run yet: nobody goes for it.
        lab.run(id).await.unwrap();
        assert_eq!(lab.counts(id).all, expected.len());
        lab.settle(id).await;
        assert_eq!(lab.names(), ["web-bbbbb-1", "web-bbbbb-2"], "recreate {recreate}");
        assert!(lab.status(id).leaving.is_empty());
    }
}

/// Copies anew of the same template take over as those of another one do, and a file that is played again changes nothing of it.
#[tokio::test]
async fn a_restart_replaces_all_copies_once() {
    for recreate in [false, true] {
        let lab = Lab::new().await;
        let id = lab.make(2, recreate).await;
        lab.settle(id).await;
        let mut before = lab.names();
        for at_s in [100, 200] {
            lab.restart(at_s).await;
            lab.run(id).await.unwrap();
            let kept = lab.names().iter().filter(|name| before.contains(name)).count();
            assert_eq!((kept, lab.names().len()), (2, if recreate { 2 } else { 3 }));
            lab.settle(id).await;
            let after = lab.names();
            assert!(after.len() == 2 && after.iter().all(|name| !before.contains(name)), "{after:?}");
            // Asked once more for the same, and the same template played again.
            let written = lab.control.get::<Deployment>(id).unwrap().mod_revision;
            lab.restart(at_s).await;
            lab.change_to("aaaaa11111", recreate).await;
            assert_eq!(lab.control.get::<Deployment>(id).unwrap().mod_revision, written);
            lab.settle(id).await;
            assert_eq!(lab.names(), after);
            before = after;
        }
        let reader = Caller { role: Role::Reader, ..lab.caller.clone() };
        let change =
            DeploymentChange { restarted_at: Some(Timestamp::UNIX_EPOCH), ..DeploymentChange::default() };
        let refused = lab.control.change_deployment(&reader, "web", &change).await.unwrap_err();
        assert_eq!(refused.code, Code::Forbidden);
        lab.change_to("bbbbb22222", recreate).await;
        lab.settle(id).await;
        assert!(
            lab.names().iter().all(|name| !before.contains(name)),
            "another template is another one still"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_at_once_and_runs_cut_off_double_nothing() {
    let lab = Arc::new(Lab::new().await);
    let id = lab.make(7, false).await;
    for _ in 0..10 {
        let cut_off: Vec<_> = (0..4)
            .map(|number| {
                let lab = Arc::clone(&lab);
                tokio::spawn(async move {
                    let limit = Duration::from_micros(300 * (number + 1));
                    let _ = tokio::time::timeout(limit, lab.run(id)).await;
                })
            })
            .collect();
        for run in cut_off {
            run.await.unwrap();
        }
        assert!(lab.names().len() <= 7, "{:?}", lab.names());
    }
    lab.settle(id).await;
    assert_eq!(lab.names().len(), 7);
    assert_eq!(lab.control.quota(lab.caller.project).1.of(Resource::Instances), 7);
}

#[tokio::test]
async fn what_a_quota_refuses_is_told_once_and_made_when_there_is_room() {
    let lab = Lab::new().await;
    lab.control.set_quota(&lab.admin(), "default", &[(Resource::Instances, Some(2))]).await.unwrap();
    let id = lab.make(4, false).await;
    for _ in 0..3 {
        let refused = lab.run(id).await.unwrap_err();
        assert_eq!(refused.code, Code::QuotaExceeded);
        assert_eq!(lab.names().len(), 2, "what fits is made");
    }
    let fault = lab.status(id).fault.unwrap();
    assert!(fault.code == Code::QuotaExceeded && !fault.hint.is_empty(), "{fault:?}");
    assert_eq!(lab.told("refused"), 1, "once, and not with each try");
    let before = lab.control.store().mirror().revision();
    lab.run(id).await.unwrap_err();
    assert_eq!(lab.control.store().mirror().revision(), before, "a refusal that is known writes nothing");
    lab.control.set_quota(&lab.admin(), "default", &[(Resource::Instances, Some(9))]).await.unwrap();
    lab.settle(id).await;
    assert_eq!((lab.names().len(), lab.status(id).fault), (4, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_or_changed_meanwhile_gets_no_copy() {
    for is_deleted in [true, false] {
        let lab = Lab::new().await;
        let id = lab.make(2, false).await;
        let (control, caller) = (lab.control.clone(), lab.caller.clone());
        // Somebody is faster than the run, in the middle of it.
        let meddle = move |_: &Control, _: &Caller, _: &[u8], name: &str| {
            let change = DeploymentChange { replicas: Some(0), ..DeploymentChange::default() };
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    match is_deleted {
                        true => control.delete_deployment(&caller, "web").await.unwrap(),
                        false => drop(control.change_deployment(&caller, "web", &change).await.unwrap()),
                    }
                });
            });
            Ok(container(name))
        };
        assert_eq!(lab.control.reconcile_deployment(id, &meddle).await.unwrap(), Some(Duration::ZERO));
        assert_eq!(lab.run(id).await.unwrap(), None);
        assert_eq!(lab.names(), Vec::<String>::new());
        assert_eq!(lab.told("refused"), 0);
        assert_eq!(lab.control.deployment_status(id).is_some(), !is_deleted);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_field() {
    let lab = Lab::new().await;
    let id = lab.make(1, false).await;
    let change = |replicas, template| DeploymentChange { replicas, template, ..DeploymentChange::default() };
    let single = Template { is_single: true, ..template("aaaaa11111", true) };
    let large = Template { bytes: vec![b' '; 704 * 1024 + 1], ..template("aaaaa11111", true) };
    for (change, field) in [
        (change(Some(101), None), "replicas"),
        (change(Some(2), Some(single)), "replicas"),
        (change(None, Some(template("abc", false))), "revision"),
        (change(None, Some(template("Abcdef", false))), "revision"),
        (change(None, Some(large)), "template"),
    ] {
        let refused = lab.control.change_deployment(&lab.caller, "web", &change).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
    }
    let reader = Caller { role: Role::Reader, ..lab.caller.clone() };
    let refused = lab.control.delete_deployment(&reader, "web").await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    // Played again it is as it was: nothing is written.
    let before = lab.control.get::<Deployment>(id).unwrap().mod_revision;
    lab.change_to("aaaaa11111", false).await;
    assert_eq!(lab.control.get::<Deployment>(id).unwrap().mod_revision, before);
}

#[tokio::test]
async fn what_copies_use_says_how_many_there_are() {
    let lab = Lab::new().await;
    let id = lab.make(1, false).await;
    let rule = Autoscale {
        replicas_min: 2,
        replicas_max: 6,
        cpu_percent: 50,
        cpu_asked_millis: 100,
        down_window_s: 60,
    };
    let scaled = |rule| DeploymentChange { autoscale: Some(rule), ..DeploymentChange::default() };
    lab.control.change_deployment(&lab.caller, "web", &scaled(Some(rule))).await.unwrap();
    lab.settle(id).await;
    assert_eq!(lab.names().len(), 2, "within its bounds before anything was measured");
    let mut pasts = Pasts::new();
    let measured = |millis: u64| -> HashMap<InstanceId, u64> {
        let found = lab.control.get::<Deployment>(id).unwrap();
        let copies = lab.control.copies_measured(&found.record);
        copies.iter().map(|(_, copy)| (copy.record.meta.id, millis)).collect()
    };
    lab.control.autoscale_deployment(id, &HashMap::new(), &mut pasts).await.unwrap();
    assert!(lab.control.deployment_scale(id).is_none(), "nothing is decided on nothing");
    for (millis, passed_s, expected) in
        [(50, 10, 2), (125, 10, 5), (125, 10, 6), (10, 10, 6), (10, 45, 6), (10, 10, 2), (10, 100, 2)]
    {
        lab.now_s.fetch_add(passed_s, Ordering::SeqCst);
        lab.control.autoscale_deployment(id, &measured(millis), &mut pasts).await.unwrap();
        let before = lab.now_s.load(Ordering::SeqCst);
        lab.settle(id).await;
        lab.now_s.store(before, Ordering::SeqCst);
        assert_eq!(lab.names().len(), expected, "each uses {millis} after {passed_s} s more");
    }
    assert_eq!(lab.told("autoscaled"), 3);
    let replicas = DeploymentChange { replicas: Some(3), ..DeploymentChange::default() };
    let refused = lab.control.change_deployment(&lab.caller, "web", &replicas).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Conflict, Some("replicas")));
    // Without the rule as many stay as there are, and what it had come to goes.
    lab.control.change_deployment(&lab.caller, "web", &scaled(None)).await.unwrap();
    lab.control.autoscale_deployment(id, &measured(50), &mut pasts).await.unwrap();
    lab.settle(id).await;
    assert!(lab.control.deployment_scale(id).is_none() && lab.names().len() == 2);
    for (rule, field) in [
        (Autoscale { replicas_min: 7, ..rule }, "autoscale.replicas_min"),
        (Autoscale { replicas_max: 101, ..rule }, "autoscale.replicas_max"),
    ] {
        let refused =
            lab.control.change_deployment(&lab.caller, "web", &scaled(Some(rule))).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field));
    }
}

#[tokio::test]
async fn copies_are_made_and_ended_with_no_more_rights_than_who_asked_has() {
    let lab = Lab::new().await;
    let id = lab.make(2, false).await;
    lab.settle(id).await;
    let template = Some(template("aaaaa11111", false));
    let change = DeploymentChange { template, ..DeploymentChange::default() };
    lab.control.change_deployment(&lab.admin(), "web", &change).await.unwrap();
    let by_admin = || lab.control.get::<Deployment>(id).unwrap().record.by_admin;
    assert!(by_admin());
    // What an admin locked does not go because a member wants fewer.
    let names = lab.names();
    lab.control.lock_instance(&lab.admin(), &names[0], None).await.unwrap();
    for caller in [lab.admin(), lab.caller.clone()] {
        let none = DeploymentChange { replicas: Some(0), ..DeploymentChange::default() };
        lab.control.change_deployment(&caller, "web", &none).await.unwrap();
        // More copies are made with the rights of who asked for them.
        assert_eq!(by_admin(), caller.role == Role::Admin);
        for _ in 0..ROUNDS {
            let _ = lab.run(id).await;
            lab.node_does_its_work().await;
            lab.now_s.fetch_add(20, Ordering::SeqCst);
        }
        assert_eq!(lab.names(), [names[0].clone()], "{:?}", caller.role);
    }
    let fault = lab.status(id).fault.expect("it is told");
    assert!(fault.code == Code::Conflict && fault.message.contains("locked"), "{fault:?}");
    lab.control.unlock_instance(&lab.admin(), &names[0]).await.unwrap();
    lab.settle(id).await;
    assert_eq!(lab.names(), [] as [String; 0]);
}

#[tokio::test]
async fn what_copies_are_made_of_is_counted_and_bounded() {
    let lab = Lab::new().await;
    let used = || lab.control.quota(lab.caller.project).1.of(Resource::TemplateKib);
    let of = |bytes: usize| {
        let bytes = format!("{SECRET}{}", "x".repeat(bytes - SECRET.len())).into_bytes();
        Template { bytes, ..template("aaaaa11111", false) }
    };
    let make = async |name: &str, bytes: usize| {
        let new = NewDeployment {
            name: name.into(),
            description: String::new(),
            labels: Labels::new(),
            kind: Kind::Deployment,
            replicas: 0,
            template: of(bytes),
            autoscale: None,
        };
        lab.control.create_deployment(&lab.caller, new).await
    };
    let change = async |name: &str, bytes: usize| {
        let change = DeploymentChange { template: Some(of(bytes)), ..DeploymentChange::default() };
        lab.control.change_deployment(&lab.caller, name, &change).await
    };
    lab.control.set_quota(&lab.admin(), "default", &[(Resource::TemplateKib, Some(10))]).await.unwrap();
    make("one", 3 * 1024 + 1).await.unwrap();
    make("two", 6 * 1024).await.unwrap();
    assert_eq!(used(), 10);
    let told = "quota of template_kib exceeded: 1 asked for, 10 of 10 in use";
    for refused in [make("three", 100).await.map(drop), change("one", 4 * 1024 + 1).await.map(drop)] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (Code::QuotaExceeded, told));
        assert_eq!(refused.field.as_deref(), Some("template_kib"));
        assert!(refused.hint.contains("holm quota set PROJECT template-kib=N"), "{refused:?}");
    }
    // The same again, and less, cost nothing.
    change("two", 6 * 1024).await.unwrap();
    change("two", 1024).await.unwrap();
    assert_eq!(used(), 5);
    lab.control.delete_deployment(&lab.caller, "one").await.unwrap();
    assert_eq!(used(), 1);
    // One that was kept before anybody counted is counted when it is played again, and costs nothing when it goes.
    let found = lab.control.find::<Deployment>(&lab.caller, "two").unwrap();
    let old = Deployment { template_kib: 0, ..found.record.clone() };
    let mut tx = Tx::new();
    tx.put(&old);
    tx.count(&lab.caller.project.to_string(), Resource::TemplateKib.as_str(), -1, None);
    lab.control.store().commit(tx).await.unwrap();
    change("two", 1024).await.unwrap();
    assert_eq!(used(), 1);
    lab.control.delete_deployment(&lab.caller, "two").await.unwrap();
    assert_eq!(used(), 0);
}
