//! `holm app`: programs that everybody knows, by one command each.
//!
//! An app is a file of Kubernetes with a name, a version and a port left open, which is played as any other (`holm kube`). It
//! gets a group of its own, which lets everyone in on its port and on nothing else. `show` prints the file: who wants it
//! otherwise changes that and plays it.

use super::{
    failure::{Failure, Result},
    kube,
    noun::{self, DeleteArgs},
    output::{self, Cell, Column, Shown, column, wide},
    session::Session,
    wait::WaitArgs,
};
use api::v1::types::{
    instance::Instance,
    list::WaitQuery,
    port::{Port, UpdatePort},
    security_group::{CreateRule, CreateSecurityGroup, SecurityGroup},
};
use model::{error::Code, name::dns_label, security_group::Direction};
use serde::Serialize;

/// Label of instances and groups that tells which app they are.
const LABEL: &str = "app";
/// Bytes of a password that is made up.
const SECRET_BYTES: usize = 18;

/// Verbs of `holm app`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List what can be run
    #[command(visible_alias = "ls")]
    List,
    /// Print an app as a file of Kubernetes, to change it and play it: `holm kube play`
    Show(NameArgs),
    /// Run an app: its volumes, its containers, its port, and a group that lets everyone in there
    Run(RunArgs),
    /// Remove an app that runs; its volumes are kept
    #[command(visible_alias = "rm")]
    Delete(RemoveArgs),
}

/// Which app.
#[derive(Debug, Clone, clap::Args)]
pub struct NameArgs {
    /// Name in the list
    #[arg(value_name = "APP")]
    pub app: String,
}

/// What is run.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  holm app run wordpress --name blog --port 8080")]
pub struct RunArgs {
    /// Name in the list
    #[arg(value_name = "APP")]
    pub app: String,
    /// Name of what runs [default: the app's]
    #[arg(long, short, value_name = "NAME")]
    pub name: Option<String>,
    /// Port of this machine that leads to it [default: the app's]
    #[arg(long, short, value_name = "PORT")]
    pub port: Option<u16>,
    /// Tag of its image [default: the app's]
    #[arg(long, value_name = "TAG")]
    pub version: Option<String>,
    /// Who may come in: any, an address or a range
    #[arg(long, value_name = "PEER", default_value = "any")]
    pub from: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What is removed.
#[derive(Debug, Clone, clap::Args)]
pub struct RemoveArgs {
    /// Name of what runs
    #[arg(value_name = "NAME", add = super::completion::names("instances"))]
    pub name: String,
    /// Delete its volumes too, with all data on them
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A program that everybody knows.
#[derive(Debug, Clone, Serialize)]
struct App {
    name: &'static str,
    about: &'static str,
    version: &'static str,
    port: u16,
    /// The program's own port.
    inner_port: u16,
    #[serde(skip)]
    file: &'static str,
}

macro_rules! apps {
    ($($name:literal $version:literal $port:literal $inner:literal $about:literal)*) => {
        [$(App {
            name: $name, about: $about, version: $version, port: $port, inner_port: $inner,
            file: include_str!(concat!("app/", $name, ".yaml")),
        }),*]
    };
}

const APPS: [App; 9] = apps! {
    "gitea" "1.22" 3001 3000 "Git repositories with a web page"
    "grafana" "11.2.0" 3000 3000 "graphs"
    "httpd" "2.4" 8080 80 "Apache: web pages"
    "mariadb" "11" 3306 3306 "a database"
    "nextcloud" "30" 8081 80 "files, calendars, contacts"
    "postgres" "17" 5432 5432 "a database"
    "redis" "7" 6379 6379 "a store of keys and values"
    "registry" "2" 5000 5000 "a registry of images"
    "wordpress" "6" 8080 80 "a blog, with its database"
};

impl Shown for App {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |it| Cell::text(it.name)),
        column("WHAT", |it| Cell::text(it.about)),
        column("VERSION", |it| Cell::text(it.version)),
        column("PORT", |it| Cell::text(it.port)),
        wide("INNER PORT", |it| Cell::text(it.inner_port)),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl App {
    fn find(name: &str) -> Result<&'static Self> {
        static ALL: [App; APPS.len()] = APPS;
        ALL.iter().find(|app| app.name == name).ok_or_else(|| {
            let failure = Failure::new(Code::NotFound, format!("there is no app {name:?}"));
            let names: Vec<&str> = ALL.iter().map(|app| app.name).collect();
            match control::resolve::closest(name, &names) {
                Some(meant) => failure.hint(format!("did you mean {meant:?}?")),
                None => failure.hint(
                    "`holm app list` shows those that there are; `holm run IMAGE` runs any other image",
                ),
            }
        })
    }

    /// The file with what was left open filled in.
    fn filled(&self, name: &str, port: u16, version: &str, secret: &str) -> String {
        let (text, port) = (self.file.replace("${name}", name), port.to_string());
        text.replace("${port}", &port).replace("${version}", version).replace("${secret}", secret)
    }

