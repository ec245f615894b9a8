//! `holm quota`: how much a project may have, and how much it has.

use super::{
    completion,
    failure::{Failure, Result},
    output::{self, Cell, Column, Format, Shown, column},
    session::Session,
    wait::{bar, percent},
    wording,
};
use api::v1::types::quota::{Quota, Quotas, ResourceQuota, UpdateQuota};
use serde::Serialize;

/// From how much use on a warning is given, in percent.
const WARNING_PERCENT: u64 = 80;

/// `holm quota`, with or without a verb.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct QuotaArgs {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Verbs of `holm quota`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show limits and use of all projects, and what the hosts have (other projects: admin only)
    #[command(visible_alias = "ls")]
    List,
    /// Show limits and use of a project
    Show(ShowArgs),
    /// Set limits of a project (admin only)
    Set(SetArgs),
}

/// Whose quota.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ShowArgs {
    /// Project [default: the one worked in]
    #[arg(value_name = "PROJECT", add = completion::names("projects"))]
    pub of: Option<String>,
}

/// Limits to set.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Resources: instances, vcpus, memory_mib, volumes, volume_gib, snapshots, backups, networks, subnets, routers,
ports, floating_ips, security_groups, security_group_rules, keypairs, images, template_kib

Example: holm quota set shop instances=20 memory_mib=65536 volumes=none ports=default"
)]
pub struct SetArgs {
    /// Project
    #[arg(value_name = "PROJECT", add = completion::names("projects"))]
    pub of: String,
    /// RESOURCE=NUMBER, RESOURCE=none for no limit, or RESOURCE=default
    #[arg(value_name = "RESOURCE=LIMIT", required = true, value_parser = super::noun::pair)]
    pub limits: Vec<(String, String)>,
}

/// A line of the quota.
#[derive(Debug, Clone, Serialize)]
struct Row {
    resource: String,
    #[serde(flatten)]
    quota: ResourceQuota,
}

impl Row {
    fn use_percent(&self) -> Option<u64> {
        self.quota.limit.map(|limit| if limit == 0 { 100 } else { percent(self.quota.used, limit) })
    }
}

impl Shown for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        column("RESOURCE", |r| Cell::text(&r.resource)),
        column("USED", |r| Cell::text(r.quota.used)),
        column("LIMIT", |r| Cell::text(r.quota.limit.map_or("none".to_string(), |l| l.to_string()))),
        column("USE", |r| {
            Cell::maybe(
                r.quota
                    .limit
                    .filter(|l| *l > 0)
                    .map(|l| format!("{} {:>3} %", bar(r.quota.used, l), percent(r.quota.used, l))),
            )
        }),
        column("DEFAULT", |r| Cell::flag(r.quota.is_default)),
    ];

    fn name(&self) -> String {
        self.resource.clone()
    }
}

/// Runs the command.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, args: QuotaArgs) -> Result {
    match args.verb {
        None => show(session, args.show.of).await,
        Some(Verb::List) => list(session).await,
        Some(Verb::Show(args)) => show(session, args.of).await,
        Some(Verb::Set(args)) => set(session, &args).await,
    }
}

async fn show(session: &Session, of: Option<String>) -> Result {
    let project = match of {
        Some(project) => project,
        None => session.client.version().await?.caller.project.id.to_string(),
    };
    print(session, &session.client.quota(&project).await?)
}

fn print(session: &Session, quota: &Quota) -> Result {
    let rows: Vec<Row> = quota
        .resources
        .iter()
        .map(|(resource, quota)| Row { resource: resource.clone(), quota: *quota })
        .collect();
    match session.printer.format {
        Some(Format::Json) => output::write(output::json(quota)?.as_bytes())?,
        Some(Format::Yaml) => output::write(output::yaml(quota)?.as_bytes())?,
        _ => session.printer.list(&rows)?,
    }
    for row in
        rows.iter().filter(|r| r.quota.used > 0 && r.use_percent().is_some_and(|p| p >= WARNING_PERCENT))
    {
        let limit = row.quota.limit.unwrap_or_default();
        session.warn(format!(
            "project {}: {} of {limit} {} are used",
            quota.project.name, row.quota.used, row.resource
        ));
    }
    Ok(())
}

