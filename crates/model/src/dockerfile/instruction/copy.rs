//! `COPY` and `ADD`.

use super::Flags;
use crate::dockerfile::{Result, heredoc::Heredoc, words::WordResult};

/// Most sources of one instruction.
const SOURCES_MAX: usize = 256;

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, which may be a pattern.
    Path(String),
    /// A web address (`ADD`).
    Web(String),
    /// A text that was written in the Dockerfile.
    Text {
        /// Name of the file.
        name: String,
        /// What it holds.
        content: String,
        /// Names in it are replaced.
        expands: bool,
    },
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// It is `ADD`, which unpacks archives and fetches from the web.
    pub is_add: bool,
    /// What.
    pub sources: Vec<Source>,
    /// Where to.
    pub target: String,
    /// Stage or image that it is taken from instead of the context.
    pub from: Option<String>,
    /// Whom it belongs to.
    pub chown: Option<String>,
    /// Its permissions.
    pub chmod: Option<String>,
    /// SHA-256 of what is fetched, in hex.
    pub checksum: Option<String>,
}

pub(super) fn read(
    is_add: bool,
    mut flags: Flags,
    mut words: Vec<String>,
    heredocs: &[Heredoc],
) -> WordResult<Copy> {
    let word = if is_add { "ADD" } else { "COPY" };
    let (chown, chmod) = (flags.value("chown")?, flags.value("chmod")?);
    let from = if is_add { None } else { flags.value("from")? };
    if from.as_ref().is_some_and(|from| from.contains('$')) {
        return Err(
            "names are not replaced in --from; make a stage: FROM $IMAGE AS files, and --from=files".into()
        );
    }
    let checksum = if is_add { flags.value("checksum")? } else { None };
    // Every step is a layer of its own here as well.
    flags.switch("link")?;
    for flag in ["parents", "exclude", "keep-git-dir", "unpack"] {
        if flags.0.iter().any(|(name, _)| name == flag) {
            return Err(format!("the --{flag} option is not served"));
        }
    }
    flags.end()?;
    if words.len() < 2 {
        return Err(format!(
            "{word} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    if words.len() > SOURCES_MAX {
        return Err(format!("{word} has more than {SOURCES_MAX} sources"));
    }
    let target = words.pop().unwrap_or_default();
    let is_heredoc = |text: &str| super::super::heredoc::of_word(text).filter(|_| !heredocs.is_empty());
    if is_heredoc(&target).is_some() {
        return Err(format!("{word} cannot accept a heredoc as a destination"));
    }
    let mut texts = heredocs.iter();
    let mut sources = vec![];
    for text in words {
        sources.push(match is_heredoc(&text).and_then(|_| texts.next()) {
            Some(heredoc) if from.is_none() => Source::Text {
                name: heredoc.name.clone(),
                content: heredoc.content.clone(),
                expands: heredoc.expands,
            },
            Some(_) => return Err(format!("{word} --from cannot be used with a heredoc")),
            None if is_add && is_web(&text) => Source::Web(text),
            None if is_add && is_git(&text) => {
                return Err(format!(
                    "{text:.100?}: nothing is fetched by Git; ADD an archive of it by https"
                ));
            }
            None => Source::Path(text),
        });
    }
    if let Some(sum) = &checksum {
        let is_sum = sum.contains('$')
            || sum
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if !is_sum || !matches!(sources.as_slice(), [Source::Web(_)]) {
            return Err("--checksum is sha256: and 64 digits, of one file from the web".into());
        }
    }
    Ok(Copy { is_add, sources, target, from, chown, chmod, checksum })
}

fn is_web(text: &str) -> bool {
    let begins =
        |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    (begins("http://") || begins("https://")) && !is_git(text)
}

fn is_git(text: &str) -> bool {
    text.starts_with("git@")
        || text.starts_with("git://")
        || text.starts_with("ssh://")
        || text.split('#').next().is_some_and(|text| text.contains("://") && text.ends_with(".git"))
}

impl Copy {
    /// With the names in it replaced: `word` reads words, `text` the texts of heredocs.
    pub(super) fn expanded(
        &self,
        word: &dyn Fn(&String) -> Result<String>,
        text: impl Fn(&str) -> Result<String>,
    ) -> Result<Self> {
        let optional = |value: &Option<String>| value.as_ref().map(word).transpose();
        let source = |source: &Source| {
            Ok(match source {
                Source::Path(path) => {
                    let path = word(path)?;
                    if self.is_add && is_web(&path) { Source::Web(path) } else { Source::Path(path) }
                }
                Source::Web(url) => Source::Web(word(url)?),
                Source::Text { name, content, expands } => {
                    let content = if *expands { text(content)? } else { content.clone() };
                    Source::Text { name: name.clone(), content, expands: false }
                }
            })
        };
        Ok(Self {
            is_add: self.is_add,
            sources: self.sources.iter().map(source).collect::<Result<_>>()?,
            target: word(&self.target)?,
            from: self.from.clone(),
            chown: optional(&self.chown)?,
            chmod: optional(&self.chmod)?,
            checksum: optional(&self.checksum)?,
        })
    }

    /// The permissions that are asked for.
    ///
    /// # Errors
    /// No octal number.
    pub fn mode(&self) -> WordResult<Option<u32>> {
        let Some(text) = &self.chmod else { return Ok(None) };
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(mode)),
            _ => Err(format!(
                "invalid chmod parameter: {text:.40?}. it should be octal string and between 0 and 07777"
            )),
        }
    }
}
