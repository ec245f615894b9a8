//! Pods of files of Kubernetes, with real containers: hooks, probes, shared processes, whose the files of volumes are, and
//! pods with names and claims that stay.

use crate::kube::{LONG, ask, does, fact, tries};
use api::v1::types::{instance::Instance, volume::Volume};
use lab::{Cloud, Lab, eventually};
use model::instance::phase::Phase;

const NOTES: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: notes}\nspec: {accessModes: \
                     [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

/// What pods wrote to the claim `notes`, seen by a pod that comes after them.
fn notes(lab: &Lab, shop: &Cloud, text: &str) -> String {
    let reader = format!(
        "{NOTES}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: reader}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         volumes: [{{name: notes, persistentVolumeClaim: {{claimName: notes}}}}]\n  containers: [{{name: main, image: busybox, \
         command: [sleep, '1000000'], volumeMounts: [{{name: notes, mountPath: /notes}}]}}]\n"
    );
    does(lab, &["play", "-"], &reader);
    let said = ask(shop, "reader", "main", text);
    does(lab, &["down", "-"], &reader);
    said
}

const HOOKED: &str = r##"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: pages}
data:
  bye: "#!/bin/sh\necho asked by http >>/notes/log\nprintf 'Status: 500 No\\r\\n\\r\\n'\n"
---
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  terminationGracePeriodSeconds: 20
  volumes:
  - {name: notes, persistentVolumeClaim: {claimName: notes}}
  - {name: pages, configMap: {name: pages, defaultMode: 0755}}
  containers:
  - name: first
    image: busybox
    command: [sh, -c, 'echo first runs >>/notes/log; trap "echo first is asked >>/notes/log; exit 0" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: notes, mountPath: /notes}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'until test -e /notes/go; do sleep 0.1; done; echo first is started >>/notes/log']}}
      preStop: {exec: {command: [sh, -c, 'echo first parts >>/notes/log']}}
  - name: second
    image: busybox
    command: [sh, -c, 'echo second runs >>/notes/log; exec httpd -f -p 8080 -h /srv']
    volumeMounts: [{name: notes, mountPath: /notes}, {name: pages, mountPath: /srv/cgi-bin}]
    lifecycle: {postStart: {sleep: {seconds: 1}}, preStop: {httpGet: {port: 8080, path: /cgi-bin/bye}}}
  - name: third
    image: busybox
    command: [sleep, "1000000"]
    lifecycle: {preStop: {tcpSocket: {port: 9}}}
"##;

#[test]
fn hooks_are_done_after_the_start_and_before_the_end() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let file = format!("{NOTES}{HOOKED}");
    let played = tries(&lab, &["play", "--no-wait", "-"], &file);
    let told = String::from_utf8_lossy(&played.stderr).into_owned();
    assert!(played.status.success() && !told.contains("warning"), "{played:?}");
    let status = |name: &str| fact(&shop.instance("hooked"), name, "status");
    eventually("the first container's hook", LONG, || status("first") == "starting");
    assert_eq!(status("second"), "created", "what comes after it waits for its hook");
    assert_eq!(shop.instance("hooked").ready, Some(false));
    ask(&shop, "hooked", "first", "touch /notes/go");
    eventually("the others", LONG, || status("third") == "running");
    eventually("readiness", LONG, || shop.instance("hooked").ready == Some(true));
    let written = tries(&lab, &["generate", "hooked"], "");
    let text = String::from_utf8_lossy(&written.stdout).into_owned();
    assert!(text.contains("postStart") && text.contains("path: /cgi-bin/bye"), "{text}");

    assert!(does(&lab, &["down", "-"], &file).starts_with("pod/hooked deleted\n"));
    let said = notes(&lab, &shop, "cat /notes/log");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["first runs", "first is started", "second runs"], "{said}");
    let at =
        |text: &str| lines.iter().position(|line| *line == text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(at("first parts") < at("first is asked"), "{said}");
    assert_eq!(said.matches("asked by http").count(), 1, "{said}");
    does(&lab, &["down", "--force", "-"], &file);
    lab.finish();
}

/// A pod of one container that writes to the claim, with these hooks.
fn with_hooks(restart: &str, grace: u32, hooks: &str) -> String {
    format!(
        "{NOTES}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: hooked}}\nspec:\n  restartPolicy: {restart}\n  \
         terminationGracePeriodSeconds: {grace}\n  volumes: [{{name: notes, persistentVolumeClaim: {{claimName: notes}}}}]\n  \
         containers:\n  - name: main\n    image: busybox\n    command: [sh, -c, 'trap \"echo is asked >>/notes/log; exit 3\" \
         TERM; echo runs >>/notes/log; while :; do sleep 0.1; done']\n    volumeMounts: [{{name: notes, mountPath: /notes}}]\n    \
         lifecycle: {hooks}\n"
    )
}

#[test]
fn hooks_that_fail_are_told_and_those_that_take_too_long_are_not_waited_for() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    // A container whose hook fails is ended, and its policy decides.
    let fails = "{postStart: {exec: {command: [sh, -c, 'until grep -q runs /notes/log; do sleep 0.1; done; exit 7']}}}";
    let file = with_hooks("Never", 20, fails);
    does(&lab, &["play", "--no-wait", "-"], &file);
    let exit = shop.wait_phase("hooked", Phase::Exited).exit.expect("how it ended");
    assert!(exit.cause.starts_with("its postStart hook failed: exit code 7; "), "{exit:?}");
    assert_eq!(exit.code, Some(3), "it was asked to end: {exit:?}");
    does(&lab, &["down", "-"], &file);
    let missing = with_hooks("Always", 0, "{postStart: {exec: {command: [no-such-program]}}}");
    does(&lab, &["play", "--no-wait", "-"], &missing);
    eventually("restarts", LONG, || fact(&shop.instance("hooked"), "main", "restarts").as_u64() >= Some(2));
    assert_eq!(shop.instance("hooked").ready, Some(false), "it never counts as running");
    does(&lab, &["down", "-"], &missing);
    notes(&lab, &shop, ": >/notes/log");

    // One that takes all of the grace period is left, and the program is asked to end all the same.
    let slow = with_hooks("Always", 1, "{preStop: {exec: {command: [sleep, '1000001']}}}");
    does(&lab, &["play", "-"], &slow);
    eventually("it runs", LONG, || ask(&shop, "hooked", "main", "cat /notes/log") == "runs");
    shop.act("hooked", api::client::Verb::Stop);
    let exit = shop.wait_phase("hooked", Phase::Stopped).exit.expect("how it ended");
    assert!(exit.cause.contains("its preStop hook failed: it took all of its time"), "{exit:?}");
    does(&lab, &["down", "-"], &slow);
    assert_eq!(notes(&lab, &shop, "cat /notes/log"), "runs\nis asked");
    let left = lab.remains().processes();
    assert!(!left.iter().any(|(_, line)| line.contains("1000001")), "{left:?}");
    does(&lab, &["down", "--force", "-"], &slow);
    lab.finish();
}

/// A server that answers each call for its health with the bytes of a file: its settings, header fields, and a message.
const CALLED: &str = r##"
apiVersion: v1
kind: ConfigMap
metadata: {name: answers}
binaryData:
  serving: AAAABAAAAAAAAAABAQQAAAABiAAABwAAAAAAAQAAAAACCAE=
  not-serving: AAAABAAAAAAAAAABAQQAAAABiAAABwAAAAAAAQAAAAACCAI=
data:
  serve: "#!/bin/sh\nhead -c 24 >/dev/null\ncat /answer/now\ncat >/dev/null\n"
---
apiVersion: v1
kind: Pod
metadata: {name: called}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: answers, configMap: {name: answers, defaultMode: 0755}}
  - {name: answer, emptyDir: {}}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'cp /answers/serving /answer/now; exec nc -ll -p 5000 -e /answers/serve']
    volumeMounts: [{name: answers, mountPath: /answers}, {name: answer, mountPath: /answer}]
    readinessProbe: {grpc: {port: 5000, service: shop}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1}
