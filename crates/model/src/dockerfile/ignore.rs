//! `.dockerignore`: what of a context an image never sees.
//!
//! ```text
//!   # a comment          *.log      in the context's own directory     **/*.log   anywhere
//!   build                with all that is below it                    !build/kept what stays all the same
//! ```
//!
//! Of several patterns that fit the last counts. A pattern fits a path when it fits the path or a directory above it.

use super::{DockerfileError, Result, pattern};

/// Most bytes of the file.
pub const IGNORE_BYTES_MAX: usize = 256 << 10;
/// Most patterns.
pub const PATTERNS_MAX: usize = 2_000;

/// Patterns of what is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    parts: Vec<Vec<char>>,
    takes_back: bool,
}

impl Ignore {
    /// Reads the file.
    ///
    /// # Errors
    /// Limits, and patterns that are broken.
    pub fn read(text: &[u8]) -> Result<Self> {
        if text.len() > IGNORE_BYTES_MAX {
            return Err(DockerfileError::new(
                0,
                format!(".dockerignore has more than {IGNORE_BYTES_MAX} bytes"),
            ));
        }
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut all = vec![];
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (takes_back, path) = match line.strip_prefix('!') {
                Some(path) => (true, path.trim()),
                None => (false, line),
            };
            let number = at as u32 + 1;
            if takes_back && path.is_empty() {
                return Err(DockerfileError::new(
                    number,
                    "illegal exclusion pattern: \"!\" in .dockerignore",
                ));
            }
            if !pattern::is_whole(path) {
                let message = format!("syntax error in pattern {path:.100?} of .dockerignore");
                return Err(DockerfileError::new(number, message)
                    .hint("close brackets, and put \\ in front of them if they are meant"));
            }
            let mut parts: Vec<Vec<char>> = vec![];
            for part in path.split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part.chars().collect()),
                }
            }
            if parts.is_empty() {
                continue;
            }
            if all.len() == PATTERNS_MAX {
                return Err(DockerfileError::new(
                    number,
                    format!(".dockerignore has more than {PATTERNS_MAX} patterns"),
                ));
            }
            all.push(Pattern { parts, takes_back });
        }
        Ok(Self(all))
    }

    /// Whether a path (without a slash in front) is left out.
    pub fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<Vec<char>> = path.split('/').map(|part| part.chars().collect()).collect();
        let last =
            self.0.iter().rev().find(|pattern| (1..=parts.len()).any(|end| pattern.fits(&parts[..end])));
        last.is_some_and(|pattern| !pattern.takes_back)
    }

    /// Whether something may stay below a directory that is left out.
    pub fn takes_back(&self) -> bool {
        self.0.iter().any(|pattern| pattern.takes_back)
    }

    /// The patterns as they are written, cleaned, for others who leave out the same.
    pub fn patterns(&self) -> Vec<String> {
        let text = |pattern: &Pattern| {
            let parts: Vec<String> = pattern.parts.iter().map(|part| part.iter().collect()).collect();
            format!("{}{}", if pattern.takes_back { "!" } else { "" }, parts.join("/"))
        };
        self.0.iter().map(text).collect()
    }

    /// Whether there is nothing to leave out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pattern {
    fn fits(&self, path: &[Vec<char>]) -> bool {
        fits_parts(&self.parts, path)
    }
}

/// Whether the parts of a path fit those of a pattern, in which `**` stands for any number of parts.
fn fits_parts(pattern: &[Vec<char>], path: &[Vec<char>]) -> bool {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for (at, part) in pattern.iter().enumerate() {
        let mut next = vec![false; path.len() + 1];
        if part.iter().collect::<String>() == "**" {
            // At the end it stands for one part at least.
            let least = usize::from(at + 1 == pattern.len());
            let mut is_open = false;
            for end in 0..=path.len() {
                is_open |= end >= least && reached[end - least];
                next[end] = is_open;
            }
        } else {
            for end in 1..=path.len() {
                next[end] = reached[end - 1] && pattern::fits(part, &path[end - 1]);
            }
        }
        reached = next;
    }
    reached[path.len()]
}

/// Whether a path of a context fits a pattern of `COPY`, part by part (Go's `filepath.Match`).
pub fn fits_path(wanted: &str, path: &str) -> bool {
    let cut =
        |text: &str| text.split('/').map(|part| part.chars().collect::<Vec<char>>()).collect::<Vec<_>>();
    let (wanted, path) = (cut(wanted), cut(path));
    wanted.len() == path.len() && wanted.iter().zip(&path).all(|(wanted, part)| pattern::fits(wanted, part))
}
