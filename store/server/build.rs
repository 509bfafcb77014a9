//! Generates etcd's services; the messages are store-core's, but for those of locks and elections. The gateway gets
//! the descriptors of all of them.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["etcd", "auth", "lock", "election"].map(|name| format!("../core/proto/{name}.proto"));
    let files = protox::compile(protos, ["../core/proto"])?;
    let mut described = files.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("descriptors.bin"), described.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .extern_path(".etcdserverpb", "::store_core::wire")
        // The same on the wire, with events that are encoded once for all watchers.
        .extern_path(".etcdserverpb.WatchResponse", "crate::grpc::watch::Answer")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=../core/proto");
    Ok(())
}
