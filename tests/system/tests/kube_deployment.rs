//! Deployments between two plays: holm keeps as many copies as are wanted, whatever happens to them and to itself, and
//! services that are made of them find each other by name.

use crate::kube::{LONG, ask, does, tries};
use api::v1::types::{deployment::Deployment, instance::Instance};
use lab::{Cloud, Lab, eventually};
use std::{collections::BTreeSet, fs};

/// Copies of something that knows its name, and a secret.
fn web(replicas: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{door: hunter2-is-here}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes:
      - {{name: about, downwardAPI: {{items: [{{path: me, fieldRef: {{fieldPath: metadata.name}}}}]}}}}
      containers:
      - name: main
        image: busybox
        command: [sleep, "1000000"]
        resources: {{limits: {{memory: 32Mi}}}}
        env:
        - {{name: ME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: DOOR, valueFrom: {{secretKeyRef: {{name: keys, key: door}}}}}}
        volumeMounts: [{{name: about, mountPath: /about}}]
"#
    )
}

fn copies(shop: &Cloud) -> Vec<Instance> {
    let mut all: Vec<Instance> =
        shop.list().into_iter().filter(|it: &Instance| it.head.labels.contains_key("kube")).collect();
    all.sort_by(|one, other| one.head.name.cmp(&other.head.name));
    all
}

fn ids(shop: &Cloud) -> BTreeSet<String> {
    copies(shop).iter().map(|it| it.head.id.to_string()).collect()
}

fn is_complete(shop: &Cloud, count: u32) -> bool {
    let seen = shop.get::<Deployment>("web");
    seen.is_complete() && seen.replicas == count && copies(shop).len() == count as usize
}

#[test]
fn copies_that_go_come_again_and_as_many_are_there_as_somebody_asks_for() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let file = web("replicas: 3");
    assert_eq!(does(&lab, &["play", "-"], &file), "secret/keys read\ndeployment/web created\n");
    let first = copies(&shop);
    assert_eq!(first.len(), 3);
    for copy in &first {
        let name = &copy.head.name;
        let said = ask(&shop, name, "main", "echo $ME $DOOR; cat /about/me");
        assert_eq!(said, format!("{name} hunter2-is-here\n{name}"));
    }
    for file in ["holm.db", "holm.db-wal"] {
        let bytes = fs::read(lab.state().join(file)).unwrap_or_default();
        assert!(!bytes.windows(15).any(|part| part == b"hunter2-is-here"), "{file}");
    }
    let shown = lab.holm("shop", &["api", "get", "/v1/deployments"]).output().expect("holm api").stdout;
    assert!(!String::from_utf8_lossy(&shown).contains("hunter2"), "{shown:?}");

    shop.delete::<Instance>(&first[1].head.name);
    eventually("another one in its place", LONG, || is_complete(&shop, 3));
    let now = ids(&shop);
    assert!([&first[0], &first[2]].iter().all(|it| now.contains(&it.head.id.to_string())));
    let listed = does(&lab, &["get"], "");
    assert!(listed.contains("deployment/web") && listed.contains("3/3"), "{listed}");

    assert_eq!(does(&lab, &["scale", "deployment/web", "--replicas", "5"], ""), "deployment/web scaled\n");
    assert!(is_complete(&shop, 5) && ids(&shop).is_superset(&now), "those that were there stay");
    assert_eq!(does(&lab, &["scale", "web", "--replicas", "1"], ""), "deployment/web scaled\n");
    assert!(is_complete(&shop, 1));
    let silent = web("");
    assert_eq!(does(&lab, &["play", "-"], &silent), "secret/keys read\ndeployment/web unchanged\n");
    assert_eq!(does(&lab, &["play", "-"], &file), "secret/keys read\ndeployment/web scaled\n");
    assert_eq!(does(&lab, &["status", "deploy/web"], ""), "deployment/web has 3 of 3 copies ready\n");
    let refused = tries(&lab, &["scale", "statefulset/web", "--replicas", "2"], "");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = tries(&lab, &["scale", "other", "--replicas", "2"], "");
    assert!(
        refused.status.code() == Some(3) && String::from_utf8_lossy(&refused.stderr).contains("kube get")
    );

    restarted(&lab, &shop, &file);
    quota_is_told(&lab, &shop);
    assert_eq!(does(&lab, &["down", "-"], &file), "deployment/web deleted\n");
    assert_eq!((shop.list::<Instance>(), shop.list::<Deployment>()), (vec![], vec![]));
    lab.finish();
}

