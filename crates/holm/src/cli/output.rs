//! What commands print on standard output: tables for people, and JSON, YAML, CSV and names for programs.
//!
//! ```text
//!   Shown::COLUMNS ──► table, wide, csv        the thing itself ──► json, yaml (field for field as the API has it)
//!   Shown::page    ──► show                    Shown::name      ──► name
//! ```
//! Data goes to stdout, talk to stderr. A table has no borders and cuts nothing off. Colours are for terminals alone.

pub mod page;
pub mod table;

use super::{
    failure::{Failure, Result},
    wording,
};
use jiff::Timestamp;
use page::Page;
use serde::Serialize;
use std::{fmt::Display, io::Write, net::IpAddr};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// As the API has it.
    Json,
    /// As the API has it.
    Yaml,
    /// All columns, comma-separated, with a header.
    Csv,
    /// One name per line.
    Name,
}

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A text; empty for none.
    Text(String),
    /// A size in bytes.
    Bytes(u64),
    /// A size in MiB.
    Mebibytes(u64),
    /// A moment, shown as its age.
    Time(Timestamp),
    /// A phase or state, coloured by how good it is.
    Phase(&'static str),
    /// The same with a word more for people.
    PhaseAnd(&'static str, String),
}

impl Cell {
    /// A text.
    pub fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// A text that may be missing.
    pub fn maybe(value: Option<impl Display>) -> Self {
        Self::Text(value.map(|v| v.to_string()).unwrap_or_default())
    }

    /// Several texts with commas.
    pub fn list<T: Display>(values: impl IntoIterator<Item = T>) -> Self {
        let texts: Vec<String> = values.into_iter().map(|v| v.to_string()).collect();
        Self::Text(texts.join(","))
    }

    /// Addresses, IPv4 first.
    pub fn addresses(values: &[IpAddr]) -> Self {
        let mut values = values.to_vec();
        values.sort_by_key(IpAddr::is_ipv6);
        Self::list(values)
    }

    /// `yes` or nothing.
    pub fn flag(value: bool) -> Self {
        Self::Text(if value { "yes".into() } else { String::new() })
    }

    /// For people.
    pub fn human(&self, now: Timestamp) -> String {
        match self {
            Self::Text(text) if text.is_empty() => "-".into(),
            Self::Text(text) => text.clone(),
            Self::Bytes(count) => wording::bytes(*count),
            Self::Mebibytes(count) => wording::mebibytes(*count),
            Self::Time(then) => wording::age(*then, now),
            Self::Phase(word) => (*word).to_string(),
            Self::PhaseAnd(word, more) => format!("{word} ({more})"),
        }
    }

    /// For programs.
    pub fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(count) | Self::Mebibytes(count) => count.to_string(),
            Self::Time(then) => then.to_string(),
            Self::Phase(word) | Self::PhaseAnd(word, _) => (*word).to_string(),
        }
    }

    /// Colour of a phase (ECMA-48 SGR), empty for none.
    fn colour(&self) -> &'static str {
        match self {
            Self::Phase("running" | "ready" | "available" | "in_use" | "ok") => "\x1b[32m",
            Self::Phase("failed") => "\x1b[31m",
            Self::Phase("stopped" | "exited" | "paused") => "\x1b[2m",
            Self::PhaseAnd(_, more) if more == "healthy" => "\x1b[32m",
            Self::PhaseAnd(_, more) if more == "unhealthy" => "\x1b[31m",
            Self::Phase(_) | Self::PhaseAnd(..) => "\x1b[33m",
            _ => "",
        }
    }
}

/// A column of a table.
pub struct Column<T: 'static> {
    head: &'static str,
    wide: bool,
    cell: fn(&T) -> Cell,
}

impl<T> Column<T> {
    /// Its header.
    pub fn head(&self) -> &'static str {
        self.head
    }

    /// Its value of a thing.
    pub fn cell(&self, thing: &T) -> Cell {
        (self.cell)(thing)
    }
}

