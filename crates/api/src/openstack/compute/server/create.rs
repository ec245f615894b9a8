//! Making servers.

use super::{deed, disk::Disks, view::ZONE};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    body::Body,
    compute::{
        form::{Form, metadata, wrong},
        keypair, server_group, tag,
    },
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::instance::{ContainerAsked, NewInstance, NicAsked};
use control::port::{FixedAsked, NewPort};
use model::{
    error::Code,
    id::{NetworkId, PortId},
    image::{Image, ImageKind},
    instance::{Access, ContainerSpec, Instance, Kind, tag::Tag},
    meta::Labels,
    network::Network,
    plan::{Accelerator, RestartPolicy},
    port::Port,
    security_group::SecurityGroup,
    volume::Volume,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most servers of one call.
const SERVERS_MAX: u64 = 100;
/// Letters and digits of a password that nobody chose.
const PASSWORD_CHARS: usize = 12;

/// POST of a server.
pub async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Body(body): Body<Value>,
) -> Result<Response> {
    let whole = Form::of(&body, "body")?;
    whole.refuse_others(&["server", "os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"])?;
    let inner = whole.get("server").ok_or_else(|| Fault::invalid("'server' is a required property"))?;
    let form = Form::of(inner, "server")?;
    form.refuse_others(&known_fields(version))?;
    let mut order = Order::read(&door, &session, version, &form)?;
    for key in ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"] {
        if let Some(hints) = whole.get(key) {
            order.new.server_group = server_group::hinted(&door, &session, &Form::of(hints, key)?)?;
        }
    }
    let made = order.carry_out(&door, &session).await?;
    let first = made.first().expect("at least one was asked for");
    if form.flag("return_reservation_id")?.unwrap_or(false) {
        let reservation = format!("r-{}", first.meta.id.short());
        let reply = (StatusCode::ACCEPTED, Json(json!({ "reservation_id": reservation })));
        return Ok(deed("create", first).on(reply));
    }
    let id = first.meta.id.to_string();
    let self_link = base.link(&format!("/v2.1/servers/{id}"));
    let links = json!([
        { "rel": "self", "href": self_link },
        { "rel": "bookmark", "href": base.link(&format!("/servers/{id}")) },
    ]);
    let groups: Vec<Value> = order.group_names.iter().map(|name| json!({ "name": name })).collect();
    let server = json!({
        "id": id, "links": links, "OS-DCF:diskConfig": "MANUAL", "security_groups": groups,
        "adminPass": order.password,
    });
    let mut reply = deed("create", first).on((StatusCode::ACCEPTED, Json(json!({ "server": server }))));
    if let Ok(value) = HeaderValue::from_str(&self_link) {
        reply.headers_mut().insert(header::LOCATION, value);
    }
    Ok(reply)
}

fn known_fields(version: Microversion) -> Vec<&'static str> {
    let mut known = vec![
        "name",
        "imageRef",
        "flavorRef",
        "adminPass",
        "metadata",
        "networks",
        "OS-DCF:diskConfig",
        "accessIPv4",
        "accessIPv6",
        "security_groups",
        "user_data",
        "availability_zone",
        "config_drive",
        "key_name",
        "min_count",
        "max_count",
        "return_reservation_id",
        "block_device_mapping",
        "block_device_mapping_v2",
    ];
    for (minor, field) in [
        (19, "description"),
        (52, "tags"),
        (63, "trusted_image_certificates"),
        (74, "host"),
        (74, "hypervisor_hostname"),
        (90, "hostname"),
    ] {
        if version.has(2, minor) {
            known.push(field);
        }
    }
    if !version.has(2, 57) {
        known.push("personality");
    }
    known
}

/// What is to be made.
struct Order {
    new: NewInstance,
    group_names: Vec<String>,
    password: String,
    least: u64,
    most: u64,
}

