//! Files, and what becomes of them: each field is honoured, refused with its path, or told in a warning. The tables are in
//! `cases/`.

use super::*;
use serde_json::Value;

/// Cases of a table: what is wanted, and the file. A case begins with `=== ` and what is wanted.
fn cases(table: &str) -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = vec![];
    for line in table.lines().skip(1) {
        match (line.strip_prefix("==="), cases.last_mut()) {
            (Some(wanted), _) => cases.push((wanted.trim().to_string(), String::new())),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => panic!("a table begins with a case: {line}"),
        }
    }
    cases
}

#[test]
fn what_cannot_be_had_is_refused() {
    let all = cases(include_str!("cases/refused.txt"));
    assert!(all.len() > 60);
    for (wanted, text) in all {
        let refusal = plan(&text, "default").expect_err(&text);
        assert!(refusal.to_string().starts_with(&wanted), "{text}\n{refusal}\n{wanted}");
    }
}

/// What can be done without is told with its path, and nothing else is.
#[test]
fn what_is_not_honoured_is_told() {
    let mut wanted: Vec<String> = vec![];
    for (warning, text) in cases(include_str!("cases/told.txt")) {
        wanted.extend(Some(warning).filter(|warning| !warning.is_empty()));
        if text.is_empty() {
            continue;
        }
        let plan = plan(&text, "default").unwrap_or_else(|refusal| panic!("{text}\n{refusal}"));
        let told: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told, std::mem::take(&mut wanted), "{text}");
    }
    let other = pod("", "").replace("  name: web", "  name: web\n  namespace: shop");
    assert_eq!(plan(&other, "shop").unwrap().warnings, [], "the project's own name is its namespace");
}

/// A plan as a whole, by names.
fn told(plan: &Plan) -> Value {
    let workload = |it: &Workload| {
        serde_json::json!({
            "kind": it.kind.as_str(), "name": it.name, "recreate": it.recreate,
            "pods": it.pods.iter().map(|pod| &pod.name).collect::<Vec<_>>(),
            "sequence": it.sequence.map(|it| serde_json::json!({"parallel": it.parallel, "replaces_from": it.replaces_from})),
        })
    };
    let ports =
        |it: &Service| it.ports.iter().map(|port| (port.protocol, port.port, port.to)).collect::<Vec<_>>();
    serde_json::json!({
        "parts": plan.parts,
        "services": plan.services.iter().map(|it| (&it.name, ports(it))).collect::<Vec<_>>(),
        "claims": plan.claims.iter().map(|it| (&it.name, it.size_gib)).collect::<Vec<_>>(),
        "workloads": plan.workloads.iter().map(workload).collect::<Vec<_>>(),
        "aliases": plan.workloads[0].pods[0].aliases,
        "autoscale": plan.workloads[0].copies.as_ref().and_then(|copies| copies.autoscale),
    })
}

#[test]
fn what_is_asked_for_is_planned() {
    let all = cases(include_str!("cases/planned.txt"));
    assert!(all.len() > 90);
    for (wanted, text) in all {
        let plan = plan(&text, "default").unwrap_or_else(|refusal| panic!("{text}\n{refusal}"));
        let (at, wanted) = wanted.split_once(' ').unwrap();
        let wanted: Value = serde_json::from_str(wanted).unwrap();
        assert_eq!(plan.warnings, [], "{text}");
        let mut pod = serde_json::to_value(&plan.workloads[0].pods[0]).unwrap();
        pod["plan"] = told(&plan);
        assert_eq!(pod.pointer(at), Some(&wanted), "{text}\n{at}\n{pod:#}");
    }
}

/// A pod with these lines in its spec beside one container, and these in the container.
fn pod(spec: &str, container: &str) -> String {
    let indent = |text: &str, by: usize| -> String {
        text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
    };
    let metadata = "  name: web\n  labels: {app: web}";
    let (spec, container) = (indent(spec, 2), indent(container, 4));
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n{metadata}\nspec:\n{spec}  containers:\n  - name: main\n    image: busybox\n{container}"
    )
}

