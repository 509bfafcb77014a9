//! Layouts as they are on the wire.

use std::io::Read as _;

use expect_test::expect;

use super::*;

fn file(path: &str, mode: u32, content: Content) -> File {
    File { path: path.to_owned(), mode, content }
}

fn files() -> Vec<File> {
    vec![
        file("usr/bin/x", 0o755, Content::Bytes(b"program".to_vec())),
        file("bin", 0o777, Content::Symlink("usr/bin".to_owned())),
        file("tmp", 0o1777, Content::Folder),
        file("tmp/deep/er", 0o600, Content::Bytes(vec![])),
    ]
}

fn config() -> ImageConfig {
    ImageConfig { entrypoint: vec!["/usr/bin/x".to_owned()], ..ImageConfig::new(Architecture::Arm64) }
}

fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let mut found = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        let header = entry.header();
        let link = entry.link_name().expect("a name").map(|l| format!(" -> {}", l.display())).unwrap_or_default();
        let times = (header.mtime().expect("a time"), header.uid().expect("an owner"), header.gid().expect("a group"));
        assert_eq!(times, (0, 0, 0));
        let path = entry.path().expect("a path").display().to_string();
        found.push((format!("{:o} {path}{link}", header.mode().expect("a mode")), content));
    }
    found
}

#[test]
fn a_layout_holds_one_image() {
    let bytes = build("example.org/some/thing:v1", &files(), &config()).expect("an image");
    let mut text = String::new();
    for (name, content) in entries(&bytes) {
        text += &format!("{name}\n");
        if content.starts_with(b"{") {
            text += &format!("    {}\n", String::from_utf8(content).expect("JSON"));
        } else {
            entries(&content).iter().for_each(|(name, _)| text += &format!("    {name}\n"));
        }
    }
    expect![[r#"
        644 oci-layout
            {"imageLayoutVersion":"1.0.0"}
        644 index.json
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:d41136dda7a6e172bf74753e754a42cc4b851301e64e0e711cdf342fa6d28e18","size":397,"platform":{"architecture":"arm64","os":"linux"},"annotations":{"io.containerd.image.name":"example.org/some/thing:v1","org.opencontainers.image.ref.name":"v1"}}]}
        644 blobs/sha256/d41136dda7a6e172bf74753e754a42cc4b851301e64e0e711cdf342fa6d28e18
            {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:35f2b2c308349a35a619023a9a3dcfd35f86f5e1e77ba24abe731ad45b471004","size":396},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:780b6c8601ffc9f9d9551d1e2a9dcd7ae88b26f1a0120f266adb51879bab363a","size":5120}]}
        644 blobs/sha256/35f2b2c308349a35a619023a9a3dcfd35f86f5e1e77ba24abe731ad45b471004
            {"architecture":"arm64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["/usr/bin/x"],"Cmd":null,"WorkingDir":""},"rootfs":{"type":"layers","diff_ids":["sha256:780b6c8601ffc9f9d9551d1e2a9dcd7ae88b26f1a0120f266adb51879bab363a"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"keelson"}]}
        644 blobs/sha256/780b6c8601ffc9f9d9551d1e2a9dcd7ae88b26f1a0120f266adb51879bab363a
            777 bin -> usr/bin
            1777 tmp/
            755 tmp/deep/
            600 tmp/deep/er
            755 usr/
            755 usr/bin/
            755 usr/bin/x
    "#]].assert_eq(&text);
}

/// B1.
#[test]
fn the_same_files_give_the_same_bytes() {
    let mut turned = files();
    turned.reverse();
    let build = |files: &[File]| build("example.org/a:1", files, &config()).expect("an image");
    assert!(build(&files()) == build(&turned));
}

/// B2.
#[test]
fn paths_stay_inside_and_apart() {
    let told = |files: &[File]| build("example.org/a:1", files, &config()).expect_err("a bad path").to_string();
    for path in ["", "/etc", "a//b", "../a", "a/../b", "./a", "a/", "a\0b"] {
        let text = told(&[file(path, 0o644, Content::Folder)]);
        assert_eq!(text, format!("{path:?} is not a path inside an image"));
    }
    let twice = [file("a", 0o644, Content::Folder), file("a", 0o755, Content::Folder)];
    assert_eq!(told(&twice), "\"a\" is given twice");
    // Writing through a link would leave the root.
    let through = [file("a", 0o777, Content::Symlink("/etc".to_owned())), file("a/b", 0o644, Content::Bytes(vec![]))];
    assert_eq!(told(&through), "\"a/b\" is not a path inside an image");
}

#[test]
fn references_are_full() {
    let is_good = |reference: &str| build(reference, &[], &config()).is_ok();
    for good in ["keelson.local/demo:1", "localhost/a:1", "localhost:5000/a/b_c:v1.2-X", "Host.example/a:1"] {
        assert!(is_good(good), "{good}");
    }
    for bad in [
        "",
        "demo",
        "demo:1",
        "me/demo:1",
        "example.org/demo",
        "example.org/De:1",
        "a.b/c:",
        "a.b/:1",
        "a.b//c:1",
        "a.b/c d:1",
        "a.b/c:1\n",
    ] {
        assert!(!is_good(bad), "{bad:?}");
    }
}
