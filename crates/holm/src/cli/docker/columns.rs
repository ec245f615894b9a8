//! Lists in docker's columns, or as `--format` has them.

use super::template::Template;
use crate::cli::{
    failure::{Failure, Result},
    output::{self, Format},
    session::Session,
};
use serde_json::Value;

/// Narrowest column, and the spaces between two, as docker sets them.
const COLUMN_MIN: usize = 10;
const GAP: usize = 3;

/// The columns of a list: header and field.
pub type Columns = &'static [(&'static str, &'static str)];

/// What is shown of a list.
pub struct Listing<'a> {
    /// Columns that are shown where nothing else is asked.
    pub usual: Columns,
    /// All that `--format` may name.
    pub all: Columns,
    /// The field that `-q` prints alone.
    pub id: &'static str,
    /// `--format`.
    pub format: Option<&'a str>,
}

/// Prints rows.
///
/// # Errors
/// A template that cannot be understood, or standard output is gone.
pub fn print(session: &Session, listing: &Listing<'_>, rows: &[Value]) -> Result {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_string();
    if session.quiet && listing.format.is_none() {
        let ids: String = rows.iter().map(|row| text(row, listing.id) + "\n").collect();
        return output::write(ids.as_bytes());
    }
    let format = listing.format.or(match session.printer.format {
        Some(Format::Json) => Some("json"),
        _ => None,
    });
    let lines = match format {
        Some("json") => rows.iter().map(|row| format!("{row}\n")).collect(),
        None | Some("table") => {
            let heads = listing.usual.iter().map(|(head, _)| (*head).to_string()).collect();
            let cells =
                rows.iter().map(|row| listing.usual.iter().map(|(_, field)| text(row, field)).collect());
            aligned(std::iter::once(heads).chain(cells).collect())
        }
        Some(format) => match format.strip_prefix("table ") {
            Some(columns) => {
                let template = understood(columns)?;
                let heads: Value = listing
                    .all
                    .iter()
                    .map(|(head, field)| ((*field).to_string(), Value::from(*head)))
                    .collect();
                let lines = std::iter::once(&heads).chain(rows).map(|row| filled(&template, row));
                aligned(lines.map(|line| Ok(cells(&line?))).collect::<Result<_>>()?)
            }
            None => {
                let template = understood(format)?;
                rows.iter().map(|row| Ok(filled(&template, row)? + "\n")).collect::<Result<String>>()?
            }
        },
    };
    output::write(lines.as_bytes())
}

/// A template, or what is wrong with it.
///
/// # Errors
/// It cannot be understood.
pub fn understood(text: &str) -> Result<Template> {
    // A shell hands `\t` and `\n` on as they are typed, and docker reads them.
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    Template::read(&text).map_err(|error| Failure::usage(format!("template parsing error: {error}")))
}

/// A template filled in.
///
/// # Errors
/// It cannot be filled in with this.
pub fn filled(template: &Template, value: &Value) -> Result<String> {
    template.fill(value).map_err(|error| Failure::usage(format!("template error: {error}")))
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_string).collect()
}

/// Lines with their cells one below the other.
pub fn aligned(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..count)
        .map(|number| {
            let longest = rows.iter().filter_map(|row| row.get(number)).map(wide).max().unwrap_or(0);
            COLUMN_MIN.max(longest + GAP)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (number, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if number + 1 < row.len() {
                text.push_str(&" ".repeat(widths[number] - wide(cell)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_as_docker_sets_them() {
        let rows = [["NAME", "SIZE", "LAST"], ["web", "a long size of it", "x"]];
        let rows = rows.map(|row| row.map(str::to_string).to_vec()).to_vec();
        assert_eq!(aligned(rows), "NAME      SIZE                LAST\nweb       a long size of it   x\n");
    }
}
