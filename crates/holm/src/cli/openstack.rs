//! `holm openstack`: how OpenStack's clients get in.

use super::{
    failure::{Failure, Result},
    output::{self, Format},
    session::Session,
};
use api::v1::types::version::OpenStackView;
use model::error::Code;
use serde_json::{Value, json};
use std::fmt::Write;

/// Verbs of `holm openstack`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Print the environment and the clouds.yaml entry of OpenStack's clients; for root with the password of admin
    #[command(after_help = "Examples:
  source <(sudo holm openstack rc)               # then: openstack server list
  sudo holm openstack rc --clouds-yaml > ~/.config/openstack/clouds.yaml; openstack --os-cloud holm server list")]
    Rc(RcArgs),
}

/// Whose environment, and in which form.
#[derive(Debug, Clone, clap::Args)]
pub struct RcArgs {
    /// User that logs in; the password of others than admin is asked for when the environment is read
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,
    /// Print the entry of clouds.yaml alone
    #[arg(long)]
    pub clouds_yaml: bool,
}

/// Runs a verb.
///
/// # Errors
/// The daemon has no such door, or does not tell this caller of it.
pub async fn run(session: &Session, connection: &super::connection::ConnectionArgs, verb: Verb) -> Result {
    let Verb::Rc(args) = verb;
    let version = session.client.version().await?;
    let Some(door) = version.openstack else {
        return Err(no_door(version.caller.role == "admin"));
    };
    let password =
        if args.user == "admin" { std::fs::read_to_string(&door.password_file).ok() } else { None };
    let project = connection.project.clone().unwrap_or_else(|| {
        if args.user == "admin" { "admin".into() } else { version.caller.project.name.clone() }
    });
    let login = Login {
        door: &door,
        user: &args.user,
        project: &project,
        password: password.as_deref().map(str::trim),
    };
    let text = match (session.printer.format, args.clouds_yaml) {
        (Some(Format::Json), _) => output::json(&login.clouds())?,
        (Some(Format::Yaml), _) | (None, true) => output::yaml(&login.clouds())?,
        _ => login.environment()?,
    };
    output::write(text.as_bytes())
}

fn no_door(is_admin: bool) -> Failure {
    let (message, hint) = if is_admin {
        (
            "the daemon does not serve the OpenStack API",
            "start it with `holm serve --openstack 127.0.0.1:5000`, or HOLM_OPENSTACK=… in /etc/default/holm",
        )
    } else {
        ("only admins are told how to get in", "use `sudo holm openstack rc`")
    };
    let code = if is_admin { Code::Unsupported } else { Code::Forbidden };
    Failure::new(code, message).hint(hint)
}

/// What a client needs to know to log in.
struct Login<'a> {
    door: &'a OpenStackView,
    user: &'a str,
    project: &'a str,
    password: Option<&'a str>,
}

impl Login<'_> {
    /// An entry of clouds.yaml, called `holm`.
    fn clouds(&self) -> Value {
        let mut cloud = json!({
            "auth": {
                "auth_url": self.door.auth_url,
                "username": self.user,
                "project_name": self.project,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "region_name": self.door.region,
            "interface": "public",
            "identity_api_version": "3",
        });
        if let Some(password) = self.password {
            cloud["auth"]["password"] = json!(password);
        }
        if let Some(file) = &self.door.ca_file {
            cloud["cacert"] = json!(file);
        }
        json!({ "clouds": { "holm": cloud } })
    }

    /// Lines for a shell, with the entry of clouds.yaml as a comment.
    fn environment(&self) -> Result<String> {
        let mut text = String::new();
        let door = self.door;
        let ca = door.ca_file.as_deref();
        let pairs = [
            ("OS_AUTH_URL", Some(door.auth_url.as_str())),
            ("OS_USERNAME", Some(self.user)),
            ("OS_PASSWORD", self.password),
            ("OS_PROJECT_NAME", Some(self.project)),
            ("OS_USER_DOMAIN_NAME", Some("Default")),
            ("OS_PROJECT_DOMAIN_NAME", Some("Default")),
            ("OS_REGION_NAME", Some(door.region.as_str())),
            ("OS_INTERFACE", Some("public")),
            ("OS_IDENTITY_API_VERSION", Some("3")),
            ("OS_CACERT", ca),
        ];
        let ok = "writing to a text cannot fail";
        for (name, value) in pairs {
            if let Some(value) = value {
                writeln!(text, "export {name}={}", quoted(value)).expect(ok);
            } else if name == "OS_PASSWORD" {
                let ask = format!("Password of {} in the project {}: ", self.user, self.project);
                writeln!(
                    text,
                    "printf %s {} >&2; read -rs OS_PASSWORD; echo >&2; export OS_PASSWORD",
                    quoted(&ask)
                )
                .expect(ok);
            }
        }
        text.push_str("# The same as an entry of ~/.config/openstack/clouds.yaml, for --os-cloud holm:\n");
        for line in output::yaml(&self.clouds())?.lines() {
            writeln!(text, "#   {line}").expect(ok);
        }
        Ok(text)
    }
}

/// A word for a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_be_read_by_a_shell() {
        let door = OpenStackView {
            auth_url: "https://cloud.example:5000/identity/v3".into(),
            region: "RegionOne".into(),
            ca_file: Some("/var/lib/holm/tls/cert.pem".into()),
            password_file: "/var/lib/holm/openstack/admin-password".into(),
        };
        let login = Login { door: &door, user: "admin", project: "ann's shop", password: Some("pass") };
        insta::assert_snapshot!("rc", login.environment().unwrap());
        let login = Login { user: "ann", password: None, ..login };
        insta::assert_snapshot!("rc_without_password", login.environment().unwrap());
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (text, shown) in
            [("a-b", "a-b"), ("", "''"), ("a b", "'a b'"), ("a'b", r"'a'\''b'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(text), shown);
        }
    }
}
