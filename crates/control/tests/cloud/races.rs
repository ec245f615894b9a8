//! Two decisions at one moment: each is made on what was there before the other, and what comes of both is what one after
//! the other would have made.

use crate::{cloud, container, said_of};
use async_trait::async_trait;
use control::{
    Caller, Control,
    image::NewImage,
    network::{Joined, NewNetwork},
    port::{FixedAsked, NewPort},
    security_group::{NewRule, NewSecurityGroup},
    snapshot::NewSnapshot,
    subnet::NewSubnet,
    volume::{NewVolume, SourceAsked},
};
use model::{
    error::Code,
    id::{ImageId, NodeId, VolumeId},
    image::{Image, ImageContent, ImageKind, ImageState, ImageStatus},
    instance::{Instance, Kind},
    network::{Network, NetworkKind},
    plan::DiskFormat,
    port::Port,
    security_group::{Direction, Peer, SecurityGroup},
    snapshot::Snapshot,
    subnet::Subnet,
    volume::{Volume, VolumeStatus},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{
    Store, Tx,
    engine::{Engine, KeyValue, LeaseId, Outcome, Page, Range, Result, Revision, Txn, Watch},
};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The engine of another, in which something happens between the next decision and its commit.
struct Between {
    engine: Arc<dyn Engine>,
    next: Mutex<Option<Work>>,
}

#[async_trait]
impl Engine for Between {
    async fn head(&self) -> Result<Revision> {
        self.engine.head().await
    }
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        self.engine.get(key, at).await
    }
    async fn range(&self, range: Range) -> Result<Page> {
        self.engine.range(range).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let work = self.next.lock().unwrap().take();
        if let Some(work) = work {
            work.await;
        }
        self.engine.commit(txn).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.engine.watch(prefix, from).await
    }
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.engine.lease_grant(ttl).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.engine.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.engine.lease_revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<()> {
        self.engine.compact(revision).await
    }
    async fn close(&self) {
        self.engine.close().await;
    }
}

/// A cloud, and another way into it that is slow: what it decides is committed after something else.
struct Race {
    control: Control,
    caller: Caller,
    slow: Control,
    between: Arc<Between>,
}

impl Race {
    async fn new() -> Self {
        let (control, caller) = cloud().await;
        let engine = Arc::clone(control.store().engine());
        let between = Arc::new(Between { engine, next: Mutex::default() });
        let store = Store::open(between.clone(), control::schema::schema()).await.unwrap();
        Self { control, caller, slow: Control::new(store), between }
    }

    /// The slow one sees what is there now; `work` happens between its next decision and the commit of that.
    async fn then(&self, work: impl Future<Output = ()> + Send + 'static) {
        let head = self.control.store().mirror().revision();
        self.slow.store().wait_for(head).await.unwrap();
        *self.between.next.lock().unwrap() = Some(Box::pin(work));
    }

    fn is_over(&self) {
        assert!(self.between.next.lock().unwrap().is_none(), "something was committed");
    }

    async fn catch_up(&self) {
        let head = self.slow.store().engine().head().await.unwrap();
        self.control.store().wait_for(head).await.unwrap();
    }

    /// An image that can be used.
    async fn image(&self, kind: ImageKind, is_backup: bool) -> ImageId {
        let image = self.control.create_image(&self.caller, NewImage::to_be_sent("i", kind)).await.unwrap();
        let (id, node, at) = (image.meta.id, NodeId::from_random([9; 16]), self.control.now());
        let state = ImageState::Ready(ImageContent { digest: "d".into(), ..ImageContent::default() });
        let mut tx = Tx::new();
        if is_backup {
            let mut backup = image.clone();
            let volume = VolumeId::from_random([1; 16]);
            backup.backup = Some(model::image::BackupOf { volume, snapshot: None, bootable: false });
            tx.put(&backup);
        }
        tx.put(&ImageStatus { id, node, state, asked: image.asked, stale: None, at });
        self.control.store().commit(tx).await.unwrap();
        id
    }

    async fn volume(&self, name: &str) -> Volume {
        let new = NewVolume { name: name.into(), size_gib: Some(1), ..NewVolume::default() };
        self.control.create_volume(&self.caller, new).await.unwrap()
    }
}

/// Ways to come to stand on the image `i`.
#[derive(Debug, Clone, Copy)]
enum Use {
    Container,
    Vm,
    Volume,
    Backup,
    Kernel,
}

