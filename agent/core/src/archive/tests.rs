//! Archives good and bad.

use std::io::Write as _;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn sha256(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, *content).expect("room in memory");
    }
    archive.into_inner().expect("room in memory")
}

/// An image layout, the layer of sevens last.
fn built() -> Vec<u8> {
    let digest = |content: &[u8]| format!("sha256:{}", sha256(content));
    let (config, layer) = (&b"{}"[..], [7; 3000]);
    let manifest = json!({"config": {"digest": digest(config)}, "layers": [{"digest": digest(&layer)}]}).to_string();
    let name = json!({NAME: "example.org/a/b:1"});
    let index = json!({"manifests": [{"digest": digest(manifest.as_bytes()), "annotations": name}]}).to_string();
    let blob = |content: &[u8]| format!("blobs/sha256/{}", sha256(content));
    archive(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
        (&blob(manifest.as_bytes()), manifest.as_bytes()),
        (&blob(config), config),
        (&blob(&layer), &layer),
    ])
}

fn told(archive: &[u8]) -> String {
    match check(archive) {
        Ok(names) => names.join("\n"),
        Err(error) => match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

fn check_told(archive: &[u8], expected: Expect) {
    expected.assert_eq(&told(archive));
}

fn docker(manifest: &Value) -> Vec<u8> {
    let manifest = manifest.to_string();
    archive(&[("./manifest.json", manifest.as_bytes()), ("c.json", b"{}"), ("l/layer.tar", b"")])
}

#[test]
fn layouts_are_taken_plain_and_gzipped() {
    check_told(&built(), expect!["example.org/a/b:1"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&built()).expect("room in memory");
    check_told(&gzip.finish().expect("room in memory"), expect!["example.org/a/b:1"]);
}

#[test]
fn docker_archives_get_full_names() {
    let tags = ["busybox:1", "me/app:2", "example.org/x:3", "localhost/y:4", "localhost:5000/z:5"];
    check_told(
        &docker(&json!([{"Config": "c.json", "Layers": ["l/layer.tar"], "RepoTags": tags}])),
        expect![[r#"
        docker.io/library/busybox:1
        docker.io/me/app:2
        example.org/x:3
        localhost/y:4
        localhost:5000/z:5"#]],
    );
    check_told(
        &docker(&json!([{"Config": "c.json", "Layers": ["l/layer.tar"], "RepoTags": null}])),
        expect!["no image in it has a name: `docker save` must be given NAME:TAG, not an image id"],
    );
    check_told(
        &docker(&json!([{"Config": "d.json", "Layers": []}])),
        expect!["d.json is missing, which manifest.json names"],
    );
    check_told(
        &docker(&json!([{"Config": "c.json", "Layers": ["m/layer.tar"]}])),
        expect!["m/layer.tar is missing, which manifest.json names"],
    );
    check_told(&docker(&json!({})), expect!["manifest.json: it is not a list"]);
}

#[test]
fn what_is_no_archive_is_told() {
    check_told(
        b"",
        expect!["it has neither index.json nor manifest.json: `docker save NAME:TAG -o FILE` makes an image archive"],
    );
    check_told(b"hello", expect!["it is not a tar archive, or it is cut off: failed to read entire block"]);
    check_told(
        &[b'x'; 2000],
        expect![
            "it is not a tar archive, or it is cut off: numeric field was not a number: xxxxxxxx when getting cksum for xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        ],
    );
    check_told(&[0x1f, 0x8b, 0, 0], expect!["it is not a tar archive, or it is cut off: unexpected end of file"]);
    check_told(
        &archive(&[("etc/passwd", b"root")]),
        expect!["it has neither index.json nor manifest.json: `docker save NAME:TAG -o FILE` makes an image archive"],
    );
    check_told(&archive(&[("index.json", b"hello")]), expect!["index.json: it is not JSON, or larger than 4 MiB"]);
    check_told(
        &archive(&[("index.json", b"{")]),
        expect!["index.json: EOF while parsing an object at line 1 column 1"],
    );
    check_told(&archive(&[("index.json", b"{}")]), expect!["index.json: it has no list of manifests"]);
    check_told(
        &archive(&[("index.json", br#"{"manifests": [{}]}"#)]),
        expect!["index.json: a descriptor has no digest"],
    );
}

/// Cut anywhere, an archive is refused, but between its last file and its end mark.
#[test]
fn cut_archives_are_refused() {
    let whole = built();
    let content_end = whole.len() - 1024;
    for length in (0..content_end).step_by(97) {
        assert!(check(&whole[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn damaged_blobs_are_found() {
    let mut bytes = built();
    let place = bytes.iter().rposition(|byte| *byte == 7).expect("the file's content");
    bytes[place] = 8;
    let text = told(&bytes);
    assert!(
        text.starts_with("blobs/sha256/") && text.ends_with(" is damaged: its content has another digest"),
        "{text}"
    );
}

/// An index of two machines' images of which one was saved, and of which none was.
#[test]
fn one_machine_of_an_index_is_enough() {
    let blob = |content: &str| (format!("blobs/sha256/{}", sha256(content.as_bytes())), content.to_owned());
    let digest = |content: &str| format!("sha256:{}", sha256(content.as_bytes()));
    let absent = format!("sha256:{}", "0".repeat(64));
    let (config, layer) = ("{}", "layer");
    let manifest = json!({"config": {"digest": digest(config)}, "layers": [{"digest": digest(layer)}]}).to_string();
    let lone = json!({"manifests": [{"digest": absent}]}).to_string();
    let both = json!({"manifests": [{"digest": absent}, {"digest": digest(&manifest)}]}).to_string();
    let outer = |inner: &str| {
        let name = json!({REF_NAME: "example.org/a:1"});
        json!({"manifests": [{"digest": digest(inner), "annotations": name}]}).to_string()
    };
    let pack = |inner: &str| {
        let mut files = vec![("index.json".to_owned(), outer(inner))];
        files.extend([inner, &manifest, config, layer].map(blob));
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, c)| (path.as_str(), c.as_bytes())).collect();
        archive(&files)
    };
    check_told(&pack(&both), expect!["example.org/a:1"]);
    check_told(
        &pack(&lone),
        expect![
            "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000 is missing, which blobs/sha256/ca6906505b58f057eeb9b35ade1006aa29989ac07575515ecdd9545a7179ba0f names"
        ],
    );
}

/// A header of a kind, under a name and for so many bytes.
fn header(kind: tar::EntryType, path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).expect("a short name");
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Some bytes that stand for eight EiB of zeros would be read for ever.
#[test]
fn sparse_files_are_refused() {
    let mut sparse = header(tar::EntryType::GNUSparse, "index.json", 512);
    let gnu = sparse.as_gnu_mut().expect("a header of GNU's");
    gnu.sparse[0].offset = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0];
    gnu.sparse[0].numbytes = *b"000000001000";
    gnu.realsize = [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
    sparse.set_cksum();
    let mut bytes = sparse.as_bytes().to_vec();
    bytes.extend([b'{'; 512]);
    bytes.extend([0; 1024]);
    check_told(&bytes, expect!["it is not a tar archive, or it is cut off: index.json is a sparse file"]);
}

/// A file of more than 8 GiB says its size before its header, whose field has no room for it.
#[test]
fn sizes_may_stand_before_a_header() {
    let layer = [7; 700];
    let config = json!([{"Config": "c.json", "Layers": ["layer"], "RepoTags": ["a:1"]}]).to_string();
    let mut builder = tar::Builder::new(archive(&[("manifest.json", config.as_bytes()), ("c.json", b"{}")]));
    builder.get_mut().truncate(2048);
    builder.append_pax_extensions([("size", &b"700"[..])]).expect("room in memory");
    let mut bytes = builder.into_inner().expect("room in memory");
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(header(tar::EntryType::Regular, "layer", 0).as_bytes());
    bytes.extend(layer);
    bytes.extend([0; 1024 - 700 + 1024]);
    check_told(&bytes, expect!["docker.io/library/a:1"]);
}

/// Gzipped, little stands for much.
#[test]
fn names_are_bounded() {
    let mut bytes = header(tar::EntryType::GNULongName, "././@LongLink", 2 << 20).as_bytes().to_vec();
    bytes.extend(vec![b'a'; 2 << 20]);
    bytes.extend(archive(&[("index.json", b"{}")]));
    check_told(
        &bytes,
        expect!["it is not a tar archive, or it is cut off: more than 1 MiB is said of a file before it begins"],
    );
}

/// What begins like something else isn't a document because a piece of it, as it is read, begins like one.
#[test]
fn a_document_begins_as_one() {
    let mut content = vec![b'x'; 1 << 14];
    content.extend(br#"{"manifests": []}"#);
    check_told(&archive(&[("index.json", &content)]), expect!["index.json: it is not JSON, or larger than 4 MiB"]);
}
