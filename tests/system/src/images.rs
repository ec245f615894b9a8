//! Images of the tests, made by `scripts/images/build` and kept in its cache.

use std::path::{Path, PathBuf};

/// Where the scripts are that make images.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/images")
}

/// The cache of images.
#[derive(Debug, Clone)]
pub struct Images(PathBuf);

impl Images {
    /// The cache of whoever runs the tests.
    ///
    /// # Panics
    /// When there is no home directory to look in.
    pub fn find() -> Self {
        let directory = std::env::var_os("HOLM_IMAGE_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME is set");
            Path::new(&home).join(".cache/holm/images")
        });
        Self(directory)
    }

    /// A file of an image.
    ///
    /// # Panics
    /// When it was not made.
    pub fn file(&self, image: &str, name: &str) -> PathBuf {
        let path = self.0.join(image).join("current").join(name);
        assert!(path.exists(), "{} is missing: run scripts/images/build {image}", path.display());
        path
    }

    /// A file of the micro guest.
    ///
    /// # Panics
    /// When it was not made.
    pub fn micro(&self, name: &str) -> PathBuf {
        self.file("micro", name)
    }

    /// The kernel of pods with a machine of their own; its modules lie beside it.
    ///
    /// # Panics
    /// When it was not made.
    pub fn guest_kernel(&self) -> PathBuf {
        self.file("kernel", "vmlinuz")
    }
}
