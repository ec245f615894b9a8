//! Files of Kubernetes, played with real containers: what is in them happens, and what they made goes.

use api::v1::types::{instance::Instance, stream::ExecRequest, volume::Volume};
use lab::{Cloud, Lab, eventually};
use model::instance::phase::Phase;
use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Child, Output, Stdio},
    time::Duration,
};

pub const LONG: Duration = Duration::from_secs(60);

fn begin(lab: &Lab, arguments: &[&str], text: &str) -> Child {
    let mut command = lab.holm("shop", &[&["kube"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("holm kube");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("the file");
    child
}

pub fn tries(lab: &Lab, arguments: &[&str], text: &str) -> Output {
    begin(lab, arguments, text).wait_with_output().expect("holm kube ends")
}

/// What a command that must succeed prints.
pub fn does(lab: &Lab, arguments: &[&str], text: &str) -> String {
    let output = tries(lab, arguments, text);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a shell in one container of a pod says.
pub fn ask(shop: &Cloud, pod: &str, container: &str, text: &str) -> String {
    let argv = ["sh", "-c", text].map(str::to_string).to_vec();
    let request = ExecRequest { container: Some(container.into()), argv, ..ExecRequest::default() };
    let ran = shop.exec_with(pod, &request, &[]);
    format!("{}{}", ran.stdout, ran.stderr).trim().to_string()
}

/// A fact about one container of a pod.
pub fn fact(instance: &Instance, container: &str, name: &str) -> serde_json::Value {
    let all = instance.facts.get("containers").and_then(|all| all.as_array()).cloned().unwrap_or_default();
    all.iter().find(|it| it["name"] == container).map(|it| it[name].clone()).unwrap_or_default()
}

const WHOLE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: colours}
data: {sky: blue, grass.txt: "green\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {door: hunter2-is-here}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: page, emptyDir: {}}
  - {name: colours, configMap: {name: colours}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: disk, persistentVolumeClaim: {claimName: disk}}
  initContainers:
  - name: first
    image: busybox
    command: [sh, -c, 'test ! -e /page/index.html && echo made by $MAKER >/page/index.html']
    env: [{name: MAKER, value: first}]
    volumeMounts: [{name: page, mountPath: /page}]
  - name: helper
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'echo helped >/page/helped; exec sleep 1000000']
    volumeMounts: [{name: page, mountPath: /page}]
  containers:
  - name: server
    image: busybox
    command: [sh, -c, 'cat /srv/index.html; exec httpd -f -p 127.0.0.1:8080 -h /srv']
    volumeMounts: [{name: page, mountPath: /srv, readOnly: true}]
  - name: asker
    image: busybox
    command: [sleep, "1000000"]
    env:
    - {name: SKY, valueFrom: {configMapKeyRef: {name: colours, key: sky}}}
    - {name: DOOR, valueFrom: {secretKeyRef: {name: keys, key: door}}}
    - {name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    securityContext: {runAsUser: 7, runAsGroup: 8, readOnlyRootFilesystem: true}
    resources: {limits: {memory: 32Mi}}
    volumeMounts:
    - {name: colours, mountPath: /etc/colours}
    - {name: colours, mountPath: /etc/one, subPath: sky}
    - {name: disk, mountPath: /disk}
  - name: keeper
    image: busybox
    command: [sleep, "1000000"]
    volumeMounts: [{name: keys, mountPath: /keys}, {name: disk, mountPath: /var/disk}]
    lifecycle: {preStop: {exec: {command: ["true"]}}}
"#;

#[test]
fn a_pod_of_a_file_runs_as_it_says_and_leaves_nothing() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let played = tries(&lab, &["play", "-"], WHOLE);
    let told = String::from_utf8_lossy(&played.stderr).into_owned();
    assert!(played.status.success() && !told.contains("warning"), "{played:?}");
    let lines =
        "configmap/colours read\nsecret/keys read\npersistentvolumeclaim/disk created\npod/web created\n";
    assert_eq!(String::from_utf8_lossy(&played.stdout), lines);

    // What came first has run to its end before the others, which share its directory and the loopback.
    eventually("the last container", LONG, || fact(&shop.instance("web"), "keeper", "status") == "running");
    let page = "wget -q -O - http://127.0.0.1:8080/";
    eventually("the page", LONG, || ask(&shop, "web", "asker", page) == "made by first");
    assert_eq!(
        ask(&shop, "web", "server", "cat /srv/helped; touch /srv/x 2>/dev/null || echo closed"),
        "helped\nclosed"
    );
    let seen = shop.instance("web");
    assert_eq!(
        (fact(&seen, "first", "exit_code"), fact(&seen, "first", "status")),
        (0.into(), "exited".into())
    );
    assert_eq!(fact(&seen, "helper", "status"), "running");
    assert_eq!(
        ask(&shop, "web", "asker", "echo $SKY $DOOR $ME; id -u; id -g"),
        "blue hunter2-is-here web\n7\n8"
    );
    let files = "cat /etc/colours/grass.txt /etc/one; touch /etc/colours/x 2>/dev/null || echo; touch /x 2>/dev/null || echo closed";
    assert_eq!(ask(&shop, "web", "asker", files), "green\nblue\nclosed");
    let secret = "cat /keys/door; stat -c ' %a %u' /keys/door; touch /keys/x 2>/dev/null || echo closed";
    assert_eq!(ask(&shop, "web", "keeper", secret), "hunter2-is-here 400 0\nclosed");
    assert_eq!(
        ask(&shop, "web", "server", "ls -d /keys /disk 2>/dev/null; echo $DOOR"),
        "",
        "others see nothing of it"
    );
    ask(&shop, "web", "keeper", "echo kept >/var/disk/file");
    assert_eq!(ask(&shop, "web", "asker", "cat /disk/file"), "kept");

    // No record and no answer has the secret.
    for file in ["holm.db", "holm.db-wal"] {
        let bytes = fs::read(lab.state().join(file)).unwrap_or_default();
        assert!(!bytes.windows(15).any(|part| part == b"hunter2-is-here"), "{file}");
    }
    let shown = lab.holm("shop", &["info", "web", "-o", "json"]).output().expect("holm info").stdout;
    assert!(!String::from_utf8_lossy(&shown).contains("hunter2"), "{shown:?}");

    played_again(&lab, &shop);
    let gone = does(&lab, &["down", "-"], WHOLE);
    assert_eq!(gone, "pod/web deleted\npersistentvolumeclaim/disk kept (--force deletes it)\n");
    assert_eq!(shop.list::<Instance>(), []);
    assert_eq!(shop.list::<Volume>().iter().map(|v| v.head.name.clone()).collect::<Vec<_>>(), ["disk"]);
    assert_eq!(
        does(&lab, &["down", "--force", "-"], WHOLE),
        "pod/web is not there\npersistentvolumeclaim/disk deleted\n"
    );
    assert_eq!(shop.list::<Volume>(), []);
    lab.finish();
}

/// What is there is left alone, what differs is replaced when that is asked for, and what is written out can be played.
fn played_again(lab: &Lab, shop: &Cloud) {
    let before = shop.instance("web");
    assert!(
        does(lab, &["play", "-"], WHOLE)
            .ends_with("persistentvolumeclaim/disk unchanged\npod/web unchanged\n")
    );
    assert_eq!(shop.instance("web").head.id, before.head.id);
    let changed = WHOLE.replace("value: first", "value: second");
    let refused = tries(lab, &["play", "-"], &changed);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(4) && told.contains("--replace"), "{refused:?}");
    assert_eq!(shop.instance("web").head.id, before.head.id);
    assert!(does(lab, &["play", "--replace", "-"], &changed).ends_with("pod/web replaced\n"));
    eventually("the other page", LONG, || {
        ask(shop, "web", "server", "cat /srv/index.html") == "made by second"
    });
    assert_eq!(ask(shop, "web", "asker", "cat /disk/file"), "kept", "a claim outlives its pod");

    let written = tries(lab, &["generate", "web"], "");
    assert!(written.status.success(), "{written:?}");
    let text = String::from_utf8(written.stdout).expect("text");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(String::from_utf8_lossy(&written.stderr).contains("the Secret web-env is named"), "{text}");
    shop.delete::<Instance>("web");
    let secrets = "apiVersion: v1\nkind: Secret\nmetadata: {name: web-env}\nstringData: {DOOR: other}\n---\n\
                   apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {door: other}\n---\n\
                   apiVersion: v1\nkind: Secret\nmetadata: {name: colours}\nstringData: {sky: red, grass.txt: tall}\n---\n";
    let again = does(lab, &["play", "-"], &format!("{secrets}{text}"));
    assert!(again.ends_with("pod/web created\n"), "{again}");
    eventually("the page of what was written", LONG, || {
        ask(shop, "web", "asker", "wget -q -O - http://127.0.0.1:8080/; cat /etc/one; echo $DOOR")
            == "made by second\nredother"
    });
    assert_eq!(ask(shop, "web", "keeper", "stat -c '%a %u' /keys/door"), "400 0", "with its permissions");
    let once_more = tries(lab, &["generate", "web"], "");
    assert_eq!(
        String::from_utf8_lossy(&once_more.stdout),
        text,
        "what was made of it is written out in the same way"
    );
    shop.delete::<Instance>("web");
    does(lab, &["play", "-"], WHOLE);
}

const ILL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: ill}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: weak
    image: busybox
    command: [sh, -c, 'touch /tmp/alive; sleep 2; rm /tmp/alive; exec sleep 1000000']
    livenessProbe: {exec: {command: [test, -e, /tmp/alive]}, initialDelaySeconds: 1, periodSeconds: 1, failureThreshold: 2}
  - name: strong
    image: busybox
    command: [sh, -c, 'mkdir /srv; echo ok >/srv/ok; exec httpd -f -p 8080 -h /srv']
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
    livenessProbe: {httpGet: {port: 8080, path: /ok}, periodSeconds: 1, failureThreshold: 3}
    readinessProbe: {httpGet: {port: 8080, path: /ready}, periodSeconds: 1}
"#;

#[test]
fn a_container_that_fails_its_probe_is_started_again_and_no_other() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    does(&lab, &["play", "-"], ILL);
    let seen = || shop.instance("ill");
    let since = fact(&seen(), "strong", "since_ms");
    eventually("two restarts", LONG, || fact(&seen(), "weak", "restarts").as_u64() >= Some(2));
    let now = seen();
    assert_eq!((fact(&now, "strong", "restarts"), fact(&now, "strong", "since_ms")), (0.into(), since));
    assert_eq!(
        (now.phase, now.ready),
        (Phase::Running, Some(false)),
        "the page that it is asked for is not there"
    );
    ask(&shop, "ill", "strong", "echo ok >/srv/ready");
    eventually("readiness", LONG, || seen().ready == Some(true));
    ask(&shop, "ill", "strong", "rm /srv/ready");
    eventually("no readiness", LONG, || seen().ready == Some(false));
    let told = lab.holm("shop", &["events"]).output().expect("holm events").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("container weak of ill fails its liveness probe: 2 probes failed"), "{told}");
    // The page goes: the server is of no use any more, and is started anew with it.
    ask(&shop, "ill", "strong", "rm /srv/ok");
    eventually("a restart of the other", LONG, || fact(&seen(), "strong", "restarts").as_u64() >= Some(1));
    assert_eq!(does(&lab, &["down", "-"], ILL), "pod/ill deleted\n");
    lab.finish();
}

