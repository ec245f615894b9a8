//! Reading requests: JSON bodies, queries and paths, with errors that name the field.

use crate::{
    error::{Failure, Result},
    limits::{BODY_TIMEOUT, JSON_BYTES_MAX},
};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::Bytes;
use control::resolve::closest;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::error::Code;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Longest value that is shown to whoever gave it wrong.
const GIVEN_BYTES_MAX: usize = 200;

/// A JSON body.
#[derive(Debug)]
pub struct Input<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        check_content_type(request.headers())?;
        let bytes = read_body(request.into_body()).await?;
        parse_json(&bytes).map(Self)
    }
}

/// A JSON body that may be missing.
#[derive(Debug)]
pub struct OptionalInput<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalInput<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let headers = request.headers().clone();
        let bytes = read_body(request.into_body()).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_content_type(&headers)?;
        parse_json(&bytes).map(Self)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if kind == "application/json" || kind.ends_with("+json") {
        return Ok(());
    }
    let message = if given.is_empty() {
        "the request says not what its body is".to_string()
    } else {
        format!("the body is {given}, JSON was expected")
    };
    Err(Failure::new(Code::Invalid, message)
        .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .hint("send the header Content-Type: application/json"))
}

/// Reads a small body as a whole.
///
/// # Errors
/// `too_large`, `timeout`, or `invalid` if it breaks off.
pub async fn read_body(body: Body) -> Result<Bytes> {
    let collecting = Limited::new(body, JSON_BYTES_MAX).collect();
    match timeout(BODY_TIMEOUT, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Failure::new(Code::TooLarge, format!("the body has more than {JSON_BYTES_MAX} bytes")))
        }
        Ok(Err(error)) => Err(Failure::new(Code::Invalid, format!("the body broke off: {error}"))),
        Err(_) => Err(Failure::new(
            Code::Timeout,
            format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
        )
        .with_status(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// Reads a JSON body that was read already.
///
/// # Errors
/// As [`Input`].
pub fn read_json_body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T> {
    check_content_type(headers)?;
    parse_json(bytes)
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, given) = (error.path().to_string(), given_at(bytes, error.path()));
        let inner = error.into_inner();
        explain(&path, given.as_deref(), &inner.to_string(), inner.is_data())
    })?;
    reader.end().map_err(|error| Failure::new(Code::Invalid, format!("the body is no JSON: {error}")))?;
    Ok(value)
}

/// The value that a body gives at a path, as it was written; none for lists and objects.
fn given_at(bytes: &[u8], path: &serde_path_to_error::Path) -> Option<String> {
    use serde_path_to_error::Segment;
    let body: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let mut at = &body;
    for segment in path.iter() {
        at = match segment {
            Segment::Seq { index } => at.get(index)?,
            Segment::Map { key } => at.get(key)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    let is_leaf = at.is_string() || at.is_number() || at.is_boolean();
    is_leaf.then(|| at.to_string()).filter(|text| text.len() <= GIVEN_BYTES_MAX)
}

/// What a reader of addresses says, in words that show what is possible.
fn in_words<'a>(path: &str, plain: &'a str) -> &'a str {
    match plain.starts_with("invalid IP") {
        true if path.ends_with("cidr") => "is no address range like 10.0.0.0/24 or fd00:1::/64",
        true => "is no IP address like 192.0.2.7 or 2001:db8::7",
        false => plain,
    }
}

/// Makes serde's message into ours: the field, what was given, and what was probably meant.
fn explain(path: &str, given: Option<&str>, message: &str, is_data: bool) -> Failure {
    if !is_data {
        return Failure::new(Code::Invalid, format!("the body is no JSON: {message}"));
    }
    let plain = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    let quoted: Vec<&str> = plain.split('`').skip(1).step_by(2).collect();
    let path = if path == "." { "" } else { path };
    if let (true, [unknown, known @ ..]) = (plain.starts_with("unknown field"), quoted.as_slice()) {
        // The path of an unknown field ends with it.
        let field = if path.is_empty() { (*unknown).to_string() } else { path.to_string() };
        let failure = Failure::new(Code::Invalid, format!("there is no field {unknown:?}")).field(&field);
        return match closest(unknown, known) {
            Some(meant) => failure.hint(format!("did you mean {meant:?}?")),
            None if known.is_empty() => failure,
            None => failure.hint(format!("the fields are {}", known.join(", "))),
        };
    }
    if let (true, [missing]) = (plain.starts_with("missing field"), quoted.as_slice()) {
        let field = if path.is_empty() { (*missing).to_string() } else { format!("{path}.{missing}") };
        return Failure::new(Code::Invalid, format!("{field} is missing")).field(&field);
    }
    let failure = match given {
        Some(given) if !plain.contains(given) && in_words(path, plain) != plain => {
            Failure::new(Code::Invalid, format!("{given} {}", in_words(path, plain)))
        }
        Some(given) if !plain.contains(given) => Failure::new(Code::Invalid, format!("{given}: {plain}")),
        _ => Failure::new(Code::Invalid, plain),
    };
    if path.is_empty() { failure } else { failure.field(path) }
}

