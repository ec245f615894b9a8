//! Transcripts of commands: help, tables, every form of output, errors and exit codes.

use super::{fake, holm, transcript};
use std::{path::Path, process::Stdio};

fn check(name: &str, commands: &[&[&str]]) {
    let fake = fake::start();
    let texts: Vec<String> = commands.iter().map(|arguments| transcript(&fake.socket, arguments)).collect();
    insta::assert_snapshot!(name, texts.join("\n"));
}

#[test]
fn help_tells_what_can_be_typed() {
    let nowhere = Path::new("/nonexistent");
    let pages: [&[&str]; 6] = [
        &["-h"],
        &["run", "--help"],
        &["security-group", "rule", "add", "-h"],
        &["image", "import", "-h"],
        &["floating-ip", "-h"],
        &["exec", "-h"],
    ];
    let texts: Vec<String> = pages.iter().map(|page| transcript(nowhere, page)).collect();
    insta::assert_snapshot!("help", texts.join("\n"));
}

#[test]
fn lists_are_printed_in_every_form() {
    check(
        "lists",
        &[
            &["ls"],
            &["ls", "-o", "name"],
            &["flavor", "ls"],
            &["flavor", "ls", "-o", "wide"],
            &["flavor", "ls", "-o", "csv"],
            &["flavor", "ls", "-o", "json"],
            &["flavor", "ls", "-o", "yaml"],
            &["security-group", "show", "web"],
            &["security-group", "rule", "ls", "web"],
            &["flavor", "show", "g1.c1m512"],
            &["quota"],
            &["quota", "ls"],
            &["version"],
        ],
    );
}

#[test]
fn what_was_done_is_told_on_stderr_and_data_goes_to_stdout() {
    check(
        "done",
        &[
            &["run", "--name", "db", "debian-12"],
            &["run", "--name", "db", "-o", "name", "debian-12"],
            &["create", "--name", "web", "web"],
            &["start", "db"],
            &["stop", "db", "web", "--no-wait"],
            &["rm", "db"],
            &["rm", "-y", "db", "web"],
            &["sg", "rule", "add", "web", "tcp", "22", "--from", "203.0.113.7"],
            &["volume", "rm", "-y", "data"],
            &["logs", "web"],
            &["exec", "web", "-e", "A=b", "--", "id"],
            &["api", "GET", "/v1/quotas/default", "-o", "yaml"],
            &["ssh", "web"],
            &["-q", "start", "db"],
        ],
    );
}

#[test]
fn errors_name_the_field_the_way_out_and_leave_their_exit_code() {
    check(
        "errors",
        &[
            &["info", "wbe"],
            &["run", "--flavor", "huge", "debian-12"],
            &["run", "--volume", "./etc:/etc", "debian-12"],
            &["run", "--memory", "much", "debian-12"],
            &["image", "rm", "web"],
            &["stop", "old"],
            &["start", "broken"],
            &["rm", "db", "web"],
            &["volume", "rm", "data"],
            &["sg", "rule", "add", "web", "tcp", "99999"],
            &["exec", "web", "--", "fail", "7"],
            &["ssh", "old"],
            &["set", "db"],
            &["instnace", "ls"],
            &["--host", "https://cloud.example", "ls"],
            &["--host", "http://cloud.example", "ls"],
            &["api", "GET", "/v1/nothing"],
            &["logs", "-f", "db"],
        ],
    );
}

#[test]
fn without_a_daemon_the_way_to_start_it_is_told() {
    insta::assert_snapshot!("no_daemon", transcript(Path::new("/nonexistent/holm.sock"), &["ls"]));
}

#[test]
fn completion_offers_verbs_and_live_names() {
    let fake = fake::start();
    let complete = |words: &[&str]| {
        let mut command = holm(&fake.socket, &["--"]);
        let index = (words.len() - 1).to_string();
        command.args(words).env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(complete(&["holm", "ssh", "d"]).trim(), "db");
    assert_eq!(complete(&["holm", "floating-i"]).trim(), "floating-ip");
    let script = holm(&fake.socket, &["completion", "bash"]).output().unwrap();
    assert!(String::from_utf8(script.stdout).unwrap().contains("COMPLETE="));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = fake::start();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        holm(&fake.socket, &["ls"]).stdout(Stdio::from(writer)).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}
