//! Templates as docker's users write them (`--format '{{.Names}}'`): the part of Go's text/template that such lines use.
//!
//! Fields, variables, `if`, `range`, `with`, pipelines, and the functions of docker's command. What is not understood is
//! an error and never printed as it stands.

mod function;
mod read;

use serde_json::Value;
use std::collections::BTreeMap;

/// How deep blocks and values may be nested.
const DEPTH_MAX: usize = 64;
/// Longest text that a template may come to.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// A template that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipeline),
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range { names: Vec<String>, over: Pipeline, each: Vec<Node>, none: Vec<Node> },
}

/// Commands, each of which is given what the one before it came to.
#[derive(Debug, Clone, PartialEq)]
struct Pipeline {
    /// Variable that keeps the value; then nothing is printed.
    keeps: Option<String>,
    commands: Vec<Vec<Operand>>,
}

/// What stands in a command.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Constant(Value),
    /// The dot, or a variable, and fields of it.
    Path(Option<String>, Vec<String>),
    Function(String),
    Group(Pipeline, Vec<String>),
}

/// Names and their values, the latest last.
struct Scope<'a> {
    dot: &'a Value,
    names: BTreeMap<String, Value>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is not understood, and where.
    pub fn read(text: &str) -> Result<Self, String> {
        read::template(text).map(Self)
    }

    /// Fills it in.
    ///
    /// # Errors
    /// A function or a field that cannot be.
    pub fn fill(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        let names = BTreeMap::from([(String::new(), value.clone())]);
        nodes(&self.0, &mut Scope { dot: value, names }, &mut out, 0)?;
        Ok(out)
    }
}

fn nodes(all: &[Node], scope: &mut Scope<'_>, out: &mut String, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX || out.len() > TEXT_BYTES_MAX {
        return Err("the template comes to too much".to_string());
    }
    for node in all {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => {
                let value = evaluate(pipeline, scope, depth)?;
                if pipeline.keeps.is_none() {
                    out.push_str(&function::shown(&value));
                }
            }
            Node::If(ways, otherwise) => {
                let mut chosen = otherwise;
                for (condition, way) in ways {
                    if function::truth(&evaluate(condition, scope, depth)?) {
                        chosen = way;
                        break;
                    }
                }
                nodes(chosen, scope, out, depth + 1)?;
            }
            Node::With(pipeline, body, otherwise) => {
                let value = evaluate(pipeline, scope, depth)?;
                if function::truth(&value) {
                    nodes(body, &mut Scope { dot: &value, names: scope.names.clone() }, out, depth + 1)?;
                } else {
                    nodes(otherwise, scope, out, depth + 1)?;
                }
            }
            Node::Range { names, over, each, none } => {
                let over = evaluate(over, scope, depth)?;
                range(names, &over, (each, none), scope, out, depth)?;
            }
        }
    }
    Ok(())
}

fn range(
    names: &[String],
    over: &Value,
    (each, none): (&[Node], &[Node]),
    scope: &mut Scope<'_>,
    out: &mut String,
    depth: usize,
) -> Result<(), String> {
    let pairs: Vec<(Value, &Value)> = match over {
        Value::Array(all) => all.iter().enumerate().map(|(number, one)| (number.into(), one)).collect(),
        Value::Object(all) => all.iter().map(|(name, one)| (name.clone().into(), one)).collect(),
        Value::Null => vec![],
        other => return Err(format!("range can't iterate over {}", function::shown(other))),
    };
    if pairs.is_empty() {
        return nodes(none, scope, out, depth + 1);
    }
    for (key, one) in pairs {
        let mut inner = Scope { dot: one, names: scope.names.clone() };
        match names {
            [] => {}
            [value] => drop(inner.names.insert(value.clone(), one.clone())),
            [first, second, ..] => {
                inner.names.insert(first.clone(), key);
                inner.names.insert(second.clone(), one.clone());
            }
        }
        nodes(each, &mut inner, out, depth + 1)?;
    }
    Ok(())
}

fn evaluate(pipeline: &Pipeline, scope: &mut Scope<'_>, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err("the template is nested too deep".to_string());
    }
    let mut last: Option<Value> = None;
    for command in &pipeline.commands {
        last = Some(run(command, last, scope, depth)?);
    }
    let value = last.ok_or("missing value for command")?;
    if let Some(name) = &pipeline.keeps {
        scope.names.insert(name.clone(), value.clone());
    }
    Ok(value)
}

