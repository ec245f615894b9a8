//! `holm keypair`: SSH public keys. A private key never leaves the user's machine.

use super::{
    completion,
    failure::{Failure, Result},
    keys,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    keypair::{CreateKeypair, Keypair, UpdateKeypair},
    list::WaitQuery,
};
use model::{error::Code, keypair::KeyKind};
use node::image::registry::{Settings, Web};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};
use tokio::io::AsyncReadExt as _;

/// Most bytes of a file of public keys.
const KEYS_BYTES_MAX: u64 = 256 * 1024;

/// Verbs of `holm keypair`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List SSH keys
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show an SSH key
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("keypairs"))]
        name: String,
    },
    /// Import a public key from a file, standard input, your ssh-agent, ~/.ssh, GitHub or another page on the web
    #[command(visible_alias = "create")]
    Import(ImportArgs),
    /// Change a key's name, description and labels
    Set(SetArgs),
    /// Let nobody in by this key any more: all instances give it up, running guests by their agents
    Revoke {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("keypairs"))]
        name: String,
    },
    /// Delete SSH keys; instances made with them keep them, unless the key is revoked before
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A key to import.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// File with the public key; - for standard input [default: the first of ~/.ssh/id_*.pub]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// File with the public key, as an option
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "agent"])]
    pub public_key: Option<PathBuf>,
    /// Take the first key of your ssh-agent, or the one whose comment contains this text
    #[arg(long, value_name = "COMMENT", num_args = 0..=1, default_missing_value = "", require_equals = true, conflicts_with = "file")]
    pub agent: Option<String>,
    /// Take the first key that somebody shows on GitHub under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "public_key", "agent"])]
    pub github: Option<String>,
    /// Take the first key of a page on the web, like https://gitlab.com/NAME.keys
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "public_key", "agent", "github"])]
    pub url: Option<String>,
    /// It is an X.509 certificate in PEM, for guests that know people by these (Windows)
    #[arg(long, conflicts_with = "agent")]
    pub x509: bool,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a key's record.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("keypairs"))]
    pub keypair: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Shown for Keypair {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |k| Cell::text(&k.head.name)),
        wide("ID", |k| Cell::text(k.head.id)),
        column("TYPE", |k| Cell::text(key_type(k))),
        column("FINGERPRINT", |k| Cell::text(&k.fingerprint)),
        column("INSTANCES", |k| Cell::list(k.instances.iter().map(|i| &i.name))),
        column("AGE", |k| Cell::Time(k.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }
}

fn key_type(key: &Keypair) -> &str {
    match key.kind {
        KeyKind::Ssh => key.public_key.split(' ').next().unwrap_or_default(),
        KeyKind::X509 => "x509",
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses, or no key is found.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => noun::list::<Keypair>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<Keypair>(session, &name).await,
        Verb::Import(args) => import(session, &args).await,
        Verb::Set(args) => {
            let request = UpdateKeypair {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
            };
            noun::change::<Keypair>(session, &args.keypair, &request).await
        }
        Verb::Revoke { name } => revoke(session, &name).await,
        Verb::Delete(args) => noun::delete::<Keypair>(session, &args).await,
    }
}

async fn import(session: &Session, args: &ImportArgs) -> Result {
    let file = args.public_key.as_ref().or(args.file.as_ref());
    let text = match (&args.agent, &args.github, &args.url, file) {
        (Some(comment), ..) => from_agent(comment)?,
        (_, Some(name), ..) => from_web(&github_page(name)?).await?,
        (_, _, Some(url), _) => from_web(url).await?,
        (.., Some(path)) => read(path)?,
        (.., None) => read(&own_key()?)?,
    };
    let request = CreateKeypair {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        kind: if args.x509 { KeyKind::X509 } else { KeyKind::Ssh },
        public_key: if args.x509 { certificate(&text)? } else { public_line(&text)? },
    };
    let made = session.client.create::<Keypair>(&request, &WaitQuery::default()).await?;
    noun::tell(session, &made, &format!("is imported ({})", made.fingerprint))?;
    session.next(format!("holm run --key {} IMAGE", made.head.name));
    Ok(())
}

