//! Reading templates: text and actions, then the words of each action.

use super::{DEPTH_MAX, Node, Operand, Pipeline};
use serde_json::Value;

/// A piece of a template: text, or what stands in `{{ }}`.
enum Piece {
    Text(String),
    Action(String),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Constant(Value),
    Name(String),
    Open,
    /// The end of a group, with the fields that are asked of it.
    Close(Vec<String>),
    Pipe,
    Assign,
    Comma,
}

/// Reads all of a template.
///
/// # Errors
/// What is not understood.
pub fn template(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut reader = Reader { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = reader.nodes()?;
    match end {
        Closing::Eof => Ok(nodes),
        Closing::Else(_) => Err("unexpected {{else}}".to_string()),
        Closing::End => Err("unexpected {{end}}".to_string()),
    }
}

/// Cuts a template into text and actions; `{{-` and `-}}` take the spaces beside them away.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut all, mut rest, mut trims) = (vec![], text, false);
    loop {
        let Some(at) = rest.find("{{") else {
            let text = if trims { rest.trim_start() } else { rest };
            all.push(Piece::Text(text.to_string()));
            return Ok(all);
        };
        let (before, inner) = (&rest[..at], &rest[at + 2..]);
        let trims_before = inner.starts_with("- ") || inner.starts_with("-\n");
        let before = if trims { before.trim_start() } else { before };
        all.push(Piece::Text(if trims_before { before.trim_end() } else { before }.to_string()));
        let end = closing(inner).ok_or("unclosed action")?;
        let action = &inner[usize::from(trims_before)..end];
        trims = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            all.push(Piece::Action(action.to_string()));
        }
        rest = &inner[end + 2..];
    }
}

/// Where `}}` stands that ends an action: not in a string.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut quote, mut at) = (None, 0);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    // A string that does not end: its own fault is told where it is read.
    quote.and_then(|_| text.find("}}"))
}

/// What ended a block.
enum Closing {
    Eof,
    Else(String),
    End,
}

struct Reader {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

impl Reader {
    fn nodes(&mut self) -> Result<(Vec<Node>, Closing), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the template is nested too deep".to_string());
        }
        let mut nodes = vec![];
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
            match word {
                "end" => {
                    self.depth -= 1;
                    return Ok((nodes, Closing::End));
                }
                "else" => {
                    self.depth -= 1;
                    return Ok((nodes, Closing::Else(rest.trim().to_string())));
                }
                "if" => nodes.push(self.condition(rest)?),
                "with" => nodes.push(self.with(rest)?),
                "range" => nodes.push(self.range(rest)?),
                _ => nodes.push(Node::Print(pipeline(&words(&action)?)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, Closing::Eof))
    }

    fn condition(&mut self, first: &str) -> Result<Node, String> {
        let (mut ways, mut asked) = (vec![], first.to_string());
        loop {
            let condition = pipeline(&words(&asked)?)?;
            let (body, end) = self.nodes()?;
            ways.push((condition, body));
            match end {
                Closing::End => return Ok(Node::If(ways, vec![])),
                Closing::Eof => return Err("unexpected EOF".to_string()),
                Closing::Else(rest) => match rest.strip_prefix("if ") {
                    Some(next) => asked = next.to_string(),
                    None => return Ok(Node::If(ways, self.last()?)),
                },
            }
        }
    }

    fn with(&mut self, asked: &str) -> Result<Node, String> {
        let over = pipeline(&words(asked)?)?;
        let (body, otherwise) = self.body()?;
        Ok(Node::With(over, body, otherwise))
    }

    fn range(&mut self, asked: &str) -> Result<Node, String> {
        let words = words(asked)?;
        let (names, rest) = match words.iter().position(|word| *word == Word::Assign) {
            Some(at) => (names(&words[..at])?, &words[at + 1..]),
            None => (vec![], &words[..]),
        };
        let over = pipeline(rest)?;
        let (each, none) = self.body()?;
        Ok(Node::Range { names, over, each, none })
    }

    /// A block and what stands after its `else`.
    fn body(&mut self) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.nodes()?;
        match end {
            Closing::End => Ok((body, vec![])),
            Closing::Else(_) => Ok((body, self.last()?)),
            Closing::Eof => Err("unexpected EOF".to_string()),
        }
    }

    fn last(&mut self) -> Result<Vec<Node>, String> {
        match self.nodes()? {
            (body, Closing::End) => Ok(body),
            (_, Closing::Else(_)) => Err("unexpected {{else}}".to_string()),
            (_, Closing::Eof) => Err("unexpected EOF".to_string()),
        }
    }
}

/// The variables of `range $a, $b := …`.
fn names(words: &[Word]) -> Result<Vec<String>, String> {
    let mut names = vec![];
    for word in words {
        match word {
            Word::Variable(name, fields) if fields.is_empty() => names.push(name.clone()),
            Word::Comma => {}
            other => return Err(format!("unexpected {other:?} in range")),
        }
    }
    Ok(names)
}

