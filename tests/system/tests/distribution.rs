//! Hosts of different distributions: the same image, by its digest, is the same program there, and nothing of the host's
//! own files is needed but the C library and nft.

use api::v1::types::{
    instance::{CreateInstance, Instance},
    node::Node,
};
use lab::{Cloud, Images, Lab, Options};
use model::instance::phase::Phase;

/// Tells all that a program in the image can see of its files and of itself.
const LOOK: &str = "find / -xdev -type f ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path '/proc/*' ! -path '/sys/*' \
     -exec sha256sum {} + | sort; id; env | grep -v HOSTNAME | sort; ulimit -a; cat /proc/self/mounts | cut -d' ' -f2,3; \
     grep -E 'Cap|Seccomp|NoNew' /proc/self/status";

fn host(release: &str) -> Lab {
    let root = Some(Images::find().file("host", release));
    Lab::with(Options { registry: true, root, ..Options::default() })
}

#[test]
fn one_digest_runs_alike_on_two_distributions() {
    let hosts = ["bookworm", "trixie"].map(|release| (release, host(release)));
    let mut told = vec![];
    let mut systems = vec![];
    let digest = {
        let image = hosts[0].1.project("shop").pull("", "busybox");
        image.content.expect("content").digest
    };
    for (release, lab) in &hosts {
        let shop = lab.project("shop");
        let system = shop.list::<Node>()[0].status.as_ref().expect("its status").os.clone();
        assert!(system.to_lowercase().contains(release), "{system}");
        systems.push(system);
        told.push(looks(&shop, &digest));
        shop.launch(&CreateInstance {
            image: Some(format!("busybox@{digest}")),
            ..shop.idle_container("box")
        });
        assert!(shop.exec("box", "true").ok());
        shop.empty();
    }
    assert_ne!(systems[0], systems[1], "two distributions");
    assert!(told[0].lines().count() > 20, "{}", told[0]);
    assert_eq!(told[0], told[1]);
    for (_, lab) in hosts {
        lab.finish();
    }
}

/// What the image's program says of itself, run to its end.
fn looks(shop: &Cloud, digest: &str) -> String {
    let image = Some(format!("busybox@{digest}"));
    let args = Some(["sh", "-c", LOOK].map(str::to_string).to_vec());
    shop.create::<Instance>(&CreateInstance { image, args, ..shop.container("look", "busybox") });
    let ended = shop.wait_phase("look", Phase::Exited);
    assert_eq!(ended.exit.and_then(|exit| exit.code), Some(0), "{}", shop.log("look"));
    shop.log("look")
}
