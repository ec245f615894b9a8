//! Docker's small verbs for containers: rename, wait, unpause, port, top, diff, update, commit, export.

use super::{
    archive,
    columns::aligned,
    engine::{self, list, number, path, query, text},
    words,
};
use crate::cli::{
    completion,
    failure::{Failure, Result},
    noun::for_each,
    output,
    session::Session,
};
use model::error::Code;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Narrowest column of `top`, as docker sets it.
const TOP_COLUMN_MIN: usize = 20;

/// Containers.
#[derive(Debug, Clone, clap::Args)]
pub struct NamesArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER", add = completion::names("instances"))]
    pub names: Vec<String>,
}

/// One container.
#[derive(Debug, Clone, clap::Args)]
pub struct NameArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER", add = completion::names("instances"))]
    pub name: String,
}

/// Another name.
#[derive(Debug, Clone, clap::Args)]
pub struct RenameArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER", add = completion::names("instances"))]
    pub name: String,
    /// The new name
    #[arg(value_name = "NEW_NAME")]
    pub new: String,
}

/// Which processes.
#[derive(Debug, Clone, clap::Args)]
pub struct TopArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER", add = completion::names("instances"))]
    pub name: String,
    /// Options of ps
    #[arg(value_name = "PS_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// What becomes different.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "`holm set` changes more: labels, ports, times, names, VMs.")]
pub struct UpdateArgs {
    #[command(flatten)]
    pub names: NamesArgs,
    /// Memory: 512m, 2g
    #[arg(long, short, value_name = "SIZE", value_parser = words::parse_bytes)]
    pub memory: Option<u64>,
    /// CPUs: 0.5, 2
    #[arg(long, value_name = "COUNT")]
    pub cpus: Option<f64>,
    /// Part of the CPUs when they are short; 1024 is usual
    #[arg(long, short, value_name = "WEIGHT")]
    pub cpu_shares: Option<u32>,
    /// Most processes and threads
    #[arg(long, value_name = "COUNT")]
    pub pids_limit: Option<u32>,
    /// When it ends by itself: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
}

/// What becomes an image.
#[derive(Debug, Clone, clap::Args)]
pub struct CommitArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER", add = completion::names("instances"))]
    pub container: String,
    /// Name of the image: shop/web:1
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub name: Option<String>,
    /// Who made it
    #[arg(long, short, value_name = "AUTHOR", default_value = "", hide_default_value = true)]
    pub author: String,
    /// Change as a Dockerfile writes it, like 'CMD ["serve"]' (may be given several times)
    #[arg(long, short, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Why
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
    /// Freeze it meanwhile: true or false
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub pause: bool,
}

/// `holm rename`.
///
/// # Errors
/// As the door refuses.
pub async fn rename(session: &Session, args: &RenameArgs) -> Result {
    let path = path(&["containers", &args.name, "rename"]);
    engine::post(session, &format!("{path}{}", query(&[("name", &args.new)])), None).await.map(drop)
}

/// `holm wait`: prints the exit code of each.
///
/// # Errors
/// As the door refuses.
pub async fn wait(session: &Session, args: &NamesArgs) -> Result {
    for_each(session, &args.names, async |name| {
        let ended = engine::post(session, &path(&["containers", &name, "wait"]), None).await?;
        output::write(format!("{}\n", number(&ended, "StatusCode")).as_bytes())
    })
    .await
}

/// `holm unpause`.
///
/// # Errors
/// As the door refuses.
pub async fn unpause(session: &Session, args: &NamesArgs) -> Result {
    for_each(session, &args.names, async |name| {
        engine::post(session, &path(&["containers", &name, "unpause"]), None).await?;
        output::write(format!("{name}\n").as_bytes())
    })
    .await
}