    fn has_secret(&self) -> bool {
        self.file.contains("${name}-login")
    }
}

/// Runs a verb.
///
/// # Errors
/// There is no such app, or as the server refuses.
pub async fn run(session: &Session, project: Option<&str>, verb: Verb) -> Result {
    match verb {
        Verb::List => session.printer.list(&APPS),
        Verb::Show(args) => {
            let app = App::find(&args.app)?;
            let text = app.filled(app.name, app.port, app.version, "change me");
            output::write(text.as_bytes())
        }
        Verb::Run(args) => play(session, project, &args).await,
        Verb::Delete(args) => remove(session, project, &args).await,
    }
}

async fn play(session: &Session, project: Option<&str>, args: &RunArgs) -> Result {
    let app = App::find(&args.app)?;
    let name = args.name.as_deref().unwrap_or(app.name);
    if dns_label(name, "") != name {
        return Err(Failure::usage(format!(
            "{name:?} is no name of an app: write small letters, digits and dashes"
        )));
    }
    let (port, version) = (args.port.unwrap_or(app.port), args.version.as_deref().unwrap_or(app.version));
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Failure::usage(format!("{version:?} is no tag of an image")));
    }
    let secret = hex(&rand::random::<[u8; SECRET_BYTES]>());
    let text = app.filled(name, port, version, &secret);
    let quiet = Session { quiet: true, ..session.clone() };
    let was_there = session.client.get::<Instance>(name).await.is_ok();
    kube::play_text(&quiet, project, app.name, &text, &args.wait).await?;
    let instance: Instance = session.client.get(name).await?;
    let group = open(session, app, name, &args.from).await?;
    join(session, &instance, &group).await?;
    session.say(format!("{} runs as {name} on port {port} of this machine", app.name));
    if app.has_secret() && !was_there {
        session.say(format!("its password, told this once: {secret}"));
    }
    session.printer.made(&instance)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn group_name(name: &str) -> String {
    format!("app-{name}")
}

/// The app's own group. One that is there is left as it is: somebody may have changed it.
async fn open(session: &Session, app: &App, name: &str, from: &str) -> Result<SecurityGroup> {
    let group = group_name(name);
    match session.client.get::<SecurityGroup>(&group).await {
        Ok(group) => return Ok(group),
        Err(error) if error.code() == Code::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let request = CreateSecurityGroup {
        name: group.clone(),
        description: format!("who may come to {name}"),
        labels: [(LABEL.to_string(), app.name.to_string())].into(),
        ..CreateSecurityGroup::default()
    };
    let made = session.client.create::<SecurityGroup>(&request, &WaitQuery::default()).await?;
    let rule = CreateRule {
        direction: Direction::Ingress,
        family: None,
        protocol: Some("tcp".into()),
        ports: Some(app.inner_port.to_string()),
        icmp_type: None,
        icmp_code: None,
        peer: Some(from.to_string()).filter(|from| from != "any"),
        peer_group: None,
        description: String::new(),
    };
    session.client.add_rule(&group, &rule).await?;
    Ok(made)
}

/// Puts the app's interfaces into its group, beside those that they are in.
async fn join(session: &Session, instance: &Instance, group: &SecurityGroup) -> Result {
    for port in &instance.ports {
        let id = port.id.to_string();
        let mut groups: Vec<String> = port.security_groups.iter().map(|of| of.id.to_string()).collect();
        if groups.contains(&group.head.id.to_string()) {
            continue;
        }
        groups.push(group.head.id.to_string());
        let request = UpdatePort { security_groups: Some(groups), ..UpdatePort::default() };
        session.client.update::<Port>(&id, &request, &WaitQuery::default()).await?;
    }
    Ok(())
}

async fn remove(session: &Session, project: Option<&str>, args: &RemoveArgs) -> Result {
    let group = group_name(&args.name);
    let no_app = || {
        Failure::new(Code::NotFound, format!("no app runs as {:?}", args.name))
            .hint("`holm ls` shows what runs")
    };
    let found = session.client.get::<SecurityGroup>(&group).await;
    let found =
        found.map_err(|error| if error.code() == Code::NotFound { no_app() } else { error.into() })?;
    let app = App::find(found.head.labels.get(LABEL).ok_or_else(no_app)?)?;
    let text = app.filled(&args.name, app.port, app.version, "gone");
    let quiet = Session { quiet: true, ..session.clone() };
    kube::down_text(&quiet, project, app.name, &text, args.force, &args.wait).await?;
    let gone = DeleteArgs { names: vec![group], yes: true, wait: args.wait.clone() };
    noun::delete_all::<SecurityGroup>(&quiet, &gone.names, &gone.wait).await?;
    let kept = if args.force { "" } else { "; its volumes are kept (`holm volume list`)" };
    session.say(format!("{} is gone{kept}", args.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_app_is_a_file_that_can_be_played() {
        for app in &APPS {
            let text = app.filled("some-name", 12_345, app.version, "0123");
            assert!(!text.contains("${"), "{}: {text}", app.name);
            let plan =
                model::kube::plan(&text, "default").unwrap_or_else(|error| panic!("{}: {error}", app.name));
            assert_eq!(plan.warnings, vec![], "{}", app.name);
            let [workload] = plan.workloads.as_slice() else { panic!("{}: one pod", app.name) };
            let pod = &workload.pods[0];
            assert_eq!(pod.name, "some-name");
            let [publish] = pod.publish.as_slice() else { panic!("{}: one port", app.name) };
            assert_eq!((publish.host_port, publish.port), (12_345, app.inner_port), "{}", app.name);
        }
        assert!(App::find("wordpres").unwrap_err().hint.contains("wordpress"));
    }
}
