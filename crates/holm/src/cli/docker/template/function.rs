//! The functions of templates: Go's own, and those that docker adds.

use serde_json::Value;
use std::cmp::Ordering;

/// Widest text that `pad` makes.
const PAD_MAX: usize = 4_096;

/// A value as Go prints it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(all) => format!("[{}]", all.iter().map(inner).collect::<Vec<_>>().join(" ")),
        Value::Object(all) => {
            let mut pairs: Vec<String> =
                all.iter().map(|(name, one)| format!("{name}:{}", inner(one))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn inner(value: &Value) -> String {
    if value.is_null() { "<nil>".to_string() } else { shown(value) }
}

/// Whether a value counts as true: all but nothing, 0 and what is empty.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

/// The value of a row's label.
pub fn label(row: &Value, name: &Value) -> Value {
    let name = name.as_str().unwrap_or_default();
    match &row["Labels"] {
        Value::Object(all) => all.get(name).cloned().unwrap_or_else(|| "".into()),
        Value::String(text) => {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value).into()
        }
        _ => "".into(),
    }
}

/// Calls a function.
///
/// # Errors
/// There is none of that name, or it cannot take what it is given.
pub fn call(name: &str, given: &[Value]) -> Result<Value, String> {
    let wrong = || format!("wrong number of args for {name}: got {}", given.len());
    match (name, given) {
        ("json", [value]) => serde_json::to_string(value).map(Value::from).map_err(|e| e.to_string()),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("len", [value]) => length(value),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("join", [Value::Array(all), by]) => {
            Ok(all.iter().map(inner).collect::<Vec<_>>().join(&shown(by)).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("split", [text, by]) => Ok(shown(text).split(&shown(by)).map(Value::from).collect()),
        ("upper", [text]) => Ok(shown(text).to_uppercase().into()),
        ("lower", [text]) => Ok(shown(text).to_lowercase().into()),
        ("title", [text]) => Ok(title(&shown(text)).into()),
        ("pad", [text, before, after]) => {
            let spaces =
                |count: &Value| " ".repeat(count.as_u64().map_or(0, |n| n.min(PAD_MAX as u64)) as usize);
            Ok(format!("{}{}{}", spaces(before), shown(text), spaces(after)).into())
        }
        ("truncate", [text, count]) => {
            let most = usize::try_from(count.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
            Ok(shown(text).chars().take(most).collect::<String>().into())
        }
        ("print", all) => Ok(all.iter().map(shown).collect::<String>().into()),
        ("println", all) => Ok((all.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into()),
        ("printf", [form, rest @ ..]) => Ok(printf(&shown(form), rest).into()),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("and", [_, ..]) => {
            Ok(given.iter().find(|one| !truth(one)).or(given.last()).cloned().unwrap_or_default())
        }
        ("or", [_, ..]) => {
            Ok(given.iter().find(|one| truth(one)).or(given.last()).cloned().unwrap_or_default())
        }
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            Ok(rest.iter().any(|one| compare(first, one) == Some(Ordering::Equal)).into())
        }
        ("ne", [a, b]) => Ok((compare(a, b) != Some(Ordering::Equal)).into()),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            let order = compare(a, b).ok_or_else(|| format!("{name}: incompatible types for comparison"))?;
            Ok(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into())
        }
        (
            "json" | "index" | "len" | "slice" | "join" | "split" | "upper" | "lower" | "title" | "pad"
            | "truncate" | "printf" | "not" | "and" | "or" | "eq" | "ne" | "lt" | "le" | "gt" | "ge",
            _,
        ) => Err(wrong()),
        _ => Err(format!("function {name:?} not defined")),
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Object(all), Value::String(name)) => Ok(all.get(name).cloned().unwrap_or_default()),
        (Value::Array(all), Value::Number(number)) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            let one = at.and_then(|at| all.get(at));
            one.cloned()
                .ok_or_else(|| format!("error calling index: reflect: slice index out of range: {number}"))
        }
        (Value::Null, _) => Err("error calling index: index of untyped nil".to_string()),
        (other, key) => Err(format!("error calling index: can't index {} by {}", shown(other), shown(key))),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(all) => Ok(all.len().into()),
        Value::Object(all) => Ok(all.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(format!("error calling len: len of type of {other}")),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let at = |number: usize, or: usize| {
        bounds.get(number).map_or(Some(or), |one| one.as_u64().and_then(|at| usize::try_from(at).ok()))
    };
    let wrong = || "error calling slice: index out of range".to_string();
    match value {
        Value::String(text) => {
            let range = at(0, 0).zip(at(1, text.len())).map(|(from, to)| from..to).ok_or_else(wrong)?;
            text.get(range).map(Value::from).ok_or_else(wrong)
        }
        Value::Array(all) => {
            let range = at(0, 0).zip(at(1, all.len())).map(|(from, to)| from..to).ok_or_else(wrong)?;
            all.get(range).map(|part| Value::from(part.to_vec())).ok_or_else(wrong)
        }
        _ => Err("error calling slice: can't slice this".to_string()),
    }
}

fn title(text: &str) -> String {
    let mut is_first = true;
    text.chars()
        .flat_map(|c| {
            let own: Vec<char> = if is_first { c.to_uppercase().collect() } else { vec![c] };
            is_first = c.is_whitespace();
            own
        })
        .collect()
}

/// `%s`, `%v`, `%d`, `%q`, `%t` and `%%`, with a width.
fn printf(form: &str, given: &[Value]) -> String {
    let (mut out, mut values, mut chars) = (String::new(), given.iter(), form.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut width, mut left) = (String::new(), false);
        for verb in chars.by_ref() {
            match verb {
                '-' if width.is_empty() => left = true,
                digit if digit.is_ascii_digit() => width.push(digit),
                '%' => {
                    out.push('%');
                    break;
                }
                verb => {
                    let text = match values.next() {
                        None => format!("%!{verb}(MISSING)"),
                        Some(value) if verb == 'q' => format!("{:?}", shown(value)),
                        Some(value) => shown(value),
                    };
                    let width = width.parse().unwrap_or(0).min(PAD_MAX);
                    out += &if left { format!("{text:<width$}") } else { format!("{text:>width$}") };
                    break;
                }
            }
        }
    }
    out
}
