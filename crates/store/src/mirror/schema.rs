//! Which tables and indexes a mirror holds. Decided once, before it starts.

use std::{any::TypeId, collections::BTreeMap};

use model::record::Record;

use super::table::{AnyTable, Table};
use crate::quota::Counter;

/// A secondary index: files each record of a table under any number of values. Usually a `const` beside
/// its noun, given to the schema once and to every lookup:
///
/// `const PORT_BY_NETWORK: Index<Port> = Index::new("network", |port| vec![port.network.to_string()]);`
pub struct Index<R: 'static> {
    pub(super) name: &'static str,
    pub(super) values: fn(&R) -> Vec<String>,
}

impl<R> Clone for Index<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Index<R> {}

impl<R: Record> Index<R> {
    /// An index with a name that is unique in its table, and a pure function from record to values.
    pub const fn new(name: &'static str, values: fn(&R) -> Vec<String>) -> Index<R> {
        Index { name, values }
    }
}

/// The tables and indexes that a mirror holds; records of other tables are passed over.
pub struct Schema {
    pub(super) tables: BTreeMap<&'static str, Entry>,
}

pub(super) struct Entry {
    record: TypeId,
    pub(super) table: Box<dyn AnyTable>,
}

impl Default for Schema {
    fn default() -> Schema {
        Schema::new()
    }
}

impl Schema {
    /// Only the table of counters.
    pub fn new() -> Schema {
        Schema { tables: BTreeMap::new() }.table::<Counter>()
    }

    /// Adds the table of a record; twice is the same as once.
    ///
    /// # Panics
    /// When two records name the same table: a mistake in the program.
    pub fn table<R: Record>(mut self) -> Schema {
        self.entry::<R>();
        self
    }

    /// Adds an index, and the table if it is not there yet; twice is the same as once.
    ///
    /// # Panics
    /// As [`Self::table`].
    pub fn index<R: Record>(mut self, index: Index<R>) -> Schema {
        self.entry::<R>().add_index(index);
        self
    }

    fn entry<R: Record>(&mut self) -> &mut Table<R> {
        let entry = self
            .tables
            .entry(R::TABLE)
            .or_insert_with(|| Entry { record: TypeId::of::<R>(), table: Box::new(Table::<R>::default()) });
        assert!(entry.record == TypeId::of::<R>(), "two records name the table {:?}", R::TABLE);
        // The type was just compared, so this is that table.
        entry.table.as_any_mut().downcast_mut().expect("the table of this record")
    }
}
