//! `holm login` and `holm logout`: names and passwords for registries, kept where docker's own client keeps them.
//!
//! The file is docker's (`$DOCKER_CONFIG/config.json`, `~/.docker/config.json`), so that who has logged in with one has
//! with the other. A helper that it names is asked as docker asks it. What is read goes along with one pull or push; the
//! daemon keeps none of it.

use crate::cli::{
    failure::{Failure, Result},
    output,
    session::Session,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::image_reference::{DEFAULT_REGISTRY, Reference};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    process::{Command, Stdio},
};

/// What docker calls its own registry in the file.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Where to log in.
#[derive(Debug, Clone, clap::Args)]
pub struct LoginArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// Name
    #[arg(long, short, value_name = "NAME")]
    pub username: Option<String>,
    /// Password; others of this machine may see it: rather --password-stdin
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// Where to log out.
#[derive(Debug, Clone, clap::Args)]
pub struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

/// `holm login`.
///
/// # Errors
/// The registry does not know the name and password, or the file cannot be written.
pub async fn log_in(session: &Session, args: &LoginArgs) -> Result {
    let server = key(args.server.as_deref().unwrap_or(DEFAULT_REGISTRY));
    let username = match &args.username {
        Some(name) => name.clone(),
        None if args.password_stdin => {
            return Err(Failure::usage("must provide --username with --password-stdin"));
        }
        None => ask(session, "Username: ")?,
    };
    let password = match &args.password {
        Some(password) => {
            session.warn("using --password via the CLI is insecure: use --password-stdin");
            password.clone()
        }
        None if args.password_stdin => {
            let mut text = String::new();
            let read = io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|e| Failure::local("cannot read the password", &e))?;
            text.trim_end_matches(['\r', '\n']).to_string()
        }
        None => ask_unseen(session)?,
    };
    let sent = json!({"username": username, "password": password, "serveraddress": server});
    super::engine::post(session, "/auth", Some(sent)).await?;
    let config = read()?;
    match helper(&config, &server) {
        Some(helper) => {
            let kept = json!({"ServerURL": server, "Username": username, "Secret": password}).to_string();
            ask_helper(helper, "store", &kept).ok_or_else(|| broken(helper))?;
        }
        None => change(|auths| {
            auths.insert(server.clone(), json!({"auth": STANDARD.encode(format!("{username}:{password}"))}));
        })?,
    }
    output::write(b"Login Succeeded\n")
}

/// `holm logout`.
///
/// # Errors
/// The file cannot be written.
pub fn log_out(args: &LogoutArgs) -> Result {
    let server = key(args.server.as_deref().unwrap_or(DEFAULT_REGISTRY));
    let config = read()?;
    if let Some(helper) = helper(&config, &server) {
        // One that does not know it has nothing to forget.
        let _ = ask_helper(helper, "erase", &server);
    }
    if config["auths"].get(&server).is_some() {
        change(|auths| drop(auths.remove(&server)))?;
    }
    output::write(format!("Removing login credentials for {server}\n").as_bytes())
}

/// The credentials for an image's registry as the door takes them; `None` for nobody.
///
/// # Errors
/// The file cannot be read.
pub fn header_for(image: &str) -> Result<Option<String>> {
    // A name that is none is refused by the door, with its reason.
    let Ok(reference) = image.parse::<Reference>() else { return Ok(None) };
    let server = key(reference.registry());
    let config = read()?;
    let header = |login: Value| Some(STANDARD.encode(login.to_string()));
    if let Some(helper) = helper(&config, &server) {
        return Ok(of_helper(helper, &server).and_then(header));
    }
    let same = |(name, login): (&String, &Value)| (key(name) == server).then(|| login.clone());
    let login = config["auths"].as_object().into_iter().flatten().find_map(same);
    Ok(login.filter(|login| login["auth"].is_string()).and_then(header))
}

/// A registry as the file names it.
fn key(server: &str) -> String {
    let name = server.trim_start_matches("https://").trim_start_matches("http://");
    let name = name.split('/').next().unwrap_or(name);
    match name {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "" => DOCKER_HUB.to_string(),
        other => other.to_string(),
    }
}

fn helper<'a>(config: &'a Value, server: &str) -> Option<&'a str> {
    let own = config["credHelpers"][server].as_str();
    own.or(config["credsStore"].as_str())
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

