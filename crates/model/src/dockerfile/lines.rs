//! From the text of a Dockerfile to its logical lines: one for each instruction.

use super::{
    DOCKERFILE_BYTES_MAX, DockerfileError, INSTRUCTION_BYTES_MAX, INSTRUCTIONS_MAX, Result,
    heredoc::{self, Heredoc},
};

/// One instruction, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its first line in the file, from 1.
    pub number: u32,
    /// All its lines in one, without comments and continuations.
    pub text: String,
    /// What was written below it.
    pub heredocs: Vec<Heredoc>,
}

/// A Dockerfile cut into lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The character that continues a line and takes the meaning off the next one: `\` or `` ` ``.
    pub escape: char,
    /// The instructions.
    pub all: Vec<Line>,
}

/// Cuts a file into its lines.
///
/// # Errors
/// Limits, broken directives, heredocs without an end, a file without instructions.
pub fn read(text: &[u8]) -> Result<Lines> {
    if text.len() > DOCKERFILE_BYTES_MAX {
        let message = format!("the Dockerfile has more than {DOCKERFILE_BYTES_MAX} bytes");
        return Err(DockerfileError::new(0, message).hint("copy large texts from the context"));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        DockerfileError::new(line, "the Dockerfile is not UTF-8").hint("save it as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let (escape, first) = directives(&physical)?;
    let mut reader = Reader { physical, at: first, escape };
    let mut all = vec![];
    while let Some(line) = reader.next()? {
        if all.len() == INSTRUCTIONS_MAX {
            let message = format!("the Dockerfile has more than {INSTRUCTIONS_MAX} instructions");
            return Err(DockerfileError::new(line.number, message).hint("join RUN instructions with &&"));
        }
        all.push(line);
    }
    if all.is_empty() {
        return Err(DockerfileError::new(0, "file with no instructions").hint("begin with FROM IMAGE"));
    }
    Ok(Lines { escape, all })
}

/// Parser directives: the escape character, and the first line behind them.
fn directives(lines: &[&str]) -> Result<(char, usize)> {
    let mut escape = None;
    let mut has_syntax = false;
    for (at, line) in lines.iter().enumerate() {
        let number = at as u32 + 1;
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((name, value)) = directive else { return Ok((escape.unwrap_or('\\'), at)) };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "escape" if escape.is_some() => {
                return Err(DockerfileError::new(number, "only one escape parser directive can be used"));
            }
            "escape" => {
                escape = Some(match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        let message = format!("invalid ESCAPE {value:.40?}. Must be ` or \\");
                        return Err(DockerfileError::new(number, message).hint("# escape=`"));
                    }
                });
            }
            "syntax" if has_syntax => {
                return Err(DockerfileError::new(number, "only one syntax parser directive can be used"));
            }
            "syntax" => {
                check_syntax(number, value)?;
                has_syntax = true;
            }
            "check" => {}
            // Anything else is a comment, and directives end with the first of these.
            _ => return Ok((escape.unwrap_or('\\'), at)),
        }
    }
    Ok((escape.unwrap_or('\\'), lines.len()))
}

/// Only docker's own syntax is spoken; a frontend of another is a program that nobody here runs.
fn check_syntax(number: u32, value: &str) -> Result<()> {
    let name = value.split(['@', ':']).next().unwrap_or(value);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    if matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") {
        return Ok(());
    }
    let message = format!("the syntax {value:.100?} is not spoken here");
    Err(DockerfileError::new(number, message)
        .hint("leave the line out, or write # syntax=docker/dockerfile:1"))
}

struct Reader<'a> {
    physical: Vec<&'a str>,
    at: usize,
    escape: char,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Option<Line>> {
        let mut text = String::new();
        let mut number = 0;
        while let Some(line) = self.physical.get(self.at) {
            self.at += 1;
            let is_first = number == 0;
            if is_comment(line) || line.trim().is_empty() {
                // Within an instruction they are left out, as outside.
                continue;
            }
            if is_first {
                number = self.at as u32;
            }
            let line = if is_first { line.trim_start() } else { line };
            let (part, goes_on) = self.without_continuation(line);
            text.push_str(part);
            if text.len() > INSTRUCTION_BYTES_MAX {
                return Err(too_long(number));
            }
            if !goes_on {
                break;
            }
        }
        let text = text.trim().to_string();
        if text.is_empty() {
            return Ok(None);
        }
        let heredocs = self.heredocs(number, &text)?;
        Ok(Some(Line { number, text, heredocs }))
    }

    /// A line without the character that continues it. Two of them are a text.
    fn without_continuation<'a>(&self, line: &'a str) -> (&'a str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(part) if !part.ends_with(self.escape) => (part, true),
            _ => (line, false),
        }
    }

    fn heredocs(&mut self, number: u32, text: &str) -> Result<Vec<Heredoc>> {
        let mut all = heredoc::announced(number, text)?;
        let mut bytes = text.len();
        for heredoc in &mut all {
            loop {
                let Some(line) = self.physical.get(self.at) else {
                    let message = format!("unterminated heredoc {:?}", heredoc.name);
                    let hint = format!("end it with a line that is {} alone", heredoc.name);
                    return Err(DockerfileError::new(number, message).hint(hint));
                };
                self.at += 1;
                let line = if heredoc.chomps { line.trim_start_matches('\t') } else { line };
                if line == heredoc.name {
                    break;
                }
                heredoc.content.push_str(line);
                heredoc.content.push('\n');
                bytes += line.len() + 1;
                if bytes > INSTRUCTION_BYTES_MAX {
                    return Err(too_long(number));
                }
            }
        }
        Ok(all)
    }
}

fn too_long(number: u32) -> DockerfileError {
    DockerfileError::new(number, format!("the instruction has more than {INSTRUCTION_BYTES_MAX} bytes"))
        .hint("copy large texts from the context")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}
