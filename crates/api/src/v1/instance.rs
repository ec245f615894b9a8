//! Instances.

mod action;
mod content;
mod make;
mod publish;
mod renew;
mod save;
mod sessions;
mod streams;
mod view;

pub(super) use make::translate;

use super::{
    audit::{deed, note},
    described::describe,
    routes::{Doc, Routes},
    served::{answer, check_wait, farewell},
    types::{
        instance::{AttachPort, AttachVolume, CreateInstance, Instance as View, UpdateInstance},
        list::WaitQuery,
        stream::{AttachQuery, ConsoleLogQuery, ConsoleQuery, ExecRequest, LogLine, LogQuery},
    },
};
use crate::{
    app::{App, Asker},
    client::Verb,
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{
    Error,
    instance::{check_tags, resize::NewSize},
};
use jiff::Timestamp;
use model::{
    error::Code,
    instance::{GRACE_S_MAX, Instance},
    schedule::Schedule,
};

/// Adds the routes of instances.
pub fn routes(routes: Routes) -> Routes {
    let tag = "instances";
    let routes = routes
        .collection::<Instance>()
        .add(
            Method::POST,
            "/v1/instances",
            tag,
            Doc::new("Make an instance")
                .details("With its ports, volumes and floating IP, in one step or not at all.")
                .wait()
                .input::<CreateInstance>()
                .answer::<View>(201, "Made; it starts unless told otherwise."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/instances/{ref}",
            tag,
            Doc::new("Change an instance").wait().input::<UpdateInstance>().answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/instances/{ref}",
            tag,
            Doc::new("Delete an instance")
                .details("Ports and volumes that were made along with it go too.")
                .wait()
                .answer::<View>(202, "It is going.")
                .empty(204, "Gone."),
            delete,
        );
    stream_routes(part_routes(save::routes(renew::routes(action::verb_routes(routes)))))
}

fn part_routes(routes: Routes) -> Routes {
    let tag = "instances";
    routes
        .add(
            Method::POST,
            "/v1/instances/{ref}/ports",
            tag,
            Doc::new("Plug a network interface in")
                .details("While it runs too.")
                .wait()
                .input::<AttachPort>()
                .answer::<View>(200, "The instance."),
            action::attach_port,
        )
        .add(
            Method::DELETE,
            "/v1/instances/{ref}/ports/{port}",
            tag,
            Doc::new("Unplug a network interface")
                .details("Done when the guest let go of it.")
                .wait()
                .answer::<View>(200, "The instance."),
            action::detach_port,
        )
        .add(
            Method::POST,
            "/v1/instances/{ref}/volumes",
            tag,
            Doc::new("Plug a volume in")
                .details("One that exists, or a new one of `size_gib`. While it runs too.")
                .wait()
                .input::<AttachVolume>()
                .answer::<View>(200, "The instance."),
            action::attach_volume,
        )
        .add(
            Method::DELETE,
            "/v1/instances/{ref}/volumes/{volume}",
            tag,
            Doc::new("Unplug a volume")
                .details("Done when the guest let go of it.")
                .wait()
                .answer::<View>(200, "The instance."),
            action::detach_volume,
        )
}

const UPGRADE: &str =
    "Ask with `Connection: Upgrade` and `Upgrade: holm-stream`; after `101` bytes flow both ways.";
const FRAMES: &str = "Ask with `Connection: Upgrade` and `Upgrade: holm-stream`; after `101` both sides send frames: one byte type \
(0 stdin, 1 stdout, 2 stderr, 3 resize, 4 exit, 5 error, 6 signal), four bytes length in network order, then as many bytes.";

fn stream_routes(routes: Routes) -> Routes {
    let tag = "instances";
    routes
        .add(
            Method::GET,
            "/v1/instances/{ref}/console-log",
            tag,
            Doc::new("Show the end of the console's log").query::<ConsoleLogQuery>().bytes_out(
                200,
                "text/plain",
                "As the console showed it.",
            ),
            streams::console_log,
        )
        .add(
            Method::GET,
            "/v1/instances/{ref}/logs",
            tag,
            Doc::new("Show a container's log").query::<LogQuery>().lines::<LogLine>(200, "One line each."),
            streams::logs,
        )
        .add(
            Method::GET,
            "/v1/instances/{ref}/console",
            tag,
            Doc::new("Open the console").details(UPGRADE).query::<ConsoleQuery>().empty(101, "Bytes follow."),
            streams::console,
        )
        .add(
            Method::GET,
            "/v1/instances/{ref}/vnc",
            tag,
            Doc::new("Open the screen (RFB)").details(UPGRADE).empty(101, "Bytes follow."),
            streams::vnc,
        )
        .add(
            Method::POST,
            "/v1/instances/{ref}/exec",
            tag,
            Doc::new("Run a program in a container")
                .details(FRAMES)
                .input::<ExecRequest>()
                .empty(101, "Frames follow."),
            sessions::exec,
        )
        .add(
            Method::GET,
            "/v1/instances/{ref}/attach",
            tag,
            Doc::new("Join a container's own program")
                .details(FRAMES)
                .query::<AttachQuery>()
                .empty(101, "Frames follow."),
            sessions::attach,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateInstance>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let outcome = make::make(app.control(), &caller, &input).await;
    let made = note(&app, &caller, deed("create", "instance", &input.name), outcome).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateInstance>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let act = async {
        let control = app.control();
        let id = control.find_own::<Instance>(&caller, &reference, "changing an instance")?.record.meta.id;
        let id = id.to_string();
        let size = NewSize {
            flavor: input.flavor.clone(),
            vcpus: input.vcpus,
            memory_mib: input.memory_mib,
            disk_gib: input.disk_gib,
            cpu_weight: input.cpu_weight,
        };
        if !size.is_empty() {
            control.resize_instance(&caller, &id, &size).await?;
        }
        if let Some(change) = publish::change(&input)? {
            control.update_instance_publish(&caller, &id, &change).await?;
        }
        if input.locked == Some(false) {
            control.unlock_instance(&caller, &id).await?;
        }
        if let Some(names) = &input.keypairs {
            control.set_keys(&caller, &id, names).await?;
        }
        if let Some(others) = &input.start_after {
            control.set_start_order(&caller, &id, others).await?;
        }
        let changed =
            control.update_instance(&caller, &id, |instance| apply(instance, &input, control.now())).await?;
        match input.locked {
            Some(true) if changed.lock.is_none() => control.lock_instance(&caller, &id, None).await,
            _ => Ok(changed),
        }
    };
    let changed = act.await;
    let changed = note(&app, &caller, deed("update", "instance", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

fn apply(instance: &mut Instance, input: &UpdateInstance, now: Timestamp) -> control::Result<()> {
    describe(&mut instance.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)?;
    control::change::check_labels(&instance.meta.labels)?;
    if let Some(grace_s) = input.grace_s {
        if grace_s > GRACE_S_MAX {
            return Err(Error::new(Code::TooLarge, format!("a grace period has at most {GRACE_S_MAX} s"))
                .field("grace_s"));
        }
        instance.grace_s = grace_s;
    }
    instance.autostart = input.autostart.unwrap_or(instance.autostart);
    instance.remove_on_exit = input.remove_on_exit.unwrap_or(instance.remove_on_exit);
    if let Some(tags) = &input.tags {
        instance.tags.clone_from(tags);
        check_tags(&instance.tags)?;
    }
    if let Some(asked) = &input.schedule {
        // What came due before it was asked for is nothing to start it for.
        let at = asked.as_deref().map(make::cron).transpose()?;
        instance.schedule = at.map(|at| Schedule { at, since: now });
    }
    instance.access.v4 = input.access_v4.unwrap_or(instance.access.v4);
    instance.access.v6 = input.access_v6.unwrap_or(instance.access.v6);
    if let Some(restart) = input.restart {
        instance.restart = restart;
        for container in &mut instance.containers {
            container.restart = restart;
        }
    }
    Ok(())
}

async fn delete(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = app.control().delete_instance(&caller, &reference).await;
    let going = note(&app, &caller, deed("delete", "instance", &reference), outcome).await?;
    farewell::<Instance>(&app, &caller, going.meta.id, &wait).await
}

/// Every verb, for the routes.
const VERBS: [Verb; 12] = Verb::ALL;