/// A line of the list: of a project, of all together, or of what there is.
#[derive(Debug, Clone, Serialize)]
struct ListRow {
    project: String,
    instances: String,
    vcpus: String,
    memory: String,
    disk: String,
}

impl Shown for ListRow {
    const COLUMNS: &'static [Column<Self>] = &[
        column("PROJECT", |r| Cell::text(&r.project)),
        column("INSTANCES", |r| Cell::text(&r.instances)),
        column("VCPUS", |r| Cell::text(&r.vcpus)),
        column("MEMORY", |r| Cell::text(&r.memory)),
        column("DISK", |r| Cell::text(&r.disk)),
    ];

    fn name(&self) -> String {
        self.project.clone()
    }
}

impl ListRow {
    fn new(project: &str, cell: impl Fn(&str, fn(u64) -> String) -> String) -> Self {
        Self {
            project: project.to_string(),
            instances: cell("instances", plain),
            vcpus: cell("vcpus", plain),
            memory: cell("memory_mib", wording::mebibytes),
            disk: cell("volume_gib", gibibytes),
        }
    }
}

fn plain(count: u64) -> String {
    count.to_string()
}

fn gibibytes(count: u64) -> String {
    format!("{count} GiB")
}

/// `3/100`: used, and most that may be.
fn of_limit(used: u64, limit: Option<u64>, write: fn(u64) -> String) -> String {
    format!("{}/{}", write(used), limit.map_or("none".to_string(), write))
}

fn list_rows(quotas: &Quotas) -> Vec<ListRow> {
    let project = |quota: &Quota| {
        ListRow::new(&quota.project.name, |resource, write| {
            let found = quota.resources.get(resource);
            found.map_or("-".to_string(), |quota| of_limit(quota.used, quota.limit, write))
        })
    };
    let mut rows: Vec<ListRow> = quotas.items.iter().map(project).collect();
    rows.push(ListRow::new("(all together)", |resource, write| {
        let found = quotas.total.get(resource);
        found.map_or("-".to_string(), |total| of_limit(total.used, total.limit, write))
    }));
    rows.push(ListRow::new("(the hosts have)", |resource, write| {
        quotas.capacity.get(resource).map_or("-".to_string(), |has| write(*has))
    }));
    rows.push(ListRow::new("(limits promise)", |resource, _| {
        let limit = quotas.total.get(resource).and_then(|total| total.limit);
        match (limit, quotas.capacity.get(resource)) {
            (Some(limit), Some(has)) if *has > 0 => format!("{} %", percent(limit, *has)),
            _ => "-".to_string(),
        }
    }));
    rows
}

async fn list(session: &Session) -> Result {
    let quotas = session.client.quotas().await?;
    match session.printer.format {
        Some(Format::Json) => output::write(output::json(&quotas)?.as_bytes())?,
        Some(Format::Yaml) => output::write(output::yaml(&quotas)?.as_bytes())?,
        _ => session.printer.list(&list_rows(&quotas))?,
    }
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result {
    let mut request = UpdateQuota::default();
    for (resource, limit) in &args.limits {
        match limit.as_str() {
            "default" => request.reset.push(resource.clone()),
            "none" | "unlimited" => drop(request.limits.insert(resource.clone(), None)),
            number => {
                let number = number.parse().map_err(|_| {
                    Failure::usage(format!("{resource}={number}: {number:?} is no number"))
                        .hint("write a number, none or default")
                })?;
                request.limits.insert(resource.clone(), Some(number));
            }
        }
    }
    let quota = session.client.set_quota(&args.of, &request).await?;
    session.say(format!("the quota of project {} is changed", quota.project.name));
    if session.printer.format.is_some() { print(session, &quota) } else { Ok(()) }
}