/// Copies of a server whose pages say which version they are, and a name for them.
fn shop_file(version: &str, replicas: usize) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec: {{selector: {{app: shop}}, ports: [{{port: 80, targetPort: web}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: busybox
        ports: [{{name: web, containerPort: 8080}}]
        command: [sh, -c, 'mkdir /srv; echo {version} $HOSTNAME >/srv/index.html; exec httpd -f -p 8080 -h /srv']
        readinessProbe:
          exec: {{command: [sh, -c, 'test ! -e /tmp/ill && wget -q -O /dev/null http://127.0.0.1:8080/']}}
          timeoutSeconds: 5
          periodSeconds: 1
          failureThreshold: 1
"#
    )
}

/// A question to a name. busybox's wget ends badly when it is told a time to wait (`-T`).
fn asking(name: &str) -> String {
    format!("wget -q -O - http://{name}/")
}

fn names(shop: &Cloud) -> Vec<String> {
    let all = shop.list::<Instance>().into_iter().filter(|it| it.head.labels.contains_key("kube"));
    let mut names: Vec<String> = all.map(|it| it.head.name).collect();
    names.sort();
    names
}

#[test]
fn a_name_leads_to_the_ready_copies_and_an_update_fails_nobody() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("client"));
    assert_eq!(
        does(&lab, &["play", "-"], &shop_file("v1", 2)),
        "service/shop created\ndeployment/shop created\n"
    );
    let first = names(&shop);
    assert_eq!(first.len(), 2);
    let answers = |count: usize| -> BTreeSet<String> {
        let text = format!("for n in $(seq {count}); do {}; done", asking("shop.default.svc"));
        shop.exec("client", &text).stdout.lines().map(String::from).collect()
    };
    eventually("both answer", LONG, || answers(20).len() == 2);
    let own = format!("for n in 1 2 3 4; do {}; done", asking("shop"));
    assert_eq!(
        shop.exec(&first[0], &own).stdout.lines().collect::<BTreeSet<_>>().len(),
        2,
        "one of them finds itself by the address too"
    );
    assert_eq!(shop.exec("client", "nslookup -type=a shop.pods").stdout.matches("Address: ").count(), 2);
    shop.exec(&first[0], "touch /tmp/ill");
    let well = BTreeSet::from([format!("v1 {}", first[1])]);
    eventually("only the ready one answers", LONG, || answers(12) == well);
    shop.exec(&first[0], "rm /tmp/ill");
    eventually("both answer again", LONG, || answers(20).len() == 2);

    // Somebody asks all the time while each copy is replaced.
    let asks = format!(
        "(until test -e /tmp/stop; do {{ {}; }} >>/tmp/answers || echo failed >>/tmp/answers; done; touch /tmp/stopped) \
         >/dev/null 2>&1 &",
        asking("shop")
    );
    shop.exec("client", &asks);
    assert_eq!(
        does(&lab, &["play", "-"], &shop_file("v2", 2)),
        "service/shop unchanged\ndeployment/shop replaced\n"
    );
    shop.exec("client", "touch /tmp/stop; until test -e /tmp/stopped; do sleep 0.1; done");
    let said = shop.exec("client", "cat /tmp/answers").stdout;
    assert!(said.contains("v1 ") && said.contains("v2 "), "both versions answered");
    assert_eq!(said.matches("failed").count(), 0, "of {} answers", said.lines().count());
    let second = names(&shop);
    assert!(second.len() == 2 && second.iter().all(|name| !first.contains(name)), "{first:?} {second:?}");

    assert_eq!(
        does(&lab, &["play", "-"], &shop_file("v2", 5)),
        "service/shop unchanged\ndeployment/shop scaled\n"
    );
    assert!(names(&shop).len() == 5 && second.iter().all(|name| names(&shop).contains(name)));
    assert_eq!(
        does(&lab, &["down", "-"], &shop_file("v2", 5)),
        "deployment/shop deleted\nservice/shop deleted\n"
    );
    assert_eq!(names(&shop), Vec::<String>::new());
    assert_eq!(shop.list::<Instance>().len(), 1, "what the file does not name is left alone");
    shop.empty();
    lab.finish();
}