"##;

#[test]
fn a_pod_is_ready_when_it_says_so_by_grpc() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    does(&lab, &["play", "-"], CALLED);
    eventually("readiness", LONG, || shop.instance("called").ready == Some(true));
    ask(&shop, "called", "main", "cp /answers/not-serving /answer/now");
    eventually("no readiness", LONG, || shop.instance("called").ready == Some(false));
    let told = lab.holm("shop", &["events"]).output().expect("holm events").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("it answered NOT_SERVING"), "{told}");
    ask(&shop, "called", "main", "cp /answers/serving /answer/now");
    eventually("readiness again", LONG, || shop.instance("called").ready == Some(true));
    does(&lab, &["down", "-"], CALLED);
    lab.finish();
}

const SHARED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  volumes: [{name: once, emptyDir: {}}]
  containers:
  - name: one
    image: busybox
    command: [sh, -c, 'test -e /once/x || { touch /once/x; sleep 1000002 & }; exec sleep 1000003']
    volumeMounts: [{name: once, mountPath: /once}]
  - name: other
    image: busybox
    command: [sh, -c, '(sleep 0.2 &); exec sleep 1000004']
"#;

#[test]
fn containers_of_a_pod_share_their_processes_if_it_says_so() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    does(&lab, &["play", "-"], SHARED);
    eventually("both", LONG, || fact(&shop.instance("shared"), "other", "status") == "running");
    let see = |text: &str| ask(&shop, "shared", "other", text);
    let lists = |number: &str| see("ps").contains(&format!("sleep {number}"));
    assert!(lists("1000002") && lists("1000003") && lists("1000004"), "{}", see("ps"));
    // The first process is nobody's program, tells nothing of the host, and lets nobody look into it.
    assert_eq!(see("tr -d '\\0' </proc/1/cmdline; echo; cat /proc/1/comm"), "init\ninit");
    assert_eq!(see("readlink /proc/1/exe || ls /proc/1/root/ 2>/dev/null || echo closed"), "closed");
    assert_eq!(
        see("grep -E '^(CapEff|NoNewPrivs)' /proc/1/status | tr -d '\\n\\t '"),
        "CapEff:0000000000000000NoNewPrivs:1"
    );
    eventually("what nobody waits for is collected", LONG, || !see("ps -o stat,args").contains('Z'));
    // One container sees another's files by its process, as in Kubernetes.
    let first = see("ps -o pid,args | grep '[s]leep 1000003' | awk '{print $1}'");
    assert_eq!(see(&format!("ls /proc/{first}/root/once")), "x");
    see(&format!("kill -9 {first}"));
    let restarts = |name: &str| fact(&shop.instance("shared"), name, "restarts");
    eventually("its restart", LONG, || restarts("one").as_u64() == Some(1));
    assert_eq!(restarts("other"), 0);
    eventually("what it left behind is gone", LONG, || !lists("1000002"));
    does(&lab, &["down", "-"], SHARED);
    let left = lab.remains().processes();
    assert!(!left.iter().any(|(_, line)| line.contains("sleep 10000")), "{left:?}");
    lab.finish();
}

