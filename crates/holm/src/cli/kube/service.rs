//! Services of a file: each is a port of the project's own network whose traffic is spread over the pods.

use super::OBJECT;
use crate::cli::{
    failure::{Failure, Result},
    session::Session,
};
use api::v1::types::{
    list::{ListQuery, WaitQuery},
    port::{CreatePort, Port, Spread, SpreadPort, UpdatePort},
};
use model::{
    error::Code,
    kube::service::{Service, names, pods_name},
    meta::Labels,
    port::alias::Alias,
};

/// Kind and name, like `service/shop`.
pub fn reference(service: &Service) -> String {
    format!("service/{}", service.name)
}

/// Brings a Service about. Tells what was done in a word. What is there keeps its address.
///
/// # Errors
/// As the server refuses.
pub async fn settle(session: &Session, service: &Service) -> Result<&'static str> {
    let parse = |name: String| name.parse::<Alias>().map_err(Failure::usage);
    let aliases = names(&service.name).into_iter().map(parse).collect::<Result<Vec<Alias>>>()?;
    let ports = service.ports.iter().map(|port| SpreadPort {
        port: port.port,
        to: port.to,
        protocol: port.protocol.to_string(),
    });
    let spread = Spread { over: parse(pods_name(&service.name))?, ports: ports.collect() };
    let there = made_of(session, service).await?;
    let Some(port) = there.first() else {
        let request = CreatePort {
            labels: Labels::from([(OBJECT.to_string(), reference(service))]),
            security_groups: Some(vec![]),
            aliases,
            spread: Some(spread),
            ..CreatePort::default()
        };
        session.client.create::<Port>(&request, &WaitQuery::default()).await?;
        return Ok("created");
    };
    if port.aliases == aliases && port.spread.as_ref() == Some(&spread) {
        return Ok("unchanged");
    }
    let request = UpdatePort { aliases: Some(aliases), spread: Some(Some(spread)), ..UpdatePort::default() };
    session.client.update::<Port>(&port.head.id.to_string(), &request, &WaitQuery::default()).await?;
    Ok("changed")
}

/// Deletes what was made of a Service. Tells what was done in a word.
///
/// # Errors
/// As the server refuses.
pub async fn drop(session: &Session, service: &Service) -> Result<&'static str> {
    let there = made_of(session, service).await?;
    for port in &there {
        match session.client.delete::<Port>(&port.head.id.to_string(), &WaitQuery::default()).await {
            Err(error) if error.code() != Code::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(if there.is_empty() { "is not there" } else { "deleted" })
}

async fn made_of(session: &Session, service: &Service) -> Result<Vec<Port>> {
    let label = Some(format!("{OBJECT}={}", reference(service)));
    Ok(session.client.list_all(&ListQuery { label, ..ListQuery::default() }).await?)
}
