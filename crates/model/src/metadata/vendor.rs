//! What the cloud itself says to cloud-init, below what a user says in user-data: that interfaces may come later.
//!
//! cloud-init writes the network's configuration at a guest's first boot alone unless it is told otherwise, so that on many
//! stock images a card plugged in later would stay without addresses. It takes this from `vendor_data.json`, a list of
//! parts under the key `cloud-init`. A user's own `updates` in user-data win, and `vendor_data: {enabled: false}` turns
//! all of it away. Nothing here may change a guest beyond its network's configuration.
//!
//! Sources: docs.cloud-init.io, "Events and updates" and "OpenStack: vendor data".

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

/// `vendor_data.json`.
pub fn data() -> Value {
    json!({"cloud-init": [EVENTS, LINKS]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_as_cloud_init_tells_parts_apart() {
        let document = data();
        let parts = document["cloud-init"].as_array().expect("parts");
        let heads: Vec<&str> =
            parts.iter().map(|p| p.as_str().expect("text").lines().next().unwrap()).collect();
        assert_eq!(heads, ["#cloud-config", "#!/bin/sh"]);
    }
}