/// `holm port CONTAINER [PORT]`, as docker has it: where its published ports are.
///
/// # Errors
/// As the door refuses; the port is not published.
pub async fn published(session: &Session, words: &[String]) -> Result {
    let (name, asked) = match words {
        [name] => (name, None),
        [name, port] => (name, Some(port)),
        _ => return Err(Failure::usage("write `holm port CONTAINER [PORT[/PROTOCOL]]`")),
    };
    let found = engine::get(session, &path(&["containers", name, "json"])).await.map_err(|failure| {
        if failure.exit == Code::NotFound.exit_code() && failure.hint.is_empty() {
            return failure.hint("`holm port --help` names the verbs of ports, `holm ps -a` the containers");
        }
        failure
    })?;
    let ports = &found["NetworkSettings"]["Ports"];
    let at = |binding: &Value| {
        let (ip, port) = (text(binding, "HostIp"), text(binding, "HostPort"));
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let mut lines = String::new();
    match asked {
        Some(asked) => {
            let key = if asked.contains('/') { asked.clone() } else { format!("{asked}/tcp") };
            let bindings = list(ports, &key);
            if bindings.is_empty() {
                let message = format!("no public port '{key}' published for {name}");
                return Err(Failure::new(Code::NotFound, message)
                    .hint(format!("`holm publish {name} PORT` publishes one, while it runs")));
            }
            lines.extend(bindings.iter().map(|binding| at(binding) + "\n"));
        }
        None => {
            let mut all: Vec<(u32, String)> = vec![];
            for (key, bindings) in ports.as_object().into_iter().flatten() {
                let number = key.split('/').next().and_then(|text| text.parse().ok()).unwrap_or(0);
                let bindings = bindings.as_array().into_iter().flatten();
                all.extend(bindings.map(|binding| (number, format!("{key} -> {}\n", at(binding)))));
            }
            all.sort_by_key(|(number, _)| *number);
            lines.extend(all.into_iter().map(|(_, line)| line));
        }
    }
    output::write(lines.as_bytes())
}

/// `holm top`.
///
/// # Errors
/// As the door refuses.
pub async fn top(session: &Session, args: &TopArgs) -> Result {
    let asked = query(&[("ps_args", &args.options.join(" "))]);
    let found = engine::get(session, &format!("{}{asked}", path(&["containers", &args.name, "top"]))).await?;
    let row = |value: &Value| -> Vec<String> {
        let cells = value.as_array().into_iter().flatten();
        cells.map(|cell| cell.as_str().unwrap_or_default().to_string()).collect()
    };
    let mut rows = vec![row(&found["Titles"])];
    rows.extend(list(&found, "Processes").iter().map(row));
    // Cells that are as wide as docker's narrowest column is come out as docker sets them.
    for row in &mut rows {
        let last = row.len().saturating_sub(1);
        for cell in &mut row[..last] {
            *cell = format!("{cell:<width$}", width = TOP_COLUMN_MIN - 3);
        }
    }
    output::write(aligned(rows).as_bytes())
}

/// `holm diff`.
///
/// # Errors
/// As the door refuses.
pub async fn diff(session: &Session, args: &NameArgs) -> Result {
    let found = engine::get(session, &path(&["containers", &args.name, "changes"])).await?;
    let mut lines = String::new();
    for change in found.as_array().into_iter().flatten() {
        let kind = ["C", "A", "D"].get(usize::try_from(number(change, "Kind")).unwrap_or(0)).unwrap_or(&"C");
        lines.push_str(&format!("{kind} {}\n", text(change, "Path")));
    }
    output::write(lines.as_bytes())
}

/// `holm update`.
///
/// # Errors
/// As the door refuses.
pub async fn update(session: &Session, args: &UpdateArgs) -> Result {
    let mut asked = json!({});
    if let Some(bytes) = args.memory {
        asked["Memory"] = json!(bytes);
    }
    if let Some(cpus) = args.cpus {
        asked["NanoCpus"] = json!((cpus * 1e9).round() as i64);
    }
    if let Some(weight) = args.cpu_shares {
        asked["CpuShares"] = json!(weight);
    }
    if let Some(count) = args.pids_limit {
        asked["PidsLimit"] = json!(count);
    }
    if let Some(policy) = &args.restart {
        let (name, count) = policy.split_once(':').unwrap_or((policy, "0"));
        let count: u32 = count.parse().map_err(|_| {
            Failure::usage(format!("--restart {policy}: {count:?} is no number")).hint("write on-failure:5")
        })?;
        asked["RestartPolicy"] = json!({"Name": name, "MaximumRetryCount": count});
    }
    if asked == json!({}) {
        return Err(Failure::usage("you must provide one or more flags when using this command")
            .hint("--help names them; `holm set` changes more"));
    }
    for_each(session, &args.names.names, async |name| {
        let told =
            engine::post(session, &path(&["containers", &name, "update"]), Some(asked.clone())).await?;
        for warning in list(&told, "Warnings").iter().filter_map(Value::as_str) {
            session.warn(warning);
        }
        output::write(format!("{name}\n").as_bytes())
    })
    .await
}

/// `holm commit`.
///
/// # Errors
/// As the door refuses.
pub async fn commit(session: &Session, args: &CommitArgs) -> Result {
    let (repository, tag) = args.name.as_deref().map_or(("", ""), super::image::split_tag);
    let pause = if args.pause { "1" } else { "0" };
    let mut asked = query(&[
        ("container", &args.container),
        ("repo", repository),
        ("tag", tag),
        ("comment", &args.message),
        ("author", &args.author),
        ("pause", pause),
    ]);
    for change in &args.change {
        asked.push_str(&query(&[("changes", change)]).replacen('?', "&", 1));
    }
    let made = engine::post(session, &format!("/commit{asked}"), Some(json!({}))).await?;
    output::write(format!("{}\n", text(&made, "Id")).as_bytes())
}

/// `holm export`.
///
/// # Errors
/// As the door refuses; the file cannot be written.
pub async fn export(session: &Session, args: &NameArgs, file: Option<PathBuf>) -> Result {
    archive::fetch(session, &path(&["containers", &args.name, "export"]), file).await
}
