//! Words of instructions: quotes, escapes and names that are replaced.
//!
//! ```text
//!   $NAME  ${NAME}         what it stands for, or nothing
//!   ${NAME:-word}          word where it is missing or empty (without the colon: where it is missing)
//!   ${NAME:+word}          word where it is not
//!   ${NAME:?word}          an error with this word where it is missing or empty
//!   ${NAME#p} ${NAME##p}   without the shortest, longest beginning that fits the pattern; % and %% the end
//!   ${NAME/p/word}         the first place that fits the pattern replaced; // all
//!   $1 $@ $$ …             nothing: here a shell's own parameters are never set
//! ```
//!
//! Source: docker's Dockerfile reference, "Environment replacement"; where that is silent, its lexer.

use super::{NESTING_MAX, VALUE_BYTES_MAX, pattern};

/// Most bytes of a value that is searched for a pattern.
const SEARCHED_BYTES_MAX: usize = 4096;
/// Most bytes of that pattern.
const PATTERN_BYTES_MAX: usize = 256;

/// Why a word cannot be read: the message, without a line.
pub type WordResult<T> = Result<T, String>;

/// Reads one word: takes quotes and escapes off, and replaces names by what `value` says of them.
///
/// # Errors
/// A quote or a brace without its end, a modifier that is not known, a value that grows too long.
pub fn expand(word: &str, escape: char, value: &dyn Fn(&str) -> Option<String>) -> WordResult<String> {
    let mut reader = Reader::of(word, escape, value);
    let mut out = String::new();
    reader.until(None, &mut out)?;
    Ok(out)
}

/// Reads a text whose quotes stay as they are, like a heredoc's: only names are replaced.
///
/// # Errors
/// As [`expand`].
pub fn expand_text(text: &str, escape: char, value: &dyn Fn(&str) -> Option<String>) -> WordResult<String> {
    let mut reader = Reader::of(text, escape, value);
    let mut out = String::new();
    while let Some(c) = reader.next() {
        match c {
            '$' => reader.name(&mut out)?,
            c if c == escape && matches!(reader.peek(), Some('$')) => out.extend(reader.next()),
            c => out.push(c),
        }
        check_length(&out)?;
    }
    Ok(out)
}

/// Cuts a text into words at white space that is not quoted. Quotes and escapes stay.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn check_length(text: &str) -> WordResult<()> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("a value grows beyond {VALUE_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// A value that a pattern is looked for in.
fn searched(value: Option<String>, wanted: &str) -> WordResult<String> {
    let value = value.unwrap_or_default();
    if value.len() > SEARCHED_BYTES_MAX || wanted.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "patterns of at most {PATTERN_BYTES_MAX} bytes are looked for, in values of at most {SEARCHED_BYTES_MAX}"
        ));
    }
    Ok(value)
}

struct Reader<'a> {
    rest: Vec<char>,
    at: usize,
    escape: char,
    value: &'a dyn Fn(&str) -> Option<String>,
    depth: usize,
    /// What is read is a pattern: an escape stays before what it escapes, for the pattern's own reading.
    keeps_escapes: bool,
}

