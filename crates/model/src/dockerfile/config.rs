//! From instructions to the config of an image, as docker shows it (`Env`, `Cmd`, …), and to its history.

use super::{
    DockerfileError, Result,
    instruction::{Check, Instruction, Program},
};
use crate::image_manifest::CONFIG_BYTES_MAX;
use serde_json::{Map, Value, json};

/// The shell of lines, unless `SHELL` says otherwise.
pub const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Where programs are looked for in an image that does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most ports that one image exposes.
pub const PORTS_MAX: usize = 1024;
/// Most labels, variables, volumes and triggers of one image each.
pub const ENTRIES_MAX: usize = 1024;

/// Applies what an instruction says to a config. Names in it were replaced before. Instructions that change files and no
/// config change nothing here.
///
/// # Errors
/// Ports that are none, or more of something than an image may have.
pub fn apply(config: &mut Value, line: u32, instruction: &Instruction) -> Result<()> {
    sound(config);
    match instruction {
        Instruction::Cmd(program) => config["Cmd"] = words(config, program),
        Instruction::Entrypoint(program) => config["Entrypoint"] = words(config, program),
        Instruction::User(user) => config["User"] = json!(user),
        Instruction::StopSignal(signal) => config["StopSignal"] = json!(signal),
        Instruction::Workdir(path) => {
            let old = config["WorkingDir"].as_str().unwrap_or("").to_string();
            config["WorkingDir"] = json!(joined(&old, path));
        }
        Instruction::Env(pairs) => {
            for (key, value) in pairs {
                if key.is_empty() {
                    return Err(DockerfileError::new(line, "ENV names can not be blank"));
                }
                set_env(config, key, value);
            }
        }
        Instruction::Label(pairs) => {
            for (key, value) in pairs {
                config["Labels"][key] = json!(value);
            }
        }
        Instruction::Expose(ports) => {
            for port in ports {
                for key in port_keys(line, port)? {
                    config["ExposedPorts"][key] = json!({});
                }
            }
        }
        Instruction::Volume(paths) => {
            for path in paths {
                if path.is_empty() {
                    return Err(DockerfileError::new(line, "VOLUME specified can not be an empty string"));
                }
                config["Volumes"][path] = json!({});
            }
        }
        Instruction::Onbuild(text) => match config["OnBuild"].as_array_mut() {
            Some(all) => all.push(json!(text)),
            None => config["OnBuild"] = json!([text]),
        },
        Instruction::Shell(shell) => config["Shell"] = json!(shell),
        Instruction::Healthcheck(check) => config["Healthcheck"] = health(config, check.as_ref()),
        Instruction::From(_)
        | Instruction::Run(_)
        | Instruction::Copy(_)
        | Instruction::Arg(_)
        | Instruction::Maintainer(_) => {}
    }
    check_counts(config, line)
}

/// Takes away what has not the form that docker gives it: configs of images come from strangers.
fn sound(config: &mut Value) {
    if !config.is_object() {
        *config = json!({});
    }
    let Some(fields) = config.as_object_mut() else { return };
    for name in ["Labels", "ExposedPorts", "Volumes"] {
        fields.retain(|key, value| key != name || value.is_object());
    }
    for name in ["Env", "OnBuild", "Shell"] {
        let is_list = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
        fields.retain(|key, value| key != name || is_list(value));
    }
}

fn check_counts(config: &Value, line: u32) -> Result<()> {
    let count = |name: &str| match &config[name] {
        Value::Array(all) => all.len(),
        Value::Object(all) => all.len(),
        _ => 0,
    };
    for (name, max) in [
        ("Env", ENTRIES_MAX),
        ("Labels", ENTRIES_MAX),
        ("Volumes", ENTRIES_MAX),
        ("OnBuild", ENTRIES_MAX),
        ("ExposedPorts", PORTS_MAX),
    ] {
        if count(name) > max {
            return Err(DockerfileError::new(
                line,
                format!("the image has more than {max} entries of {name}"),
            ));
        }
    }
    if bytes(config) as u64 > CONFIG_BYTES_MAX {
        let message = format!("the config of the image has more than {CONFIG_BYTES_MAX} bytes");
        return Err(DockerfileError::new(line, message).hint("COPY large texts into files"));
    }
    Ok(())
}

/// How many bytes a config has at least.
fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(bytes).sum(),
        Value::Object(all) => all.iter().map(|(name, value)| name.len() + bytes(value)).sum(),
        _ => 0,
    }
}

/// A program with its arguments: words, or a line for the shell of the image.
pub fn words(config: &Value, program: &Program) -> Value {
    json!(argv(config, program))
}

