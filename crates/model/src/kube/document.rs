//! From the text of a file to the objects in it. A file is somebody else's: what it can become in memory is bounded.

use super::Refusal;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::{cell::Cell, fmt};

/// Most bytes of a file.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most documents of a file.
pub const DOCUMENTS_MAX: usize = 256;
/// Most values and bytes that a file stands for once its aliases are followed.
pub const EXPANDED_MAX: usize = 4 * 1024 * 1024;
/// Most values within values.
pub const DEPTH_MAX: usize = 48;

/// The objects of a file, and of the lists in it, in their order.
///
/// # Errors
/// What is no YAML, is too large, or has no mapping where an object is to be.
pub fn read(text: &str) -> Result<Vec<Map<String, Value>>, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("{} bytes: at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Refusal::new("", "", message).hint("make several files of it"));
    }
    let budget = Cell::new(EXPANDED_MAX);
    let mut objects = vec![];
    for (number, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let object = format!("document {}", number + 1);
        if number >= DOCUMENTS_MAX {
            let message = format!("more than {DOCUMENTS_MAX} documents");
            return Err(Refusal::new(&object, "", message).hint("make several files of it"));
        }
        let value = Bounded { budget: &budget, depth: 0 }
            .deserialize(document)
            .map_err(|error| Refusal::new(&object, "", error.to_string()))?;
        match value {
            Value::Null => {}
            Value::Object(map) if map.get("kind").is_some_and(|kind| kind == "List") => {
                let items = map.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                for item in items {
                    objects.push(mapping(&object, item)?);
                }
            }
            other => objects.push(mapping(&object, other)?),
        }
        if objects.len() > DOCUMENTS_MAX {
            return Err(Refusal::new(&object, "", format!("more than {DOCUMENTS_MAX} objects")));
        }
    }
    Ok(objects)
}

fn mapping(object: &str, value: Value) -> Result<Map<String, Value>, Refusal> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Refusal::new(object, "", "an object is a mapping with apiVersion, kind and metadata")),
    }
}

/// Reads a value as long as the budget lasts.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    budget: &'a Cell<usize>,
    depth: usize,
}

impl Bounded<'_> {
    fn spend<E: de::Error>(&self, amount: usize) -> Result<(), E> {
        match self.budget.get().checked_sub(amount + 1) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(E::custom(format!("it stands for more than {EXPANDED_MAX} bytes and values"))),
        }
    }

    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        match self.depth < DEPTH_MAX {
            true => Ok(Self { depth: self.depth + 1, ..*self }),
            false => Err(E::custom(format!("more than {DEPTH_MAX} values within values"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag of its own")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Null)
    }

    /// A document of which nothing is there.
    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.spend(text.len()).map(|()| Value::String(text.to_string()))
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let (inner, mut list) = (self.deeper()?, vec![]);
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let (inner, mut map) = (self.deeper()?, Map::new());
        while let Some(Key(key)) = entries.next_key()? {
            self.spend(key.len())?;
            if key == "<<" {
                return Err(de::Error::custom("merge keys (<<) are not read: write the fields out"));
            }
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key} is there twice")));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: a text, or what stands for one where quotes were forgotten.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text as a key")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                Ok(Key(text.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }
        }
        source.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_can_become_is_bounded() {
        let deep = |levels: usize| format!("a: {}1{}", "[".repeat(levels), "]".repeat(levels));
        let text = "x".repeat(200_000);
        let bomb = format!("a: &a {text}\nb: [{}]", ["*a"; 50].join(", "));
        let billion = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]";
        for (text, objects) in [
            ("", Ok(0)),
            ("---\n---\n", Ok(0)),
            ("a: 1\n---\nb: 2", Ok(2)),
            (billion, Ok(1)),
            ("kind: List\nitems: [{a: 1}, {b: 2}]", Ok(2)),
            (&deep(DEPTH_MAX - 1), Ok(1)),
            (&deep(DEPTH_MAX + 1), Err("values within values")),
            (&bomb, Err("stands for more than")),
            (&"---\na: 1\n".repeat(DOCUMENTS_MAX + 1), Err("more than 256 documents")),
            (&"x".repeat(TEXT_BYTES_MAX + 1), Err("at most 1048576 are read")),
            ("a: 1\na: 2", Err("twice")),
            ("a: &a {b: 1}\nc: {<<: *a}", Err("merge keys")),
            ("- a", Err("an object is a mapping")),
            ("a: !x 1", Err("")),
            ("a: [", Err("")),
            ("? [a]\n: b", Err("")),
        ] {
            match (read(text), objects) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count, "{text:.80}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text:.80}: {error}")
                }
                (found, _) => panic!("{text:.80}: {found:?}"),
            }
        }
    }
}
