//! `holm stats`: what containers use, once or again and again.

use super::{
    columns::{self, Columns, Listing},
    engine::{self, flag, number, path, query, text},
    words,
};
use crate::cli::{completion, failure::Result, output, session::Session};
use futures::future::join_all;
use serde_json::{Value, json};

const COLUMNS: Columns = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// Whose use.
#[derive(Debug, Clone, clap::Args)]
pub struct StatsArgs {
    /// Names, ids or beginnings of ids [default: all that run]
    #[arg(value_name = "CONTAINER", add = completion::names("instances"))]
    pub names: Vec<String>,
    /// Those that do not run, too
    #[arg(long, short)]
    pub all: bool,
    /// Once
    #[arg(long)]
    pub no_stream: bool,
    /// Cut nothing off
    #[arg(long)]
    pub no_trunc: bool,
    /// A template like '{{.Name}}: {{.CPUPerc}}', `table` and a template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// Shows it. Each look takes a second, in which it is measured.
///
/// # Errors
/// As the door refuses.
pub async fn run(session: &Session, args: &StatsArgs) -> Result {
    let is_seen = session.stdout_is_terminal && !args.no_stream && args.format.is_none();
    loop {
        let names = match args.names.as_slice() {
            [] => all(session, args.all).await?,
            names => names.to_vec(),
        };
        let looks = names.iter().map(async |name| {
            let asked = query(&[("stream", "0")]);
            engine::get(session, &format!("{}{asked}", path(&["containers", name, "stats"]))).await
        });
        let mut rows = vec![];
        for look in join_all(looks).await {
            match look {
                Ok(value) => rows.push(row(&value, !args.no_trunc)),
                // One of all may have gone meanwhile; one that was named is to be there.
                Err(failure) if !args.names.is_empty() => return Err(failure),
                Err(_) => {}
            }
        }
        if is_seen {
            output::write(b"\x1b[2J\x1b[H")?;
        }
        let listing = Listing { usual: COLUMNS, all: COLUMNS, id: "ID", format: args.format.as_deref() };
        columns::print(session, &listing, &rows)?;
        if args.no_stream {
            return Ok(());
        }
        if rows.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

async fn all(session: &Session, everyone: bool) -> Result<Vec<String>> {
    let asked = query(&[("all", flag(everyone))]);
    let found = engine::get(session, &format!("/containers/json{asked}")).await?;
    Ok(found.as_array().into_iter().flatten().map(|one| text(one, "Id").to_string()).collect())
}

fn row(told: &Value, cuts: bool) -> Value {
    let memory = &told["memory_stats"];
    let (used, limit) = (number(memory, "usage"), number(memory, "limit"));
    let cache =
        number(&memory["stats"], "inactive_file").max(number(&memory["stats"], "total_inactive_file"));
    let used = (used - cache).max(0) as f64;
    let share = if limit > 0 { used * 100.0 / limit as f64 } else { 0.0 };
    let id = text(told, "id");
    let interfaces = || told["networks"].as_object().into_iter().flat_map(|all| all.values());
    let bytes = |of: &str| interfaces().filter_map(|one| one[of].as_f64()).sum::<f64>();
    let disks = || told["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten();
    let passed = |operation: &str| {
        let of = disks().filter(|one| text(one, "op").eq_ignore_ascii_case(operation));
        of.filter_map(|one| one["value"].as_f64()).sum::<f64>()
    };
    json!({
        "Container": text(told, "id"),
        "ID": if cuts { words::short_id(id) } else { id.to_string() },
        "Name": text(told, "name").trim_start_matches('/'),
        "CPUPerc": format!("{:.2}%", cpu_share(told)),
        "MemUsage": format!("{} / {}", words::binary_size(used), words::binary_size(limit as f64)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": format!("{} / {}", words::size(bytes("rx_bytes"), 3), words::size(bytes("tx_bytes"), 3)),
        "BlockIO": format!("{} / {}", words::size(passed("read"), 3), words::size(passed("write"), 3)),
        "PIDs": number(&told["pids_stats"], "current").to_string(),
    })
}

/// Per cent of one CPU, from two looks.
fn cpu_share(told: &Value) -> f64 {
    let total = |of: &str| told[of]["cpu_usage"]["total_usage"].as_f64().unwrap_or(0.0);
    let host = |of: &str| told[of]["system_cpu_usage"].as_f64().unwrap_or(0.0);
    let (used, could) =
        (total("cpu_stats") - total("precpu_stats"), host("cpu_stats") - host("precpu_stats"));
    let cpus = told["cpu_stats"]["online_cpus"].as_f64().unwrap_or(1.0);
    if used > 0.0 && could > 0.0 { used / could * cpus * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_one_cpu() {
        let told = json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2_000, "online_cpus": 4},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1_000},
            "memory_stats": {"usage": 3 << 20, "limit": 4 << 20, "stats": {"inactive_file": 1 << 20}},
            "networks": {"eth0": {"rx_bytes": 1_500, "tx_bytes": 40}, "eth1": {"rx_bytes": 1_000, "tx_bytes": 2}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": "read", "value": 12_300}, {"major": 0, "minor": 0, "op": "write", "value": 4_000_000},
            ]},
            "name": "/web", "id": "0123456789abcdef", "pids_stats": {"current": 2},
        });
        let row = row(&told, true);
        let texts = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
            .map(|field| text(&row, field));
        assert_eq!(
            texts,
            ["0123456789ab", "web", "80.00%", "2MiB / 4MiB", "50.00%", "2.5kB / 42B", "12.3kB / 4MB", "2"]
        );
    }
}
