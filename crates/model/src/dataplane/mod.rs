//! The dataplane as pure compilation: from nouns to devices, routes and firewall text, one namespace at a time.
//!
//! ```text
//!  guest ── p…  ┌─────────┐ r…    n… ┌────────┐ x…   r… ┌──────────┐ host   holm-x… ┌──────┐
//!               │ network ├──────────┤ router ├─────────┤ external ├────────────────┤ host ├── outside
//!  guest ── p…  └─────────┘          └────────┘         └──────────┘                └──────┘
//!   groups, anti-spoof,               SNAT, floating     a /32 per outside           pool route, masquerade
//!   DHCP, DNS, metadata               IPs, peering       address                     or proxy ARP and ND
//! ```
//!
//! Everything is routed. A port has a /32 or /128 route and a permanent neighbour, so nothing that a guest says in
//! ARP or ND is believed, and two ports of one subnet meet only through the firewall. Nothing in here looks at a
//! kernel: what is compiled is written, and [`allow`] answers from the same nouns what the kernel would do.

pub mod allow;
pub mod external;
pub mod group;
pub mod host;
pub mod namespace;
pub mod network;
pub mod nft;
pub mod publish;
pub mod router;
pub mod service;
mod spread;
pub mod view;
