//! `holm df` and `holm prune`: what images, containers, volumes and builds take of the disk, and what can go.

use super::{
    columns::{self, Columns, Listing, aligned},
    engine::{self, list, number, query, text},
    words,
};
use crate::cli::{failure::Result, output, session::Session};
use serde_json::{Value, json};

const COLUMNS: Columns = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

/// What is told.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Layers that several images share count once. `holm node show` tells the whole disk, VMs' disks included."
)]
pub struct DiskArgs {
    /// Each image, container and volume
    #[arg(long, short)]
    pub verbose: bool,
    /// A template like '{{.Type}}: {{.Size}}', `table` and a template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// What goes.
#[derive(Debug, Clone, clap::Args)]
pub struct PruneArgs {
    /// Images that no container stands on, too, and not only those without a name
    #[arg(long, short)]
    pub all: bool,
    /// Volumes that no container has, too
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
}

/// Sizes of one kind.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    bytes: i64,
    free: i64,
}

impl Kind {
    fn row(&self) -> Value {
        let percent = if self.bytes > 0 { self.free * 100 / self.bytes } else { 0 };
        let free = words::size(self.free as f64, 4);
        json!({
            "Type": self.name,
            "TotalCount": self.total.to_string(),
            "Active": self.active.to_string(),
            "Size": words::size(self.bytes as f64, 4),
            "Reclaimable": if self.bytes > 0 && self.name != "Build Cache" { format!("{free} ({percent}%)") } else { free },
        })
    }
}

/// `holm df`.
///
/// # Errors
/// As the door refuses.
pub async fn disk(session: &Session, args: &DiskArgs) -> Result {
    let told = engine::get(session, "/system/df").await?;
    if args.verbose && args.format.is_none() {
        return output::write(each(&told).as_bytes());
    }
    let rows: Vec<Value> = kinds(&told).iter().map(Kind::row).collect();
    let listing = Listing { usual: COLUMNS, all: COLUMNS, id: "Type", format: args.format.as_deref() };
    columns::print(session, &listing, &rows)
}

fn kinds(told: &Value) -> [Kind; 4] {
    let images = list(told, "Images");
    let is_used = |image: &&Value| number(image, "Containers") > 0;
    let own = |image: &Value| number(image, "Size") - number(image, "SharedSize").max(0);
    let used: i64 = images.iter().filter(is_used).map(own).sum();
    let containers = list(told, "Containers");
    let is_alive = |one: &&Value| matches!(text(one, "State"), "running" | "paused" | "restarting");
    let written = |one: &Value| number(one, "SizeRw");
    let volumes = list(told, "Volumes");
    let held = |one: &&Value| number(&one["UsageData"], "RefCount") > 0;
    let size = |one: &Value| number(&one["UsageData"], "Size").max(0);
    let cache = list(told, "BuildCache");
    let in_use = |one: &&Value| one["InUse"].as_bool().unwrap_or(false);
    let kept = |one: &Value| if one["Shared"].as_bool().unwrap_or(false) { 0 } else { number(one, "Size") };
    let layers = number(told, "LayersSize");
    [
        Kind {
            name: "Images",
            total: images.len(),
            active: images.iter().filter(is_used).count(),
            bytes: layers,
            free: (layers - used).max(0),
        },
        Kind {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(is_alive).count(),
            bytes: containers.iter().map(written).sum(),
            free: containers.iter().filter(|one| !is_alive(one)).map(written).sum(),
        },
        Kind {
            name: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(held).count(),
            bytes: volumes.iter().map(size).sum(),
            free: volumes.iter().filter(|one| !held(one)).map(size).sum(),
        },
        Kind {
            name: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(in_use).count(),
            bytes: cache.iter().map(kept).sum(),
            free: cache.iter().filter(|one| !in_use(one)).map(kept).sum(),
        },
    ]
}