impl Use {
    const ALL: [Use; 5] = [Use::Container, Use::Vm, Use::Volume, Use::Backup, Use::Kernel];

    async fn happens(self, control: &Control, caller: &Caller) -> control::Result<()> {
        match self {
            Use::Container => {
                let mut new = container("c");
                new.containers[0].image = "i".into();
                control.create_instance(caller, new).await.map(drop)
            }
            Use::Vm => {
                let new = control::instance::NewInstance {
                    kind: Kind::Vm,
                    image: Some("i".into()),
                    flavor: Some("g1.c1m512".into()),
                    containers: vec![],
                    ..container("c")
                };
                control.create_instance(caller, new).await.map(drop)
            }
            Use::Volume => {
                let source = SourceAsked::Image("i".into());
                let new = NewVolume { size_gib: Some(1), source, ..NewVolume::default() };
                control.create_volume(caller, new).await.map(drop)
            }
            Use::Backup => control.restore_backup(caller, "v", "i").await.map(drop),
            Use::Kernel => {
                let new = NewImage { kernel: Some("i".into()), ..NewImage::to_be_sent("j", ImageKind::Disk) };
                control.create_image(caller, new).await.map(drop)
            }
        }
    }

    fn kind(self) -> ImageKind {
        match self {
            Use::Container => ImageKind::Oci,
            Use::Kernel => ImageKind::Kernel,
            _ => ImageKind::Disk,
        }
    }
}

#[tokio::test]
async fn an_image_does_not_go_under_who_comes_to_stand_on_it() {
    for (round, using) in Use::ALL.into_iter().cycle().take(10).enumerate() {
        let race = Race::new().await;
        race.volume("v").await;
        let id = race.image(using.kind(), matches!(using, Use::Backup)).await;
        let (control, caller) = (race.control.clone(), race.caller.clone());
        race.then(async move { using.happens(&control, &caller).await.unwrap() }).await;
        if round < Use::ALL.len() {
            let refused = race.slow.delete_image(&race.caller, "i").await.unwrap_err();
            assert_eq!(refused.code, Code::InUse, "{using:?}: {refused}");
        } else {
            // Gone for its users at once, and kept for what stands on it.
            race.slow.delete_image_when_unused(&race.caller, "i").await.unwrap();
            let going = race.slow.get::<Image>(id).unwrap();
            assert!(going.record.meta.is_deleting(), "{using:?}");
        }
        race.is_over();
        race.slow.sweep_images().await.unwrap();
        assert!(race.slow.get::<Image>(id).is_some(), "{using:?} stands on it");
    }
}

#[tokio::test]
async fn nobody_comes_to_stand_on_an_image_that_went() {
    for using in Use::ALL {
        let race = Race::new().await;
        race.volume("v").await;
        let id = race.image(using.kind(), matches!(using, Use::Backup)).await;
        let (control, caller) = (race.control.clone(), race.caller.clone());
        race.then(async move { drop(control.delete_image(&caller, "i").await.unwrap()) }).await;
        let outcome = using.happens(&race.slow, &race.caller).await;
        race.is_over();
        assert!(race.slow.get::<Image>(id).is_none(), "{using:?}");
        match using {
            // The name is one of a registry now.
            Use::Container => outcome.unwrap(),
            _ => assert_eq!(outcome.unwrap_err().code, Code::NotFound, "{using:?}"),
        }
        race.catch_up().await;
        let store = race.control.store();
        assert!(store.list::<Instance>().iter().all(|i| i.record.image != Some(id)));
        assert!(store.list::<Volume>().iter().all(|v| v.record.ground().image != Some(id)));
        assert!(store.list::<Image>().iter().all(|i| i.record.boot.as_ref().is_none_or(|b| b.kernel != id)));
    }
}