async fn revoke(session: &Session, name: &str) -> Result {
    let revoked = session.client.revoke_keypair(name).await?;
    if revoked.instances.is_empty() {
        session.say(format!("no instance has the key {name}"));
    }
    let mut left = vec![];
    for instance in &revoked.instances {
        let now = keys::taken_over(session, &instance.id.to_string()).await?;
        if keys::warn(session, &now) {
            left.push(instance.name.clone());
        } else {
            session.say(format!("instance {} lets the holder of {name} in no more", instance.name));
        }
    }
    if left.is_empty() {
        session.next(format!("holm keypair delete {name}"));
        return Ok(());
    }
    let message = format!("guests that still let the holder of {name} in: {}", left.join(", "));
    let hint =
        "start their guest agents (qemu-guest-agent), or take the key out of ~/.ssh/authorized_keys in them";
    Err(Failure::new(Code::Conflict, message).hint(hint))
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let done = if path == Path::new("-") {
        std::io::stdin().lock().take(KEYS_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(KEYS_BYTES_MAX).read_to_string(&mut text))
    };
    done.map(|_| text).map_err(|e| Failure::local(format!("cannot read the key {}", path.display()), &e))
}

/// A certificate; the private key that often stands beside it in the same file stays here.
fn certificate(text: &str) -> Result<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let begin = text.find("-----BEGIN CERTIFICATE-----");
    let found =
        begin.and_then(|at| text[at..].find(END).map(|end| text[at..at + end + END.len()].to_string()));
    found.ok_or_else(|| Failure::usage("there is no certificate in it"))
}

/// The first line that holds a key.
fn public_line(text: &str) -> Result<String> {
    if text.contains("PRIVATE KEY") {
        return Err(Failure::usage("this is a private key, and it was not sent")
            .hint("give the file that ends with .pub"));
    }
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map(str::to_string).ok_or_else(|| Failure::usage("there is no public key in it"))
}

fn own_key() -> Result<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let names = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];
    let found = names.iter().map(|name| home.join(".ssh").join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::usage("there is no public key in ~/.ssh")
            .hint("make one with `ssh-keygen -t ed25519`, or name a file, - or --agent")
    })
}

fn from_agent(comment: &str) -> Result<String> {
    let output = std::process::Command::new("ssh-add").arg("-L").output();
    let output = output.map_err(|e| Failure::local("cannot ask the ssh-agent (ssh-add -L)", &e))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find(|line| {
        output.status.success() && line.splitn(3, ' ').nth(2).unwrap_or_default().contains(comment)
    });
    found.map(str::to_string).ok_or_else(|| {
        let which = if comment.is_empty() {
            "no key".to_string()
        } else {
            format!("no key with {comment:?} in its comment")
        };
        Failure::usage(format!("the ssh-agent has {which}"))
            .hint("`ssh-add -L` shows its keys, `ssh-add` adds yours")
    })
}

/// Where GitHub shows somebody's keys (docs.github.com, "REST API endpoints for Git SSH keys", and github.com/NAME.keys).
fn github_page(name: &str) -> Result<String> {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if name.is_empty() || !is_name(name) {
        return Err(Failure::usage(format!("{name:?} is no name on GitHub"))
            .hint("letters, digits and dashes, as after github.com/"));
    }
    Ok(format!("https://github.com/{name}.keys"))
}

/// A page of keys. It comes by TLS, but from this machine itself: whoever can change it on its way would get in.
async fn from_web(url: &str) -> Result<String> {
    let uri: hyper::Uri = url.parse().map_err(|error| Failure::usage(format!("{url:?}: {error}")))?;
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let is_here = ["localhost", "127.0.0.1", "[::1]"].contains(&uri.host().unwrap_or_default());
    if uri.scheme_str() != Some("https") && !is_here {
        return Err(
            Failure::usage(format!("{url} could be changed on its way")).hint("give an https:// address")
        );
    }
    let what = format!("cannot fetch the key from {url}");
    let cannot = |error: std::io::Error| Failure::local(&what, &error);
    let web =
        Web::new(&Settings::default(), &[host.to_string()]).map_err(|e| cannot(std::io::Error::other(e)))?;
    let answer = web.get(url).await;
    let (body, _) = answer.map_err(|error| {
        let hint = error.hint();
        cannot(std::io::Error::other(error)).hint(hint)
    })?;
    let mut text = String::new();
    body.take(KEYS_BYTES_MAX).read_to_string(&mut text).await.map_err(cannot)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_keys_are_named_and_come_unchanged() {
        assert_eq!(github_page("a-user1").unwrap(), "https://github.com/a-user1.keys");
        for wrong in ["", "a/b", "a.b", "a b"] {
            assert!(github_page(wrong).is_err(), "{wrong}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(from_web("http://keys.example/me")).unwrap_err();
        assert!(refused.text(false).contains("changed on its way"));
    }

    #[test]
    fn a_private_key_is_never_sent() {
        assert!(public_line("-----BEGIN OPENSSH PRIVATE KEY-----\n").is_err());
        assert_eq!(public_line("# mine\n\nssh-ed25519 AAAA me\n").unwrap(), "ssh-ed25519 AAAA me");
        assert!(public_line("\n").is_err());
    }
}