/// The name and the secret that a helper has for a registry.
fn of_helper(helper: &str, server: &str) -> Option<Value> {
    let told: Value = serde_json::from_str(&ask_helper(helper, "get", server)?).ok()?;
    Some(json!({"username": told["Username"], "password": told["Secret"]}))
}

/// Asks a helper (docker-credential-helpers): a word, something on its input, an answer on its output.
fn ask_helper(helper: &str, word: &str, input: &str) -> Option<String> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg(word).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let answer = child.wait_with_output().ok().filter(|output| output.status.success())?;
    String::from_utf8(answer.stdout).ok()
}

fn broken(helper: &str) -> Failure {
    Failure::usage(format!("docker-credential-{helper} does not keep the login"))
        .hint("it is named by credsStore or credHelpers in docker's config.json")
}

fn place() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    let nowhere =
        || Failure::usage("where credentials are kept is not known").hint("set HOME or DOCKER_CONFIG");
    directory.map(|directory| directory.join("config.json")).ok_or_else(nowhere)
}

fn read() -> Result<Value> {
    let path = place()?;
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({})),
        other => other.map_err(|e| Failure::local(format!("cannot read {}", path.display()), &e))?,
    };
    let config = serde_json::from_str(&text);
    config.map_err(|e| Failure::usage(format!("{} is no JSON: {e}", path.display())))
}

/// Changes the file, whole or not at all. All else that it has stays.
fn change(edit: impl FnOnce(&mut Map<String, Value>)) -> Result {
    let path = place()?;
    let mut config = read()?;
    let Some(whole) = config.as_object_mut() else {
        return Err(Failure::usage(format!("{} is no object of JSON", path.display())));
    };
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else {
        return Err(Failure::usage(format!("{}: auths is no object", path.display())));
    };
    edit(auths);
    let text = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
    let failed = |e: io::Error| Failure::local(format!("cannot write {}", path.display()), &e);
    let directory = path.parent().unwrap_or(&path).to_path_buf();
    fs::create_dir_all(&directory).map_err(failed)?;
    let partial = directory.join(format!(".config.json.{}", std::process::id()));
    let written = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    };
    let outcome = written();
    if outcome.is_err() {
        let _ = fs::remove_file(&partial);
    }
    outcome.map_err(failed)
}

fn ask(session: &Session, question: &str) -> Result<String> {
    if !session.stdin_is_terminal {
        return Err(Failure::usage("nobody can be asked here").hint("give -u NAME and --password-stdin"));
    }
    eprint!("{question}");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|e| Failure::local("cannot read the answer", &e))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}

/// Reads a password that the terminal does not show.
fn ask_unseen(session: &Session) -> Result<String> {
    let stdin = io::stdin();
    let _raw = stdin.is_terminal().then(|| crate::cli::stream::enter_raw(stdin.as_fd())).transpose()?;
    eprint!("Password: ");
    let answer = if session.stdin_is_terminal { keys() } else { ask(session, "") };
    eprintln!("\r");
    answer
}

/// Keys until Enter, as a raw terminal sends them.
fn keys() -> Result<String> {
    let mut bytes = vec![];
    for byte in io::stdin().lock().take(PASSWORD_BYTES_MAX).bytes() {
        match byte.map_err(|e| Failure::local("cannot read the password", &e))? {
            b'\r' | b'\n' => break,
            3 | 4 => return Err(Failure::silent(130)),
            8 | 127 => drop(bytes.pop()),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("the password is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_called_as_docker_calls_them() {
        for (server, name) in [
            ("docker.io", DOCKER_HUB),
            ("https://index.docker.io/v1/", DOCKER_HUB),
            ("localhost:5000", "localhost:5000"),
            ("https://registry.example/v2/", "registry.example"),
        ] {
            assert_eq!(key(server), name);
        }
        let config =
            json!({"credsStore": "pass", "credHelpers": {"a.example": "gcloud", "b.example": "../sh"}});
        assert_eq!(helper(&config, "a.example"), Some("gcloud"));
        assert_eq!(helper(&config, "c.example"), Some("pass"));
        assert_eq!(helper(&config, "b.example"), None, "a name with a path in it is no helper's");
    }
}
