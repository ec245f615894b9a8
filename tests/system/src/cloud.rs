//! What a user of one project does, in blocking calls that panic with holm's own words when it refuses.

use crate::{Lab, eventually};
use api::{
    client::{Client, Create, Error, Noun, Update, Verb},
    v1::types::{
        floating_ip::{CreateFloatingIp, FloatingIp, TargetRequest, UpdateFloatingIp},
        image::{CreateImage, Image, ImageState, KernelBootRequest},
        instance::{CreateInstance, Instance},
        keypair::{CreateKeypair, Keypair},
        list::{ListQuery, WaitQuery},
        network::Network,
        project::{CreateProject, Project},
        quota::{Quota, UpdateQuota},
        router::{GatewayRequest, Router, UpdateRouter},
        security_group::{CreateRule, CreateSecurityGroup, Rule, SecurityGroup},
        subnet::{CreateSubnet, Subnet},
        volume::Volume,
    },
};
use model::{
    image::ImageKind,
    instance::{Kind, phase::Phase},
    security_group::Direction,
};
use std::{
    future::Future,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use sys::netns::NetNs;
use tokio::runtime::Runtime;

/// Longest wait for one thing to settle.
const WAIT_S: u32 = 120;
const PATIENCE: Duration = Duration::from_secs(120);

/// A project, seen by the machine's root.
pub struct Cloud {
    /// The client, for calls that have no word here.
    pub client: Client,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) run: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) project: String,
}

/// The first IPv4 address.
///
/// # Panics
/// When there is none.
pub fn v4_of(instance: &Instance) -> IpAddr {
    *instance.addresses.iter().find(|a| a.is_ipv4()).expect("an IPv4 address")
}

/// The first IPv6 address.
///
/// # Panics
/// When there is none.
pub fn v6_of(instance: &Instance) -> IpAddr {
    *instance.addresses.iter().find(|a| a.is_ipv6()).expect("an IPv6 address")
}

/// What holm says of an error, all of it.
pub(crate) fn told(error: &Error) -> String {
    format!("{error} ({:?}; hint: {}; field: {:?})", error.code(), error.hint(), error.field())
}

fn waiting() -> WaitQuery {
    WaitQuery { wait: Some(WAIT_S), phase: None }
}

impl Cloud {
    pub(crate) fn enter(lab: &Lab, runtime: Arc<Runtime>, name: &str) -> Self {
        let root = lab.client();
        if runtime.block_on(root.get::<Project>(name)).is_err() {
            let request = CreateProject { name: name.into(), ..CreateProject::default() };
            runtime
                .block_on(root.create::<Project>(&request, &waiting()))
                .unwrap_or_else(|e| panic!("{}", told(&e)));
        }
        Self {
            client: root.with_project(name),
            runtime,
            run: lab.run(),
            key: lab.key(),
            project: name.into(),
        }
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// As the call.
    pub fn ask<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(call)
    }

    /// Waits for a call that must succeed.
    ///
    /// # Panics
    /// With what holm says, as do all functions here that give no result.
    pub fn must<T>(&self, what: &str, call: impl Future<Output = Result<T, Error>>) -> T {
        self.ask(call).unwrap_or_else(|error| panic!("{what}: {}", told(&error)))
    }

    /// Makes a thing and waits until it is settled.
    pub fn create<N: Create>(&self, request: &N::Request) -> N {
        self.must(&format!("make a {}", N::NAME), self.client.create::<N>(request, &waiting()))
    }

    /// Tries to make a thing.
    ///
    /// # Errors
    /// What holm says.
    pub fn try_create<N: Create>(&self, request: &N::Request) -> Result<N, Error> {
        self.ask(self.client.create::<N>(request, &waiting()))
    }

    /// One thing.
    pub fn get<N: Noun>(&self, name: &str) -> N {
        self.must(&format!("get {} {name}", N::NAME), self.client.get::<N>(name))
    }

    /// All things of a kind.
    pub fn list<N: Noun>(&self) -> Vec<N> {
        self.must(&format!("list {}s", N::NAME), self.client.list_all::<N>(&ListQuery::default()))
    }

    /// Changes a thing.
    pub fn update<N: Update>(&self, name: &str, request: &N::Request) -> N {
        self.must(&format!("change {} {name}", N::NAME), self.client.update::<N>(name, request, &waiting()))
    }

    /// Deletes a thing and waits until it is gone.
    pub fn delete<N: Noun + std::fmt::Debug>(&self, name: &str) {
        let left =
            self.must(&format!("delete {} {name}", N::NAME), self.client.delete::<N>(name, &waiting()));
        assert!(left.is_none(), "{} {name} does not go: {left:?}", N::NAME);
    }

