//! Heredocs: texts that are written below an instruction.

use super::{DockerfileError, HEREDOCS_MAX, Result};

/// A text below an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Names in it are replaced: its word was written without quotes.
    pub expands: bool,
    /// Tabs in front of its lines are left out: it was announced by `<<-`.
    pub chomps: bool,
    /// Its lines.
    pub content: String,
}

/// The heredocs that an instruction announces, still without their content.
///
/// # Errors
/// More than an instruction may have.
pub(super) fn announced(line: u32, text: &str) -> Result<Vec<Heredoc>> {
    let mut words = text.split_whitespace();
    let mut word = words.next().unwrap_or("").to_ascii_uppercase();
    if word == "ONBUILD" {
        word = words.next().unwrap_or("").to_ascii_uppercase();
    }
    let is_list =
        text.split_once(char::is_whitespace).is_some_and(|(_, rest)| rest.trim_start().starts_with('['));
    if !matches!(word.as_str(), "RUN" | "COPY" | "ADD") || !text.contains("<<") || is_list {
        return Ok(vec![]);
    }
    let all: Vec<Heredoc> = quoted_words(text).iter().filter_map(|word| of_word(word)).collect();
    if all.len() > HEREDOCS_MAX {
        let message = format!("the instruction has more than {HEREDOCS_MAX} heredocs");
        return Err(DockerfileError::new(line, message).hint("use several instructions"));
    }
    Ok(all)
}

/// The heredoc that one word announces: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.
pub(super) fn of_word(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomps, name) = match rest.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, rest),
    };
    if name.contains('<') {
        return None;
    }
    let bare: String = name.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    if bare.is_empty() {
        return None;
    }
    Some(Heredoc { expands: bare == name, name: bare, chomps, content: String::new() })
}

/// Words with their quotes; what stands in quotes is one word, and announces nothing unless it begins with `<<`.
fn quoted_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], String::new(), None);
    for c in text.chars() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
