//! The real `docker` command, as it is installed, spoken to the lab's daemon in one project.

use crate::Lab;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A docker command line client.
pub struct Docker {
    client: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    /// It builds by BuildKit.
    has_buildkit: bool,
}

/// How a command ended, and what it said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A project of `docker compose`.
pub struct Compose<'a> {
    docker: &'a Docker,
    project: String,
    file: PathBuf,
}

impl Compose<'_> {
    /// Directory of the project, to which paths in its file are relative.
    ///
    /// # Panics
    /// As do all functions here when something goes wrong that is not the client's answer.
    pub fn directory(&self) -> &Path {
        self.file.parent().expect("a directory")
    }

    /// Replaces its file.
    ///
    /// # Panics
    /// As do all functions here when something goes wrong that is not the client's answer.
    pub fn write(&self, file: &str) {
        fs::write(&self.file, file).expect("the project's file");
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let file = self.file.to_str().expect("a path of text");
        let own = ["compose", "--ansi", "never", "--progress", "plain", "-p", &self.project, "-f", file];
        [&own, arguments].concat()
    }

    /// Runs a command that must succeed, and gives its output without the last line's end.
    pub fn does(&self, arguments: &[&str]) -> String {
        self.docker.does(&self.arguments(arguments))
    }

    /// Runs a command to its end.
    pub fn says(&self, arguments: &[&str]) -> Said {
        self.docker.says(&self.arguments(arguments))
    }
}

impl Docker {
    /// The client that `scripts/docker-client` finds, working in this project.
    ///
    /// # Panics
    /// When there is none, as do all functions here when something goes wrong that is not the client's answer.
    pub fn find(lab: &Lab, project: &str) -> Self {
        Self::found(lab, project, &[])
    }

    /// An older client (20.10), which speaks to BuildKit without a plugin.
    ///
    /// # Panics
    /// As [`Self::find`].
    pub fn older(lab: &Lab, project: &str) -> Self {
        Self { has_buildkit: true, ..Self::found(lab, project, &["older"]) }
    }

    /// The same client, as it is installed, before another engine, which knows no projects.
    ///
    /// # Panics
    /// As [`Self::find`].
    pub fn beside(lab: &Lab, socket: &Path) -> Self {
        let docker = Self::with_buildx(lab, "beside");
        Self { socket: socket.to_path_buf(), ..docker }
    }

    fn found(lab: &Lab, project: &str, which: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/docker-client");
        let output = Command::new(script).args(which).output().expect("scripts/docker-client");
        let said = Said::of(output);
        assert_eq!(said.code, 0, "{}", said.err);
        let config = lab.directory().join(format!("docker-{project}{}", which.concat()));
        fs::create_dir_all(&config).expect("a directory for the client");
        let headers = serde_json::json!({ "HttpHeaders": { "X-Holm-Project": project } });
        fs::write(config.join("config.json"), headers.to_string()).expect("the client's settings");
        let (client, socket) = (said.out.trim().into(), lab.run().join("docker.sock"));
        Self { client, socket, config, has_buildkit: false }
    }

    /// The same client as it is installed: with the buildx plugin that `scripts/docker-buildx` finds, which builds by BuildKit.
    ///
    /// # Panics
    /// As [`Self::find`].
    pub fn with_buildx(lab: &Lab, project: &str) -> Self {
        let docker = Self { has_buildkit: true, ..Self::find(lab, project) };
        docker.plug_in("docker-buildx");
        docker
    }

    /// Gives the client a plugin that the script of the same name finds.
    fn plug_in(&self, name: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name);
        let said = Said::of(Command::new(&script).output().expect(name));
        assert_eq!(said.code, 0, "{}", said.err);
        let plugins = self.config.join("cli-plugins");
        fs::create_dir_all(&plugins).expect("a directory for plugins");
        let link = plugins.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(said.out.trim(), &link).expect("a link to the plugin");
        }
    }

    /// Gives the client the compose plugin that `scripts/docker-compose` finds, and a project's directory with this file.
    pub fn compose(&self, project: &str, file: &str) -> Compose<'_> {
        self.plug_in("docker-compose");
        let directory = self.config.join(project);
        fs::create_dir_all(&directory).expect("a directory for the project");
        let compose =
            Compose { docker: self, project: project.to_string(), file: directory.join("compose.yaml") };
        compose.write(file);
        compose
    }

    /// A command that is not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(arguments);
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.env("DOCKER_CONFIG", &self.config).env("HOME", &self.config);
        if self.has_buildkit {
            command.env_remove("DOCKER_BUILDKIT").env("BUILDKIT_PROGRESS", "plain");
        } else {
            // The builder that needs no plugin.
            command.env("DOCKER_BUILDKIT", "0");
        }
        command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_API_VERSION").stdin(Stdio::null());
    }

    /// Runs a command to its end.
    pub fn says(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("docker"))
    }

    /// Runs a command that must succeed, and gives its output without the last line's end.
    pub fn does(&self, arguments: &[&str]) -> String {
        let said = self.says(arguments);
        assert_eq!(said.code, 0, "docker {}: {}{}", arguments.join(" "), said.out, said.err);
        said.out.trim_end().to_string()
    }

    /// Runs a command that must fail with this code and these words on its standard error.
    pub fn refuses(&self, code: i32, words: &str, arguments: &[&str]) {
        let said = self.says(arguments);
        assert!(
            said.code == code && said.err.contains(words),
            "docker {}: {code} and {words:?} wanted: {said:?}",
            arguments.join(" ")
        );
    }

    /// Starts a command whose input and outputs are ours.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("docker")
    }

    /// Runs a command with this input, then its end.
    pub fn told(&self, input: &str, arguments: &[&str]) -> Said {
        Said::of(tell(self.start(arguments), input))
    }

    /// Runs a command on a terminal, with this typed.
    pub fn typed(&self, input: &str, arguments: &[&str]) -> Said {
        let words: Vec<String> =
            arguments.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let line = format!("stty -echo rows 33 cols 99; {} {}", self.client.display(), words.join(" "));
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        self.dress(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Said::of(tell(command.spawn().expect("script (bsdutils)"), input))
    }
}

fn tell(mut child: Child, input: &str) -> Output {
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_string();
    // A program that reads nothing must not hold us up.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("docker");
    writer.join().expect("the writer");
    output
}
