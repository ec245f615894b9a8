//! House rules that a program can check. Each rule is a function from what is there to the places that break it.
//!
//! ```text
//!   crates   who may depend on whom, and which outside libraries stay in which crate
//!   source   what a Rust file may hold: heads, lengths, words
//!   text     what no file may mention, and what no file may be called
//!   allowed  places that may break a rule for now, each with its reason
//! ```

mod allowed;
mod crates;
mod source;
mod text;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Directories that hold nothing of ours.
const FOREIGN: [&str; 3] = [".git", "target", "node_modules"];
/// Files larger than this are data, not text that somebody wrote.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// House rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A crate depends only on those below it.
    CrateEdge,
    /// An outside library stays in the crate that is there for it.
    LibraryHome,
    /// Only `sys` has unsafe code.
    Unsafe,
    /// A file begins with what it holds, why, and what it must never do.
    Head,
    /// A file has at most 800 lines.
    FileLength,
    /// A function has at most 70 lines.
    FunctionLength,
    /// No file or type is called after nothing.
    Name,
    /// Nothing is left for later in code.
    Unfinished,
    /// `model` is pure.
    Pure,
    /// No file mentions the place where it was written.
    Workplace,
    /// Every Rust file can be read.
    Syntax,
    /// Every exception is still needed.
    Allowed,
}

impl Rule {
    /// Name as it is reported.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CrateEdge => "crate-edge",
            Self::LibraryHome => "library-home",
            Self::Unsafe => "unsafe",
            Self::Head => "head",
            Self::FileLength => "file-length",
            Self::FunctionLength => "function-length",
            Self::Name => "name",
            Self::Unfinished => "unfinished",
            Self::Pure => "pure",
            Self::Workplace => "workplace",
            Self::Syntax => "syntax",
            Self::Allowed => "allowed",
        }
    }
}

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// File, relative to the repository.
    pub path: String,
    /// Line, counted from 1.
    pub line: usize,
    /// The rule.
    pub rule: Rule,
    /// What is there, and what should be.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule.as_str(), self.what)
    }
}

/// The repository that this was built from.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Checks all rules on a repository, less what is allowed for now.
///
/// # Errors
/// A directory or file that cannot be read, and a workspace that cargo does not understand.
pub fn check(root: &Path) -> io::Result<Vec<Broken>> {
    let mut broken = crates::check(&crates::read(root)?);
    for path in files(root)? {
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        broken.extend(text::check_name(&relative));
        // What is no text has nothing to say.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        broken.extend(text::check(&relative, &text));
        if relative.ends_with(".rs") {
            broken.extend(source::check(&relative, &text));
        }
    }
    Ok(allowed::take(broken, &allowed::ALLOWED))
}

/// All files of the repository that somebody wrote.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if FOREIGN.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() <= TEXT_BYTES_MAX {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let broken = check(&root()).unwrap();
        let places: Vec<String> = broken.iter().map(Broken::to_string).collect();
        assert!(broken.is_empty(), "\n{}", places.join("\n"));
    }
}
