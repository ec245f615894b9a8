//! SSH agents of a client in the steps of its builds: the real `ssh-agent`, and `ssh-add` in a step.

use super::{LONG, clean, context, finish, id, lab, runs};
use lab::{Docker, Said, eventually};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// An agent with a key.
struct Agent {
    child: Child,
    socket: PathBuf,
    /// Of the key, as `ssh-add -l` shows it.
    fingerprint: String,
}

impl Agent {
    fn start(directory: &Path, name: &str) -> Self {
        let (socket, key) = (directory.join(format!("{name}.sock")), directory.join(format!("{name}.key")));
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let mut agent = Self { child: child.expect("ssh-agent"), socket, fingerprint: String::new() };
        eventually("the agent listens", LONG, || agent.socket.exists());
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key));
        run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &agent.socket));
        let told = run(Command::new("ssh-keygen").arg("-l").arg("-f").arg(&key));
        let told = String::from_utf8(told.stdout).expect("text");
        let fingerprint = told.split_whitespace().nth(1).expect("a fingerprint").to_string();
        agent.fingerprint = fingerprint;
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("a program of openssh-client");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Puts a program of this machine into a context, with the libraries that it needs.
fn pack(context: &Path, program: &str) {
    let told = run(Command::new("ldd").arg(program));
    let told = String::from_utf8(told.stdout).expect("text");
    let libraries = told.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_string);
    for path in libraries.chain([program.to_string()]) {
        let target = context.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("a directory")).expect("makes");
        fs::copy(&path, target).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

fn build(docker: &Docker, context: &Path, agent: &Agent, arguments: &[&str]) -> Said {
    let all = [&["build"], arguments, &[context.to_str().expect("a path of text")]].concat();
    let output = docker.command(&all).env("SSH_AUTH_SOCK", &agent.socket).output().expect("docker");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const STEPS: &str = "FROM busybox\n\
    COPY programs /\n\
    RUN --mount=type=ssh,required mkdir -m 1777 /open && ssh-add -l >/keys && echo $SSH_AUTH_SOCK >/where && stat -c %u:%g:%a $SSH_AUTH_SOCK >>/where\n\
    RUN --mount=type=ssh --mount=type=ssh,id=other,target=/deep/agent,uid=7,gid=8,mode=0660 --mount=type=ssh,id=nosuch \
        stat -c %u:%g:%a /deep/agent >/other && SSH_AUTH_SOCK=/deep/agent ssh-add -l >>/other && ls /run/buildkit >>/other\n\
    RUN --mount=type=bind,target=/context --mount=type=ssh test -f /context/Dockerfile && ssh-add -l >/bound\n\
    USER 9\n\
    RUN --mount=type=ssh ssh-add -l 2>&1 | grep -q denied\n\
    RUN --mount=type=ssh,uid=9 ssh-add -l >/open/own\n\
    USER 0\n\
    RUN ! test -e /run/buildkit/ssh_agent.0 && echo \"none: $SSH_AUTH_SOCK\" >/after\n";

#[test]
fn a_step_reaches_the_agent_of_its_client() {
    let (lab, docker) = lab();
    let (first, other) = (Agent::start(lab.directory(), "first"), Agent::start(lab.directory(), "other"));
    let lent = context(&lab, "lent", &[("Dockerfile", STEPS)]);
    pack(&lent.join("programs"), "/usr/bin/ssh-add");
    let given = format!("other={}", other.socket.display());
    let with_agents = ["--ssh", "default", "--ssh", &given, "-t", "lent"];
    let said = build(&docker, &lent, &first, &with_agents);
    assert_eq!(said.code, 0, "{}", said.err);
    let keys = runs(&docker, "lent", "cat /keys");
    assert!(keys.contains(&first.fingerprint) && !keys.contains(&other.fingerprint), "{keys}");
    assert_eq!(runs(&docker, "lent", "cat /where"), "/run/buildkit/ssh_agent.0\n0:0:600");
    let told = runs(&docker, "lent", "cat /other");
    assert!(told.starts_with("7:8:660\n") && told.contains(&other.fingerprint), "{told}");
    assert!(told.ends_with("ssh_agent.0"), "one that is not given is not there: {told}");
    for path in ["/bound", "/open/own"] {
        assert!(runs(&docker, "lent", &format!("cat {path}")).contains(&first.fingerprint), "{path}");
    }
    assert_eq!(runs(&docker, "lent", "cat /after"), "none:");
    assert_eq!(
        runs(&docker, "lent", "find / -xdev -type s; find /run/buildkit /deep -type f"),
        "",
        "no socket is left"
    );
    eventually("what had the sockets is gone", LONG, || docker.does(&["volume", "ls", "-q"]).is_empty());

    // An agent is in no key: whoever has another one does not run the steps again.
    let made = id(&docker, "lent");
    let said = build(&docker, &lent, &other, &with_agents);
    assert!(said.code == 0 && said.err.matches("CACHED").count() == 7, "{}", said.err);
    assert_eq!(id(&docker, "lent"), made);
    lent_in_other_ways(&docker, &lent, &first);
    docker.does(&["rmi", "-f", "lent"]);
    // Or they would be taken for something that is left.
    drop((first, other));
    finish(lab, &docker);
}

/// Not at all, as a file with a key, and by a client that goes while a step uses it.
fn lent_in_other_ways(docker: &Docker, context: &Path, agent: &Agent) {
    let said = build(docker, context, agent, &["--no-cache"]);
    assert!(said.code != 0 && said.err.contains("no SSH key \"default\" forwarded"), "{}", said.err);
    assert!(said.err.contains("--ssh default"), "{}", said.err);
    let text = "FROM lent\nRUN --mount=type=ssh echo \"[$SSH_AUTH_SOCK]\"; ssh-add -l || true\n";
    fs::write(context.join("Dockerfile"), text).expect("writes");
    let said = build(docker, context, agent, &["--no-cache"]);
    assert!(said.code == 0 && said.err.contains(" []\n"), "{}", said.err);
    let key = agent.socket.with_extension("key");
    let said = build(docker, context, agent, &["--no-cache", "--ssh", &format!("default={}", key.display())]);
    assert!(said.code == 0 && said.err.contains(&agent.fingerprint), "{}", said.err);
    clean(docker);
}