/// A pod whose users are in a group that the claim is given to, and that sees a part of it.
fn owned(part: &str) -> String {
    format!(
        "{NOTES}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\nstringData: {{door: open-sesame}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: owned}}\nspec:\n  terminationGracePeriodSeconds: 0\n  restartPolicy: Never\n  \
         securityContext: {{runAsUser: 7, runAsGroup: 8, fsGroup: 9, supplementalGroups: [11]}}\n  volumes:\n  \
         - {{name: notes, persistentVolumeClaim: {{claimName: notes}}}}\n  - {{name: keys, secret: {{secretName: keys, defaultMode: 0400}}}}\n  \
         containers:\n  - name: main\n    image: busybox\n    command: [sleep, '1000000']\n    env: [{{name: ME, valueFrom: {{fieldRef: \
         {{fieldPath: metadata.name}}}}}}]\n    volumeMounts:\n    - {{name: notes, mountPath: /notes}}\n    - {{name: notes, mountPath: \
         /part, subPathExpr: {part}}}\n    - {{name: keys, mountPath: /keys}}\n"
    )
}

#[test]
fn volumes_are_the_groups_and_parts_of_them_stay_within() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    notes(
        &lab,
        &shop,
        "echo old >/notes/old; chmod 600 /notes/old; mkdir -p /notes/etc; echo own >/notes/etc/hostname",
    );
    let file = owned("logs/$(ME)");
    does(&lab, &["play", "-"], &file);
    let see = |text: &str| ask(&shop, "owned", "main", text);
    assert_eq!(see("id -u; id -g; id -G"), "7\n8\n8 9 11");
    assert_eq!(see("cat /notes/old; stat -c '%u %g %a' /notes/old"), "old\n0 9 660");
    assert_eq!(see("cat /keys/door; stat -c ' %u %g %a' /keys/door"), "open-sesame 0 9 440");
    assert_eq!(see("echo new >/part/new && cat /notes/logs/owned/new; stat -c %g /part/new"), "new\n9");
    // Links that a container makes lead out of the volume for nobody.
    see("ln -s /etc /notes/out; ln -s ../../../../../../etc /notes/up");
    does(&lab, &["down", "-"], &file);
    for link in ["out", "up", "out/../up"] {
        if link.contains("..") {
            let refused = tries(&lab, &["play", "-"], &owned(link));
            assert!(!refused.status.success(), "{refused:?}");
            continue;
        }
        let file = owned(link);
        does(&lab, &["play", "-"], &file);
        assert_eq!(ask(&shop, "owned", "main", "cat /part/hostname; ls /part"), "own\nhostname", "{link}");
        does(&lab, &["down", "-"], &file);
    }
    does(&lab, &["down", "--force", "-"], &file);
    assert_eq!(shop.list::<Volume>(), []);
    lab.finish();
}

