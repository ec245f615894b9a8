//! Stages side by side: those that wait for each other pass, and one that fails ends the others.

use super::{builds, clean, context, counted, finish, id, lab, runs};
use lab::Docker;
use std::fs;

/// A server that notes who was there, and tells it.
fn meeting_place(docker: &Docker) {
    let script = "mkdir -p /www/cgi-bin /met; printf '%s\\n' '#!/bin/sh' 'touch /met/$QUERY_STRING' \
        'printf \"Content-Type: text/plain\\r\\n\\r\\n\"; ls /met' >/www/cgi-bin/here; \
        chmod 755 /www/cgi-bin/here; exec httpd -f -h /www";
    docker.does(&["run", "-d", "--name", "meet", "busybox", "sh", "-c", script]);
}

/// A step that is there as `name`, and goes on when `other` is, too.
fn meets(name: &str, other: &str) -> String {
    format!(
        "for try in $(seq 600); do wget -q -O - 'http://meet/cgi-bin/here?{name}' 2>&1 | grep -qx {other} && exit 0; sleep 0.1; \
         done; echo {other} was not met; exit 9"
    )
}

#[test]
fn stages_are_built_side_by_side() {
    let (lab, docker) = lab();
    meeting_place(&docker);
    let (one, two) = (meets("one", "two"), meets("two", "one"));
    let text = format!(
        "FROM busybox AS one\nRUN head -c 9 /dev/urandom | base64 >/same\nRUN ({one}) && echo one >/one\n\
         FROM busybox AS two\nRUN head -c 9 /dev/urandom | base64 >/same\nRUN ({two}) && echo two >/two\n\
         FROM nosuch/image AS unneeded\nRUN false\n\
         FROM one\nRUN echo before >/before\nCOPY --from=two /two /\nCOPY --from=two /same /same-of-two\n"
    );
    let stages = context(&lab, "stages", &[("Dockerfile", &text)]);
    let told = builds(&docker, &stages, &["-t", "met"]);
    for line in
        ["[one 2/3] RUN head", "[one 3/3] RUN (for", "[two 3/3] RUN (for", "[stage-3 2/3] COPY --from=two"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("unneeded") && !told.contains("nosuch"), "{told}");
    assert_eq!(runs(&docker, "met", "cat /one /before /two"), "one\nbefore\ntwo");
    let same = runs(&docker, "met", "cmp /same /same-of-two && echo same");
    assert_eq!(same, "same", "what two stages begin with is done once");
    let first = id(&docker, "met");
    let told = builds(&docker, &stages, &["-t", "met"]);
    assert!(told.matches("CACHED").count() >= 6, "{told}");
    assert_eq!(id(&docker, "met"), first, "the whole of it is cached");
    fails_beside(&docker, &stages);
    docker.does(&["rm", "-f", "meet"]);
    docker.does(&["rmi", "-f", "met"]);
    finish(lab, &docker);
}

/// One stage fails while another sleeps.
fn fails_beside(docker: &Docker, stages: &std::path::Path) {
    let text = format!(
        "FROM busybox AS sleeps\nRUN wget -q -O - 'http://meet/cgi-bin/here?asleep'; sleep 100000\n\
         FROM busybox AS fails\nRUN ({}) && exit 3\n\
         FROM busybox\nCOPY --from=sleeps / /\nCOPY --from=fails / /\n",
        meets("awake", "asleep")
    );
    fs::write(stages.join("Dockerfile"), text).expect("writes");
    let said = super::build(docker, stages, &["-t", "never"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in ["Dockerfile:4", "exit code: 3", "CANCELED"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    let running = docker.does(&["ps", "-a", "--format", "{{.Names}}"]);
    lab::eventually("the steps are gone", super::LONG, || {
        docker.does(&["ps", "-a", "--format", "{{.Names}}"]) == "meet"
    });
    assert!(running.contains("meet"), "{running}");
    assert!(!counted(docker).contains("Build Cache 0"), "what went well is kept");
}

#[test]
fn steps_wait_for_room_that_others_of_their_build_have() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let place = lab.project(super::PROJECT);
    // Room for one container at a time.
    place.set_quota("instances", 1);
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN echo {name} >/{name}; sleep 1\n");
    let names = ["a", "b", "c"];
    let copies: String = names.iter().map(|name| format!("COPY --from={name} /{name} /\n")).collect();
    let text = format!("{}FROM busybox\n{copies}", names.map(stage).concat());
    let narrow = context(&lab, "narrow", &[("Dockerfile", &text)]);
    builds(&docker, &narrow, &["-t", "narrow"]);
    clean(&docker);
    assert_eq!(runs(&docker, "narrow", "cat /a /b /c"), "a\nb\nc");
    docker.does(&["rmi", "-f", "narrow"]);
    finish(lab, &docker);
}