    /// Does something to an instance and waits until it is settled.
    pub fn act(&self, name: &str, verb: Verb) -> Instance {
        self.must(&format!("{} {name}", verb.as_str()), self.client.act(name, verb, &waiting()))
    }

    /// An instance.
    pub fn instance(&self, name: &str) -> Instance {
        self.get(name)
    }

    /// Waits for a phase.
    pub fn wait_phase(&self, name: &str, phase: Phase) -> Instance {
        let came = crate::until(PATIENCE, || {
            let instance = self.instance(name);
            (instance.phase == phase).then_some(instance)
        });
        came.unwrap_or_else(|| panic!("{name} is not {phase}: {:#?}", self.instance(name)))
    }

    /// Makes an instance that must run.
    pub fn launch(&self, request: &CreateInstance) -> Instance {
        let instance = self.create::<Instance>(request);
        assert_eq!(instance.phase, Phase::Running, "{instance:#?}");
        instance
    }

    /// A request for a container of an image, which is pulled if need be.
    pub fn container(&self, name: &str, image: &str) -> CreateInstance {
        CreateInstance {
            name: name.into(),
            kind: Some(Kind::Container),
            image: Some(image.into()),
            ..CreateInstance::default()
        }
    }

    /// A request for a system container of an image that was brought in.
    pub fn system(&self, name: &str, image: &str) -> CreateInstance {
        CreateInstance { kind: Some(Kind::System), ..self.container(name, image) }
    }

    /// A request for a busybox that waits.
    pub fn idle_container(&self, name: &str) -> CreateInstance {
        CreateInstance { args: Some(words("sleep 1000000")), ..self.container(name, "busybox") }
    }

    /// A request for a micro guest with the tests' key; see [`Cloud::add_micro`].
    pub fn micro(&self, name: &str) -> CreateInstance {
        CreateInstance {
            name: name.into(),
            kind: Some(Kind::Vm),
            image: Some("micro".into()),
            vcpus: Some(1),
            memory_mib: Some(128),
            keypairs: vec!["lab".into()],
            ..CreateInstance::default()
        }
    }

    /// Brings in the micro guest for direct boot, as image `micro`, and the tests' key, as keypair `lab`.
    pub fn add_micro(&self, images: &crate::Images) {
        self.add_key();
        self.upload("micro-initrd", ImageKind::Initrd, None, &images.micro("initrd"));
        let cmdline = std::fs::read_to_string(images.micro("cmdline")).expect("cmdline").trim().to_string();
        let boot = KernelBootRequest { kernel: None, initrd: Some("micro-initrd".into()), cmdline };
        self.upload("micro", ImageKind::Kernel, Some(boot), &images.micro("kernel"));
    }

    /// Imports the tests' key as keypair `lab`.
    pub fn add_key(&self) {
        let public_key = std::fs::read_to_string(self.key.with_extension("pub")).expect("public key");
        self.create::<Keypair>(&CreateKeypair {
            name: "lab".into(),
            public_key: public_key.trim().into(),
            ..CreateKeypair::default()
        });
    }

    /// Makes an image from a file.
    pub fn upload(&self, name: &str, kind: ImageKind, boot: Option<KernelBootRequest>, path: &Path) -> Image {
        let request = CreateImage { boot, ..image_request(name, kind) };
        self.must("make an image", self.client.create::<Image>(&request, &WaitQuery::default()));
        let image = self.must("send an image", async {
            let file = tokio::fs::File::open(path).await.expect("image file");
            let size = file.metadata().await.expect("image file").len();
            self.client.upload_image(name, file, Some(size), None, |_| ()).await
        });
        assert_eq!(image.state, ImageState::Ready, "{image:#?}");
        image
    }

    /// Pulls an image from a registry.
    pub fn pull(&self, name: &str, reference: &str) -> Image {
        let request =
            CreateImage { reference: Some(reference.into()), ..image_request(name, ImageKind::Oci) };
        self.create::<Image>(&request)
    }

    /// Gives the project's own network an IPv6 subnet.
    pub fn add_ipv6(&self, cidr: &str) -> Subnet {
        self.create::<Subnet>(&subnet_request("six", "default", cidr))
    }

    /// Leads the project's router to another external network.
    pub fn set_gateway(&self, network: &str) {
        let gateway = GatewayRequest { network: Some(network.into()), ..GatewayRequest::default() };
        let change = UpdateRouter { gateway: Some(Some(gateway)), ..UpdateRouter::default() };
        self.update::<Router>("default", &change);
    }