/// A query string. Every noun names the filters that it has; others are refused by name.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        parse_query(parts.uri.query().unwrap_or("")).map(Self)
    }
}

/// Reads a query.
///
/// # Errors
/// `invalid`, with the parameter that is unknown or wrong.
pub fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T> {
    let pairs = url_pairs(query)?;
    let reader = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(
        pairs.iter().map(|(key, value)| (key.as_str(), Word(value))),
    );
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, None, &error.into_inner().to_string(), true)
    })
}

/// Reads `key=value` pairs (application/x-www-form-urlencoded).
fn url_pairs(query: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = vec![];
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = unescape(&key.replace('+', " "))?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(Failure::new(Code::Invalid, format!("{key} is given twice")).field(&key));
        }
        pairs.push((key, unescape(&value.replace('+', " "))?));
    }
    Ok(pairs)
}

/// Undoes percent-encoding.
///
/// # Errors
/// `invalid` for broken escapes and for what is no UTF-8.
pub fn unescape(text: &str) -> Result<String> {
    let wrong = || Failure::new(Code::Invalid, format!("{text:?} is not percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(hex::decode(digits).map_err(|_| wrong())?[0]);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// A word of a query: a text that also reads as a number or a truth value where one is expected.
#[derive(Clone, Copy)]
struct Word<'a>(&'a str);

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty),*) => {$(
        fn $method<V: serde::de::Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
            match self.0.parse::<$kind>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(serde::de::Error::custom(format!("{:?} is not a whole number in range", self.0))),
            }
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for Word<'de> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_bool<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        match self.0 {
            "1" | "true" | "yes" => visitor.visit_bool(true),
            "0" | "false" | "no" => visitor.visit_bool(false),
            other => Err(serde::de::Error::custom(format!("{other:?} is neither true nor false"))),
        }
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_enum(serde::de::value::StrDeserializer::new(self.0))
    }

    numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    );

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl<'de> serde::de::IntoDeserializer<'de, serde::de::value::Error> for Word<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::types::{
        instance::CreateInstance,
        list::{ListQuery, WaitQuery},
    };

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> control::Error {
        parse_json::<T>(json.as_bytes()).unwrap_err().error
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field, words) in [
            (r#"{"nmae":"x"}"#, Some("nmae"), "no field \"nmae\""),
            (r#"{"networks":[{"netwrok":"x"}]}"#, Some("networks[0].netwrok"), "netwrok"),
            (r#"{"vcpus":"many"}"#, Some("vcpus"), "expected u32"),
            (
                r#"{"networks":[{"address":"10.0.0.300"}]}"#,
                Some("networks[0].address"),
                "\"10.0.0.300\" is no IP address like",
            ),
            (r#"{"restart":"never"}"#, Some("restart"), "no restart policy"),
            (r#"{"containers":[{"tty":3}]}"#, Some("containers[0].tty"), "expected a boolean"),
            (r#"{"name":"#, None, "no JSON"),
            (r#"{} {}"#, None, "no JSON"),
        ] {
            let error = refusal::<CreateInstance>(json);
            assert_eq!(error.field.as_deref(), field, "{json}: {error:?}");
            assert!(error.message.contains(words), "{json}: {error:?}");
            assert!(!error.message.contains("at line") || field.is_none(), "{error:?}");
        }
        assert_eq!(refusal::<CreateInstance>(r#"{"nmae":"x"}"#).hint, "did you mean \"name\"?");
        let error = refusal::<crate::v1::types::keypair::CreateKeypair>(r#"{"name":"x"}"#);
        assert_eq!(
            (error.field.as_deref(), error.message.as_str()),
            (Some("public_key"), "public_key is missing")
        );
    }

    #[test]
    fn queries_are_read_and_refused_by_name() {
        let query: ListQuery = parse_query("name=a%20b+c&limit=7&label=x%3Dy").unwrap();
        assert_eq!(query.name.as_deref(), Some("a b c"));
        assert_eq!((query.limit, query.label.as_deref()), (Some(7), Some("x=y")));
        let wait: WaitQuery = parse_query("wait=5").unwrap();
        assert_eq!(wait.wait, Some(5));
        for (query, field) in
            [("limit=x", "limit"), ("limit=-1", "limit"), ("nmae=x", "nmae"), ("name=a&name=b", "name")]
        {
            let error = parse_query::<ListQuery>(query).unwrap_err().error;
            assert_eq!(error.field.as_deref(), Some(field), "{query}: {error:?}");
        }
        assert!(parse_query::<ListQuery>("name=%zz").is_err());
        assert!(parse_query::<ListQuery>("name=%ff").is_err());
    }
}
