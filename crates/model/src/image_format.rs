//! The words for what an image's file is and what it is wrapped in, as senders say them.
//!
//! They are what a sender claims, kept and shown as given (the words are OpenStack's). What a file really is gets told
//! by its content, and only that is ever acted on.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A word that is none of those possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a {noun}; the {noun}s are {known}")]
pub struct WordError {
    /// What was written.
    pub word: String,
    /// What it was to be.
    pub noun: &'static str,
    /// What is possible.
    pub known: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $noun:literal { $($(#[$about:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $word)] $variant),*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| WordError {
                    word: text.chars().take(40).collect(),
                    noun: $noun,
                    known: Self::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

words! {
    /// What a file is.
    FileFormat, "disk format" {
        /// Plain bytes.
        Raw = "raw",
        /// QEMU's copy-on-write.
        Qcow2 = "qcow2",
        /// VMware's.
        Vmdk = "vmdk",
        /// VirtualBox's.
        Vdi = "vdi",
        /// Hyper-V's.
        Vhdx = "vhdx",
        /// Older Hyper-V's and Azure's.
        Vhd = "vhd",
        /// A CD or DVD.
        Iso = "iso",
        /// Parallels' and Virtuozzo's.
        Ploop = "ploop",
        /// A machine image of Amazon's kind: a bare file system, started by a kernel of its own.
        Ami = "ami",
        /// An initial RAM disk of Amazon's kind.
        Ari = "ari",
        /// A kernel of Amazon's kind.
        Aki = "aki",
    }
}

words! {
    /// What a file is wrapped in.
    ContainerFormat, "container format" {
        /// Nothing.
        Bare = "bare",
        /// An OVF package's disk.
        Ovf = "ovf",
        /// An appliance: an OVF package as one tar file.
        Ova = "ova",
        /// A container image as `docker save` or an OCI layout has it.
        Docker = "docker",
        /// Amazon's machine image.
        Ami = "ami",
        /// Amazon's initial RAM disk.
        Ari = "ari",
        /// Amazon's kernel.
        Aki = "aki",
        /// A compressed file.
        Compressed = "compressed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_others_are_told_the_choice() {
        for format in FileFormat::ALL {
            assert_eq!(format.as_str().parse(), Ok(*format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
        }
        for format in ContainerFormat::ALL {
            assert_eq!(format.as_str().parse(), Ok(*format));
        }
        let error = "QCOW2".parse::<FileFormat>().unwrap_err().to_string();
        assert!(
            error.starts_with("\"QCOW2\" is not a disk format; the disk formats are raw, qcow2,"),
            "{error}"
        );
    }
}
