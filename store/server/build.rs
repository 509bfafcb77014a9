//! Generates etcd's services; the messages are store-core's.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["../core/proto/etcd.proto"], ["../core/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .extern_path(".etcdserverpb", "::store_core::wire")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=../core/proto");
    Ok(())
}