fn run(
    command: &[Operand],
    given: Option<Value>,
    scope: &mut Scope<'_>,
    depth: usize,
) -> Result<Value, String> {
    let (first, rest) = command.split_first().ok_or("missing value for command")?;
    let mut arguments = rest.iter().map(|one| operand(one, scope, depth)).collect::<Result<Vec<_>, _>>()?;
    arguments.extend(given);
    match first {
        Operand::Function(name) => function::call(name, &arguments),
        // `.Label "key"`, the one field of docker's rows that takes a word.
        Operand::Path(None, path)
            if path.last().is_some_and(|name| name == "Label") && !arguments.is_empty() =>
        {
            Ok(function::label(scope.dot, &arguments[0]))
        }
        other if arguments.is_empty() => operand(other, scope, depth),
        _ => Err("can't give argument to non-function".to_string()),
    }
}

fn operand(one: &Operand, scope: &mut Scope<'_>, depth: usize) -> Result<Value, String> {
    match one {
        Operand::Constant(value) => Ok(value.clone()),
        Operand::Path(None, path) => field(scope.dot, path),
        Operand::Path(Some(name), path) => {
            let value = scope.names.get(name).ok_or_else(|| format!("undefined variable: ${name}"))?;
            field(value, path)
        }
        Operand::Group(pipeline, path) => {
            let value = evaluate(pipeline, scope, depth + 1)?;
            field(&value, path)
        }
        Operand::Function(name) => function::call(name, &[]),
    }
}

/// A field of fields; what is not there is `null`.
fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(all) => all.get(name).unwrap_or(&Value::Null),
            Value::Null => return Err(format!("nil data; no entry for key \"{name}\"")),
            other => return Err(format!("can't evaluate field {name} in {}", function::shown(other))),
        };
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(text: &str) -> Result<String, String> {
        let value = json!({
            "Name": "/web", "Id": "0123456789abcdef", "Count": 3, "On": true, "None": null,
            "State": {"Running": true, "Pid": 7},
            "Env": ["A=1", "B=2"],
            "Labels": {"tier": "web"},
            "Ports": {"80/tcp": [{"HostPort": "8088"}], "81/tcp": null},
        });
        Template::read(text)?.fill(&value)
    }

    #[test]
    fn lines_of_everyday_are_filled_in() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("{{.Name}} {{.State.Pid}}", "/web 7"),
            ("{{ .Name | json }}", "\"/web\""),
            ("{{json .Env}}", "[\"A=1\",\"B=2\"]"),
            ("{{range .Env}}{{.}};{{end}}", "A=1;B=2;"),
            ("{{range $i, $e := .Env}}{{$i}}={{$e}} {{end}}", "0=A=1 1=B=2 "),
            (
                "{{range $p, $c := .Ports}}{{$p}}:{{with $c}}{{(index . 0).HostPort}}{{end}} {{end}}",
                "80/tcp:8088 81/tcp: ",
            ),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8088"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if eq .Count 4}}a{{else if gt .Count 2}}b{{else}}c{{end}}", "b"),
            ("{{if and .On (not .None)}}yes{{end}}", "yes"),
            ("{{index .Labels \"tier\"}}{{.Label \"tier\"}}", "webweb"),
            ("{{slice .Id 0 12}} {{len .Env}} {{upper .Name}}", "0123456789ab 2 /WEB"),
            ("{{join .Env \",\"}} {{printf \"%s-%d\" .Name .Count}}", "A=1,B=2 /web-3"),
            ("a {{- /* a comment */ -}} b", "ab"),
            ("{{$x := .Count}}{{$x}}{{println .On}}", "3true\n"),
            ("{{.Env}} {{.Labels}} {{.Missing}}", "[A=1 B=2] map[tier:web] <no value>"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{`raw`}}{{\"a\\tb\"}}", "rawa\tb"),
            ("{{split .Name \"/\" | json}}", "[\"\",\"web\"]"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (text, words) in [
            ("{{.Name", "unclosed action"),
            ("{{nothing .}}", "function \"nothing\" not defined"),
            ("{{if .On}}x", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{.None.Deeper}}", "nil data"),
            ("{{.Name.Deeper}}", "can't evaluate field"),
            ("{{range .Count}}{{end}}", "can't iterate"),
            ("{{$x}}", "undefined variable"),
            ("{{\"open}}", "unterminated"),
            ("{{}}", "missing value"),
            ("{{index .Env 9}}", "out of range"),
        ] {
            let error = fill(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let deep = format!("{}x{}", "{{if 1}}".repeat(100), "{{end}}".repeat(100));
        assert!(fill(&deep).is_err());
    }
}