#[tokio::test]
async fn a_network_a_subnet_and_a_group_do_not_go_under_a_port_that_comes() {
    for noun in ["network", "subnet", "group"] {
        for port_first in [true, false] {
            let race = Race::new().await;
            let (control, caller) = (race.control.clone(), race.caller.clone());
            let new = NewNetwork {
                name: "n".into(),
                description: String::new(),
                kind: NetworkKind::Private,
                mtu: None,
                shared: false,
                port_security: true,
                dns_domain: String::new(),
                admin_up: true,
                labels: Default::default(),
            };
            control.create_network(&caller, new).await.unwrap();
            let subnet = NewSubnet {
                name: "s".into(),
                network: "n".into(),
                cidr: "10.9.0.0/24".into(),
                no_router: true,
                ..NewSubnet::default()
            };
            control.create_subnet(&caller, subnet).await.unwrap();
            let group = NewSecurityGroup { name: "g".into(), ..NewSecurityGroup::default() };
            control.create_security_group(&caller, &group).await.unwrap();
            let port = NewPort {
                name: "p".into(),
                network: Some("n".into()),
                fixed: FixedAsked::one(Some("s".into()), None),
                security_groups: Some(vec!["g".into()]),
                ..NewPort::default()
            };
            let delete = async move |control: Control, caller: Caller| match noun {
                "network" => control.delete_network(&caller, "n", Joined::Remove).await,
                "subnet" => control.delete_subnet(&caller, "s", Joined::Remove).await,
                _ => control.delete_security_group(&caller, "g").await,
            };
            let (slow, by) = (race.slow.clone(), race.caller.clone());
            if port_first {
                race.then(async move { drop(control.create_port(&caller, port).await.unwrap()) }).await;
                let refused = delete(slow, by).await.unwrap_err();
                assert_eq!(refused.code, Code::InUse, "{noun}: {refused}");
            } else {
                race.then(async move { delete(control, caller).await.unwrap() }).await;
                let refused = slow.create_port(&by, port).await.unwrap_err();
                let fits = matches!(refused.code, Code::NotFound | Code::Invalid);
                assert!(fits, "{noun}: {refused}");
            }
            race.is_over();
            whole(&race.slow);
        }
    }
}

#[tokio::test]
async fn a_group_does_not_go_under_a_rule_or_a_subnet_that_names_it() {
    for by_rule in [true, false] {
        let race = Race::new().await;
        let (control, caller) = (race.control.clone(), race.caller.clone());
        for name in ["g", "h"] {
            let new = NewSecurityGroup { name: name.into(), ..NewSecurityGroup::default() };
            control.create_security_group(&caller, &new).await.unwrap();
        }
        race.then(async move {
            if by_rule {
                let rule = NewRule {
                    direction: Direction::Ingress,
                    family: None,
                    protocol: None,
                    ports: None,
                    icmp: None,
                    net: None,
                    group: Some("g".into()),
                    description: String::new(),
                };
                control.add_rule(&caller, "h", rule).await.unwrap();
            } else {
                let groups = ["g".to_string()];
                control.update_subnet(&caller, "default", Some(&groups), |_| Ok(())).await.unwrap();
            }
        })
        .await;
        let refused = race.slow.delete_security_group(&race.caller, "g").await.unwrap_err();
        assert_eq!(refused.code, Code::InUse, "{refused}");
        race.is_over();
        whole(&race.slow);
    }
}

/// Every port leads somewhere, and every name of a group too.
fn whole(control: &Control) {
    let store = control.store();
    let has_group = |id| control.get::<SecurityGroup>(id).is_some();
    for port in store.list::<Port>() {
        assert!(control.get::<Network>(port.record.network).is_some());
        assert!(port.record.addresses.iter().all(|fixed| control.get::<Subnet>(fixed.subnet).is_some()));
        assert!(port.record.security_groups.iter().all(|id| has_group(*id)));
    }
    for subnet in store.list::<Subnet>() {
        assert!(subnet.record.security_groups.iter().all(|id| has_group(*id)));
    }
    for group in store.list::<SecurityGroup>() {
        let peers = group.record.rules.iter().filter_map(|rule| match rule.peer {
            Peer::Group(id) => Some(id),
            _ => None,
        });
        assert!(peers.into_iter().all(has_group));
    }
}

#[tokio::test]
async fn what_is_plugged_in_while_something_else_is_let_go_stays() {
    let race = Race::new().await;
    let (control, caller) = (race.control.clone(), race.caller.clone());
    let instance = control.create_instance(&caller, container("c")).await.unwrap();
    let id = instance.meta.id;
    let mut tx = Tx::new();
    tx.put(&said_of(&instance));
    control.store().commit(tx).await.unwrap();
    let (old, new) = (race.volume("old").await.meta.id, race.volume("new").await.meta.id);
    control.attach_volume(&caller, "c", "old", Some("/old".into()), false).await.unwrap();
    control.detach_volume(&caller, "old").await.unwrap();
    race.then(async move {
        control.attach_volume(&caller, "c", "new", Some("/new".into()), false).await.unwrap();
        control.attach_volume(&caller, "c", "old", Some("/old".into()), false).await.unwrap_err();
    })
    .await;
    race.slow.finalize_instance(id).await.unwrap();
    race.is_over();
    race.slow.finalize_instance(id).await.unwrap();
    race.catch_up().await;
    let holder = |volume| race.control.get::<Volume>(volume).unwrap().record.attached_to;
    assert_eq!((holder(old), holder(new)), (None, Some(id)));
    assert_eq!(race.control.get::<Instance>(id).unwrap().record.volumes, [new]);
}

