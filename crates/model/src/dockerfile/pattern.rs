//! Patterns of shells and of Go's `filepath.Match`: `*`, `?`, `[a-z]` and backslashes.

/// Whether a text fits a pattern as a whole; a broken one fits nothing. Takes time that grows with the product of both
/// lengths.
pub fn fits(pattern: &[char], text: &[char]) -> bool {
    tokens(pattern).is_some_and(|tokens| reached(&tokens, text)[text.len()])
}

/// For each length whether the pattern fits so many characters of the text's beginning.
fn reached(tokens: &[Token], text: &[char]) -> Vec<bool> {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for token in tokens {
        let mut next = vec![false; text.len() + 1];
        if let Token::Any = token {
            for at in 0..=text.len() {
                next[at] = reached[at] || at > 0 && next[at - 1];
            }
        } else {
            for at in 1..=text.len() {
                next[at] = reached[at - 1] && token.takes(text[at - 1]);
            }
        }
        reached = next;
    }
    reached
}

/// Whether a pattern can be read.
pub fn is_whole(pattern: &str) -> bool {
    tokens(&pattern.chars().collect::<Vec<_>>()).is_some()
}

enum Token {
    Any,
    One,
    Is(char),
    Of { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Is(wanted) => *wanted == c,
            Self::Of { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

fn tokens(pattern: &[char]) -> Option<Vec<Token>> {
    let (mut all, mut at) = (vec![], 0);
    while let Some(c) = pattern.get(at) {
        at += 1;
        match c {
            '*' => {
                if !matches!(all.last(), Some(Token::Any)) {
                    all.push(Token::Any);
                }
            }
            '?' => all.push(Token::One),
            '\\' => {
                all.push(Token::Is(*pattern.get(at)?));
                at += 1;
            }
            '[' => {
                let negated = matches!(pattern.get(at), Some('^' | '!'));
                at += usize::from(negated);
                let mut ranges = vec![];
                loop {
                    let mut low = *pattern.get(at)?;
                    at += 1;
                    if low == ']' && !ranges.is_empty() {
                        break;
                    }
                    if low == '\\' {
                        low = *pattern.get(at)?;
                        at += 1;
                    }
                    let mut high = low;
                    if pattern.get(at) == Some(&'-') && pattern.get(at + 1).is_some_and(|c| *c != ']') {
                        high = pattern[at + 1];
                        at += 2;
                    }
                    ranges.push((low, high));
                }
                all.push(Token::Of { negated, ranges });
            }
            c => all.push(Token::Is(*c)),
        }
    }
    Some(all)
}

/// A value without the shortest or longest beginning that fits.
pub fn without_beginning(value: &str, pattern: &str, is_long: bool) -> String {
    let value: Vec<char> = value.chars().collect();
    value[beginning(&value, tokens(&pattern.chars().collect::<Vec<_>>()), is_long)..].iter().collect()
}

/// A value without the shortest or longest end that fits.
pub fn without_end(value: &str, pattern: &str, is_long: bool) -> String {
    let mut value: Vec<char> = value.chars().rev().collect();
    let tokens = tokens(&pattern.chars().collect::<Vec<_>>()).map(|all| all.into_iter().rev().collect());
    value.drain(..beginning(&value, tokens, is_long));
    value.into_iter().rev().collect()
}

fn beginning(value: &[char], tokens: Option<Vec<Token>>, is_long: bool) -> usize {
    let Some(tokens) = tokens else { return 0 };
    let ends = reached(&tokens, value);
    let found =
        if is_long { ends.iter().rposition(|fits| *fits) } else { ends.iter().position(|fits| *fits) };
    found.unwrap_or(0)
}

/// A value with the first place, or all places, that fit replaced. The longest place at a beginning counts.
pub fn replaced(value: &str, pattern: &str, by: &str, is_all: bool) -> String {
    let Some(tokens) = tokens(&pattern.chars().collect::<Vec<_>>()) else { return value.to_string() };
    let value: Vec<char> = value.chars().collect();
    let (mut out, mut at, mut is_done) = (String::new(), 0, tokens.is_empty());
    while at < value.len() {
        let length = if is_done {
            0
        } else {
            reached(&tokens, &value[at..]).iter().rposition(|fits| *fits).unwrap_or(0)
        };
        if length > 0 {
            out.push_str(by);
            (at, is_done) = (at + length, !is_all);
        } else {
            out.push(value[at]);
            at += 1;
        }
    }
    out
}