/// The same as words.
pub fn argv(config: &Value, program: &Program) -> Vec<String> {
    match program {
        Program::Exec(words) => words.clone(),
        Program::Shell(text) => [shell(config), vec![text.clone()]].concat(),
    }
}

/// The shell of an image.
pub fn shell(config: &Value) -> Vec<String> {
    let own = config["Shell"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).map(str::to_string).collect());
    own.filter(|words: &Vec<String>| !words.is_empty()).unwrap_or_else(|| SHELL.map(str::to_string).to_vec())
}

/// The environment of an image.
pub fn env(config: &Value) -> Vec<String> {
    config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

/// Sets `PATH` where it is missing.
pub(super) fn give_path(config: &mut Value) {
    sound(config);
    if !env(config).iter().any(|pair| pair.starts_with("PATH=")) {
        set_env(config, "PATH", PATH);
    }
}

fn set_env(config: &mut Value, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    let Some(all) = config["Env"].as_array_mut() else {
        config["Env"] = json!([entry]);
        return;
    };
    let is_same = |one: &Value| one.as_str().is_some_and(|one| one.split('=').next() == Some(key));
    match all.iter_mut().find(|one| is_same(one)) {
        Some(one) => *one = json!(entry),
        None => all.push(json!(entry)),
    }
}

/// A path below a directory, without `.` and `..`, as Go's `path.Join` does it. An absolute one stands for itself.
pub fn joined(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_string() } else { format!("{directory}/{path}") };
    let mut parts: Vec<&str> = vec![];
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `53/udp`, `8000-8010/tcp`.
fn port_keys(line: u32, text: &str) -> Result<Vec<String>> {
    let wrong = || {
        DockerfileError::new(line, format!("Invalid containerPort: {text:.40}"))
            .hint("write EXPOSE PORT[-PORT][/PROTOCOL], with ports from 1 to 65535 and tcp, udp or sctp")
    };
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(wrong()) };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") || first > last {
        return Err(wrong());
    }
    if usize::from(last - first) >= PORTS_MAX {
        return Err(DockerfileError::new(
            line,
            format!("the image has more than {PORTS_MAX} entries of ExposedPorts"),
        ));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn health(config: &Value, check: Option<&Check>) -> Value {
    let Some(check) = check else { return json!({ "Test": ["NONE"] }) };
    let test: Vec<String> = match &check.program {
        Program::Exec(words) => std::iter::once("CMD".to_string()).chain(words.iter().cloned()).collect(),
        // The shell of the image, as it is when the check is run.
        Program::Shell(text) if shell(config) == SHELL => vec!["CMD-SHELL".into(), text.clone()],
        Program::Shell(_) => std::iter::once("CMD".to_string()).chain(argv(config, &check.program)).collect(),
    };
    let mut fields = Map::new();
    fields.insert("Test".into(), json!(test));
    for (name, value) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", check.retries.into()),
    ] {
        if value > 0 {
            fields.insert(name.into(), json!(value));
        }
    }
    fields.into()
}

/// What an image's history says of an instruction that changes no files, as docker writes it.
pub fn created_by(instruction: &Instruction) -> String {
    let pairs = |pairs: &[(String, String)]| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    let program = |program: &Program| match program {
        Program::Exec(words) => listed(words),
        Program::Shell(text) => listed(&[SHELL[0].into(), SHELL[1].into(), text.clone()]),
    };
    let text = match instruction {
        Instruction::Cmd(it) | Instruction::Entrypoint(it) => program(it),
        Instruction::Label(it) | Instruction::Env(it) => pairs(it),
        Instruction::Maintainer(text)
        | Instruction::User(text)
        | Instruction::Workdir(text)
        | Instruction::Onbuild(text)
        | Instruction::StopSignal(text) => text.clone(),
        Instruction::Expose(all) => all.join(" "),
        Instruction::Volume(all) => format!("[{}]", all.join(" ")),
        Instruction::Shell(words) => listed(words),
        Instruction::Healthcheck(None) => "NONE".into(),
        Instruction::Healthcheck(Some(check)) => format!("CMD {}", program(&check.program)),
        Instruction::Arg(all) => {
            let one = |(name, value): &(String, Option<String>)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            };
            all.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Instruction::From(from) => from.image.clone(),
        Instruction::Run(run) => program(&run.program),
        Instruction::Copy(copy) => copy.target.clone(),
    };
    format!("/bin/sh -c #(nop)  {} {text}", instruction.word())
}

/// Words as Go prints a list of quoted ones.
fn listed(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}