#[test]
fn a_play_that_was_cut_off_is_played_again() {
    let mut lab = Lab::new();
    lab.project("shop");
    let file = shop_file("v1", 4);
    let mut playing = begin(&lab, &["play", "-"], &file);
    eventually("the first copy", LONG, || !names(&lab.project("shop")).is_empty());
    lab.kill_daemon();
    let _ = playing.wait().expect("it ends");
    lab.start_daemon();
    let told = does(&lab, &["play", "-"], &file);
    assert!(
        told.ends_with("deployment/shop scaled\n") || told.ends_with("deployment/shop unchanged\n"),
        "{told}"
    );
    let shop = lab.project("shop");
    let all = shop.list::<Instance>();
    assert_eq!(all.len(), 4, "none is there twice");
    for instance in &all {
        eventually("it is ready", LONG, || shop.instance(&instance.head.name).ready == Some(true));
    }
    does(&lab, &["down", "-"], &file);
    assert_eq!(shop.list::<Instance>(), []);
    lab.finish();
}

#[test]
fn init_containers_and_jobs_end_as_they_say() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: try}\nspec:\n  backoffLimit: 2\n  template:\n    spec:\n      \
               restartPolicy: Never\n      containers: [{name: main, image: busybox, command: [sh, -c, 'echo tried; exit 7']}]\n";
    does(&lab, &["play", "--no-wait", "-"], job);
    let ended = shop.wait_phase("try", Phase::Exited);
    assert_eq!(ended.exit.expect("how it ended").code, Some(7));
    assert_eq!(shop.log("try").matches("tried").count(), 3, "once, and two tries more");
    does(&lab, &["down", "-"], job);

    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: stuck}\nspec:\n  restartPolicy: Never\n  initContainers:\n  \
               - {name: helper, image: busybox, restartPolicy: Always, command: [sleep, '1000000']}\n  \
               - {name: first, image: busybox, command: [sh, -c, 'exit 9']}\n  containers: [{name: main, image: busybox}]\n  \
               terminationGracePeriodSeconds: 1\n";
    does(&lab, &["play", "--no-wait", "-"], pod);
    let ended = shop.wait_phase("stuck", Phase::Exited);
    let exit = ended.exit.clone().expect("how it ended");
    assert!(exit.code == Some(9) && exit.failed && exit.cause.contains("container first"), "{exit:?}");
    does(&lab, &["down", "-"], pod);

    let served =
        pod.replace("exit 9", "exit 0").replace("image: busybox}]", "image: busybox, command: ['true']}]");
    does(&lab, &["play", "--no-wait", "-"], &served);
    let ended = shop.wait_phase("stuck", Phase::Exited);
    assert_eq!(ended.exit.expect("how it ended").code, Some(0), "its helper is ended with it");
    does(&lab, &["down", "-"], &served);
    lab.finish();
}