impl Order {
    fn read(door: &Door, session: &Session, version: Microversion, form: &Form<'_>) -> Result<Self> {
        let name = form.name("name")?.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
        check_zone(form)?;
        if form.list("personality")?.is_some_and(|files| !files.is_empty()) {
            return Err(Fault::invalid("Files cannot be injected: use user_data."));
        }
        let start = Start::read(door, session, form)?;
        let kind = start.as_ref().map_or(Kind::Vm, |start| start.kind);
        let disks = Disks::read(door, session, version, form, kind)?;
        let flavor = flavor_of(door, session, form)?;
        let (group_names, groups) = groups_of(door, session, form)?;
        let (least, most) = counts(form)?;
        disks.refuse_several(most)?;
        let mut new = NewInstance { name: name.to_string(), flavor: Some(flavor), ..blank(kind) };
        match (start, disks.root) {
            // A volume to boot from goes before an image, which then is no more than named.
            (_, Some(root)) => new.root = Some(root),
            (Some(Start { kind: Kind::Vm, image }), None) => new.image = Some(image),
            (Some(Start { image, .. }), None) => {
                new.containers =
                    vec![ContainerAsked { image, spec: ContainerSpec::default(), ..Default::default() }];
            }
            (None, None) => {
                let message = "Invalid imageRef provided. A server needs an image or a volume to boot from.";
                return Err(Fault::invalid(message));
            }
        }
        new.user = Some(session.user.record.id);
        new.security_groups = groups;
        new.nics = nics(door, session, version, form)?;
        new.volumes = disks.volumes;
        if let Some(name) = form.text("key_name")? {
            new.keypairs = vec![keypair::named(door, session, name)?];
        }
        if kind == Kind::Vm {
            new.user_data_base64 = user_data(form)?;
            new.config_drive = form.flag("config_drive")?.unwrap_or(false);
        }
        new.labels = form.get("metadata").map_or(Ok(Labels::new()), |value| metadata("metadata", value))?;
        new.description = form.text("description")?.unwrap_or_default().to_string();
        new.tags = tags(form)?;
        new.access =
            Access { v4: form.ipv4("accessIPv4")?.flatten(), v6: form.ipv6("accessIPv6")?.flatten() };
        let password = form.text("adminPass")?.map_or_else(password, str::to_string);
        Ok(Self { new, group_names, password, least, most })
    }

    /// Makes as many as there is room for, and none if that is less than the least that is asked for.
    async fn carry_out(&self, door: &Door, session: &Session) -> Result<Vec<Instance>> {
        let mut made: Vec<Instance> = vec![];
        for number in 1..=self.most {
            let mut new = self.new.clone();
            if self.most > 1 {
                new.name = format!("{}-{number}", self.new.name);
            }
            match door.control().create_instance(&session.caller, new).await {
                Ok(instance) => made.push(instance),
                Err(_) if number > self.least => break,
                Err(error) => {
                    for instance in &made {
                        if let Err(left) = take_back(door, session, instance).await {
                            let id = instance.meta.id.to_string();
                            tracing::warn!(error = %left, id, "a server of a call that was refused is left");
                        }
                    }
                    return Err(refusal(error));
                }
            }
        }
        Ok(made)
    }
}

/// Takes a server back that was made along with one that could not be. Its volumes are new: several servers of one call
/// share none that was there before.
async fn take_back(door: &Door, session: &Session, instance: &Instance) -> control::Result<()> {
    let goes_along = |volume: &mut Volume| {
        volume.delete_with_instance = true;
        Ok(())
    };
    for volume in &instance.volumes {
        door.control().change::<Volume>(&session.caller, &volume.to_string(), goes_along).await?;
    }
    door.control().delete_instance(&session.caller, &instance.meta.id.to_string()).await?;
    Ok(())
}

/// What a new server refers to is a part of the request: what is not there makes the request wrong, and so does a disk
/// that cannot be had.
fn refusal(error: control::Error) -> Fault {
    let of_disk = matches!(error.field.as_deref(), Some("root" | "volume" | "snapshot"));
    match error.code {
        Code::NotFound | Code::TooLarge => Fault::invalid(error.message),
        Code::InUse | Code::Conflict if of_disk => {
            Fault::invalid(format!("Block Device Mapping is Invalid: {}.", error.message))
        }
        _ => error.into(),
    }
}

/// Whether a new server's devices have tags: from 2.32 on, but for the versions from `lost` to 2.41, which left them out
/// by mistake.
pub fn has_tags(version: Microversion, lost: u16) -> bool {
    version.has(2, 42) || version.has(2, 32) && !version.has(2, lost)
}