/// Each image, container, volume and step of a build, and who uses it.
fn each(told: &Value) -> String {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
    let size = |bytes: i64| words::size(bytes.max(0) as f64, 4);
    let mut images =
        vec![words(&["REPOSITORY:TAG", "IMAGE ID", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"])];
    for image in list(told, "Images") {
        let name = list(image, "RepoTags").first().and_then(Value::as_str).unwrap_or("<none>").to_string();
        let (bytes, shared) = (number(image, "Size"), number(image, "SharedSize").max(0));
        let id = words::short_id(text(image, "Id"));
        let count = number(image, "Containers").to_string();
        images.push(vec![name, id, size(bytes), size(shared), size(bytes - shared), count]);
    }
    let mut containers = vec![words(&["CONTAINER ID", "IMAGE", "SIZE", "STATE", "NAMES"])];
    for one in list(told, "Containers") {
        let name = list(one, "Names").first().and_then(Value::as_str).unwrap_or_default();
        let (id, image) = (words::short_id(text(one, "Id")), text(one, "Image").to_string());
        let state = text(one, "State").to_string();
        containers.push(vec![
            id,
            image,
            size(number(one, "SizeRw")),
            state,
            name.trim_start_matches('/').into(),
        ]);
    }
    let mut volumes = vec![words(&["VOLUME NAME", "LINKS", "SIZE"])];
    for one in list(told, "Volumes") {
        let (links, bytes) = (number(&one["UsageData"], "RefCount"), number(&one["UsageData"], "Size"));
        volumes.push(vec![text(one, "Name").to_string(), links.to_string(), size(bytes)]);
    }
    format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage:\n\n{}",
        aligned(images),
        aligned(containers),
        aligned(volumes),
        aligned(cache(told))
    )
}

/// What builds keep: a step whose layer an image has as well takes nothing of its own.
fn cache(told: &Value) -> Vec<Vec<String>> {
    let is = |one: &Value, field: &str| one[field].as_bool().unwrap_or(false);
    let head = ["CACHE ID", "SIZE", "USAGE", "SHARED", "WHAT"].map(str::to_string).to_vec();
    let row = |one: &Value| {
        vec![
            words::short_id(text(one, "ID")),
            words::size(number(one, "Size").max(0) as f64, 4),
            number(one, "UsageCount").to_string(),
            is(one, "Shared").to_string(),
            words::shortened(text(one, "Description"), 60),
        ]
    };
    std::iter::once(head).chain(list(told, "BuildCache").iter().map(row)).collect()
}

/// `holm prune`: containers that have ended, networks that nobody is in, images without a name, the build cache.
///
/// # Errors
/// As the door refuses.
pub async fn prune(session: &Session, args: &PruneArgs) -> Result {
    let what = if args.all { "all images that no container stands on" } else { "images without a name" };
    let volumes = if args.volumes { ", volumes that no container has" } else { "" };
    let question = format!(
        "Delete all stopped containers, networks that nobody is in, {what}{volumes} and the build cache?"
    );
    session.confirm(args.force, &question)?;
    let dangling = json!({"dangling": [if args.all { "false" } else { "true" }]}).to_string();
    let mut places = vec![
        ("/containers/prune".to_string(), "Deleted Containers:", "ContainersDeleted"),
        ("/networks/prune".to_string(), "Deleted Networks:", "NetworksDeleted"),
        (format!("/images/prune{}", query(&[("filters", &dangling)])), "Deleted Images:", "ImagesDeleted"),
        (
            format!("/build/prune{}", query(&[("all", engine::flag(args.all))])),
            "Deleted build cache:",
            "CachesDeleted",
        ),
    ];
    if args.volumes {
        places.insert(2, ("/volumes/prune".to_string(), "Deleted Volumes:", "VolumesDeleted"));
    }
    let mut freed = 0;
    for (place, head, field) in places {
        let done = engine::post(session, &place, None).await?;
        freed += number(&done, "SpaceReclaimed");
        let gone: Vec<String> = list(&done, field).iter().filter_map(told).collect();
        if !gone.is_empty() {
            output::write(format!("{head}\n{}\n\n", gone.join("\n")).as_bytes())?;
        }
    }
    output::write(format!("Total reclaimed space: {}\n", words::size(freed as f64, 4)).as_bytes())
}

/// What went: an id, or what became of an image.
fn told(gone: &Value) -> Option<String> {
    let of = |field: &str, word: &str| gone[field].as_str().map(|text| format!("{word}: {text}"));
    gone.as_str()
        .map(str::to_string)
        .or_else(|| of("Untagged", "untagged"))
        .or_else(|| of("Deleted", "deleted"))
}