#[tokio::test]
async fn what_another_instance_took_meanwhile_is_not_set_free() {
    let race = Race::new().await;
    let (control, caller) = (race.control.clone(), race.caller.clone());
    let mut ids = vec![];
    for name in ["a", "b"] {
        let instance = control.create_instance(&caller, container(name)).await.unwrap();
        let mut tx = Tx::new();
        tx.put(&said_of(&instance));
        control.store().commit(tx).await.unwrap();
        ids.push(instance.meta.id);
    }
    let volume = race.volume("v").await.meta.id;
    control.attach_volume(&caller, "a", "v", Some("/v".into()), false).await.unwrap();
    control.detach_volume(&caller, "v").await.unwrap();
    let (first, second) = (ids[0], ids[1]);
    race.then(async move {
        control.finalize_instance(first).await.unwrap();
        control.attach_volume(&caller, "b", "v", Some("/v".into()), false).await.unwrap();
    })
    .await;
    race.slow.finalize_instance(first).await.unwrap();
    race.is_over();
    race.catch_up().await;
    assert_eq!(race.control.get::<Volume>(volume).unwrap().record.attached_to, Some(second));
}

#[tokio::test]
async fn a_volume_is_not_put_back_to_a_snapshot_that_is_being_taken() {
    let race = Race::new().await;
    let (control, caller) = (&race.control, &race.caller);
    let volume = race.volume("v").await;
    let id = volume.meta.id;
    let status = |layer| VolumeStatus {
        id,
        node: volume.node.unwrap(),
        path: Some(format!("/v/{id}.qcow2")),
        format: DiskFormat::Qcow2,
        backing: vec![],
        layer,
        layer_made: layer,
        size_gib: 1,
        used_bytes: 0,
        fault: None,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    let say = async |layer| {
        let mut tx = Tx::new();
        tx.put(&status(layer));
        control.store().commit(tx).await.unwrap();
    };
    say(0).await;
    let new = NewSnapshot { name: "s".into(), volume: "v".into(), ..NewSnapshot::default() };
    let snapshot = control.create_snapshot(caller, new).await.unwrap();
    let refused = control.restore_volume(caller, "v", "s").await.unwrap_err();
    assert_eq!((refused.code, refused.hint.as_str()), (Code::Conflict, "try again in a moment"), "{refused}");
    assert_eq!(control.get::<Volume>(id).unwrap().record.layer, 1, "it is as it was");
    say(1).await;
    control.restore_volume(caller, "v", "s").await.unwrap();
    assert!(control.get::<Snapshot>(snapshot.meta.id).is_some());
}

/// Each attempt comes one commit further: to the last, which takes the project.
#[tokio::test]
async fn a_project_does_not_go_under_what_is_made_in_it() {
    let race = Race::new().await;
    race.control.create_project(&race.caller, "shop", "", Default::default()).await.unwrap();
    let id = race.control.find_project(&race.caller, "shop").unwrap().record.meta.id;
    let inside = Caller { project: id, ..race.caller.clone() };
    for round in 0..4 {
        let (control, owner) = (race.control.clone(), inside.clone());
        let new = NewVolume { name: "v".into(), size_gib: Some(1), ..NewVolume::default() };
        race.then(async move { drop(control.create_volume(&owner, new).await.unwrap()) }).await;
        let refused = race.slow.delete_project(&race.caller, "shop").await.unwrap_err();
        assert_eq!(refused.code, Code::InUse, "{round}: {refused}");
        race.is_over();
        race.catch_up().await;
        race.control.delete_volume(&inside, "v").await.unwrap();
    }
    let head = race.control.store().mirror().revision();
    race.slow.store().wait_for(head).await.unwrap();
    race.slow.delete_project(&race.caller, "shop").await.unwrap();
    race.catch_up().await;
    let new = NewVolume { name: "late".into(), size_gib: Some(1), ..NewVolume::default() };
    assert_eq!(race.control.create_volume(&inside, new).await.unwrap_err().code, Code::NotFound);
}
