//! Schemas of the model's enums, for the OpenAPI document only.
//!
//! The wire carries the model's own enums; the model knows nothing of OpenAPI, so each has a twin here that is never
//! made. The conversions are exhaustive: a new variant in the model does not compile until its twin is here.

#![allow(missing_docs)]

use utoipa::ToSchema;

macro_rules! twins {
    ($($(#[$doc:meta])* $name:ident = $model:path { $($variant:ident),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, ToSchema)]
        #[schema(rename_all = "snake_case")]
        pub enum $name { $($variant),* }

        impl From<$model> for $name {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$variant => Self::$variant),* }
            }
        }
    )*};
}

twins! {
    /// Kinds of refusal and failure.
    Code = model::error::Code { Invalid, Unauthenticated, Forbidden, NotFound, Taken, Conflict, InUse, QuotaExceeded, NoCapacity, TooLarge, TooMany, Unsupported, Unavailable, Timeout, Internal }
    /// Phase of an instance's life.
    Phase = model::instance::phase::Phase { Scheduling, Creating, Starting, Running, Pausing, Paused, Resuming, Suspending, Suspended, Stopping, Rebooting, Rebuilding, Resizing, Stopped, Exited, Failed, Deleting }
    /// Kinds of instance.
    InstanceKind = model::instance::Kind { Vm, Container, System }
    /// What stands between containers and their host.
    Isolation = model::instance::isolation::Isolation { Shared, Vm }
    /// What a key is.
    KeyKind = model::keypair::KeyKind { Ssh, X509 }
    /// Whether an instance is meant to run.
    Power = model::instance::Power { On, Off, Paused }
    /// What a VM runs on.
    Accelerator = model::plan::Accelerator { Auto, Kvm, Tcg }
    /// What an image is.
    ImageKind = model::image::ImageKind { Disk, Kernel, Initrd, Oci, System }
    /// Who may use an image.
    Visibility = model::image::Visibility { Private, Shared, Community, Public }
    /// What a project says of an image that is shared with it.
    Answer = model::image::Answer { Pending, Accepted, Rejected }
    /// What an image is to one of its users.
    Hold = model::image::Hold { StandsOn, DiskOf, Boots, Reads, SameContent, BuiltOn, SharesLayers }
    /// Format of a disk's file.
    DiskFormat = model::plan::DiskFormat { Raw, Qcow2 }
    /// Into or out of the instance.
    Direction = model::security_group::Direction { Ingress, Egress }
    /// Address family.
    Family = model::security_group::Family { Ipv4, Ipv6 }
    /// How an instance gets its IPv6 address.
    Ipv6Mode = model::subnet::Ipv6Mode { Stateful, Slaac, Stateless }
    /// Which part of telling IPv6 addresses is the network's own.
    Ipv6Part = model::subnet::Ipv6Part { Both, Advertise, Serve }
}