/// All copies are replaced by new ones, which are of no other template: the file is known when it is played again.
fn restarted(lab: &Lab, shop: &Cloud, file: &str) {
    let before = ids(shop);
    assert_eq!(does(lab, &["rollout", "restart", "deployment/web"], ""), "deployment/web restarted\n");
    let told = does(lab, &["rollout", "status", "deployment", "web"], "");
    assert_eq!(told, "deployment/web has 3 of 3 copies ready\n");
    let after = ids(shop);
    assert!(is_complete(shop, 3) && after.is_disjoint(&before), "{before:?} {after:?}");
    assert_eq!(does(lab, &["play", "-"], file), "secret/keys read\ndeployment/web unchanged\n");
    assert_eq!(ids(shop), after);
    // None is touched where one of the names is wrong.
    let refused = tries(lab, &["rollout", "restart", "deployment", "web", "other"], "");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let refused = tries(lab, &["rollout", "restart", "statefulset/web"], "");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    does(lab, &["rollout", "status", "web"], "");
    assert_eq!(ids(shop), after);
    // A secret that changed reaches them so.
    let changed = file.replace("hunter2-is-here", "hunter3-is-here");
    assert_eq!(does(lab, &["play", "-"], &changed), "secret/keys read\ndeployment/web unchanged\n");
    assert_eq!(ids(shop), after);
    does(lab, &["rollout", "restart", "web"], "");
    does(lab, &["status", "web"], "");
    for copy in copies(shop) {
        assert_eq!(ask(shop, &copy.head.name, "main", "echo $DOOR"), "hunter3-is-here");
    }
    does(lab, &["play", "-"], file);
}

/// What a quota refuses is told once, and made when there is room.
fn quota_is_told(lab: &Lab, shop: &Cloud) {
    shop.set_quota("instances", 4);
    let refused = tries(lab, &["scale", "web", "--replicas", "6"], "");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("4 of 6") && told.contains("goes on trying"),
        "{told}"
    );
    assert_eq!(copies(shop).len(), 4, "what fits is made");
    let listed = does(lab, &["get"], "");
    assert!(listed.contains("4/6") || listed.contains("3/6"), "{listed}");
    let told = lab.holm("shop", &["events"]).output().expect("holm events").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert_eq!(told.matches("has not the copies it is to have").count(), 1, "{told}");
    shop.set_quota("instances", 20);
    eventually("the rest", LONG, || is_complete(shop, 6));
    assert_eq!(shop.get::<Deployment>("web").fault, None);
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_doubles_no_copy() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    let file = web("replicas: 2");
    does(&lab, &["play", "-"], &file);
    let kept = ids(&shop);
    for count in [5, 1, 4, 6] {
        let count_text = count.to_string();
        does(&lab, &["scale", "web", "--no-wait", "--replicas", &count_text], "");
        // It has just begun, or is in the middle, or is done: each is another moment.
        lab.kill_daemon();
        lab.start_daemon();
        let shop = lab.project("shop");
        eventually("as many as are wanted", LONG, || is_complete(&shop, count));
        let names: BTreeSet<String> = copies(&shop).into_iter().map(|it| it.head.name).collect();
        assert_eq!(names.len(), count as usize);
    }
    let shop = lab.project("shop");
    assert_eq!(ids(&shop).intersection(&kept).count(), 1, "the oldest one was never touched");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    let before = ids(&shop);
    does(&lab, &["status", "web"], "");
    assert_eq!(ids(&shop), before, "a start alone changes nothing");
    does(&lab, &["down", "-"], &file);
    assert_eq!(shop.list::<Instance>(), []);
    lab.finish();
}