#[test]
fn a_cron_job_runs_when_its_time_comes_and_keeps_its_logs() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let file = |command: &str| {
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: report}}\nspec:\n  schedule: '* * * * *'\n  \
             concurrencyPolicy: Forbid\n  jobTemplate:\n    spec:\n      backoffLimit: 1\n      template:\n        spec:\n          \
             restartPolicy: Never\n          containers: [{{name: main, image: busybox, command: [sh, -c, '{command}']}}]\n"
        )
    };
    let first = file("echo reported; exit 7");
    assert_eq!(does(&lab, &["play", "-"], &first), "cronjob/report created\n");
    assert_eq!(does(&lab, &["play", "-"], &first), "cronjob/report unchanged\n");
    let made = shop.instance("report");
    assert!(made.schedule.as_deref() == Some("* * * * *") && made.next_start.is_some(), "{made:?}");
    let reports = || shop.log("report").matches("reported").count();
    eventually("its time", Duration::from_secs(90), || {
        let seen = shop.instance("report");
        seen.phase == Phase::Exited && reports() == 2
    });
    assert_eq!(
        shop.instance("report").exit.expect("how it ended").code,
        Some(7),
        "tried once more, and no more"
    );
    let told = lab.holm("shop", &["events"]).output().expect("holm events").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("report is started, as its schedule says"), "{told}");
    // Somebody who does not want to wait starts it, and the log goes on.
    lab.holm("shop", &["start", "report", "--no-wait"]).output().expect("holm start");
    eventually("another run", LONG, || reports() >= 4);
    let refused = tries(&lab, &["play", "-"], &file("exit 0"));
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert_eq!(does(&lab, &["play", "--replace", "-"], &file("exit 0")), "cronjob/report replaced\n");
    assert_eq!(does(&lab, &["down", "-"], &first), "cronjob/report deleted\n");
    assert_eq!(shop.list::<Instance>(), []);
    lab.finish();
}
