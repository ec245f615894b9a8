//! `holm publish`, `holm unpublish` and `holm exposed`: ports of the host that lead to instances, changed while these
//! run, and the list of all that can be reached from outside.

use super::{
    completion,
    failure::{Failure, Result},
    noun,
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    instance::{Instance, UpdateInstance},
    list::WaitQuery,
    publish::{Exposed, PublishedPort, UnpublishPort},
};
use std::net::IpAddr;

/// Most ports of one range.
const RANGE_MAX: u16 = 128;

/// Ports to publish.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Ports: [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp|sctp]; without HOST_PORT a free one is chosen
    #[arg(required = true, value_name = "PORT")]
    pub ports: Vec<String>,
}

/// Ports to take back.
#[derive(Debug, Clone, clap::Args)]
pub struct UnpublishArgs {
    /// Name, id or unique beginning of an id
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Ports of the host: [ADDRESS:]HOST_PORT[/tcp|udp|sctp]
    #[arg(required_unless_present = "all", value_name = "HOST_PORT")]
    pub ports: Vec<String>,
    /// All that it publishes
    #[arg(long, conflicts_with = "ports")]
    pub all: bool,
}

/// What to list.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ExposedArgs {
    /// Of this instance alone
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: Option<String>,
    /// Of all projects (admin only)
    #[arg(long, short = 'A')]
    pub all_projects: bool,
}

impl Shown for Exposed {
    const COLUMNS: &'static [Column<Self>] = &[
        column("OUTSIDE", |e| Cell::text(outside(e))),
        column("INSTANCE", |e| Cell::maybe(e.instance.as_ref().map(|i| &i.name))),
        column("PORT", |e| Cell::maybe(e.inner_port.map(|p| p.to_string()).or(e.ports.clone()))),
        column("FROM", |e| {
            Cell::text(if e.from.is_empty() { "nowhere (security groups)".into() } else { e.from.join(",") })
        }),
        column("BY", |e| Cell::text(if e.way == "published" { "published port" } else { "floating IP" })),
        wide("PROJECT", |e| Cell::text(&e.project.name)),
        wide("NETWORK PORT", |e| Cell::text(&e.port.name)),
    ];

    fn name(&self) -> String {
        outside(self)
    }
}

/// Address, ports and protocol as people write them.
fn outside(e: &Exposed) -> String {
    let protocol = e.protocol.as_deref().unwrap_or("any");
    let host = match e.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    match (&e.ports, e.icmp_type) {
        (Some(ports), _) => format!("{host}:{ports}/{protocol}"),
        (None, Some(kind)) => format!("{host} {protocol} type {kind}"),
        (None, None) => format!("{host} {protocol}"),
    }
}

/// As `docker ps` shows it: `0.0.0.0:8080->80/tcp`.
pub fn arrow(port: &PublishedPort) -> String {
    let host = match port.address {
        None => String::new(),
        Some(IpAddr::V4(address)) => format!("{address}:"),
        Some(IpAddr::V6(address)) => format!("[{address}]:"),
    };
    format!("{host}{}->{}/{}", port.host_port, port.port, port.protocol)
}

/// Reads `[[ADDRESS:]HOST_PORT:]PORT[/PROTOCOL]`; both ports may be ranges of the same length.
///
/// # Errors
/// Says what is understood.
pub fn parse(text: &str) -> Result<Vec<PublishedPort>> {
    let wrong = || {
        Failure::usage(format!(
            "{text:?} is not a port to publish: write [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp|sctp], like 8080:80 or 127.0.0.1:5432:5432"
        ))
    };
    let (rest, protocol) = split_protocol(text);
    let (rest, port) = match rest.rsplit_once(':') {
        Some((rest, port)) => (Some(rest), port),
        None => (None, rest),
    };
    let (address, host_port) = match rest {
        None => (None, None),
        Some(rest) => split_address(rest).ok_or_else(wrong)?,
    };
    let inner = range(port).filter(|(first, _)| *first > 0).ok_or_else(wrong)?;
    let outer = match host_port {
        None | Some("") => None,
        Some(text) => Some(range(text).ok_or_else(wrong)?),
    };
    if let Some(outer) = outer
        && (outer.1 - outer.0 != inner.1 - inner.0 || (outer.0 == 0 && outer.1 > 0))
    {
        return Err(wrong());
    }
    let one = |step: u16| PublishedPort {
        address,
        host_port: outer.map_or(0, |(first, _)| first + step),
        port: inner.0 + step,
        protocol: protocol.to_string(),
    };
    Ok((0..=inner.1 - inner.0).map(one).collect())
}

fn split_protocol(text: &str) -> (&str, &str) {
    text.rsplit_once('/').unwrap_or((text, "tcp"))
}