fn blank(kind: Kind) -> NewInstance {
    NewInstance {
        root: None,
        name: String::new(),
        description: String::new(),
        labels: Labels::new(),
        tags: BTreeSet::new(),
        access: Access::default(),
        user: None,
        kind,
        image: None,
        flavor: None,
        vcpus: None,
        memory_mib: None,
        cpu_weight: None,
        disk_gib: None,
        thick: false,
        nics: None,
        security_groups: None,
        keypairs: vec![],
        user_data_base64: None,
        config_drive: false,
        accelerator: Accelerator::Auto,
        containers: vec![],
        volumes: vec![],
        server_group: None,
        floating_ip: None,
        publish: vec![],
        autostart: true,
        start_after: vec![],
        extra_hosts: vec![],
        files: vec![],
        schedule: None,
        shared: Default::default(),
        isolation: Default::default(),
        publish_within: vec![],
        succeeds: None,
        restart: RestartPolicy::No,
        grace_s: None,
        remove_on_exit: false,
        start: true,
    }
}

/// Refuses another zone than the one that all hosts are in.
pub fn check_zone(form: &Form<'_>) -> Result<()> {
    match form.text("availability_zone")? {
        None | Some(ZONE) => Ok(()),
        // `zone:host` names a host, which is here in any case.
        Some(zone) if zone.split(':').next() == Some(ZONE) => Ok(()),
        Some(_) => Err(Fault::invalid("The requested availability zone is not available")),
    }
}

/// The image that a server starts from, and what it makes of the server.
struct Start {
    kind: Kind,
    image: String,
}

impl Start {
    /// What `imageRef` names; `None` where it is missing or empty, as for servers that boot from volumes.
    fn read(door: &Door, session: &Session, form: &Form<'_>) -> Result<Option<Self>> {
        let Some(reference) = form.text("imageRef")?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        // Old clients give the image's address.
        let id = reference.rsplit('/').next().unwrap_or(reference);
        let wrong = || Fault::invalid("Invalid imageRef provided.");
        id.parse::<model::id::ImageId>().map_err(|_| wrong())?;
        let missing = |_| Fault::invalid(format!("Can not find requested image {id}"));
        let image = door.control().find::<Image>(&session.caller, id).map_err(missing)?;
        let kind = match image.record.kind {
            ImageKind::Oci => Kind::Container,
            ImageKind::System => Kind::System,
            ImageKind::Disk | ImageKind::Kernel | ImageKind::Initrd => Kind::Vm,
        };
        Ok(Some(Self { kind, image: id.to_string() }))
    }
}

/// The flavor that a field names, by id or address.
pub fn flavor_of(door: &Door, session: &Session, form: &Form<'_>) -> Result<String> {
    let value = form.raw("flavorRef").ok_or_else(|| Fault::invalid("'flavorRef' is a required property"))?;
    let text = match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        value => return Err(wrong("flavorRef", value, "it names no flavor")),
    };
    let id = text.rsplit('/').next().unwrap_or(&text);
    let found = door.control().flavor_by_openstack_id(&session.caller, id);
    let found = found.ok_or_else(|| Fault::invalid(format!("Flavor {id} could not be found.")))?;
    Ok(found.record.meta.id.to_string())
}

fn groups_of(door: &Door, session: &Session, form: &Form<'_>) -> Result<(Vec<String>, Option<Vec<String>>)> {
    let Some(list) = form.list("security_groups")? else {
        return Ok((vec!["default".into()], None));
    };
    let mut names: Vec<String> = vec![];
    let mut ids: Vec<String> = vec![];
    for value in list {
        let name = Form::of(value, "security_groups")?.needed("name")?;
        let missing = |_| Fault::invalid(format!("Security group {name} not found for project."));
        let found = door.control().find::<SecurityGroup>(&session.caller, name).map_err(missing)?;
        if !ids.contains(&found.record.meta.id.to_string()) {
            ids.push(found.record.meta.id.to_string());
            names.push(name.to_string());
        }
    }
    Ok((names, (!ids.is_empty()).then_some(ids)))
}

fn counts(form: &Form<'_>) -> Result<(u64, u64)> {
    let least = form.number("min_count")?.unwrap_or(1);
    let most = form.number("max_count")?.unwrap_or(least);
    if least == 0 || most == 0 || most > SERVERS_MAX {
        return Err(Fault::invalid(format!("min_count and max_count: 1 to {SERVERS_MAX} are possible")));
    }
    if least > most {
        return Err(Fault::invalid("min_count must be <= max_count"));
    }
    Ok((least, most))
}