fn pipeline(words: &[Word]) -> Result<Pipeline, String> {
    if let [Word::Variable(name, fields), Word::Assign, rest @ ..] = words
        && fields.is_empty()
    {
        return Ok(Pipeline { keeps: Some(name.clone()), ..pipeline(rest)? });
    }
    let mut rest = words;
    let found = group(&mut rest, 0)?;
    if rest.is_empty() { Ok(found) } else { Err("unexpected right paren".to_string()) }
}

/// Reads until the end or a closing bracket.
fn group(words: &mut &[Word], depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH_MAX {
        return Err("the template is nested too deep".to_string());
    }
    let mut commands: Vec<Vec<Operand>> = vec![vec![]];
    while let Some((word, rest)) = words.split_first() {
        if matches!(word, Word::Close(_)) {
            break;
        }
        *words = rest;
        let operand = match word.clone() {
            Word::Field(path) => Operand::Path(None, path),
            Word::Variable(name, path) => Operand::Path(Some(name), path),
            Word::Constant(value) => Operand::Constant(value),
            Word::Name(name) => Operand::Function(name),
            Word::Pipe => {
                commands.push(vec![]);
                continue;
            }
            Word::Open => {
                let inner = group(words, depth + 1)?;
                let Some((Word::Close(path), after)) = words.split_first() else {
                    return Err("unclosed left paren".to_string());
                };
                *words = after;
                Operand::Group(inner, path.clone())
            }
            Word::Assign | Word::Comma | Word::Close(_) => return Err(format!("unexpected {word:?}")),
        };
        commands.last_mut().expect("there is one").push(operand);
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("missing value for command".to_string());
    }
    Ok(Pipeline { keeps: None, commands })
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let (mut all, mut rest) = (vec![], text);
    while let Some(first) = rest.chars().next() {
        let word = match first {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '.' => Word::Field(fields(&mut rest)),
            '$' => {
                rest = &rest[1..];
                variable(&mut rest)
            }
            '(' | '|' | ',' => {
                rest = &rest[1..];
                [Word::Open, Word::Pipe, Word::Comma]["(|,".find(first).expect("one of these")].clone()
            }
            ')' => {
                rest = &rest[1..];
                Word::Close(if rest.starts_with('.') { fields(&mut rest) } else { vec![] })
            }
            ':' if rest.starts_with(":=") => {
                rest = &rest[2..];
                Word::Assign
            }
            '"' | '`' => string(&mut rest)?,
            _ => plain(&mut rest)?,
        };
        all.push(word);
    }
    Ok(all)
}

fn variable(rest: &mut &str) -> Word {
    let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let name = rest[..length].to_string();
    *rest = &rest[length..];
    Word::Variable(name, fields(rest))
}

fn fields(rest: &mut &str) -> Vec<String> {
    let length = rest.find(|c: char| !(c.is_alphanumeric() || "_.".contains(c))).unwrap_or(rest.len());
    let (path, after) = rest.split_at(length);
    *rest = after;
    path.split('.').filter(|name| !name.is_empty()).map(str::to_string).collect()
}

fn string(rest: &mut &str) -> Result<Word, String> {
    let raw = rest.starts_with('`');
    let (mut text, mut escaped) = (String::new(), false);
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => {
                text.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                });
                escaped = false;
            }
            '\\' if !raw => escaped = true,
            '"' | '`' if (c == '`') == raw => {
                *rest = &rest[at + 1..];
                return Ok(Word::Constant(text.into()));
            }
            other => text.push(other),
        }
    }
    Err("unterminated string".to_string())
}

/// A number, `true`, `false`, `nil`, or the name of a function.
fn plain(rest: &mut &str) -> Result<Word, String> {
    let ends = |c: char| !(c.is_alphanumeric() || "_.-+".contains(c));
    let length = rest.find(ends).unwrap_or(rest.len());
    let text = &rest[..length];
    let word = match text {
        "" => return Err(format!("unexpected {:?} in command", rest.chars().next().unwrap_or(' '))),
        "true" => Word::Constant(true.into()),
        "false" => Word::Constant(false.into()),
        "nil" => Word::Constant(Value::Null),
        number if number.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c)) => {
            let read = number.parse::<i64>().map(Value::from);
            let read = read.or_else(|_| number.parse::<f64>().map(Value::from));
            Word::Constant(read.map_err(|_| format!("bad number syntax: {number:?}"))?)
        }
        name if name.chars().all(|c| c.is_alphanumeric() || c == '_') => Word::Name(name.to_string()),
        other => return Err(format!("unexpected {other:?} in command")),
    };
    *rest = &rest[length..];
    Ok(word)
}
