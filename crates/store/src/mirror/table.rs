//! One table in memory: rows by key, secondary indexes, and the rows that could not be read.
//!
//! The follower knows tables only as [`AnyTable`], without their record type; readers get them back typed.
//! Parsing is a plain function of a table, so that it happens before the mirror's lock is taken.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use model::record::Record;

use super::{Corrupt, Index, Stored};
use crate::{engine::KeyValue, envelope};

/// A parsed row whose type only its table knows.
pub(super) type Row = Arc<dyn Any + Send + Sync>;
/// Parses a row; the error says why it cannot be.
pub(super) type Decoder = fn(&KeyValue) -> Result<Row, String>;

/// A table without its record type.
pub(super) trait AnyTable: Send + Sync {
    fn name(&self) -> &'static str;
    fn decoder(&self) -> Decoder;
    /// A table with the same indexes and no rows.
    fn empty(&self) -> Box<dyn AnyTable>;
    /// Sets a row that [`Self::decoder`] made.
    fn set(&mut self, key: &str, row: Row);
    fn set_corrupt(&mut self, corrupt: Corrupt);
    fn remove(&mut self, key: &str);
    fn corrupt(&self) -> Vec<Corrupt>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

type Rows<R> = BTreeMap<Arc<str>, Arc<Stored<R>>>;

struct Filed<R: 'static> {
    index: Index<R>,
    rows: HashMap<String, Rows<R>>,
}

pub(super) struct Table<R: 'static> {
    rows: Rows<R>,
    indexes: Vec<Filed<R>>,
    corrupt: BTreeMap<String, Corrupt>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), indexes: Vec::new(), corrupt: BTreeMap::new() }
    }
}

impl<R: Record> Table<R> {
    pub(super) fn add_index(&mut self, index: Index<R>) {
        if self.indexes.iter().all(|filed| filed.index.name != index.name) {
            self.indexes.push(Filed { index, rows: HashMap::new() });
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Stored<R>>> {
        self.rows.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn list(&self) -> impl Iterator<Item = &Arc<Stored<R>>> + use<'_, R> {
        self.rows.values()
    }

    pub(super) fn list_prefix(&self, prefix: &str) -> impl Iterator<Item = &Arc<Stored<R>>> + use<'_, R> {
        let prefix: Arc<str> = prefix.into();
        let from = (Bound::Included(Arc::clone(&prefix)), Bound::Unbounded);
        self.rows.range(from).take_while(move |(key, _)| key.starts_with(&*prefix)).map(|(_, row)| row)
    }

    pub(super) fn by_index(
        &self,
        index: &Index<R>,
        value: &str,
    ) -> impl Iterator<Item = &Arc<Stored<R>>> + use<'_, R> {
        let filed = self.indexes.iter().find(|filed| filed.index.name == index.name);
        let filed = filed
            .unwrap_or_else(|| panic!("{} has no index {} in the mirror's schema", R::TABLE, index.name));
        filed.rows.get(value).into_iter().flat_map(BTreeMap::values)
    }

    fn take(&mut self, key: &str) -> Option<Arc<str>> {
        let (key, row) = self.rows.remove_entry(key)?;
        for filed in &mut self.indexes {
            filed.remove(&key, &row);
        }
        Some(key)
    }
}

impl<R: Record> Filed<R> {
    fn insert(&mut self, key: &Arc<str>, row: &Arc<Stored<R>>) {
        for value in (self.index.values)(&row.record) {
            self.rows.entry(value).or_default().insert(Arc::clone(key), Arc::clone(row));
        }
    }

    fn remove(&mut self, key: &str, row: &Arc<Stored<R>>) {
        for value in (self.index.values)(&row.record) {
            if let Some(rows) = self.rows.get_mut(&value) {
                rows.remove(key);
                if rows.is_empty() {
                    self.rows.remove(&value);
                }
            }
        }
    }
}

impl<R: Record> AnyTable for Table<R> {
    fn name(&self) -> &'static str {
        R::TABLE
    }

    fn decoder(&self) -> Decoder {
        |kv| {
            let record = envelope::decode::<R>(&kv.value).map_err(|error| error.to_string())?;
            Ok(Arc::new(Stored::new(record, kv)))
        }
    }

    fn empty(&self) -> Box<dyn AnyTable> {
        let mut table = Table::<R>::default();
        for filed in &self.indexes {
            table.add_index(filed.index);
        }
        Box::new(table)
    }

    fn set(&mut self, key: &str, row: Row) {
        // Only this table's decoder makes rows for it.
        let row: Arc<Stored<R>> = row.downcast().expect("a row of this table");
        let key = self.take(key).unwrap_or_else(|| key.into());
        self.corrupt.remove(&*key);
        for filed in &mut self.indexes {
            filed.insert(&key, &row);
        }
        self.rows.insert(key, row);
    }

    fn set_corrupt(&mut self, corrupt: Corrupt) {
        self.take(&corrupt.key);
        self.corrupt.insert(corrupt.key.clone(), corrupt);
    }

    fn remove(&mut self, key: &str) {
        self.take(key);
        self.corrupt.remove(key);
    }

    fn corrupt(&self) -> Vec<Corrupt> {
        self.corrupt.values().cloned().collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
