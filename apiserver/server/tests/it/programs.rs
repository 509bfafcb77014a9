//! The kubectls of this machine. The binary's tests use this file as well.

use std::path::PathBuf;

/// The kubectl on PATH, those beside the Google SDK's, and those named in `KEELSON_KUBECTLS`.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let named = std::env::var_os("KEELSON_KUBECTLS").unwrap_or_default();
    let minors = (27..=33).map(|minor| PathBuf::from(format!("/usr/lib/google-cloud-sdk/bin/kubectl.1.{minor}")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    let all = on_path.into_iter().chain(minors).chain(std::env::split_paths(&named));
    let found: Vec<PathBuf> = all.filter(|file| file.is_file()).collect();
    assert!(!found.is_empty(), "no kubectl on PATH");
    found
}