/// Services that each ask the next one by its name, and say who they are.
fn chain(names: &[&str]) -> String {
    let mut text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: pages}\ndata:\n  go: |\n    #!/bin/sh\n    \
                    printf 'Content-Type: text/plain\\r\\n\\r\\n'\n    echo @SERVICE\n    \
                    test -z \"@NEXT\" || wget -q -O - http://@NEXT/cgi-bin/go || echo broken\n"
            .to_string();
    for (place, name) in names.iter().enumerate() {
        let next = names.get(place + 1).copied().unwrap_or_default();
        text += &format!(
            r#"---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{{name: pages, configMap: {{name: pages}}}}]
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
          mkdir -p /srv/cgi-bin
          sed "s/@SERVICE/$SERVICE/; s/@NEXT/$NEXT/g" /pages/go >/srv/cgi-bin/go
          chmod 755 /srv/cgi-bin/go
          exec httpd -f -p 8080 -h /srv
        env: [{{name: SERVICE, value: {name}}}, {{name: NEXT, value: "{next}"}}]
        volumeMounts: [{{name: pages, mountPath: /pages}}]
        resources: {{limits: {{memory: 32Mi}}}}
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"#
        );
    }
    text
}

#[test]
fn a_request_passes_through_five_services_that_find_each_other_by_name() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let client = shop.launch(&shop.idle_container("client"));
    let names = ["front", "cart", "prices", "tax", "rates"];
    let file = chain(&names);
    does(&lab, &["play", "-"], &file);
    assert_eq!(copies(&shop).len(), 10);
    let answer = || shop.exec("client", "wget -q -O - http://front/cgi-bin/go").stdout;
    let whole: String = names.iter().map(|name| format!("{name}\n")).collect();
    eventually("an answer of all five", LONG, || answer() == whole);
    // One in the middle loses both its copies: the chain breaks there, and is whole again by itself.
    for copy in copies(&shop).iter().filter(|it| it.head.labels["app"] == "prices") {
        shop.delete::<Instance>(&copy.head.name);
    }
    eventually("all copies again", LONG, || shop.get::<Deployment>("prices").is_complete());
    eventually("an answer of all five again", LONG, || answer() == whole);
    does(&lab, &["down", "-"], &file);
    shop.delete::<Instance>(&client.head.name);
    assert_eq!((shop.list::<Instance>(), shop.list::<Deployment>()), (vec![], vec![]));
    lab.finish();
}

/// Copies that ask for a tenth of a CPU, and are to use half of that.
const SCALED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: busybox
        command: [sleep, "1000000"]
        resources: {requests: {cpu: 100m, memory: 32Mi}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 15}}
"#;

#[test]
fn copies_that_have_much_to_do_become_more_and_later_fewer() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    assert_eq!(
        does(&lab, &["play", "-"], SCALED),
        "horizontalpodautoscaler/web read\ndeployment/web created\n"
    );
    let first = copies(&shop);
    assert_eq!(first.len(), 1);
    let name = &first[0].head.name;
    ask(&shop, name, "main", "(while test ! -e /tmp/stop; do :; done) >/dev/null 2>&1 &");
    eventually("copies for what there is to do", LONG, || is_complete(&shop, 3));
    let listed = does(&lab, &["get"], "");
    assert!(listed.contains("%/50% (1-3)"), "{listed}");
    let refused = tries(&lab, &["scale", "web", "--replicas", "2"], "");
    assert!(refused.status.code() == Some(4), "{refused:?}");
    ask(&shop, name, "main", "touch /tmp/stop");
    eventually("fewer when it is done", 2 * LONG, || is_complete(&shop, 1));
    let told = lab.holm("shop", &["events"]).output().expect("holm events").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("3 copies instead of 1, which use"), "{told}");
    does(&lab, &["down", "-"], SCALED);
    assert_eq!((shop.list::<Instance>(), shop.list::<Deployment>()), (vec![], vec![]));
    lab.finish();
}