/// Splits `ADDRESS:REST` or `REST`; an IPv6 address stands in brackets.
fn split_address(text: &str) -> Option<(Option<IpAddr>, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let rest = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
        return Some((Some(address.parse().ok()?), Some(rest)));
    }
    match text.split_once(':') {
        Some((address, rest)) => Some((Some(address.parse().ok()?), Some(rest))),
        None => Some((None, Some(text))),
    }
}

/// Reads `80` or `8000-8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last - first < RANGE_MAX).then_some((first, last))
}

fn parse_gone(text: &str) -> Result<UnpublishPort> {
    let wrong = || {
        Failure::usage(format!(
            "{text:?} is not a published port: write [ADDRESS:]HOST_PORT[/tcp|udp|sctp], like 8080 or 53/udp"
        ))
    };
    let (rest, protocol) = split_protocol(text);
    let (address, port) = split_address(rest).ok_or_else(wrong)?;
    Ok(UnpublishPort {
        address,
        host_port: port.and_then(|p| p.parse().ok()).ok_or_else(wrong)?,
        protocol: protocol.to_string(),
    })
}

/// `holm publish`.
///
/// # Errors
/// As the server refuses.
pub async fn publish(session: &Session, args: &PublishArgs) -> Result {
    let mut add = Vec::new();
    for text in &args.ports {
        add.extend(parse(text)?);
    }
    let request = UpdateInstance { publish_add: add, ..UpdateInstance::default() };
    let changed = update(session, &args.instance, &request).await?;
    let all: Vec<String> = changed.publish.iter().map(arrow).collect();
    noun::tell(session, &changed, &format!("publishes {}", all.join(", ")))?;
    warn_of_closed(session, &changed).await
}

/// Publishing opens nothing: say so where nobody gets in.
pub async fn warn_of_closed(session: &Session, instance: &Instance) -> Result {
    let name = &instance.head.name;
    let exposed = session.client.exposed(Some(name), None).await?;
    let mut told = std::collections::BTreeSet::new();
    for closed in exposed.iter().filter(|e| e.way == "published" && !e.open) {
        let (Some(port), Some(protocol)) = (closed.inner_port, &closed.protocol) else {
            continue;
        };
        if told.insert((port, protocol.clone())) {
            let group = instance
                .ports
                .iter()
                .flat_map(|p| &p.security_groups)
                .next()
                .map_or("GROUP", |g| g.name.as_str());
            session.say(format!(
                "note: no rule of its security groups lets anybody in on port {port}/{protocol}"
            ));
            session.next(format!("holm security-group rule add {group} {protocol} {port}"));
        }
    }
    Ok(())
}

/// `holm unpublish`.
///
/// # Errors
/// As the server refuses.
pub async fn unpublish(session: &Session, args: &UnpublishArgs) -> Result {
    let gone = args.ports.iter().map(|text| parse_gone(text));
    let request = UpdateInstance {
        publish: args.all.then(Vec::new),
        publish_remove: gone.collect::<Result<_>>()?,
        ..UpdateInstance::default()
    };
    let changed = update(session, &args.instance, &request).await?;
    let all: Vec<String> = changed.publish.iter().map(arrow).collect();
    let what = if all.is_empty() {
        "publishes nothing".to_string()
    } else {
        format!("publishes {}", all.join(", "))
    };
    noun::tell(session, &changed, &what)
}

async fn update(session: &Session, instance: &str, request: &UpdateInstance) -> Result<Instance> {
    Ok(session.client.update::<Instance>(instance, request, &WaitQuery::default()).await?)
}

/// `holm exposed`.
///
/// # Errors
/// As the server refuses.
pub async fn exposed(session: &Session, args: &ExposedArgs) -> Result {
    let project = args.all_projects.then_some("*");
    let all = session.client.exposed(args.instance.as_deref(), project).await?;
    if all.is_empty() && session.printer.format.is_none() && session.stdout_is_terminal {
        session.say("nothing can be reached from outside");
        return Ok(());
    }
    session.printer.list(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        for (text, wanted) in [
            ("80", "0->80/tcp"),
            ("8080:80", "8080->80/tcp"),
            ("0:80", "0->80/tcp"),
            ("53:53/udp", "53->53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0->80/tcp"),
            ("[::1]:8080:80", "[::1]:8080->80/tcp"),
            ("8000-8001:80-81", "8000->80/tcp 8001->81/tcp"),
        ] {
            let all: Vec<String> = parse(text).unwrap().iter().map(arrow).collect();
            assert_eq!(all.join(" "), wanted, "{text}");
        }
        for bad in
            ["", "web", "0", "8080:0", "8080:80:81", "8000-8001:80", "::1:80:80", "99999:80", "1:2:3:4"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let gone = parse_gone("[::1]:53/udp").unwrap();
        assert_eq!((gone.host_port, gone.protocol.as_str()), (53, "udp"));
        assert!(parse_gone("x").is_err());
    }
}
