//! `holm ps`: containers in docker's columns.

use super::{
    columns::{self, Columns, Listing},
    engine::{self, filters, flag, list, number, query, text},
    words,
};
use crate::cli::{failure::Result, session::Session};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest command that is shown without `--no-trunc`.
const COMMAND_MAX: usize = 20;

const WITH_SIZE: Columns = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
    ("SIZE", "Size"),
];
const ALL: Columns = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED", "RunningFor"),
    ("STATE", "State"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
    ("SIZE", "Size"),
    ("LABELS", "Labels"),
    ("MOUNTS", "Mounts"),
    ("NETWORKS", "Networks"),
    ("LOCAL VOLUMES", "LocalVolumes"),
];

/// What is listed.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Containers alone, in docker's columns; `holm ls` shows virtual machines and pods as well.\n-q prints ids alone."
)]
pub struct ListArgs {
    /// Those that do not run, too
    #[arg(long, short)]
    pub all: bool,
    /// Only those that fit: name=web, status=exited, label=a=b, ancestor=IMAGE, … (may be given several times)
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// The last ones that were made, of any state
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub last: Option<u32>,
    /// The last one that was made
    #[arg(long, short, conflicts_with = "last")]
    pub latest: bool,
    /// Cut nothing off
    #[arg(long)]
    pub no_trunc: bool,
    /// Sizes, too
    #[arg(long, short)]
    pub size: bool,
    /// A template like '{{.Names}}: {{.Status}}', `table` and a template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// `holm ps`.
///
/// # Errors
/// As the door refuses.
pub async fn run(session: &Session, args: &ListArgs) -> Result {
    let limit = if args.latest { Some(1) } else { args.last };
    let limit = limit.map(|count| count.to_string()).unwrap_or_default();
    let format = args.format.as_deref();
    let sized = args.size || format.is_some_and(|text| text.contains(".Size"));
    let filters = filters(&args.filter)?;
    let asked =
        query(&[("all", flag(args.all)), ("limit", &limit), ("size", flag(sized)), ("filters", &filters)]);
    let found = engine::get(session, &format!("/containers/json{asked}")).await?;
    let rows: Vec<Value> = found
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|container| row(container, !args.no_trunc, session.printer.now))
        .collect();
    // Sizes are the last column, and asked for: they take long to count.
    let columns = if args.size { WITH_SIZE.len() } else { WITH_SIZE.len() - 1 };
    let usual = &WITH_SIZE[..columns];
    columns::print(session, &Listing { usual, all: ALL, id: "ID", format }, &rows)
}

fn row(container: &Value, cuts: bool, now: Timestamp) -> Value {
    let id = text(container, "Id");
    let image = text(container, "Image");
    let image_id = text(container, "ImageID");
    let image = if cuts && words::short_id(image_id) == words::short_id(image) {
        words::short_id(image)
    } else {
        image.into()
    };
    let command = text(container, "Command");
    let command = if cuts { words::shortened(command, COMMAND_MAX) } else { command.to_string() };
    let names: Vec<&str> = list(container, "Names").iter().filter_map(Value::as_str).collect();
    let names: Vec<&str> = names.into_iter().map(|name| name.trim_start_matches('/')).collect();
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<&str> = networks.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mounts: Vec<String> = list(container, "Mounts")
        .iter()
        .map(|mount| if text(mount, "Name").is_empty() { text(mount, "Source") } else { text(mount, "Name") })
        .map(|name| if cuts { words::shortened(name, 15) } else { name.to_string() })
        .collect();
    let volumes = list(container, "Mounts").iter().filter(|mount| text(mount, "Driver") == "local").count();
    let created = number(container, "Created");
    json!({
        "ID": if cuts { words::short_id(id) } else { id.to_string() },
        "Image": image,
        "Command": format!("{command:?}"),
        "CreatedAt": words::moment(created),
        "RunningFor": words::ago(created, now),
        "State": text(container, "State"),
        "Status": text(container, "Status"),
        "Ports": ports(list(container, "Ports")),
        "Names": names.join(","),
        "Size": size(container),
        "Labels": engine::pairs(&container["Labels"]),
        "Mounts": mounts.join(","),
        "Networks": networks.join(","),
        "LocalVolumes": volumes.to_string(),
    })
}

fn size(container: &Value) -> String {
    let (own, all) = (number(container, "SizeRw"), number(container, "SizeRootFs"));
    let own = words::size(own as f64, 3);
    if all > 0 { format!("{own} (virtual {})", words::size(all as f64, 3)) } else { own }
}

/// Published and exposed ports, neighbours joined: `0.0.0.0:8088->80/tcp, 9000-9002/tcp`.
pub fn ports(all: &[Value]) -> String {
    let mut sorted: Vec<(i64, &str, i64, &str)> = all
        .iter()
        .map(|port| {
            (number(port, "PrivatePort"), text(port, "IP"), number(port, "PublicPort"), text(port, "Type"))
        })
        .collect();
    sorted.sort();
    let at = |ip: &str, port: &str| {
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let group = |(ip, kind): &(&str, &str), (first, last): (i64, i64)| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let range = if ip.is_empty() { range } else { format!("{}->{range}", at(ip, &range)) };
        format!("{range}/{kind}")
    };
    let mut open: Vec<((&str, &str), (i64, i64))> = vec![];
    let (mut told, mut mapped, mut places) = (vec![], vec![], BTreeMap::new());
    for (port, ip, public, kind) in sorted {
        if !ip.is_empty() && public != port {
            mapped.push(format!("{}->{port}/{kind}", at(ip, &public.to_string())));
            continue;
        }
        let place = *places.entry((ip, kind)).or_insert_with(|| {
            open.push(((ip, kind), (port, port)));
            open.len() - 1
        });
        let (key, range) = &mut open[place];
        if port == range.1 + 1 {
            range.1 = port;
        } else if *range != (port, port) {
            told.push(group(key, *range));
            *range = (port, port);
        }
    }
    told.extend(open.iter().map(|(key, range)| group(key, *range)));
    told.extend(mapped);
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_as_docker_does() {
        let port = |ip: &str, public: i64, own: i64| json!({"IP": ip, "PublicPort": public, "PrivatePort": own, "Type": "tcp"});
        let exposed = |own: i64| json!({"PrivatePort": own, "Type": "tcp"});
        for (all, text) in [
            (vec![], ""),
            (vec![exposed(80)], "80/tcp"),
            (vec![exposed(82), exposed(80), exposed(81), exposed(90)], "80-82/tcp, 90/tcp"),
            (
                vec![port("0.0.0.0", 8088, 80), port("::", 8088, 80)],
                "0.0.0.0:8088->80/tcp, [::]:8088->80/tcp",
            ),
            (vec![port("127.0.0.1", 80, 80), port("127.0.0.1", 81, 81)], "127.0.0.1:80-81->80-81/tcp"),
        ] {
            assert_eq!(ports(&all), text);
        }
    }
}
