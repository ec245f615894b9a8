//! `holm node`: hosts.

use super::{
    completion,
    failure::Result,
    instance::yes_or_no,
    noun,
    output::{Cell, Column, Shown, column, page::Page, wide},
    session::Session,
    wording,
};
use api::v1::types::{
    list::ListQuery,
    node::{Node, UpdateNode},
};
use jiff::Timestamp;

/// Verbs of `holm node`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List hosts
    #[command(visible_alias = "ls")]
    List,
    /// Show a host: what it has, what it can do and why not more
    Show {
        /// Name or id [default: the only one]
        #[arg(value_name = "NAME", add = completion::names("nodes"))]
        name: Option<String>,
    },
    /// Change a host
    Set(SetArgs),
}

/// Changes to a host.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("nodes"))]
    pub name: String,
    /// Place new instances here: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub schedulable: Option<bool>,
}

impl Shown for Node {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |n| Cell::text(&n.name)),
        wide("ID", |n| Cell::text(n.id)),
        column("INSTANCES", |n| Cell::text(n.used.instances)),
        column("CPUS", |n| Cell::maybe(n.status.as_ref().map(|s| format!("{}/{}", n.used.vcpus, s.cpus)))),
        column("MEMORY", |n| {
            let all = n.status.as_ref().map(|s| wording::mebibytes(s.memory_mib));
            Cell::maybe(all.map(|all| format!("{}/{all}", wording::mebibytes(n.used.memory_mib))))
        }),
        column("DISK", |n| {
            Cell::maybe(n.status.as_ref().map(|s| format!("{}/{} GiB", n.used.disk_gib, s.disk_gib)))
        }),
        column("DISK FREE", |n| Cell::maybe(n.status.as_ref().map(|s| format!("{} GiB", s.disk_free_gib)))),
        column("ACCELERATOR", |n| Cell::maybe(n.status.as_ref().map(|s| &s.accelerator))),
        wide("SCHEDULABLE", |n| Cell::flag(n.schedulable)),
        wide("KERNEL", |n| Cell::maybe(n.status.as_ref().map(|s| &s.kernel))),
        wide("QEMU", |n| Cell::maybe(n.status.as_ref().map(|s| &s.qemu))),
        wide("HOLM", |n| Cell::maybe(n.status.as_ref().map(|s| &s.version))),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::new(now);
        page.line("Name", &self.name).line("ID", self.id.to_string());
        page.line(
            "Schedulable",
            if self.schedulable { "yes" } else { "no: new instances are not placed here" },
        );
        if let Some(s) = &self.status {
            page.line("System", format!("{}, kernel {}, {}", s.os, s.kernel, s.arch));
            page.line("CPUs", format!("{}, of which instances have {}", s.cpus, self.used.vcpus));
            let (all, used) = (wording::mebibytes(s.memory_mib), wording::mebibytes(self.used.memory_mib));
            page.line("Memory", format!("{all}, of which instances have {used}"));
            page.line("Disk", format!("{} GiB, of which {} GiB are free", s.disk_gib, s.disk_free_gib));
            let share = (self.used.disk_gib * 100).checked_div(s.disk_gib);
            let share = share.map_or(String::new(), |percent| format!(", {percent} % of it"));
            page.line("Promised", format!("{} GiB{share}", self.used.disk_gib));
            page.line("Instances", self.used.instances.to_string());
            page.line("VMs run on", format!("{}: {}", s.accelerator, s.accelerator_reason));
            page.line(
                "QEMU",
                if s.qemu.is_empty() { "none: virtual machines cannot run here" } else { &s.qemu },
            );
            page.line("holm", &s.version);
            for (key, value) in &s.facts {
                page.line(&key.replace('_', " "), value);
            }
            page.line("Last seen", wording::time(s.at, now));
        }
        page.line("Joined", wording::time(self.created_at, now));
        page
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List => noun::list::<Node>(session, &ListQuery::default()).await,
        Verb::Show { name: Some(name) } => noun::show::<Node>(session, &name).await,
        Verb::Show { name: None } => {
            let all: Vec<Node> = session.client.list_all(&ListQuery::default()).await?;
            match all.as_slice() {
                [one] => session.printer.one(one),
                several => session.printer.list(several),
            }
        }
        Verb::Set(args) => {
            let request = UpdateNode { schedulable: args.schedulable };
            noun::change::<Node>(session, &args.name, &request).await
        }
    }
}
