//! Disks that lie or hang.

use std::path::{Path, PathBuf};
use std::process::Command;

use etcd_client::GetOptions;
use store_server::ServeError;

use crate::cluster::{Cluster, eventually};
use crate::membership::id_of;

/// A member's files of a kind, oldest first.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

/// Flips the lowest bit of the byte where a text stands, in the one file that holds it.
fn flip_bit_of(files: &[PathBuf], text: &str) -> PathBuf {
    for path in files {
        let mut bytes = std::fs::read(path).expect("read");
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(path, bytes).expect("write");
            return path.clone();
        }
    }
    panic!("{text:?} is in none of {files:?}");
}

/// What is under the error, down to its cause.
fn chain(error: &ServeError) -> String {
    let mut out = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        out = format!("{out}: {error}");
        cause = error.source();
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_value_stops_the_member() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let ill = (leader + 1) % 3;
    cluster.client(leader).await.put("k", "a value that is told apart", None).await.expect("a put");
    // It has applied the write, and a clean end makes it durable.
    eventually("a read", || async { cluster.client(ill).await.get("k", None).await }).await;
    cluster.stop(ill).await;
    let state = cluster.members[ill].config.data_dir.join("state/1");
    flip_bit_of(&files(&state, "sst"), "a value that is told apart");
    cluster.start(ill);
    let options = GetOptions::new().with_serializable();
    let read = eventually("the member's start", || async {
        let mut client = cluster.client(ill).await;
        client.status().await?;
        Ok::<_, etcd_client::Error>(client.get("k", Some(options.clone())).await)
    });
    let refused = read.await.expect_err("no answer rather than a wrong one");
    assert!(refused.to_string().contains("storage failed"), "{refused}");
    let ended = cluster.end(ill).await.expect_err("it stopped");
    assert!(chain(&ended).contains("state/1") && chain(&ended).contains("checksum"), "{}", chain(&ended));
    let mut client = cluster.client(leader).await;
    assert_eq!(client.get("k", None).await.expect("the others go on").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_stops_the_start() {
    let mut cluster = Cluster::started(1).await;
    cluster.client(0).await.put("k", "the last thing that was acknowledged", None).await.expect("a put");
    cluster.stop(0).await;
    let log = cluster.members[0].config.data_dir.join("log");
    let path = flip_bit_of(&files(&log, "log"), "the last thing that was acknowledged");
    cluster.start(0);
    let ended = chain(&cluster.end(0).await.expect_err("refused"));
    assert!(ended.contains(&*path.to_string_lossy()) && ended.contains("damaged at byte"), "{ended}");
}

/// A file system of its own, which can be made to hang.
struct Volume(PathBuf);

fn run(program: &str, args: &[&std::ffi::OsStr]) {
    let done = Command::new(program).args(args).output().expect("a program of every Linux");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Volume {
    fn mounted_at(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let image = path.with_extension("img");
        std::fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).expect("an image");
        run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), path.as_os_str()]);
        Self(path.to_owned())
    }

    fn hang(&self) {
        run("fsfreeze", &["-f".as_ref(), self.0.as_os_str()]);
    }

    fn go_on(&self) {
        run("fsfreeze", &["-u".as_ref(), self.0.as_os_str()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Whatever the test came to: nobody may be left waiting for a disk that hangs.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_hands_over() {
    let mut cluster = Cluster::new(3);
    let mut volumes = Vec::new();
    for at in 0..3 {
        volumes.push(Volume::mounted_at(&cluster.members[at].config.data_dir.join("log")));
        cluster.start(at);
    }
    let leader = cluster.wait_for_leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.client(leader).await.put("before", "v", None).await.expect("a put");
    volumes[leader].hang();
    // Followers are enough to commit it; the leader can't apply it.
    eventually("a put", || async { cluster.client(others[0]).await.put("first", "v", None).await }).await;
    let successors = [id_of(&cluster, others[0]).await, id_of(&cluster, others[1]).await];
    eventually("another leader", || async {
        let led_by = cluster.client(others[0]).await.status().await.map_err(|e| e.to_string())?.leader();
        if successors.contains(&led_by) { Ok(()) } else { Err(format!("{led_by:x} leads")) }
    })
    .await;
    cluster.client(others[0]).await.put("meanwhile", "v", None).await.expect("a put");
    volumes[leader].go_on();
    let read = eventually("a read", || async { cluster.client(leader).await.get("meanwhile", None).await }).await;
    assert_eq!(read.count(), 1);
    for at in 0..3 {
        cluster.stop(at).await;
    }
}
