//! The Landlock domain: which files can still be opened (`Documentation/userspace-api/landlock.rst`).

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Sandbox;

/// The newest that was tried, of Linux 6.15. Later ones could forbid what pingferry needs: the tenth has a right for UDP
/// sockets, by which the source address is found.
const TRIED: ABI = ABI::V7;

/// Read to explain why no ping socket can be opened.
const EXPLANATIONS: [&str; 2] = ["/proc/sys/net/ipv4/ping_group_range", "/proc/self/gid_map"];

/// Closes the file system to this thread, and as far as the kernel's version goes TCP, abstract Unix sockets, and
/// signals to other processes. What an older version lacks of that, the system call filter forbids all the same.
pub(super) fn restrict(sandbox: &Sandbox) -> io::Result<()> {
    match enforce(sandbox).map_err(io::Error::other)? {
        RulesetStatus::NotEnforced => Err(io::ErrorKind::Unsupported.into()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

fn enforce(sandbox: &Sandbox) -> Result<RulesetStatus, RulesetError> {
    let mut scopes: BitFlags<Scope> = Scope::AbstractUnixSocket.into();
    if sandbox.child.is_none() {
        scopes |= Scope::Signal;
    }
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(scopes)?
        .create()?
        .add_rules(path_beneath_rules(EXPLANATIONS, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(folders(&sandbox.readable), AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(folders(&sandbox.removable), AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn folders(files: &[PathBuf]) -> impl Iterator<Item = &Path> {
    files.iter().filter_map(|file| file.parent()).map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread can be in sixteen domains (`LANDLOCK_MAX_NUM_LAYERS`). Where there is no Landlock the first one fails.
    #[test]
    fn a_domain_that_cannot_be_entered_is_an_error() {
        let enter_often = || (0..17).try_for_each(|_| restrict(&Sandbox::default()));
        assert!(std::thread::spawn(enter_often).join().unwrap().is_err());
    }

    #[test]
    fn a_file_is_granted_by_its_folder() {
        let files = ["/a/b", "b", "./b", "/"].map(PathBuf::from);
        let expected = ["/a", ".", "."].map(Path::new);
        assert_eq!(folders(&files).collect::<Vec<_>>(), expected);
    }
}
