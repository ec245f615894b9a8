//! The OpenStack door of the daemon: where it listens, the first user, and the rules for logging in.

use super::{Dirs, ServeError, host_error, listen::Listen};
use api::{
    App,
    openstack::{Door, Settings},
    server::{Bounds, tls::CertificateFiles},
    v1::types::version::OpenStackView,
};
use control::Control;
use jiff::SignedDuration;
use model::user::Rules;
use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Letters of the password that the first start makes up.
const PASSWORD_BYTES: usize = 24;

/// Options of the OpenStack door and of logging in.
#[derive(Debug, Clone, clap::Args)]
pub struct OpenStackOptions {
    /// Address for the OpenStack API, like 127.0.0.1:5000: plain HTTP on loopback, TLS elsewhere or with https:// in
    /// front; no such door when not given.
    #[arg(long, env = "HOLM_OPENSTACK", value_name = "ADDRESS:PORT")]
    pub openstack: Option<Listen>,
    /// Address under which clients reach it, if it is not the one that they call: behind a proxy.
    #[arg(long, env = "HOLM_OPENSTACK_URL", value_name = "URL")]
    pub openstack_url: Option<String>,
    /// Name of the region that OpenStack clients see.
    #[arg(long, env = "HOLM_OPENSTACK_REGION", value_name = "NAME", default_value = "RegionOne")]
    pub openstack_region: String,
    /// Failed logins in a row that lock a user; 0 never locks.
    #[arg(long, env = "HOLM_LOGIN_ATTEMPTS", value_name = "COUNT", default_value_t = 10)]
    pub login_attempts: u32,
    /// How long a locked user stays locked, in seconds.
    #[arg(long, env = "HOLM_LOGIN_LOCK", value_name = "SECONDS", default_value_t = 60)]
    pub login_lock: u32,
    /// How many of the last passwords, the present one included, a user may not choose again.
    #[arg(long, env = "HOLM_UNIQUE_PASSWORDS", value_name = "COUNT", default_value_t = 1)]
    pub unique_passwords: u8,
    /// How long a login lasts, in seconds.
    #[arg(long, env = "HOLM_SESSION_LIFETIME", value_name = "SECONDS", default_value_t = 12 * 3_600)]
    pub session_lifetime: u32,
}

impl OpenStackOptions {
    /// The rules for logging in.
    pub fn rules(&self) -> Rules {
        Rules {
            lockout_attempts: self.login_attempts,
            lockout_duration: SignedDuration::from_secs(self.login_lock.into()),
            unique_passwords: self.unique_passwords.into(),
            session_lifetime: SignedDuration::from_secs(self.session_lifetime.into()),
        }
    }

    fn settings(&self, listen: Listen) -> Settings {
        Settings {
            public_url: self.openstack_url.clone(),
            is_tls: listen.is_tls,
            region: self.openstack_region.clone(),
        }
    }
}

/// Where the password of the first user is kept, for root alone.
pub(super) fn password_file(state: &Path) -> PathBuf {
    state.join("openstack").join("admin-password")
}

/// Makes the first user with a password of its own, and keeps that where root alone reads it.
///
/// The file comes first: a crash between the two leaves a password without a user, and the next start takes it.
pub(super) async fn begin(control: &Control, dirs: &Dirs) -> Result<(), ServeError> {
    let path = password_file(&dirs.state);
    let password = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_string(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let directory = dirs.state.join("openstack");
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(host_error(format!("make {}", directory.display())))?;
            let password = random_password().map_err(host_error("read random bytes"))?;
            sys::file::write_atomic(&path, format!("{password}\n").as_bytes(), 0o600)
                .map_err(|e| host_error(format!("write {}", path.display()))(std::io::Error::other(e)))?;
            password
        }
        Err(error) => return Err(host_error(format!("read {}", path.display()))(error)),
    };
    control.begin_admin(&password).await?;
    Ok(())
}

fn random_password() -> std::io::Result<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0; PASSWORD_BYTES * 3 / 4];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes).map_err(std::io::Error::other)?;
    // A password that begins with a dash is hard to type on a command line.
    Ok(URL_SAFE_NO_PAD.encode(bytes).replace(['-', '_'], "x"))
}

/// What the native door tells admins of this one.
pub(super) fn view(options: &OpenStackOptions, dirs: &Dirs) -> Option<OpenStackView> {
    let listen = options.openstack?;
    let origin = options.openstack_url.clone().unwrap_or_else(|| listen.origin());
    let certificate = CertificateFiles::in_directory(&dirs.state.join("tls")).certificate;
    Some(OpenStackView {
        auth_url: format!("{}/identity/v3", origin.trim_end_matches('/')),
        region: options.openstack_region.clone(),
        ca_file: listen.is_tls.then(|| certificate.display().to_string()),
        password_file: password_file(&dirs.state).display().to_string(),
    })
}

/// Opens the door, if it is wanted.
pub(super) fn open(
    options: &OpenStackOptions,
    dirs: &Dirs,
    app: App,
    bounds: Bounds,
    stopping: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, ServeError> {
    let Some(listen) = options.openstack else {
        return Ok(None);
    };
    let router = api::openstack::router(Door::new(app, options.settings(listen)));
    listen.open("OpenStack API", router, dirs, bounds, stopping).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_passwords_differ_and_are_easy_to_type() {
        let (one, other) = (random_password().unwrap(), random_password().unwrap());
        assert!(one != other && one.len() == PASSWORD_BYTES);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()), "{one}");
    }
}
