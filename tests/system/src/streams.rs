//! Inside of guests: programs by exec or SSH, consoles, logs.

use crate::{Cloud, cloud::v4_of, until, wait::eventually};
use api::{
    client::Upgraded,
    frame::Frame,
    v1::types::{
        instance::Instance,
        stream::{ConsoleLogQuery, ConsoleQuery, ExecRequest, LogQuery},
    },
};
use futures::{SinkExt as _, StreamExt as _};
use std::{
    net::IpAddr,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};
use sys::netns::NetNs;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
};

const EXEC_PATIENCE: Duration = Duration::from_secs(60);
const SSH_PATIENCE: Duration = Duration::from_secs(300);

/// What a program in a guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a program that must have succeeded, without the line's end.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn text(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end().to_string()
    }

    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Cloud {
    /// Runs a shell command in a container's first container.
    ///
    /// # Panics
    /// When holm refuses or the stream breaks, as do all functions here.
    pub fn exec(&self, instance: &str, script: &str) -> Ran {
        let argv = ["sh", "-c", script].map(str::to_string).to_vec();
        self.exec_with(instance, &ExecRequest { argv, ..ExecRequest::default() }, &[])
    }

    /// Runs a program in a container and sends it these frames.
    pub fn exec_with(&self, instance: &str, request: &ExecRequest, frames: &[Frame]) -> Ran {
        let work = async {
            let mut stream = self.client.exec(instance, request).await?;
            for frame in frames {
                stream.send(frame.clone()).await.expect("send a frame");
            }
            let mut ran = Ran { code: -1, stdout: String::new(), stderr: String::new() };
            while let Some(frame) = stream.next().await {
                match frame.expect("a frame") {
                    Frame::Stdout(bytes) => ran.stdout.push_str(&String::from_utf8_lossy(&bytes)),
                    Frame::Stderr(bytes) => ran.stderr.push_str(&String::from_utf8_lossy(&bytes)),
                    Frame::Exit(code) => {
                        ran.code = code;
                        break;
                    }
                    Frame::Error(text) => panic!("exec in {instance}: {text}"),
                    _ => {}
                }
            }
            Ok(ran)
        };
        let limited = async {
            tokio::time::timeout(EXEC_PATIENCE, work)
                .await
                .unwrap_or_else(|_| panic!("exec in {instance} does not end: {request:?}"))
        };
        self.must(&format!("exec in {instance}"), limited)
    }

    /// Runs a shell command in a VM, by SSH from inside its network, over one connection that stays.
    pub fn ssh(&self, vm: &str, script: &str) -> Ran {
        let instance = self.instance(vm);
        let namespace = self.namespace_of(&instance.ports[0].network.id.to_string());
        let login = instance.login.as_deref().unwrap_or("root");
        self.ssh_as(login, &namespace, None, v4_of(&instance), script, true)
    }

    /// Runs a shell command as root by SSH from a namespace. Exit code 255 is that of `ssh` itself.
    pub fn ssh_to(
        &self,
        from: &NetNs,
        source: Option<IpAddr>,
        to: IpAddr,
        script: &str,
        shared: bool,
    ) -> Ran {
        self.ssh_as("root", from, source, to, script, shared)
    }

    fn ssh_as(
        &self,
        login: &str,
        from: &NetNs,
        source: Option<IpAddr>,
        to: IpAddr,
        script: &str,
        shared: bool,
    ) -> Ran {
        let mut command = Command::new("ssh");
        command.arg("-i").arg(&self.key);
        for option in [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=5",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=INFO",
        ] {
            command.args(["-o", option]);
        }
        if shared {
            let path = self.key.with_file_name(format!("ssh-{to}"));
            command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o"]);
            command.arg(format!("ControlPath={}", path.display()));
        }
        if let Some(source) = source {
            command.args(["-b", &source.to_string()]);
        }
        command.arg(format!("{login}@{to}")).arg(script);
        // The connection that stays must not keep this program's pipes open, hence files.
        let (out, err) = (tempfile::tempfile().expect("file"), tempfile::tempfile().expect("file"));
        command.stdout(out.try_clone().expect("file")).stderr(err.try_clone().expect("file"));
        command.stdin(std::process::Stdio::null());
        let status = from.run(move || command.status()).expect("enter").expect("ssh");
        let output = Output { status, stdout: read_all(out), stderr: read_all(err) };
        Ran::of(&output)
    }

    /// Waits until a VM takes a log in.
    pub fn wait_ssh(&self, vm: &str) {
        let came = until(SSH_PATIENCE, || self.ssh(vm, "true").ok().then_some(()));
        assert!(came.is_some(), "no log in to {vm}: {:?}\n{}", self.ssh(vm, "true"), self.console_log(vm));
    }

    /// Ends the connection to a VM that stays.
    pub fn drop_ssh(&self, vm: &Instance) {
        let path = self.key.with_file_name(format!("ssh-{}", v4_of(vm)));
        let control = format!("ControlPath={}", path.display());
        let _ = Command::new("ssh").args(["-o", &control, "-O", "exit", "guest"]).output();
    }

    /// The end of what the console showed.
    pub fn console_log(&self, instance: &str) -> String {
        let log = self.must("console log", self.client.console_log(instance, &ConsoleLogQuery::default()));
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until the console showed a text.
    pub fn wait_console(&self, instance: &str, text: &str) {
        eventually(&format!("the console of {instance} shows {text:?}"), SSH_PATIENCE, || {
            self.console_log(instance).contains(text)
        });
    }

    /// A container's log.
    pub fn log(&self, instance: &str) -> String {
        self.log_of(instance, &LogQuery::default())
    }

    /// A part of a container's log.
    pub fn log_of(&self, instance: &str, query: &LogQuery) -> String {
        let work = async {
            let mut stream = self.client.logs_plain(instance, query).await?;
            let mut text = Vec::new();
            while let Some(bytes) = stream.next().await? {
                text.extend_from_slice(&bytes);
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        self.must(&format!("logs of {instance}"), work)
    }

    /// Opens a console.
    pub fn console(&self, instance: &str) -> Console {
        self.open_console(instance, &ConsoleQuery::default())
    }

    /// Opens a console with root logged in.
    pub fn console_login(&self, instance: &str) -> Console {
        self.open_console(instance, &ConsoleQuery { login: true })
    }

    fn open_console(&self, instance: &str, query: &ConsoleQuery) -> Console {
        let stream = self.must("console", self.client.console(instance, query));
        Console { stream, runtime: Arc::clone(&self.runtime), shown: String::new() }
    }
}

fn read_all(mut file: std::fs::File) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

/// An open console.
pub struct Console {
    stream: Upgraded,
    runtime: Arc<Runtime>,
    shown: String,
}

impl Console {
    /// Types.
    ///
    /// # Panics
    /// When the console is closed.
    pub fn type_in(&mut self, text: &str) {
        self.runtime.block_on(self.stream.write_all(text.as_bytes())).expect("type");
        self.runtime.block_on(self.stream.flush()).expect("type");
    }

    /// Reads until a text was shown.
    ///
    /// # Panics
    /// When that does not happen within `patience`.
    pub fn expect(&mut self, text: &str, patience: Duration) {
        let Self { stream, runtime, shown } = self;
        let read = async {
            let mut buffer = [0; 1024];
            while !shown.contains(text) {
                let length = stream.read(&mut buffer).await.expect("read the console");
                assert!(length > 0, "the console closed; it showed {shown:?}");
                shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        };
        let came = runtime.block_on(async { tokio::time::timeout(patience, read).await.is_ok() });
        assert!(came, "the console does not show {text:?} but {:?}", self.shown);
    }
}