/// A ConfigMap and a Secret, and then `text`.
fn with_config(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: colours}}\ndata: {{sky: blue, grass: green}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\ndata: {{door: aHVudGVyMg==}}\nstringData: {{gate: open}}\n---\n{text}"
    )
}

fn deployment(spec: &str, template: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{spec}  selector: {{matchLabels: {{app: web}}}}\n  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers: [{{name: main, image: web{template}}}]\n"
    )
}

fn object(kind: &str, version: &str, rest: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: it}}\n{rest}\n")
}

#[test]
fn workloads_are_pods_with_names_of_their_own() {
    let names = |text: &str| -> Vec<String> {
        let plan = plan(text, "default").unwrap();
        plan.workloads[0].pods.iter().map(|pod| pod.name.clone()).collect()
    };
    let three = names(&deployment("  replicas: 3\n", ""));
    assert_eq!(three.len(), 3);
    assert_eq!(names(&deployment("  replicas: 1\n", "")), three[..1], "scaling makes no new pods");
    assert_eq!(names(&deployment("  replicas: 0\n", "")), Vec::<String>::new());
    assert_ne!(names(&deployment("", ", args: [x]")), three[..1], "another template makes other pods");
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";
    let served = plan(&format!("{}{service}", deployment("  replicas: 2\n", "")), "default").unwrap();
    assert!(served.workloads[0].pods.iter().all(|pod| pod.aliases == ["shop.pods"]));
    let ports = vec![service::ServicePort { protocol: "tcp", port: 80, to: 80 }];
    assert_eq!(served.services, [Service { name: "shop".into(), ports }]);
    assert_eq!((served.parts, served.warnings), (vec![], vec![]));
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: it}\nspec:\n  backoffLimit: 2\n  template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}\n";
    let job = plan(job, "default").unwrap();
    assert_eq!(
        job.workloads[0].pods[0].containers[0].restart,
        crate::plan::RestartPolicy::OnFailure { retries_max: 2 }
    );
    let claim = object(
        "PersistentVolumeClaim",
        "v1",
        "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1500Mi}}}",
    );
    assert_eq!(plan(&claim, "default").unwrap().claims, [Claim { name: "it".into(), size_gib: 2 }]);
}

#[test]
fn a_file_and_what_its_pods_are_shown_are_bounded() {
    let many = (0..6).map(|n| {
        deployment("  replicas: 100\n", "").replace("name: web}\nspec", &format!("name: web{n}}}\nspec"))
    });
    let many: Vec<String> = many.collect();
    assert!(plan(&many[..5].join("---\n"), "default").is_ok());
    let refusal = plan(&many.join("---\n"), "default").unwrap_err();
    assert!(refusal.to_string().contains("more than 500 pods"), "{refusal}");
    let large = |bytes: usize| {
        let files =
            pod("volumes: [{name: a, configMap: {name: it}}]", "volumeMounts: [{name: a, mountPath: /a}]");
        let text = "x".repeat(bytes);
        format!("{}---\n{files}", object("ConfigMap", "v1", &format!("data: {{a: {text}}}")))
    };
    assert!(plan(&large(256 * 1024), "default").is_ok());
    let refusal = plan(&large(256 * 1024 + 1), "default").unwrap_err();
    assert!(
        refusal.to_string().contains("spec.volumes: ConfigMaps and Secrets of 262145 bytes"),
        "{refusal}"
    );
}

