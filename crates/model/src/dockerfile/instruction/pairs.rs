//! Lists of words, and `KEY=VALUE` in both forms.

use super::list;
use crate::dockerfile::words;

/// Words between white space, or a JSON list.
pub(super) fn arguments(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| text.split_whitespace().map(str::to_string).collect())
}

/// `key=value key2="a value"`, or the older `key value` for one alone. Quotes stay.
pub(super) fn pairs(word: &str, text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let all = words::split(text, escape);
    if !all.first().is_some_and(|first| first.contains('=')) {
        let (key, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| format!("{word} must have two arguments"))?;
        return Ok(vec![(key.to_string(), value.trim_start().to_string())]);
    }
    all.into_iter()
        .map(|pair| match pair.split_once('=') {
            Some(("", _)) => Err(format!("{word} names can not be blank")),
            Some((key, value)) => Ok((key.to_string(), value.to_string())),
            None => {
                Err(format!("Syntax error - can't find = in {pair:.100?}. Must be of the form: name=value"))
            }
        })
        .collect()
}
