//! Pages: `limit` and `marker` (the id of the last item of the page before), and the link to the next page.

use super::{
    base::Base,
    fault::{Fault, Result},
    query::Query,
};
use serde_json::{Value, json};

/// Most items of a page, whatever is asked for (Nova's default for `max_limit`).
pub const LIMIT_MAX: usize = 1_000;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Marker of the next page, if there is one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the page that a call asks for out of all items, which are in their final order; `id` gives what a marker
    /// names. `max` is the most that one page has, whatever is asked for.
    ///
    /// # Errors
    /// 400 for a limit that is no number and for a marker that names nothing.
    pub fn cut(all: Vec<T>, query: &Query, max: usize, id: impl Fn(&T) -> String) -> Result<Self> {
        let limit = query.number("limit")?.map_or(max, |limit| usize::try_from(limit).unwrap_or(max));
        // Zero means as many as there may be, in Nova and Neutron alike.
        let limit = if limit == 0 { max } else { limit.min(max) };
        let first = match query.get("marker").filter(|marker| !marker.is_empty()) {
            None => 0,
            Some(marker) => {
                let at = all.iter().position(|item| same_id(&id(item), marker));
                1 + at.ok_or_else(|| Fault::invalid(format!("marker [{marker}] not found")))?
            }
        };
        let more = all.len() > first + limit;
        let items: Vec<T> = all.into_iter().skip(first).take(limit).collect();
        let next = items.last().filter(|_| more).map(id);
        Ok(Self { items, next })
    }

    /// The links beside a list, as Nova, Cinder and Neutron write them: empty on the last page.
    pub fn links(&self, base: &Base, query: &Query) -> Vec<Value> {
        let link = |marker: &String| json!({ "rel": "next", "href": base.link(&query.with_marker(marker)) });
        self.next.iter().map(link).collect()
    }
}

/// Whether two texts are the same id, with dashes or without.
pub fn same_id(one: &str, other: &str) -> bool {
    let plain =
        |text: &str| text.bytes().filter(|b| *b != b'-').map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    one == other || one.len() >= 32 && plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page<u32>> {
        let query = Query::parse("/x", query).unwrap();
        Page::cut(vec![1, 2, 3, 4, 5], &query, 4, u32::to_string)
    }

    #[test]
    fn pages_follow_one_another() {
        for (query, items, next) in [
            ("", vec![1, 2, 3, 4], Some("4")),
            ("limit=2", vec![1, 2], Some("2")),
            ("limit=2&marker=2", vec![3, 4], Some("4")),
            ("limit=2&marker=4", vec![5], None),
            ("marker=5", vec![], None),
            ("limit=0", vec![1, 2, 3, 4], Some("4")),
            ("limit=9", vec![1, 2, 3, 4], Some("4")),
        ] {
            let page = page(query).unwrap();
            assert_eq!((page.items, page.next.as_deref()), (items, next), "{query}");
        }
        assert!(page("limit=x").is_err() && page("limit=-1").is_err() && page("marker=9").is_err());
    }

    #[test]
    fn ids_are_the_same_with_and_without_dashes() {
        let id = "6f1c0a52-8f6e-4c6d-9d38-0d4c0a7c5f11";
        assert!(same_id(id, &id.replace('-', "")) && !same_id("a-b", "ab"));
    }
}
