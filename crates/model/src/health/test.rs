//! What a health check runs, in the form that images and docker have for it: a list whose first word says how.

use serde::{Deserialize, Serialize};

/// Most words of a test.
pub const WORDS_MAX: usize = 256;
/// Most bytes of a test.
pub const BYTES_MAX: usize = 16 * 1024;
/// The shell that runs a text.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum Test {
    /// Nothing, also where the image says otherwise.
    None,
    /// A program and its arguments.
    Program(Vec<String>),
    /// A text for the container's shell.
    Shell(String),
}

/// Why a list is no test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// The first word is another.
    #[error("a test is [\"CMD\", program, argument…], [\"CMD-SHELL\", text] or [\"NONE\"]")]
    Form,
    /// Too long.
    #[error("a test has at most {WORDS_MAX} words and {BYTES_MAX} bytes")]
    TooLong,
    /// A NUL byte, which no argument can have.
    #[error("a word of a test holds a NUL byte")]
    Nul,
}

impl Test {
    /// Program and arguments; `None` when nothing is run.
    pub fn argv(self) -> Option<Vec<String>> {
        match self {
            Self::None => None,
            Self::Program(argv) => Some(argv),
            Self::Shell(text) => Some(SHELL.iter().map(ToString::to_string).chain([text]).collect()),
        }
    }
}

impl TryFrom<Vec<String>> for Test {
    type Error = TestError;
    fn try_from(words: Vec<String>) -> Result<Self, TestError> {
        if words.len() > WORDS_MAX || words.iter().map(String::len).sum::<usize>() > BYTES_MAX {
            return Err(TestError::TooLong);
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(TestError::Nul);
        }
        match words.split_first() {
            Some((how, [])) if how == "NONE" => Ok(Self::None),
            Some((how, [program, ..])) if how == "CMD" && !program.is_empty() => {
                Ok(Self::Program(words[1..].to_vec()))
            }
            Some((how, [text])) if how == "CMD-SHELL" && !text.is_empty() => Ok(Self::Shell(text.clone())),
            _ => Err(TestError::Form),
        }
    }
}

impl From<Test> for Vec<String> {
    fn from(test: Test) -> Self {
        match test {
            Test::None => vec!["NONE".into()],
            Test::Program(argv) => [vec!["CMD".into()], argv].concat(),
            Test::Shell(text) => vec!["CMD-SHELL".into(), text],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_they_were() {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (list, argv) in [
            (&["NONE"][..], None),
            (&["CMD", "true"], Some(words(&["true"]))),
            (&["CMD", "test", "-e", ""], Some(words(&["test", "-e", ""]))),
            (&["CMD-SHELL", "a && b"], Some(words(&["/bin/sh", "-c", "a && b"]))),
        ] {
            let test = Test::try_from(words(list)).unwrap();
            assert_eq!(Vec::from(test.clone()), words(list));
            assert_eq!(test.argv(), argv, "{list:?}");
        }
        let long = "x".repeat(BYTES_MAX);
        for (list, error) in [
            (words(&[]), TestError::Form),
            (words(&["CMD"]), TestError::Form),
            (words(&["CMD", ""]), TestError::Form),
            (words(&["NONE", "x"]), TestError::Form),
            (words(&["CMD-SHELL", "a", "b"]), TestError::Form),
            (words(&["true"]), TestError::Form),
            (words(&["CMD", "a\0b"]), TestError::Nul),
            (words(&["CMD-SHELL", &long]), TestError::TooLong),
            ([words(&["CMD"]), vec!["x".into(); WORDS_MAX]].concat(), TestError::TooLong),
        ] {
            assert_eq!(Test::try_from(list), Err(error));
        }
    }
}