    /// Makes a group with ingress rules, each as `tcp 22 203.0.113.7/32` (ports and peer may be missing or `-`).
    pub fn add_group(&self, name: &str, rules: &[&str]) -> SecurityGroup {
        let rules = rules.iter().map(|rule| ingress(rule)).collect();
        self.create::<SecurityGroup>(&CreateSecurityGroup {
            name: name.into(),
            rules,
            ..CreateSecurityGroup::default()
        })
    }

    /// Adds an ingress rule to a group.
    pub fn add_rule(&self, group: &str, rule: &str) -> Vec<Rule> {
        self.must("add a rule", self.client.add_rule(group, &ingress(rule)))
    }

    /// Deletes a rule.
    pub fn delete_rule(&self, group: &str, rule: &Rule) {
        self.must("delete a rule", self.client.delete_rule(group, &rule.id.to_string()));
    }

    /// Allocates a floating IP of the external network that the project's router leads to, for an instance.
    pub fn add_floating_ip(&self, name: &str, instance: &str) -> FloatingIp {
        let gateway = self.get::<Router>("default").gateway.expect("a gateway");
        let target = TargetRequest { instance: Some(instance.into()), ..TargetRequest::default() };
        let request = CreateFloatingIp {
            name: Some(name.into()),
            network: Some(gateway.network.id.to_string()),
            target: Some(target),
            ..CreateFloatingIp::default()
        };
        self.create::<FloatingIp>(&request)
    }

    /// Leads a floating IP to another instance, or nowhere.
    pub fn move_floating_ip(&self, name: &str, instance: Option<&str>) {
        let target = instance.map(|i| TargetRequest { instance: Some(i.into()), ..TargetRequest::default() });
        self.update::<FloatingIp>(
            name,
            &UpdateFloatingIp { target: Some(target), ..UpdateFloatingIp::default() },
        );
    }

    /// The project's limits and what it has.
    pub fn quota(&self) -> Quota {
        self.must("quota", self.client.quota(&self.project))
    }

    /// Limits one resource of the project.
    pub fn set_quota(&self, resource: &str, limit: u64) {
        let limits = [(resource.to_string(), Some(limit))].into();
        self.must("set quota", self.client.set_quota(&self.project, &UpdateQuota { limits, reset: vec![] }));
    }

    /// How much of a resource is used.
    pub fn used(&self, resource: &str) -> u64 {
        self.quota().resources[resource].used
    }

    /// The namespace of a network.
    pub fn namespace_of(&self, network: &str) -> NetNs {
        let id = self.get::<Network>(network).head.id;
        NetNs::open(&self.run.join("netns").join(format!("n-{}", id.simple())))
            .expect("the network's namespace")
    }

    /// Deletes all instances, volumes and floating IPs and waits until nothing of them counts any more.
    pub fn empty(&self) {
        for instance in self.list::<Instance>() {
            self.delete::<Instance>(&instance.head.id.to_string());
        }
        for floating in self.list::<FloatingIp>() {
            self.delete::<FloatingIp>(&floating.head.id.to_string());
        }
        for volume in self.list::<Volume>() {
            self.delete::<Volume>(&volume.head.id.to_string());
        }
        for resource in ["instances", "vcpus", "memory_mib", "volumes", "volume_gib", "floating_ips", "ports"]
        {
            eventually(&format!("no {resource} are used"), PATIENCE, || self.used(resource) == 0);
        }
    }
}

/// Words of a command.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// A new subnet with all else as it comes.
fn subnet_request(name: &str, network: &str, cidr: &str) -> CreateSubnet {
    let value = serde_json::json!({"name": name, "network": network, "cidr": cidr});
    serde_json::from_value(value).expect("a subnet")
}

fn image_request(name: &str, kind: ImageKind) -> CreateImage {
    let value = serde_json::json!({"name": name});
    let request: CreateImage = serde_json::from_value(value).expect("an image");
    CreateImage { kind: Some(kind), ..request }
}

fn ingress(rule: &str) -> CreateRule {
    let mut parts = rule.split_whitespace();
    let mut part = || parts.next().filter(|text| *text != "-").map(str::to_string);
    let (protocol, ports, peer) = (part(), part(), part());
    let (peer, peer_group) = match peer {
        Some(name) if name.starts_with('@') => (None, Some(name[1..].to_string())),
        peer => (peer, None),
    };
    CreateRule {
        direction: Direction::Ingress,
        family: None,
        protocol,
        ports,
        icmp_type: None,
        icmp_code: None,
        peer,
        peer_group,
        description: String::new(),
    }
}
