//! Directories of a host that its operator lends to containers.
//!
//! Whoever writes there writes to the host: with a container's ids shifted its root makes files of the host's root. So a
//! path counts only where the operator named a directory that it lies in, and only admins of the cloud may ask for it.

use super::content::check_absolute;
use std::path::{Path, PathBuf};

/// Most directories that are lent.
pub const HOST_DIRECTORIES_MAX: usize = 64;

/// Where a path lies: the innermost of the directories that are lent, and the way from there; `None` where it lies in none.
pub fn within(path: &str, lent: &[PathBuf]) -> Option<(PathBuf, Option<PathBuf>)> {
    check_absolute(path).ok()?;
    let rest =
        |directory: &PathBuf| Some((directory.clone(), Path::new(path).strip_prefix(directory).ok()?.into()));
    let all = lent.iter().filter_map(rest);
    let (directory, rest): (PathBuf, PathBuf) =
        all.max_by_key(|(directory, _)| directory.components().count())?;
    Some((directory, Some(rest).filter(|rest| !rest.as_os_str().is_empty())))
}

/// Refuses a directory that cannot be lent.
///
/// # Errors
/// What is wrong, in words.
pub fn check(directory: &Path) -> Result<(), String> {
    let text = directory.to_str().unwrap_or_default();
    match check_absolute(text) {
        Ok(()) => Ok(()),
        Err(_) if text == "/" => Err("all of a host is lent to nobody: name a directory".into()),
        Err(wrong) => Err(wrong.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_the_innermost_directory_or_in_none() {
        let lent = ["/srv", "/srv/data", "/home/shop"].map(PathBuf::from);
        for (path, wanted) in [
            ("/srv", Some(("/srv", None))),
            ("/srv/", Some(("/srv", None))),
            ("/srv/a/b", Some(("/srv", Some("a/b")))),
            ("/srv/data/x", Some(("/srv/data", Some("x")))),
            ("/srv/database", Some(("/srv", Some("database")))),
            ("/home/shop/x", Some(("/home/shop", Some("x")))),
            ("/home/shopping", None),
            ("/home", None),
            ("/etc", None),
            ("/", None),
            ("/srv/../etc", None),
            ("srv", None),
        ] {
            let wanted = wanted.map(|(at, rest): (&str, Option<&str>)| (at.into(), rest.map(Into::into)));
            assert_eq!(within(path, &lent), wanted, "{path}");
        }
        assert_eq!(within("/srv", &[]), None);
        for (directory, fits) in
            [("/srv", true), ("/srv/a", true), ("/", false), ("srv", false), ("/a/../b", false)]
        {
            assert_eq!(check(Path::new(directory)).is_ok(), fits, "{directory}");
        }
    }
}
