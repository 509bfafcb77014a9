//! Compiles the messages; protox needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/etcd.proto", "proto/auth.proto", "proto/log.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