#[test]
fn services_lead_to_ports_by_number_and_by_name() {
    let with = |spec: &str| {
        let pods = deployment("", ", ports: [{name: web, containerPort: 8080}]");
        let text = format!(
            "{pods}---\n{}",
            object("Service", "v1", &format!("spec: {{selector: {{app: web}}, {spec}}}"))
        );
        plan(&text, "default")
    };
    let ports = |spec: &str| with(spec).unwrap().services[0].ports.clone();
    let one = |protocol, port, to| service::ServicePort { protocol, port, to };
    assert_eq!(ports("ports: [{port: 80, targetPort: web}]"), [one("tcp", 80, 8080)]);
    assert_eq!(
        ports("ports: [{port: 80, targetPort: 81}, {port: 53, protocol: UDP}]"),
        [one("tcp", 80, 81), one("udp", 53, 53)]
    );
    let headless = with("clusterIP: None").unwrap();
    assert_eq!((headless.services, headless.parts), (vec![], vec!["service/it".to_string()]));
    let names = ["it", "it.default", "it.default.svc", "it.default.svc.cluster.local"];
    assert_eq!(headless.workloads[0].pods[0].aliases, names);
    for (spec, told) in [
        ("ports: []", "service/it: spec.ports: are missing"),
        (
            "ports: [{port: 80, targetPort: other}]",
            "service/it: spec.ports[0].targetPort: its pods have no port",
        ),
        (
            "ports: [{port: 80, targetPort: 0}]",
            "service/it: spec.ports[0].targetPort: is to be a whole number",
        ),
        (
            "ports: [{port: 80}, {port: 80, targetPort: 1}]",
            "service/it: spec.ports[1].port: 80 is there twice",
        ),
    ] {
        let refusal = with(spec).expect_err(spec);
        assert!(refusal.to_string().starts_with(told), "{refusal}");
    }
}

/// Variables that name each other twice come to twice as much each time.
#[test]
fn references_do_not_grow_without_end() {
    let each = |n: usize| format!("{{name: V{}, value: '$(V{n})$(V{n})'}}", n + 1);
    let env: Vec<String> = (0..60).map(each).collect();
    let text = pod("", &format!("env: [{{name: V0, value: xxxxxxxx}}, {}]", env.join(", ")));
    let refusal = plan(&text, "default").unwrap_err();
    assert!(refusal.to_string().contains("spec.containers[0].env: the variables come to more"), "{refusal}");
    let many =
        format!("env: [{{name: A, value: {}}}]\nargs: ['{}']", "x".repeat(1000), "$(A)".repeat(10_000));
    let refusal = plan(&pod("", &many), "default").unwrap_err();
    assert!(refusal.to_string().contains("spec.containers[0].args: comes to more"), "{refusal}");
}

/// What one pod alone can have, or what is asked for, has the old pods go first.
#[test]
fn an_update_goes_by_what_pods_hold() {
    let recreate = |text: &str| plan(text, "default").unwrap().workloads[0].recreate;
    assert!(!recreate(&deployment("  replicas: 2\n", "")));
    assert!(recreate(&deployment("  strategy: {type: Recreate}\n", "")));
    assert!(recreate(&deployment("", ", ports: [{containerPort: 80, hostPort: 80}]")));
}

/// Nothing that is printed shows a secret, and a digest tells nothing of one.
#[test]
fn secrets_are_not_shown() {
    let text = |door: &str| {
        let env = "env: [{name: A, valueFrom: {secretKeyRef: {name: keys, key: door}}}]\nvolumeMounts: [{name: k, mountPath: /k}]";
        with_config(&pod("volumes: [{name: k, secret: {secretName: keys}}]", env))
            .replace("aHVudGVyMg==", door)
    };
    let one = plan(&text("aHVudGVyMg=="), "default").unwrap();
    let pod = &one.workloads[0].pods[0];
    assert_eq!(pod.containers[0].env.secret["A"], "hunter2");
    let shown = format!("{one:?}{}", serde_json::to_string(pod).unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("104,117,110,116"), "{shown}");
    let other = plan(&text("b3RoZXI="), "default").unwrap();
    assert_eq!(other.workloads[0].pods[0].digest, pod.digest);
}