fn database(version: &str, replicas: usize) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: dbs}}
spec: {{clusterIP: None, selector: {{app: db}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: dbs
  replicas: {replicas}
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        env: [{{name: VERSION, value: {version}}}]
        command: [sh, -c, 'test -e /data/who || hostname >/data/who; exec sleep 1000000']
        volumeMounts: [{{name: data, mountPath: /data}}]
        readinessProbe: {{exec: {{command: [test, -e, /data/who]}}, periodSeconds: 1}}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"#
    )
}

#[test]
fn a_stateful_set_keeps_names_and_claims_and_goes_in_order() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let names = || {
        let mut all: Vec<String> = shop.list::<Instance>().into_iter().map(|it| it.head.name).collect();
        all.sort();
        all
    };
    let told = does(&lab, &["play", "-"], &database("v1", 3));
    assert!(told.ends_with("persistentvolumeclaim/data-db-2 created\nstatefulset/db created\n"), "{told}");
    assert_eq!(names(), ["db-0", "db-1", "db-2"]);
    let pods = || names().iter().map(|name| shop.instance(name)).collect::<Vec<_>>();
    for pair in pods().windows(2) {
        let ran = pair[0].started_at.expect("it runs");
        assert!(ran <= pair[1].head.created_at, "each comes when the one before it runs: {pair:?}");
    }
    assert_eq!(ask(&shop, "db-2", "main", "cat /data/who; hostname"), "db-2\ndb-2");
    let found = ask(
        &shop,
        "db-2",
        "main",
        "nslookup -type=a db-0.dbs.default.svc.cluster.local | grep -c '^Address: '",
    );
    assert_eq!(found, "1");

    // Changed, they are made anew from the last one down, each with what it had.
    let before = pods();
    assert!(does(&lab, &["play", "-"], &database("v1", 3)).ends_with("statefulset/db unchanged\n"));
    assert!(does(&lab, &["play", "-"], &database("v2", 3)).ends_with("statefulset/db replaced\n"));
    let after = pods();
    assert!(before.iter().zip(&after).all(|(one, other)| one.head.id != other.head.id));
    assert!(
        after[2].head.created_at < after[1].head.created_at
            && after[1].head.created_at < after[0].head.created_at
    );
    assert_eq!(ask(&shop, "db-1", "main", "cat /data/who; echo $VERSION"), "db-1\nv2");

    // Fewer: the last ones go, and what they had is there when they come again.
    assert!(does(&lab, &["play", "-"], &database("v2", 1)).ends_with("statefulset/db scaled\n"));
    assert_eq!(names(), ["db-0"]);
    assert_eq!(shop.list::<Volume>().len(), 3);
    assert!(does(&lab, &["play", "-"], &database("v2", 2)).ends_with("statefulset/db scaled\n"));
    assert_eq!(ask(&shop, "db-1", "main", "cat /data/who"), "db-1");
    does(&lab, &["down", "-"], &database("v2", 2));
    assert_eq!((names().len(), shop.list::<Volume>().len()), (0, 3));
    does(&lab, &["down", "--force", "-"], &database("v2", 3));
    assert_eq!(shop.list::<Volume>(), []);
    lab.finish();
}

#[test]
fn a_host_path_is_shown_where_it_is_lent() {
    let mut lab = Lab::new();
    lab.project("shop");
    let lent = lab.directory().join("lent");
    let file = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: guest}}\nspec:\n  terminationGracePeriodSeconds: 0\n  volumes: [{{name: data, \
         hostPath: {{path: {}/data, type: DirectoryOrCreate}}}}]\n  containers: [{{name: main, image: busybox, command: [sleep, '1000000'], \
         volumeMounts: [{{name: data, mountPath: /data}}, {{name: data, mountPath: /part, subPath: a/b, readOnly: true}}]}}]\n",
        lent.display()
    );
    let refused = tries(&lab, &["play", "-"], &file);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--host-directory"), "{refused:?}");
    std::fs::create_dir(&lent).expect("a directory to lend");
    lab.kill_daemon();
    lab.set_argument("--host-directory", lent.to_str().expect("text"));
    lab.start_daemon();
    let shop = lab.project("shop");
    assert_eq!(does(&lab, &["play", "-"], &file), "pod/guest created\n");
    let see = |text: &str| ask(&shop, "guest", "main", text);
    assert_eq!(
        see("echo here >/data/a/b/file; cat /part/file; touch /part/x 2>/dev/null || echo closed"),
        "here\nclosed"
    );
    assert_eq!(std::fs::read_to_string(lent.join("data/a/b/file")).expect("the file"), "here\n");
    let written = tries(&lab, &["generate", "guest"], "");
    assert!(String::from_utf8_lossy(&written.stdout).contains("hostPath:"), "{written:?}");
    does(&lab, &["down", "-"], &file);
    assert!(lent.join("data/a/b/file").exists(), "what is the host's stays");
    lab.finish();
}
