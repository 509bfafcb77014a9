//! Compiles the messages, and describes all of them and the services; protox needs no protoc.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/etcd.proto", "proto/auth.proto", "proto/log.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    let protos = ["etcd", "auth", "lock", "election"].map(|name| format!("proto/{name}.proto"));
    let mut described = protox::compile(protos, ["proto"])?;
    for file in &mut described.file {
        file.source_code_info = None;
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("descriptors.bin"), described.encode_to_vec())?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
