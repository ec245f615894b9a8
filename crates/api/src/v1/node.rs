//! Nodes.

use super::{
    audit::{deed, note_as},
    routes::{Doc, Routes},
    types::{
        List,
        node::{Node as View, NodeStatus as StatusView, NodeUse, UpdateNode},
    },
};
use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    request::Input,
};
use axum::{
    Json,
    extract::{Path, State},
    http::Method,
};
use control::{Control, capacity::Promised};
use model::{
    error::Code,
    node::{Node, NodeStatus},
};

/// Adds the routes of nodes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "nodes";
    routes
        .add(Method::GET, "/v1/nodes", tag, Doc::new("List").page::<View>(200, "All hosts."), list)
        .add(Method::GET, "/v1/nodes/{ref}", tag, Doc::new("Show one").answer::<View>(200, "The host."), show)
        .add(
            Method::PATCH,
            "/v1/nodes/{ref}",
            tag,
            Doc::new("Let a host take new instances or not")
                .details("Admin only.")
                .input::<UpdateNode>()
                .answer::<View>(200, "The host."),
            update,
        )
}

fn view(node: &Node, status: Option<&NodeStatus>, used: NodeUse) -> View {
    View {
        id: node.id.0,
        name: node.name.to_string(),
        schedulable: node.schedulable,
        created_at: node.created_at,
        status: status.map(status_view),
        used,
    }
}

fn status_view(status: &NodeStatus) -> StatusView {
    StatusView {
        arch: status.arch.clone(),
        kernel: status.kernel.clone(),
        os: status.os.clone(),
        version: status.version.clone(),
        cpus: status.cpus,
        memory_mib: status.memory_mib,
        disk_gib: status.disk_gib,
        disk_free_gib: status.disk_free_gib,
        accelerator: status.accelerator.clone(),
        accelerator_reason: status.accelerator_reason.clone(),
        qemu: status.qemu.clone(),
        facts: status.facts.clone(),
        at: status.at,
    }
}

fn use_view(promised: Promised) -> NodeUse {
    let Promised { instances, vcpus, memory_mib, disk_gib, running: _ } = promised;
    NodeUse { instances, vcpus, memory_mib, disk_gib }
}

fn views(control: &Control) -> Vec<View> {
    let promised = control.promised();
    let all = control.nodes();
    all.iter()
        .map(|(node, status)| {
            let promised = promised.get(&node.record.id).copied().unwrap_or_default();
            view(&node.record, status.as_ref().map(|s| &s.record), use_view(promised))
        })
        .collect()
}

async fn list(State(app): State<App>, Asker(_): Asker) -> Result<Json<List<View>>> {
    Ok(Json(List { items: views(app.control()), next: None }))
}

fn one(control: &Control, reference: &str) -> Result<View> {
    let prefix = reference.to_ascii_lowercase();
    let mut fits: Vec<View> = views(control)
        .into_iter()
        .filter(|node| {
            node.name == reference || prefix.len() >= 4 && node.id.to_string().starts_with(&prefix)
        })
        .collect();
    if fits.len() > 1 {
        return Err(Failure::new(Code::Conflict, format!("{} nodes are meant by {reference:?}", fits.len())));
    }
    fits.pop().ok_or_else(|| {
        Failure::new(Code::NotFound, format!("no node {reference:?}")).hint("`holm node list` shows them")
    })
}

async fn show(State(app): State<App>, Asker(_): Asker, Path(reference): Path<String>) -> Result<Json<View>> {
    one(app.control(), &reference).map(Json)
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Input(input): Input<UpdateNode>,
) -> Result<Json<View>> {
    let id = one(app.control(), &reference)?.id.to_string();
    if let Some(schedulable) = input.schedulable {
        let outcome = app.control().set_node_schedulable(&caller, &id, schedulable).await;
        let subject = |node: &Node| (node.id.to_string(), node.name.to_string());
        note_as(&app, &caller, deed("update", "node", &reference), outcome, subject).await?;
    }
    one(app.control(), &id).map(Json)
}
