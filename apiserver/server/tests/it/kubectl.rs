//! Every kubectl on the machine, doing what people do with it.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Cluster;
use crate::programs::kubectls;

struct Kubectl<'a> {
    program: PathBuf,
    cluster: &'a Cluster,
}

impl Kubectl<'_> {
    fn output(&self, arguments: &str, input: &str) -> (bool, String) {
        use std::io::Write as _;
        let mut child = Command::new(&self.program)
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("KUBECACHEDIR", self.cluster.dir.path().join("cache"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("kubectl");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
        let output = child.wait_with_output().expect("kubectl ends");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    fn ok_with(&self, arguments: &str, input: &str) -> String {
        let (success, text) = self.output(arguments, input);
        assert!(success, "{} {arguments}: {text}", self.program.display());
        text
    }

    fn ok(&self, arguments: &str) -> String {
        self.ok_with(arguments, "")
    }

    fn fails(&self, arguments: &str, input: &str) -> String {
        let (success, text) = self.output(arguments, input);
        assert!(!success, "{} {arguments} should fail: {text}", self.program.display());
        text
    }
}

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NS}
data: {a: '1'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'web:1', ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
";

/// One test for all versions: starting an apiserver for each would only cost time.
#[test]
fn every_kubectl_applies_reads_changes_and_deletes() {
    let cluster = Cluster::start();
    for (index, program) in kubectls().into_iter().enumerate() {
        let kubectl = Kubectl { program, cluster: &cluster };
        walk_through(&kubectl, &format!("ns{index}"));
    }
}

fn walk_through(kubectl: &Kubectl<'_>, ns: &str) {
    let manifest = MANIFEST.replace("NS", ns);
    kubectl.ok(&format!("create namespace {ns}"));
    let applied = kubectl.ok_with("apply -f -", &manifest);
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    let again = kubectl.ok_with("apply -f -", &manifest);
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    let changed = kubectl.ok_with("apply -f -", &manifest.replace("web:1", "web:2"));
    assert!(changed.contains("deployment.apps/web configured"), "{changed}");

    let table = kubectl.ok(&format!("-n {ns} get deploy,svc,cm -o wide"));
    for word in ["READY", "web:2", "NodePort", "settings"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    assert_eq!(
        kubectl.ok(&format!("-n {ns} get deploy web -o jsonpath={{.spec.template.spec.containers[0].image}}")),
        "web:2"
    );
    assert!(kubectl.ok(&format!("-n {ns} get all --show-labels -l app=none")).contains("No resources"));
    assert!(
        kubectl
            .ok(&format!("-n {ns} get cm --field-selector metadata.name=settings -o name"))
            .contains("configmap/settings")
    );

    kubectl.ok(&format!("-n {ns} scale deploy web --replicas=5"));
    assert_eq!(kubectl.ok(&format!("-n {ns} get deploy web -o jsonpath={{.spec.replicas}}")), "5");
    kubectl.ok(&format!("-n {ns} label deploy web tier=front"));
    kubectl.ok(&format!("-n {ns} annotate cm settings note=x"));
    kubectl.ok(&format!("-n {ns} patch cm settings --type=merge -p {{\"data\":{{\"b\":\"2\"}}}}"));
    kubectl.ok(&format!(
        "-n {ns} patch cm settings --type=json -p [{{\"op\":\"replace\",\"path\":\"/data/a\",\"value\":\"9\"}}]"
    ));
    kubectl.ok(&format!("-n {ns} patch deploy web -p {{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{{\"name\":\"c\",\"image\":\"web:3\"}}]}}}}}}}}"));
    assert_eq!(kubectl.ok(&format!("-n {ns} get cm settings -o jsonpath={{.data.a}}{{.data.b}}")), "92");
    assert_eq!(
        kubectl.ok(&format!("-n {ns} get deploy web -o jsonpath={{.spec.template.spec.containers[*].image}}")),
        "web:3"
    );

    // Debian's kubectl checks by itself, and waits for conditions only.
    if !kubectl.ok("version --client").contains("1.20.") {
        let typo = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {}\n";
        let strict = kubectl.fails(&format!("-n {ns} create --validate=strict -f -"), typo);
        assert!(strict.contains("unknown field \"dta\""), "{strict}");
        kubectl.ok(&format!("-n {ns} wait --for=jsonpath={{.spec.replicas}}=5 deploy/web --timeout=10s"));
    }
    let taken = kubectl.fails(&format!("-n {ns} create cm settings"), "");
    assert!(taken.contains("configmaps \"settings\" already exists"), "{taken}");
    assert!(kubectl.fails(&format!("-n {ns} get cm nothing"), "").contains("configmaps \"nothing\" not found"));
    let dry = kubectl.ok(&format!("-n {ns} create cm dry --dry-run=server -o name"));
    assert!(dry.contains("configmap/dry"));
    assert!(kubectl.fails(&format!("-n {ns} get cm dry"), "").contains("not found"));

    assert!(kubectl.ok("explain deployment.spec.strategy").contains("rollingUpdate"));
    assert!(kubectl.ok("api-resources").contains("deployments"));
    assert!(kubectl.ok("version").contains("v1.36.0"));
    assert!(kubectl.ok(&format!("-n {ns} describe svc web")).contains("NodePort"));

    kubectl.ok_with("delete -f - --wait=true --timeout=20s", &manifest);
    assert!(kubectl.ok(&format!("-n {ns} get deploy,svc")).contains("No resources"));
}
