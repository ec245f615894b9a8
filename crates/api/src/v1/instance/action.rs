//! Verbs on an instance, and plugging parts in and out.

use super::{VERBS, make};
use crate::{
    app::{App, Asker},
    client::Verb,
    error::Result,
    request::{Input, OptionalInput, Params},
    v1::{
        audit::{deed, note},
        routes::{Doc, Routes},
        served::{answer, check_wait},
        types::{
            instance::{AttachPort, AttachVolume, Instance as View, StopRequest},
            list::WaitQuery,
        },
    },
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::{
    Caller, Control, Error,
    instance::{DiskAsked, NicAsked},
    port::{FixedAsked, NewPort},
};
use model::{error::Code, instance::Instance, volume::Volume};

/// Adds a route for each verb.
pub fn verb_routes(routes: Routes) -> Routes {
    VERBS.into_iter().fold(routes, |routes, verb| {
        let path = format!("/v1/instances/{{ref}}/{}", verb.as_str());
        let doc = Doc::new(summary(verb)).wait().answer::<View>(200, "The instance.");
        let doc = if verb == Verb::Stop { doc.input::<StopRequest>() } else { doc };
        let handler =
            move |app: State<App>, asker: Asker, path: Path<String>, wait: Params<WaitQuery>, body| {
                act(verb, app, asker, path, wait, body)
            };
        routes.add(Method::POST, &path, "instances", doc, handler)
    })
}

fn summary(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "Start",
        Verb::Stop => "Ask the guest to stop; pull the plug after its grace period",
        Verb::Kill => "Pull the plug",
        Verb::Reboot => "Stop and start again",
        Verb::Reset => "Pull the plug and start again",
        Verb::Pause => "Freeze in memory",
        Verb::Suspend => "Put a VM to sleep: its memory on disk, nothing of it in the host's",
        Verb::Resume => "Let what is paused or suspended go on",
        Verb::Unlock => "Allow deletion and power changes again",
        Verb::Unrescue => "End a rescue: start from its own root disk again",
        Verb::ConfirmSize => "Keep the size on trial; the root disk grows now",
        Verb::RevertSize => "Take the size on trial back; what runs starts anew",
    }
}

async fn act(
    verb: Verb,
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    OptionalInput(body): OptionalInput<StopRequest>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let (control, caller, name) = (app.control(), &caller, reference.as_str());
    if body.grace_s.is_some() && verb != Verb::Stop {
        return Err(Error::invalid("grace_s", "only stop has a grace period").into());
    }
    let outcome = match verb {
        Verb::Start => control.start_instance(caller, name).await,
        Verb::Stop => control.stop_instance(caller, name, false, body.grace_s).await,
        Verb::Kill => control.stop_instance(caller, name, true, None).await,
        Verb::Reboot => control.reboot_instance(caller, name, false).await,
        Verb::Reset => control.reboot_instance(caller, name, true).await,
        Verb::Pause => control.pause_instance(caller, name).await,
        Verb::Suspend => control.suspend_instance(caller, name).await,
        Verb::Resume => control.resume_instance(caller, name).await,
        Verb::Unlock => control.unlock_instance(caller, name).await,
        Verb::Unrescue => control.unrescue_instance(caller, name).await,
        Verb::ConfirmSize => control.confirm_size(caller, name).await,
        Verb::RevertSize => control.revert_size(caller, name).await,
    };
    let changed = note(&app, caller, deed(verb.as_str(), "instance", name), outcome).await?;
    answer(&app, caller, StatusCode::OK, &changed, &wait).await
}

/// POST of a port.
pub async fn attach_port(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<AttachPort>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let plug = async {
        let nic = match &input.port {
            Some(port) => NicAsked::Port { port: port.clone(), tag: None },
            None => NicAsked::New(NewPort {
                network: input.network.clone(),
                fixed: FixedAsked::one(input.subnet.clone(), input.address),
                security_groups: input.security_groups.clone(),
                aliases: input.aliases.clone(),
                ..NewPort::default()
            }),
        };
        app.control().attach_port(&caller, &reference, &nic).await?;
        current(app.control(), &caller, &reference)
    };
    let changed = note(&app, &caller, deed("attach_port", "instance", &reference), plug.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

/// DELETE of a port.
pub async fn detach_port(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, port)): Path<(String, String)>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = app.control().detach_port(&caller, &reference, &port).await;
    let changed = note(&app, &caller, deed("detach_port", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

/// POST of a volume.
pub async fn attach_volume(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<AttachVolume>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let outcome = plug_volume(app.control(), &caller, &reference, &input).await;
    let changed = note(&app, &caller, deed("attach_volume", "instance", &reference), outcome).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

/// Plugs in a volume that exists, or a new one, which goes again if it cannot be plugged in.
async fn plug_volume(
    control: &Control,
    caller: &Caller,
    reference: &str,
    input: &AttachVolume,
) -> control::Result<Instance> {
    let unnumbered = |error: Error| match error.field.as_ref().and_then(|f| f.strip_prefix("volumes[0].")) {
        Some(field) => {
            let field = field.to_string();
            error.field(&field)
        }
        None => error,
    };
    let asked = make::volume(input, 0).map_err(unnumbered)?;
    let instance = control.find_own::<Instance>(caller, reference, "attaching a volume")?;
    let id = instance.record.meta.id.to_string();
    let attach = async |volume: &str| control.attach_volume_as(caller, &id, volume, &asked.attach).await;
    let new = match &asked.disk {
        DiskAsked::Volume(volume) => {
            attach(volume).await?;
            return current(control, caller, &id);
        }
        DiskAsked::New(new) => new.clone(),
    };
    let made = control.create_volume(caller, new).await?.meta.id.to_string();
    if let Err(error) = attach(&made).await {
        if let Err(left) = control.delete_volume(caller, &made).await {
            tracing::warn!(error = %left, volume = made, "a new volume that could not be attached is left");
        }
        return Err(error);
    }
    current(control, caller, &id)
}

/// DELETE of a volume.
pub async fn detach_volume(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((reference, volume)): Path<(String, String)>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    check_wait::<Instance>(&wait)?;
    let unplug = async {
        let control = app.control();
        let instance = current(control, &caller, &reference)?;
        let found = control.find_for::<Volume>(&caller, "volume", &volume)?;
        if found.record.attached_to != Some(instance.meta.id) {
            let message =
                format!("volume {} is not attached to {}", found.record.meta.name, instance.meta.name);
            return Err(Error::new(Code::Conflict, message).field("volume"));
        }
        control.detach_volume(&caller, &found.record.meta.id.to_string()).await?;
        current(control, &caller, &instance.meta.id.to_string())
    };
    let changed = note(&app, &caller, deed("detach_volume", "instance", &reference), unplug.await).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

fn current(control: &Control, caller: &Caller, reference: &str) -> control::Result<Instance> {
    control.find::<Instance>(caller, reference).map(|found| found.record.clone())
}
