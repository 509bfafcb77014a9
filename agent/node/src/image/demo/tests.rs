//! Needs busybox-static.

use std::collections::BTreeSet;
use std::process::Command;

use super::*;

const BUSYBOX: &str = "/bin/busybox";

fn busybox() -> &'static Path {
    assert!(Path::new(BUSYBOX).exists(), "no {BUSYBOX}: install busybox-static");
    Path::new(BUSYBOX)
}

#[test]
fn busybox_is_all_of_its_names() {
    let output = Command::new(busybox()).arg("--list").output().expect("busybox");
    let list = String::from_utf8(output.stdout).expect("text");
    let known: BTreeSet<&str> = list.lines().collect();
    let missing: Vec<_> = APPLETS.iter().filter(|applet| !known.contains(*applet)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_image_is_whole_and_always_the_same() {
    let image_bytes = image(busybox()).expect("an image");
    assert_eq!(agent_core::archive::check(image_bytes.as_slice()).expect("a good archive"), [REFERENCE]);
    assert!(image_bytes == image(busybox()).expect("an image"));
}

/// Unpacked somewhere, it works as a root.
#[test]
fn a_shell_runs_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in files(std::fs::read(busybox()).expect("busybox")) {
        let path = folder.path().join(&file.path);
        std::fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
        match &file.content {
            Content::Bytes(_) if file.path == "bin/busybox" => {
                std::fs::copy(busybox(), path).map(|_| ()).expect("a copy");
            }
            Content::Bytes(bytes) => std::fs::write(path, bytes).expect("a file"),
            Content::Symlink(target) => std::os::unix::fs::symlink(target, path).expect("a link"),
            Content::Folder => std::fs::create_dir_all(path).expect("a folder"),
        }
    }
    let script = "ls / | tr '\\n' ' ' && id -un";
    let output = Command::new(busybox()).arg("chroot").arg(folder.path()).args(["/bin/sh", "-c", script]).output();
    let output = output.expect("chroot, which needs root");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "bin etc root tmp root\n", "{output:?}");
}

#[test]
fn what_is_no_static_program_is_told_apart() {
    let told = |path: &str| image(Path::new(path)).expect_err("no image").to_string();
    assert_eq!(told("/nowhere/busybox"), "reading /nowhere/busybox: install busybox-static");
    assert_eq!(
        told("/bin/ls"),
        "/bin/ls can't be the only program of an image: it needs libraries; the static one is wanted"
    );
    assert_eq!(
        told("/etc/passwd"),
        "/etc/passwd can't be the only program of an image: it is not a 64-bit little-endian program"
    );
    let mut cut = std::fs::read(busybox()).expect("busybox");
    cut.truncate(60);
    assert_eq!(static_program(&cut), Err("its headers are cut off"));
}
