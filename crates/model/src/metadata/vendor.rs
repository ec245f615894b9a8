//! What the cloud itself says to cloud-init, below what a user says in user-data: that interfaces may come later.
//!
//! cloud-init writes the network's configuration at a guest's first boot alone unless it is told otherwise, so that on many
//! stock images a card plugged in later would stay without addresses. It takes this from `vendor_data.json`, under the key
//! `cloud-init`: one text, an archive of parts. A list of texts would do by its manual, and ends the first stage of every
//! version since 24.4. A user's own `updates` in user-data win, and `vendor_data: {enabled: false}` turns
//! all of it away. Nothing here may change a guest beyond its network's configuration.
//!
//! A system container is told nothing of it: it has no udev, by which cloud-init would hear of a card, and its cards come with
//! their addresses.
//!
//! Sources: docs.cloud-init.io, "Events and updates", "OpenStack: vendor data" and "User data formats: cloud config archive".

use serde_json::{Value, json};

/// The configuration is written anew at every boot, and when a card comes or goes.
const EVENTS: &str = "#cloud-config
updates:
  network:
    when: [boot-new-instance, boot, hotplug]
";

/// cloud-init's udev rule starts it for every link, those of container engines included, for which the metadata has
/// nothing; each would cost a minute of vain looking. The rule after it takes that back for links without hardware.
const LINKS: &str = r#"#!/bin/sh
[ -d /etc/udev/rules.d ] || exit 0
cat >/etc/udev/rules.d/11-cloud-init-cards-alone.rules <<'RULES'
# cloud-init's hook of the file before this one is for cards, not for links that programs make.
SUBSYSTEM=="net", DEVPATH=="/devices/virtual/*", RUN="/bin/true"
RULES
"#;

/// How an archive begins. What follows is a list in YAML, of which JSON is a part.
const ARCHIVE: &str = "#cloud-config-archive\n";

/// `vendor_data.json` of a guest with a kernel of its own, or on the host's.
pub fn data(on_host_kernel: bool) -> Value {
    if on_host_kernel {
        return json!({});
    }
    let parts = json!([
        {"type": "text/cloud-config", "content": EVENTS},
        {"type": "text/x-shellscript", "content": LINKS},
    ]);
    json!({"cloud-init": format!("{ARCHIVE}{parts}\n")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_as_cloud_init_tells_parts_apart() {
        let document = data(false);
        let text = document["cloud-init"].as_str().expect("one text");
        let parts: Value =
            serde_json::from_str(text.strip_prefix(ARCHIVE).expect("an archive")).expect("a list");
        let parts = parts.as_array().expect("parts");
        let heads = parts.iter().map(|p| p["content"].as_str().expect("text").lines().next().unwrap());
        assert_eq!(heads.collect::<Vec<_>>(), ["#cloud-config", "#!/bin/sh"]);
        assert_eq!([&parts[0]["type"], &parts[1]["type"]], ["text/cloud-config", "text/x-shellscript"]);
        assert_eq!(data(true), json!({}));
    }
}