impl<'a> Reader<'a> {
    fn of(text: &str, escape: char, value: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { rest: text.chars().collect(), at: 0, escape, value, depth: 0, keeps_escapes: false }
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads on until a closing brace, or to the end.
    fn until(&mut self, end: Option<&[char]>, out: &mut String) -> WordResult<char> {
        while let Some(c) = self.next() {
            match c {
                c if end.is_some_and(|end| end.contains(&c)) => return Ok(c),
                '\'' => self.single(out)?,
                '"' => self.double(out)?,
                '$' => self.name(out)?,
                c if c == self.escape => {
                    out.extend(self.keeps_escapes.then_some(c));
                    // At the end it means nothing.
                    out.extend(self.next());
                }
                c => out.push(c),
            }
            check_length(out)?;
        }
        if end.is_some() { Err("syntax error: missing '}'".into()) } else { Ok('\0') }
    }

    fn single(&mut self, out: &mut String) -> WordResult<()> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
            }
        }
    }

    fn double(&mut self, out: &mut String) -> WordResult<()> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => self.name(out)?,
                Some(c) if c == self.escape => {
                    let next = self.peek();
                    let is_taken = matches!(next, Some('"' | '$')) || next == Some(self.escape);
                    if self.keeps_escapes || !is_taken && next.is_some() {
                        out.push(c);
                    }
                    if is_taken {
                        out.extend(self.next());
                    }
                }
                Some(c) => out.push(c),
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
            }
        }
    }

    /// What stands behind a dollar sign.
    fn name(&mut self, out: &mut String) -> WordResult<()> {
        if self.peek() != Some('{') {
            let name = self.bare_name();
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&(self.value)(&name).unwrap_or_default());
            }
            return Ok(());
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!("names stand in each other more than {NESTING_MAX} deep"));
        }
        let name = self.bare_name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".into());
        }
        let replaced = self.modified(&name)?;
        self.depth -= 1;
        out.push_str(&replaced);
        check_length(out)
    }

    fn bare_name(&mut self) -> String {
        let start = self.at;
        let belongs: fn(char) -> bool = match self.peek() {
            Some(c) if c.is_ascii_digit() => |c| c.is_ascii_digit(),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                |_| false
            }
            _ => |c| c == '_' || c.is_alphanumeric(),
        };
        while self.peek().is_some_and(belongs) {
            self.at += 1;
        }
        self.rest[start..self.at].iter().collect()
    }

    fn modified(&mut self, name: &str) -> WordResult<String> {
        let value = (self.value)(name);
        let wrong = |c: char| format!("unsupported modifier ({c}) in substitution of ${{{name}}}");
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let modifier = self.next().ok_or("syntax error: missing '}'")?;
                let word = self.word()?;
                let why = if value.is_some() { "empty" } else { "unset" };
                self.alternative(name, modifier, value.filter(|value| !value.is_empty()), word, why)
                    .ok_or_else(|| wrong(modifier))?
            }
            Some(modifier @ ('-' | '+' | '?')) => {
                let word = self.word()?;
                self.alternative(name, modifier, value, word, "unset").ok_or_else(|| wrong(modifier))?
            }
            Some(sign @ ('#' | '%')) => {
                let is_long = self.peek() == Some(sign);
                self.at += usize::from(is_long);
                let wanted = self.pattern(&['}'])?.0;
                let value = searched(value, &wanted)?;
                let cut = if sign == '#' { pattern::without_beginning } else { pattern::without_end };
                Ok(cut(&value, &wanted, is_long))
            }
            Some('/') => {
                let is_all = self.peek() == Some('/');
                self.at += usize::from(is_all);
                let (wanted, end) = self.pattern(&['/', '}'])?;
                let by = if end == '/' { self.pattern(&['}'])?.0 } else { String::new() };
                Ok(pattern::replaced(&searched(value, &wanted)?, &wanted, &by, is_all))
            }
            Some(other) => Err(wrong(other)),
            None => Err("syntax error: missing '}'".into()),
        }
    }

    fn word(&mut self) -> WordResult<String> {
        let mut word = String::new();
        let before = std::mem::replace(&mut self.keeps_escapes, false);
        self.until(Some(&['}']), &mut word)?;
        self.keeps_escapes = before;
        Ok(word)
    }

    /// A pattern up to one of these characters, and which it was. What names stand for in it is part of it.
    fn pattern(&mut self, end: &[char]) -> WordResult<(String, char)> {
        let mut pattern = String::new();
        let before = std::mem::replace(&mut self.keeps_escapes, true);
        let end = self.until(Some(end), &mut pattern)?;
        self.keeps_escapes = before;
        Ok((pattern, end))
    }

    fn alternative(
        &self,
        name: &str,
        modifier: char,
        value: Option<String>,
        word: String,
        why: &str,
    ) -> Option<WordResult<String>> {
        match modifier {
            '-' => Some(Ok(value.unwrap_or(word))),
            '+' => Some(Ok(value.map(|_| word).unwrap_or_default())),
            '?' => Some(value.ok_or_else(|| {
                let why = if word.is_empty() { format!("is not allowed to be {why}") } else { word };
                format!("{name}: {why}")
            })),
            _ => None,
        }
    }
}
