//! `RUN --mount`: what a program finds beside the files of its stage, and what is no part of the layer that it makes.
//!
//! ```text
//!   --mount=type=cache,target=/root/.cache      a directory that builds share
//!   --mount=type=tmpfs,target=/tmp              one in memory
//!   --mount=type=secret,id=token                /run/secrets/token, of the client
//!   --mount=type=ssh                            a socket that leads to the client's SSH agent
//!   --mount=type=bind,from=tools,source=/x,target=/y    files of a stage, an image or the context
//! ```
//!
//! Source: the Dockerfile reference of docker's documentation.

use super::Flags;
use crate::dockerfile::{Result, words::WordResult};
use std::collections::BTreeMap;

/// Most mounts of one instruction.
pub const MOUNTS_MAX: usize = 16;
/// Where secrets are by themselves.
const SECRETS: &str = "/run/secrets";
/// Where sockets of agents are by themselves, with their number behind.
const AGENTS: &str = "/run/buildkit/ssh_agent.";
/// What a client calls the agent that is meant where none is named.
const USUAL_AGENT: &str = "default";

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of a stage, an image or the context. Writes are thrown away.
    Bind {
        /// Stage or image; the context when `None`.
        from: Option<String>,
        /// Path there.
        source: String,
        /// Where.
        target: String,
    },
    /// A directory that builds share.
    Cache {
        /// What builds call it.
        id: String,
        /// Where.
        target: String,
        /// Permissions, owner and group of a new one.
        made: (u32, u32, u32),
        /// Writes are refused.
        is_read_only: bool,
    },
    /// A directory in memory.
    Tmpfs {
        /// Where.
        target: String,
    },
    /// A secret of the client.
    Secret {
        /// What the client calls it.
        id: String,
        /// Where; nowhere if it is in a variable alone.
        target: Option<String>,
        /// The variable that has it.
        variable: Option<String>,
        /// Without it the program is not run.
        is_required: bool,
        /// Permissions.
        mode: u32,
    },
    /// A socket that leads to an SSH agent of the client.
    Ssh {
        /// What the client calls the agent.
        id: String,
        /// Where the socket is.
        target: String,
        /// Without it the program is not run.
        is_required: bool,
        /// Permissions, owner and group of the socket.
        made: (u32, u32, u32),
    },
}

/// Options of one mount, as they are written.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(text: &str) -> WordResult<Self> {
        let mut all = BTreeMap::new();
        for field in text.split(',') {
            let (name, value) = field.split_once('=').unwrap_or((field, "true"));
            let name = match name.trim().to_ascii_lowercase().as_str() {
                "src" => "source".to_string(),
                "dst" | "destination" => "target".to_string(),
                "ro" => "readonly".to_string(),
                "readwrite" => "rw".to_string(),
                other => other.to_string(),
            };
            if all.insert(name.clone(), value.to_string()).is_some() {
                return Err(format!("--mount={text:.100}: {name:.40} is written twice"));
            }
        }
        Ok(Self(all))
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|text| !text.is_empty())
    }

    fn needed(&mut self, name: &str) -> WordResult<String> {
        self.text(name).ok_or_else(|| format!("--mount needs {name}"))
    }

    fn switch(&mut self, name: &str) -> WordResult<Option<bool>> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("--mount: {name} is true or false, not {other:.40}")),
        }
    }

    fn number(&mut self, name: &str, radix: u32) -> WordResult<Option<u32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = u32::from_str_radix(&text, radix);
        number.map(Some).map_err(|_| format!("--mount: {name} is a number, not {text:.40}"))
    }

    fn mode(&mut self, usual: u32) -> WordResult<u32> {
        let mode = self.number("mode", 8)?.unwrap_or(usual);
        if mode <= 0o7777 { Ok(mode) } else { Err("--mount: mode is octal, at most 07777".into()) }
    }

    fn end(self) -> WordResult<()> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                Err(format!("--mount: {name:.40} is not known, or not honoured for this type"))
            }
        }
    }
}