/// A column that is always shown.
pub const fn column<T>(head: &'static str, cell: fn(&T) -> Cell) -> Column<T> {
    Column { head, wide: false, cell }
}

/// A column of `-o wide` and CSV alone.
pub const fn wide<T>(head: &'static str, cell: fn(&T) -> Cell) -> Column<T> {
    Column { head, wide: true, cell }
}

/// A thing that can be printed.
pub trait Shown: Serialize + Sized + 'static {
    /// Columns of a list.
    const COLUMNS: &'static [Column<Self>];

    /// What `-o name` prints.
    fn name(&self) -> String;

    /// What `show` prints for people.
    fn page(&self, now: Timestamp) -> Page {
        Page::of(self, now)
    }
}

/// Where and how output goes.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The form asked for, if one was.
    pub format: Option<Format>,
    /// Colours on stdout.
    pub colours: bool,
    /// The moment that ages count from.
    pub now: Timestamp,
}

impl Printer {
    /// Prints a list.
    pub fn list<T: Shown>(&self, items: &[T]) -> Result {
        let text = match self.format.unwrap_or(Format::Table) {
            Format::Table => self.table(items, false),
            Format::Wide => self.table(items, true),
            Format::Json => json(&items)?,
            Format::Yaml => yaml(&items)?,
            Format::Csv => csv(items),
            Format::Name => names(items),
        };
        write(text.as_bytes())
    }

    /// Prints one thing in full.
    pub fn one<T: Shown>(&self, item: &T) -> Result {
        let text = match self.format.unwrap_or(Format::Table) {
            Format::Table | Format::Wide => item.page(self.now).text(self.colours),
            Format::Json => json(item)?,
            Format::Yaml => yaml(item)?,
            Format::Csv => csv(std::slice::from_ref(item)),
            Format::Name => names(std::slice::from_ref(item)),
        };
        write(text.as_bytes())
    }

    /// Prints what was just made or changed, only if a form was asked for: else the talk on stderr says it all.
    pub fn made<T: Shown>(&self, item: &T) -> Result {
        match self.format {
            None => Ok(()),
            Some(Format::Table | Format::Wide) => self.list(std::slice::from_ref(item)),
            Some(_) => self.one(item),
        }
    }

    fn table<T: Shown>(&self, items: &[T], all: bool) -> String {
        let columns: Vec<&Column<T>> = T::COLUMNS.iter().filter(|c| all || !c.wide).collect();
        let heads = columns.iter().map(|c| c.head).collect::<Vec<_>>();
        let rows = items.iter().map(|item| columns.iter().map(|c| (c.cell)(item)).collect::<Vec<_>>());
        table::render(&heads, &rows.collect::<Vec<_>>(), self.now, self.colours)
    }
}

/// A value as JSON text with a line end.
///
/// # Errors
/// Never for the types of the API.
pub fn json(value: &impl Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Failure::usage(format!("cannot write JSON: {e}")))?;
    Ok(text + "\n")
}

/// A value as YAML text.
///
/// # Errors
/// Never for the types of the API.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(value).map_err(|e| Failure::usage(format!("cannot write YAML: {e}")))
}

/// RFC 4180: fields with commas, quotes or line ends are quoted.
fn csv<T: Shown>(items: &[T]) -> String {
    let quoted = |text: String| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    let heads: Vec<String> = T::COLUMNS.iter().map(|c| c.head.to_lowercase().replace(' ', "_")).collect();
    let mut text = heads.join(",") + "\n";
    for item in items {
        let fields: Vec<String> = T::COLUMNS.iter().map(|c| quoted((c.cell)(item).plain())).collect();
        text.push_str(&(fields.join(",") + "\n"));
    }
    text
}

fn names<T: Shown>(items: &[T]) -> String {
    items.iter().map(|item| item.name() + "\n").collect()
}

/// Writes to standard output.
///
/// # Errors
/// The reader is gone (silently) or the disk is full.
pub fn write(bytes: &[u8]) -> Result {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::output(&e))
}
