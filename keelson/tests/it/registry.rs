//! Images from a registry: Debian's docker-registry, on this machine.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, free_port, text};
use crate::containers::{Machine, demo_archive};

/// A registry that ends with the test.
struct Registry {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is installed");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, _dir: dir }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_is_pulled_from_a_registry() {
    let _machine = Machine::take();
    let registry = Registry::start();
    let cluster = Cluster::new();
    let archive = demo_archive(&cluster);
    cluster.up("containerd");
    let imported =
        cluster.keelson_plain(&["image", "import", &archive, "--data-dir", &cluster.data().display().to_string()]);
    assert!(text(&imported).contains("imported keelson.local/demo:1"), "{}", text(&imported));
    let image = format!("localhost:{}/team/demo:2", registry.port);
    cluster.ctr(&["images", "tag", "keelson.local/demo:1", &image]);
    cluster.ctr(&["images", "push", "--plain-http", &image]);
    cluster.ctr(&["images", "remove", &image, "keelson.local/demo:1"]);

    let pod = ["run", "pulled", "--restart=Never", "--image-pull-policy=Always"];
    let image_flag = format!("--image={image}");
    cluster.ok(&[&pod[..], &[&image_flag, "--", "sh", "-c", "echo pulled and run"]].concat());
    cluster.until(&["get", "pod", "pulled", "-o", "jsonpath={.status.phase}"], |phase| phase == "Succeeded");
    assert_eq!(cluster.ok(&["logs", "pulled"]).trim(), "pulled and run");
    let events = cluster.ok(&["describe", "pod", "pulled"]);
    assert!(events.contains("Successfully pulled image"), "{events}");

    // A tag that isn't there: said in the status, and tried again with back-off.
    let missing = format!("--image=localhost:{}/team/demo:none", registry.port);
    cluster.ok(&["run", "missing", "--restart=Never", &missing]);
    let reason = ["get", "pod", "missing", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"];
    cluster.until(&reason, |reason| reason == "ErrImagePull" || reason == "ImagePullBackOff");
    cluster.until(&reason, |reason| reason == "ImagePullBackOff");
    let message = ["get", "pod", "missing", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}"];
    cluster.until(&message, |message| message.contains("not found"));
    cluster.ok(&["delete", "pod", "missing", "pulled", "--timeout=30s"]);
}