/// Takes the mounts off an instruction's flags.
pub(super) fn take(flags: &mut Flags) -> WordResult<Vec<Mount>> {
    let mut all = vec![];
    while let Some(at) = flags.0.iter().position(|(name, _)| name == "mount") {
        let text = flags.0.remove(at).1.unwrap_or_default();
        if all.len() == MOUNTS_MAX {
            return Err(format!("RUN has more than {MOUNTS_MAX} mounts"));
        }
        let agents = all.iter().filter(|mount| matches!(mount, Mount::Ssh { .. })).count();
        all.push(read(&text, agents)?);
    }
    Ok(all)
}

/// Reads one; `agents` is how many sockets of agents are mounted before it.
fn read(text: &str, agents: usize) -> WordResult<Mount> {
    let mut options = Options::read(text)?;
    let kind = options.text("type").unwrap_or_else(|| "bind".into());
    let mount = match kind.as_str() {
        "bind" => bind(&mut options)?,
        "cache" => cache(&mut options)?,
        "tmpfs" => {
            options.text("size");
            Mount::Tmpfs { target: options.needed("target")? }
        }
        "secret" => secret(&mut options)?,
        "ssh" => ssh(&mut options, agents)?,
        other => return Err(format!("--mount: there is no type {other:.40}")),
    };
    options.end()?;
    Ok(mount)
}

fn bind(options: &mut Options) -> WordResult<Mount> {
    // Writes go nowhere, whether they are asked for or not.
    options.switch("rw")?;
    options.switch("readonly")?;
    Ok(Mount::Bind {
        from: options.text("from"),
        source: options.text("source").unwrap_or_else(|| "/".into()),
        target: options.needed("target")?,
    })
}

fn cache(options: &mut Options) -> WordResult<Mount> {
    let target = options.needed("target")?;
    if options.text("from").is_some() || options.text("source").is_some() {
        return Err("--mount=type=cache: a cache begins empty here, without from and source".into());
    }
    match options.text("sharing").as_deref() {
        // One step at a time has it, which no way of sharing forbids.
        None | Some("shared" | "private" | "locked") => {}
        Some(other) => return Err(format!("--mount: sharing is shared, private or locked, not {other:.40}")),
    }
    let (uid, gid) = (options.number("uid", 10)?.unwrap_or(0), options.number("gid", 10)?.unwrap_or(0));
    let is_read_only = options.switch("readonly")?.unwrap_or(false) || options.switch("rw")? == Some(false);
    let made = (options.mode(0o755)?, uid, gid);
    Ok(Mount::Cache { id: options.text("id").unwrap_or_else(|| target.clone()), target, made, is_read_only })
}

fn secret(options: &mut Options) -> WordResult<Mount> {
    let (id, target) = (options.text("id"), options.text("target"));
    let base = |path: &String| path.rsplit('/').next().unwrap_or(path).to_string();
    let id = id.or_else(|| target.as_ref().map(base)).filter(|id| !id.is_empty());
    let id = id.ok_or("--mount=type=secret needs id")?;
    for name in ["uid", "gid"] {
        if options.number(name, 10)?.is_some_and(|id| id != 0) {
            return Err(format!(
                "--mount=type=secret: {name} is not honoured, mode=0444 lets others read it"
            ));
        }
    }
    let variable = options.text("env");
    let target = match (target, &variable) {
        (None, Some(_)) => None,
        (None, None) => Some(format!("{SECRETS}/{id}")),
        (target, _) => target,
    };
    let is_required = options.switch("required")?.unwrap_or(false);
    Ok(Mount::Secret { target, variable, is_required, mode: options.mode(0o400)? & 0o777, id })
}

fn ssh(options: &mut Options, agents: usize) -> WordResult<Mount> {
    let (uid, gid) = (options.number("uid", 10)?.unwrap_or(0), options.number("gid", 10)?.unwrap_or(0));
    Ok(Mount::Ssh {
        id: options.text("id").unwrap_or_else(|| USUAL_AGENT.into()),
        target: options.text("target").unwrap_or_else(|| format!("{AGENTS}{agents}")),
        is_required: options.switch("required")?.unwrap_or(false),
        made: (options.mode(0o600)? & 0o777, uid, gid),
    })
}

