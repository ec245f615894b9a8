//! Actions: verbs on servers, each allowed in the states that Nova allows it in.

use super::{
    console,
    create::{check_zone, flavor_of, password, user_data},
    deed, find,
    state::State,
    state_of,
    view::{Extent, Looker, is_volume_backed},
};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    body::Body,
    compute::{
        form::{Form, metadata},
        image, keypair,
    },
};
use axum::{
    Json,
    extract::{Path, State as Shared},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::{instance::rebuild::Rebuild, port::PortChange};
use model::{
    instance::{Access, Instance},
    port::Port,
    security_group::SecurityGroup,
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// Most bytes of a console's log in one reply (Nova: `MAX_CONSOLE_BYTES`).
const CONSOLE_BYTES_MAX: usize = 100 * 1024;

/// One call of an action.
struct Call<'a> {
    door: &'a Door,
    session: &'a Session,
    version: Microversion,
    base: &'a Base,
    found: Arc<Stored<Instance>>,
    id: String,
    state: State,
}

/// POST of an action.
pub async fn act(
    Shared(door): Shared<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::of(&body, "body")?;
    let (name, value) = match form.fields().iter().collect::<Vec<_>>().as_slice() {
        [(name, value)] => (name.as_str(), *value),
        _ => return Err(Fault::invalid("Malformed request body: one action was expected")),
    };
    let found = find(&door, &session, &id)?;
    let state = state_of(&door, &found.record);
    let id = found.record.meta.id.to_string();
    let call = Call { door: &door, session: &session, version, base: &base, found, id, state };
    match name {
        "rebuild" => call.rebuild(value).await,
        "resize" => call.resize(value).await,
        "createImage" => call.create_image(value).await,
        "rescue" => call.rescue(value).await,
        "addSecurityGroup" => call.change_group(value, true).await,
        "removeSecurityGroup" => call.change_group(value, false).await,
        "os-getConsoleOutput" => call.console_output(value).await,
        "os-getVNCConsole" | "os-getSPICEConsole" | "os-getSerialConsole" | "os-getRDPConsole" => {
            console::of_old(&door, &session.caller, version, call.base, &call.found.record, (name, value))
        }
        name => call.simple(name, value).await,
    }
}

impl Call<'_> {
    /// Refuses an action in another state than one of `states`, or while something else is being done.
    fn require(&self, action: &str, states: &[&str]) -> Result<()> {
        self.state.require(&self.id, action, states)
    }

    fn done(&self, action: &str, instance: &Instance) -> Response {
        deed(action, instance).on(StatusCode::ACCEPTED)
    }

    /// Actions that take no more than a word.
    async fn simple(&self, name: &str, value: &Value) -> Result<Response> {
        let (control, caller, id) = (self.door.control(), &self.session.caller, self.id.as_str());
        match name {
            "os-stop" => {
                self.require("stop", &["active", "error"])?;
                Ok(self.done("stop", &control.stop_instance(caller, id, false, None).await?))
            }
            "os-start" => {
                self.require("start", &["stopped"])?;
                Ok(self.done("start", &control.start_instance(caller, id).await?))
            }
            "reboot" => self.reboot(value).await,
            "pause" => {
                self.require("pause", &["active"])?;
                Ok(self.done("pause", &control.pause_instance(caller, id).await?))
            }
            "unpause" => {
                self.require("unpause", &["paused"])?;
                Ok(self.done("unpause", &control.resume_instance(caller, id).await?))
            }
            "suspend" => {
                self.require("suspend", &["active"])?;
                Ok(self.done("suspend", &control.suspend_instance(caller, id).await?))
            }
            "resume" => {
                self.require("resume", &["suspended"])?;
                Ok(self.done("resume", &control.resume_instance(caller, id).await?))
            }
            "shelve" => {
                self.require("shelve", &["active", "stopped", "paused"])?;
                Ok(self.done("shelve", &control.shelve_instance(caller, id).await?))
            }
            "unshelve" => {
                self.check_unshelve(value)?;
                self.require("unshelve", &["shelved", "shelved_offloaded"])?;
                Ok(self.done("unshelve", &control.start_instance(caller, id).await?))
            }
            "unrescue" => {
                self.require("unrescue", &["rescued"])?;
                Ok(self.done("unrescue", &control.unrescue_instance(caller, id).await?))
            }
            "lock" => {
                let reason = match value {
                    Value::Null => None,
                    value if self.version.has(2, 73) => Form::of(value, "lock")?.text("locked_reason")?,
                    _ => None,
                };
                Ok(self.done("lock", &control.lock_instance(caller, id, reason).await?))
            }
            "unlock" => Ok(self.done("unlock", &control.unlock_instance(caller, id).await?)),
            "confirmResize" => {
                self.require("confirmResize", &["resized"])?;
                let kept = control.confirm_size(caller, id).await?;
                Ok(deed("confirm-size", &kept).on(StatusCode::NO_CONTENT))
            }
            "revertResize" => {
                self.require("revertResize", &["resized"])?;
                Ok(self.done("revert-size", &control.revert_size(caller, id).await?))
            }
            "forceDelete" => {
                Ok(deed("delete", &control.delete_instance(caller, id).await?).on(StatusCode::NO_CONTENT))
            }
            name => self.refuse(name),
        }
    }

    /// Where a server is to be taken out again, which has been a part of the call since 2.77: there is one zone.
    fn check_unshelve(&self, value: &Value) -> Result<()> {
        if value.is_null() || !self.version.has(2, 77) {
            return Ok(());
        }
        let form = Form::of(value, "unshelve")?;
        form.refuse_others(if self.version.has(2, 91) {
            &["availability_zone", "host"]
        } else {
            &["availability_zone"]
        })?;
        if form.get("host").is_some() {
            self.session.require_admin("os_compute_api:os-shelve:unshelve_to_host")?;
        }
        check_zone(&form)
    }

    /// What this cloud does not do, refused as one would that is made so.
    fn refuse(&self, name: &str) -> Result<Response> {
        match name {
            "changePassword" => Err(Fault::conflict("Failed to set admin password: the guest has no agent.")),
            "migrate" | "os-migrateLive" | "evacuate" => {
                self.session.require_admin(&format!("os_compute_api:os-migrate-server:{name}"))?;
                Err(Fault::invalid("No valid host was found. There are not enough hosts available."))
            }
            "os-resetState" | "resetNetwork" | "injectNetworkInfo" => {
                self.session.require_admin(&format!("os_compute_api:os-admin-actions:{name}"))?;
                Err(Fault::invalid("The state of a server is what its host sees; it is not set by hand."))
            }
            // What is put away keeps no host's memory or CPUs from the beginning.
            "shelveOffload" => {
                self.session.require_admin("os_compute_api:os-shelve:shelve_offload")?;
                self.require("shelveOffload", &["shelved"])?;
                Ok(StatusCode::ACCEPTED.into_response())
            }
            "restore" | "createBackup" | "trigger_crash_dump" => {
                let (id, state) = (&self.id, self.state.vm_state);
                Err(Fault::conflict(format!("Cannot '{name}' instance {id} while it is in vm_state {state}")))
            }
            name => Err(Fault::invalid(format!("There is no such action: {name}"))),
        }
    }

    async fn reboot(&self, value: &Value) -> Result<Response> {
        let form = Form::of(value, "reboot")?;
        form.refuse_others(&["type"])?;
        let (control, caller) = (self.door.control(), &self.session.caller);
        let kind = form.needed("type")?.to_ascii_uppercase();
        let hard = match kind.as_str() {
            "SOFT" => false,
            "HARD" => true,
            _ => return Err(Fault::invalid("Argument 'type' for reboot is not HARD or SOFT")),
        };
        if !hard {
            self.require("reboot", &["active"])?;
        } else if self.state.vm_state == "rescued" {
            self.require("reboot", &["active", "stopped", "paused", "suspended", "error"])?;
        } else if !matches!(
            self.state.task,
            None | Some("rebooting" | "rebooting_hard" | "pausing" | "unpausing")
        ) {
            self.require("reboot", &[])?;
        }
        let changed = match self.state.vm_state {
            "stopped" | "error" => control.start_instance(caller, &self.id).await?,
            _ => control.reboot_instance(caller, &self.id, hard).await?,
        };
        Ok(self.done("reboot", &changed))
    }

    async fn rebuild(&self, value: &Value) -> Result<Response> {
        let form = Form::of(value, "rebuild")?;
        let mut known = vec!["imageRef", "name", "adminPass", "metadata", "preserve_ephemeral", "accessIPv4"];
        known.extend(["accessIPv6", "OS-DCF:diskConfig"]);
        for (minor, field) in [
            (19, "description"),
            (54, "key_name"),
            (57, "user_data"),
            (63, "trusted_image_certificates"),
            (90, "hostname"),
        ] {
            if self.version.has(2, minor) {
                known.push(field);
            }
        }
        if !self.version.has(2, 57) {
            known.push("personality");
        }
        form.refuse_others(&known)?;
        let asked = self.rebuild_asked(&form)?;
        self.require("rebuild", &["active", "stopped", "error"])?;
        if is_volume_backed(&self.found.record) && !self.version.has(2, 93) {
            return Err(Fault::invalid(
                "Unable to rebuild with a different image for a volume-backed server.",
            ));
        }
        let rebuilt = self.door.control().rebuild_instance(&self.session.caller, &self.id, &asked).await;
        let rebuilt = rebuilt.map_err(|error| match error.code {
            model::error::Code::NotFound => Fault::invalid(error.message),
            _ => error.into(),
        })?;
        self.rebuilt(&form, &rebuilt)
    }

    fn rebuild_asked(&self, form: &Form<'_>) -> Result<Rebuild> {
        let reference = form.needed("imageRef")?;
        let image = reference.rsplit('/').next().unwrap_or(reference);
        let wrong = |_| Fault::invalid("Invalid imageRef provided.");
        image.parse::<model::id::ImageId>().map_err(wrong)?;
        let old = self.found.record.access;
        let access = Access {
            v4: form.ipv4("accessIPv4")?.unwrap_or(old.v4),
            v6: form.ipv6("accessIPv6")?.unwrap_or(old.v6),
        };
        let name = form.name("name")?.map(str::to_string);
        let described = |text: Option<&str>| text.unwrap_or_default().to_string();
        Ok(Rebuild {
            image: Some(image.to_string()),
            name,
            description: form
                .raw("description")
                .map(|_| form.text("description"))
                .transpose()?
                .map(described),
            labels: form.get("metadata").map(|value| metadata("metadata", value)).transpose()?,
            keypairs: match form.raw("key_name") {
                None => None,
                Some(_) => {
                    let named = form.text("key_name")?;
                    let id = |name| keypair::named(self.door, self.session, name);
                    Some(named.map(id).transpose()?.into_iter().collect())
                }
            },
            user: Some(self.session.user.record.id),
            user_data_base64: form.raw("user_data").map(|_| user_data(form)).transpose()?,
            access: Some(access),
            ..Rebuild::default()
        })
    }

    fn rebuilt(&self, form: &Form<'_>, instance: &Instance) -> Result<Response> {
        let looker = Looker::new(self.door.control(), self.session, self.base, self.version);
        let mut shown = looker.server(instance, Extent::Changed);
        shown["adminPass"] = form.text("adminPass")?.map_or_else(password, str::to_string).into();
        if self.version.has(2, 54) {
            shown["key_name"] = json!(instance.keys.first().map(|(name, _)| name));
        }
        if self.version.has(2, 57) {
            if let Some(fields) = shown.as_object_mut() {
                fields.remove("OS-EXT-SRV-ATTR:user_data");
            }
            shown["user_data"] = json!(instance.user_data_base64);
        }
        let reply = (StatusCode::ACCEPTED, Json(json!({ "server": shown })));
        let mut reply = deed("rebuild", instance).on(reply);
        let link = self.base.link(&format!("/v2.1/servers/{}", self.id));
        if let Ok(value) = HeaderValue::from_str(&link) {
            reply.headers_mut().insert(header::LOCATION, value);
        }
        Ok(reply)
    }

    /// Boots a server from another image. The password that is told is one that no guest takes.
    async fn rescue(&self, value: &Value) -> Result<Response> {
        let empty = json!({});
        let form = Form::of(if value.is_null() { &empty } else { value }, "rescue")?;
        form.refuse_others(&["adminPass", "rescue_image_ref"])?;
        let image = form.text("rescue_image_ref")?.map(|text| text.rsplit('/').next().unwrap_or(text));
        if let Some(image) = image {
            let wrong = |_| Fault::invalid("Invalid rescue_image_ref provided.");
            image.parse::<model::id::ImageId>().map_err(wrong)?;
        }
        self.require("rescue", &["active", "stopped", "error"])?;
        if is_volume_backed(&self.found.record) && !self.version.has(2, 87) {
            let id = &self.id;
            let message = format!("Instance {id} cannot be rescued: Cannot rescue a volume-backed instance");
            return Err(Fault::invalid(message));
        }
        let rescued = self.door.control().rescue_instance(&self.session.caller, &self.id, image).await;
        let rescued = rescued.map_err(|error| match error.code {
            model::error::Code::NotFound => Fault::invalid(error.message),
            _ => error.into(),
        })?;
        let shown = form.text("adminPass")?.map_or_else(password, str::to_string);
        Ok(deed("rescue", &rescued).on(Json(json!({ "adminPass": shown }))))
    }

    async fn resize(&self, value: &Value) -> Result<Response> {
        let form = Form::of(value, "resize")?;
        form.refuse_others(&["flavorRef", "OS-DCF:diskConfig"])?;
        let flavor = flavor_of(self.door, self.session, &form)?;
        self.require("resize", &["active", "stopped"])?;
        let resized = self.door.control().try_size(&self.session.caller, &self.id, &flavor).await?;
        Ok(self.done("resize", &resized))
    }

    async fn create_image(&self, value: &Value) -> Result<Response> {
        let form = Form::of(value, "createImage")?;
        form.refuse_others(&["name", "metadata"])?;
        let name = form.name("name")?.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
        let labels = form.get("metadata").map(|value| metadata("metadata", value)).transpose()?;
        self.require("createImage", &["active", "stopped", "paused", "suspended"])?;
        let labels = labels.unwrap_or_default();
        let image = image::of_server(self.door, self.session, &self.found.record, name, labels).await?;
        let link = self.base.link_to(crate::openstack::Service::Image, &format!("/v2/images/{image}"));
        let mut reply = if self.version.has(2, 45) {
            (StatusCode::ACCEPTED, Json(json!({ "image_id": image }))).into_response()
        } else {
            StatusCode::ACCEPTED.into_response()
        };
        if let (false, Ok(value)) = (self.version.has(2, 45), HeaderValue::from_str(&link)) {
            reply.headers_mut().insert(header::LOCATION, value);
        }
        Ok(deed("create_image", &self.found.record).on(reply))
    }

    /// Puts a group on every port, or takes it from every port.
    async fn change_group(&self, value: &Value, add: bool) -> Result<Response> {
        let name = Form::of(value, "securityGroup")?.needed("name")?;
        let control = self.door.control();
        let missing =
            |_| Fault::status(StatusCode::NOT_FOUND, format!("Security group {name} not found for project."));
        let group = control.find::<SecurityGroup>(&self.session.caller, name).map_err(missing)?;
        let group = group.record.meta.id;
        let ports = control.ports_of(&self.found.record.ports);
        let has = ports.iter().any(|port| port.security_groups.contains(&group));
        if !add && !has {
            let id = &self.id;
            let message = format!("Security group {name} not associated with the instance {id}");
            return Err(Fault::status(StatusCode::NOT_FOUND, message));
        }
        let change = |port: &mut Port| {
            port.security_groups.retain(|known| *known != group);
            if add {
                port.security_groups.push(group);
            }
            Ok(())
        };
        for port in ports {
            let id = port.meta.id.to_string();
            control.update_port(&self.session.caller, &id, &PortChange::default(), change).await?;
        }
        Ok(self.done(if add { "add_security_group" } else { "remove_security_group" }, &self.found.record))
    }

    async fn console_output(&self, value: &Value) -> Result<Response> {
        let form = Form::of(value, "os-getConsoleOutput")?;
        form.refuse_others(&["length"])?;
        let lines = match form.get("length") {
            None => None,
            Some(value) if value == -1 || value == "-1" => None,
            Some(value) => Some(crate::openstack::compute::form::number("length", value)?),
        };
        if self.state.vm_state == "building" {
            return Err(Fault::conflict(format!("Instance {} is not ready", self.id)));
        }
        let bytes = self.door.app().streams().console_log(&self.found.record, CONSOLE_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&bytes);
        // What JSON and terminals cannot show is left out, but for ends of lines and tabs.
        let plain: String =
            text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')).collect();
        let output = match lines {
            None => plain,
            Some(count) => tail(&plain, usize::try_from(count).unwrap_or(usize::MAX)),
        };
        Ok(Json(json!({ "output": output })).into_response())
    }
}

/// The last lines of a text.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines[lines.len().saturating_sub(count)..].concat()
}