fn nics(
    door: &Door,
    session: &Session,
    version: Microversion,
    form: &Form<'_>,
) -> Result<Option<Vec<NicAsked>>> {
    let value = match form.get("networks") {
        None => return own_nics(door, session).map(Some),
        Some(value) => value,
    };
    if let (Some(text), true) = (value.as_str(), version.has(2, 37)) {
        return match text {
            "auto" => own_nics(door, session).map(Some),
            "none" => Ok(Some(vec![])),
            _ => Err(wrong("networks", value, "it is neither auto nor none")),
        };
    }
    let list = value.as_array().ok_or_else(|| wrong("networks", value, "it is no array"))?;
    list.iter().map(|one| nic(door, session, version, one)).collect::<Result<Vec<_>>>().map(Some)
}

/// An interface in the only network that the project has or may use; none if it has none.
fn own_nics(door: &Door, session: &Session) -> Result<Vec<NicAsked>> {
    let mut all = door.control().list::<Network>(&session.caller);
    all.retain(|network| network.record.external().is_none());
    match all.as_slice() {
        [] => Ok(vec![]),
        [one] => {
            let network = Some(one.record.meta.id.to_string());
            Ok(vec![NicAsked::New(NewPort { network, ..NewPort::default() })])
        }
        _ => Err(Fault::conflict("Multiple possible networks found, use a Network ID to be more specific.")),
    }
}

fn nic(door: &Door, session: &Session, version: Microversion, value: &Value) -> Result<NicAsked> {
    let form = Form::of(value, "networks")?;
    let mut known = vec!["uuid", "fixed_ip", "port"];
    if has_tags(version, 37) {
        known.push("tag");
    }
    form.refuse_others(&known)?;
    let tag = form.get("tag").map(|value| tag::read("tag", value)).transpose()?;
    if let Some(port) = form.text("port")? {
        let wrong = || Fault::invalid(format!("Invalid input for field/attribute port. Value: {port}."));
        port.parse::<PortId>().map_err(|_| wrong())?;
        let missing = |_| Fault::invalid(format!("Port {port} could not be found."));
        door.control().find::<Port>(&session.caller, port).map_err(missing)?;
        return Ok(NicAsked::Port { port: port.to_string(), tag });
    }
    let uuid = form.needed("uuid")?;
    // The form br-<uuid> is that of an old network service.
    let id = uuid.strip_prefix("br-").unwrap_or(uuid);
    let wrong_id =
        || Fault::invalid(format!("Bad networks format: network uuid is not in proper format ({uuid})"));
    id.parse::<NetworkId>().map_err(|_| wrong_id())?;
    let missing = |_| Fault::invalid(format!("Network {id} could not be found."));
    door.control().find::<Network>(&session.caller, id).map_err(missing)?;
    let address = form
        .text("fixed_ip")?
        .map(|text| text.parse().map_err(|_| Fault::invalid(format!("Fixed IP {text} is not valid."))))
        .transpose()?;
    Ok(NicAsked::New(NewPort {
        network: Some(id.to_string()),
        fixed: FixedAsked::one(None, address),
        device_tag: tag,
        ..NewPort::default()
    }))
}

/// User-data, which is base64.
pub fn user_data(form: &Form<'_>) -> Result<Option<String>> {
    let Some(text) = form.text("user_data")? else {
        return Ok(None);
    };
    let plain: String = text.split_whitespace().collect();
    STANDARD
        .decode(&plain)
        .map_err(|_| Fault::invalid("Userdata content cannot be decoded: it is no base64."))?;
    Ok(Some(plain).filter(|text| !text.is_empty()))
}

fn tags(form: &Form<'_>) -> Result<BTreeSet<Tag>> {
    let list = form.list("tags")?.unwrap_or_default();
    list.iter().map(|value| crate::openstack::compute::tag::read("tags", value)).collect()
}

/// A password for a server whose maker named none.
pub fn password() -> String {
    const LETTERS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    (0..PASSWORD_CHARS)
        .map(|_| char::from(LETTERS[usize::from(rand::random::<u16>()) % LETTERS.len()]))
        .collect()
}