impl Mount {
    /// Stage or image that it is taken from.
    pub fn from(&self) -> Option<&str> {
        match self {
            Self::Bind { from, .. } => from.as_deref(),
            _ => None,
        }
    }

    /// With the names in it replaced.
    pub(super) fn expanded(&self, word: &dyn Fn(&String) -> Result<String>) -> Result<Self> {
        let optional = |text: &Option<String>| text.as_ref().map(word).transpose();
        Ok(match self {
            Self::Bind { from, source, target } => {
                Self::Bind { from: from.clone(), source: word(source)?, target: word(target)? }
            }
            Self::Cache { id, target, made, is_read_only } => {
                Self::Cache { id: word(id)?, target: word(target)?, made: *made, is_read_only: *is_read_only }
            }
            Self::Tmpfs { target } => Self::Tmpfs { target: word(target)? },
            Self::Secret { id, target, variable, is_required, mode } => Self::Secret {
                id: word(id)?,
                target: optional(target)?,
                variable: optional(variable)?,
                is_required: *is_required,
                mode: *mode,
            },
            Self::Ssh { id, target, is_required, made } => {
                Self::Ssh { id: word(id)?, target: word(target)?, is_required: *is_required, made: *made }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_reference_has_them() {
        for (text, wanted) in [
            (
                "type=cache,target=/root/.cache",
                Mount::Cache {
                    id: "/root/.cache".into(),
                    target: "/root/.cache".into(),
                    made: (0o755, 0, 0),
                    is_read_only: false,
                },
            ),
            (
                "type=cache,id=go,dst=/go,sharing=locked,mode=0700,uid=7,gid=8,ro",
                Mount::Cache {
                    id: "go".into(),
                    target: "/go".into(),
                    made: (0o700, 7, 8),
                    is_read_only: true,
                },
            ),
            ("type=tmpfs,target=/t,size=10", Mount::Tmpfs { target: "/t".into() }),
            (
                "type=secret,id=token",
                Mount::Secret {
                    id: "token".into(),
                    target: Some("/run/secrets/token".into()),
                    variable: None,
                    is_required: false,
                    mode: 0o400,
                },
            ),
            (
                "type=secret,id=t,env=TOKEN,required",
                Mount::Secret {
                    id: "t".into(),
                    target: None,
                    variable: Some("TOKEN".into()),
                    is_required: true,
                    mode: 0o400,
                },
            ),
            (
                "from=tools,src=/x,target=/y,rw",
                Mount::Bind { from: Some("tools".into()), source: "/x".into(), target: "/y".into() },
            ),
            ("target=/y", Mount::Bind { from: None, source: "/".into(), target: "/y".into() }),
        ] {
            assert_eq!(read(text, 1), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn agents_are_found_where_they_are_said_to_be() {
        for (text, wanted) in [
            (
                "type=ssh",
                Mount::Ssh {
                    id: "default".into(),
                    target: "/run/buildkit/ssh_agent.1".into(),
                    is_required: false,
                    made: (0o600, 0, 0),
                },
            ),
            (
                "type=ssh,id=git,target=/tmp/agent,required,mode=0660,uid=7,gid=8",
                Mount::Ssh {
                    id: "git".into(),
                    target: "/tmp/agent".into(),
                    is_required: true,
                    made: (0o660, 7, 8),
                },
            ),
        ] {
            assert_eq!(read(text, 1), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for text in [
            "type=cache",
            "type=nosuch,target=/x",
            "type=ssh,source=/x",
            "type=ssh,required=perhaps",
            "type=secret",
            "type=tmpfs,target=/x,nosuch=1",
            "type=cache,target=/x,target=/y",
            "type=cache,target=/x,mode=9",
            "type=cache,target=/x,mode=10000",
            "type=cache,target=/x,sharing=nosuch",
            "type=secret,id=x,uid=7",
        ] {
            assert!(read(text, 0).is_err(), "{text}");
        }
    }
}
