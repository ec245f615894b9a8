//! Deployments: how soon there are as many copies as somebody asks for.

use crate::table::{Budget, Table, median, took};
use lab::Lab;
use std::{io::Write as _, process::Stdio, time::Duration};

const ROUNDS: usize = 5;

const FILE: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: copies}\nspec:\n  replicas: 1\n  selector: \
                    {matchLabels: {app: copies}}\n  template:\n    metadata: {labels: {app: copies}}\n    spec:\n      \
                    terminationGracePeriodSeconds: 0\n      containers: [{name: main, image: busybox, command: [sleep, \
                    '1000000'], resources: {limits: {memory: 32Mi}}}]\n";

fn kube(lab: &Lab, arguments: &[&str]) {
    let mut command = lab.holm("shop", &[&["kube"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("holm kube");
    if arguments.contains(&"-") {
        child.stdin.take().expect("its input").write_all(FILE.as_bytes()).expect("the file");
    }
    assert!(child.wait().expect("it ends").success(), "{arguments:?}");
}

/// From one copy to five, by the command that waits until all are ready.
pub fn scale(table: &mut Table, lab: &Lab) {
    kube(lab, &["play", "-"]);
    let mut times: Vec<Duration> = vec![];
    for _ in 0..ROUNDS {
        times.push(took(|| kube(lab, &["scale", "copies", "--replicas", "5"])));
        kube(lab, &["scale", "copies", "--replicas", "1"]);
    }
    kube(lab, &["down", "-"]);
    let seconds = median(&mut times).as_secs_f64();
    table.value("a Deployment, replicas 1 → 5, until all are ready", seconds, " s", Budget::AtMost(5.0));
}
