//! The Landlock domain: the files that the process can still open (`Documentation/userspace-api/landlock.rst`).

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Sandbox;

/// The newest Landlock version that was tested, that of Linux 6.15. A later one could forbid what pingferry needs: the
/// tenth controls UDP sockets, which find the source address.
const TESTED: ABI = ABI::V7;

/// The files that explain why a ping socket cannot be opened.
const DIAGNOSTICS: [&str; 2] = ["/proc/sys/net/ipv4/ping_group_range", "/proc/self/gid_map"];

/// Denies this thread the file system and, as far as the kernel supports it, TCP, abstract Unix sockets, and signals to
/// other processes. The system call filter forbids the latter on older kernels too.
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
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(TESTED))?;
    if !sandbox.tcp {
        rules = rules.handle_access(AccessNet::from_all(TESTED))?;
    }
    let status = rules
        .scope(scopes)?
        .create()?
        .add_rules(path_beneath_rules(DIAGNOSTICS, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(folders(&sandbox.readable), AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(folders(&sandbox.removable), AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// The folder of each file. Landlock rules for a folder also apply to a file that replaces the named one.
fn folders(files: &[PathBuf]) -> impl Iterator<Item = &Path> {
    files.iter().filter_map(|file| file.parent()).map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread can be in sixteen domains (`LANDLOCK_MAX_NUM_LAYERS`). Without Landlock the first one fails.
    #[test]
    fn a_domain_that_cannot_be_entered_is_an_error() {
        let enter_often = || (0..17).try_for_each(|_| restrict(&Sandbox::default()));
        assert!(std::thread::spawn(enter_often).join().unwrap().is_err());
    }

    #[test]
    fn a_file_is_granted_through_its_folder() {
        let files = ["/a/b", "b", "./b", "/"].map(PathBuf::from);
        let expected = ["/a", ".", "."].map(Path::new);
        assert_eq!(folders(&files).collect::<Vec<_>>(), expected);
    }
}
