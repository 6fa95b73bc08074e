//! Network namespaces by the names of `ip netns`.

use std::path::{Path, PathBuf};

/// Where `ip netns add NAME` makes a file for the namespace (ip-netns(8)).
const FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The file of the namespace that `netns` names: of that name in the folders of `ip netns`, otherwise the path itself.
pub(super) fn resolve(netns: &Path) -> PathBuf {
    resolve_in(FOLDERS.map(Path::new), netns)
}

fn resolve_in(folders: [&Path; 2], netns: &Path) -> PathBuf {
    let is_name = netns.components().count() == 1 && netns.is_relative() && netns.file_name().is_some();
    let named = folders.into_iter().map(|folder| folder.join(netns)).find(|file| is_name && file.exists());
    named.unwrap_or_else(|| netns.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_both_folders() {
        let (run, var) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = |name: &str| resolve_in([run.path(), var.path()], Path::new(name));
        std::fs::write(var.path().join("blue"), "").unwrap();
        assert_eq!(find("blue"), var.path().join("blue"));
        std::fs::write(run.path().join("blue"), "").unwrap();
        assert_eq!(find("blue"), run.path().join("blue"));
        for path in ["green", "./blue", "a/blue", "/blue", ".."] {
            assert_eq!(find(path), Path::new(path));
        }
    }
}
