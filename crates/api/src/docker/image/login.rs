//! Credentials as docker's clients send them: for one call, in a header that is neither kept nor logged.

use crate::{
    app::Asker,
    docker::{door::Door, query::Json as Body},
    error::{Failure, Result},
    streams::RegistryLogin,
};
use axum::{Json, extract::State, http::HeaderMap};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use model::{
    error::Code,
    image_reference::{DEFAULT_REGISTRY, Reference},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Header with the credentials that `docker login` keeps on the client's side.
const AUTH_HEADER: &str = "x-registry-auth";
/// The same of a build, for several registries.
const CONFIG_HEADER: &str = "x-registry-config";
/// Most registries that a client sends credentials for.
const REGISTRIES_MAX: usize = 64;
/// Longest name or password.
const CREDENTIAL_BYTES_MAX: usize = 16 << 10;
/// With padding or without: clients differ.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a client sends of a user.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Sent {
    username: String,
    password: String,
    auth: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials in a call's header; `None` for nobody.
///
/// # Errors
/// `invalid` for a header that is none, `unsupported` for tokens in the place of a name.
pub fn of_header(headers: &HeaderMap) -> Result<Option<RegistryLogin>> {
    let Some(value) = headers.get(AUTH_HEADER) else { return Ok(None) };
    let wrong = || Failure::new(Code::Invalid, "X-Registry-Auth is no base64 of JSON");
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = decode(text).ok_or_else(wrong)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let sent: Option<Sent> = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    read(sent.unwrap_or_default())
}

/// Credentials for the registries that a build may pull from.
#[derive(Debug, Default)]
pub struct Logins(BTreeMap<String, RegistryLogin>);

impl Logins {
    /// Those for an image's registry.
    pub fn of(&self, reference: &Reference) -> Option<RegistryLogin> {
        self.0.get(reference.registry()).cloned()
    }
}

/// The credentials in a build's header.
///
/// # Errors
/// `invalid` for a header that is none.
pub fn logins_of(headers: &HeaderMap) -> Result<Logins> {
    let Some(value) = headers.get(CONFIG_HEADER) else { return Ok(Logins::default()) };
    let wrong = || Failure::new(Code::Invalid, "X-Registry-Config is no base64 of JSON");
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        return Ok(Logins::default());
    }
    let bytes = decode(text).ok_or_else(wrong)?;
    let sent: Option<BTreeMap<String, Sent>> = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let mut logins = Logins::default();
    for (address, one) in sent.unwrap_or_default().into_iter().take(REGISTRIES_MAX) {
        // Clients send all that they know: what is no name and password is no harm until it is needed.
        let Ok(Some(login)) = read(one) else { continue };
        logins.0.insert(registry(&address), login);
    }
    Ok(logins)
}

/// A name and a password that a client gave when it was asked; `None` for nobody, and for what is no name and password.
pub fn given(username: String, password: String) -> Option<RegistryLogin> {
    read(Sent { username, password, ..Sent::default() }).ok().flatten().filter(|login| !login.user.is_empty())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let alphabets = [URL_SAFE, STANDARD].map(|alphabet| GeneralPurpose::new(&alphabet, LENIENT));
    alphabets.iter().find_map(|engine| engine.decode(text).ok())
}

fn read(sent: Sent) -> Result<Option<RegistryLogin>> {
    if !sent.identitytoken.is_empty() || !sent.registrytoken.is_empty() {
        return Err(Failure::new(
            Code::Unsupported,
            "tokens in the place of a name and password are not served",
        )
        .hint("log in with a name and a password or an access token"));
    }
    let (user, password) = if sent.username.is_empty() && !sent.auth.is_empty() {
        let joined = decode(&sent.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        let split = joined.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) =
            split.ok_or_else(|| Failure::new(Code::Invalid, "auth is no base64 of name:password"))?;
        (user.to_string(), password.to_string())
    } else {
        (sent.username, sent.password)
    };
    if user.is_empty() && password.is_empty() {
        return Ok(None);
    }
    if user.len() > CREDENTIAL_BYTES_MAX || password.len() > CREDENTIAL_BYTES_MAX {
        return Err(Failure::new(Code::TooLarge, "the name or password is too long"));
    }
    // What would end the name early, or the header.
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err(Failure::new(Code::Invalid, "the name or password has characters that cannot be sent"));
    }
    Ok(Some(RegistryLogin { user, password }))
}

/// The registry of an address as clients write it.
fn registry(address: &str) -> String {
    let bare = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or("");
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "docker.io" => DEFAULT_REGISTRY.to_string(),
        host => host.to_string(),
    }
}

/// POST of a login: the registry is asked, and nothing is kept. Clients send the credentials with each call.
pub async fn log_in(
    State(door): State<Door>,
    Asker(caller): Asker,
    Body(sent): Body<Sent>,
) -> Result<Json<Value>> {
    let at = registry(&sent.serveraddress);
    let login = read(sent)?.ok_or_else(|| Failure::new(Code::Invalid, "a name and a password are needed"))?;
    match door.app().streams().registry_login(&at, login, caller.reach()).await {
        Ok(()) => Ok(Json(json!({ "Status": "Login Succeeded", "IdentityToken": "" }))),
        Err(error) if error.code == Code::Forbidden => Err(Failure::new(
            Code::Unauthenticated,
            format!("login attempt to {at} failed: unauthorized: incorrect username or password"),
        )),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE_NO_PAD};

    fn header(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTH_HEADER.parse().unwrap(), text.parse().unwrap())])
    }

    #[test]
    fn credentials_come_in_several_forms() {
        let me = RegistryLogin { user: "me".into(), password: "p~ss?word>".into() };
        let split = json!({"username": "me", "password": "p~ss?word>", "serveraddress": "x"}).to_string();
        let joined = json!({"auth": PADDED.encode("me:p~ss?word>")}).to_string();
        for text in [&split, &joined] {
            for sent in [PADDED.encode(text), URL_SAFE_NO_PAD.encode(text)] {
                assert_eq!(of_header(&header(&sent)).unwrap(), Some(me.clone()), "{text}");
            }
        }
        for nobody in ["", "{}", "null", "{\"username\":\"\"}"] {
            assert_eq!(of_header(&header(&PADDED.encode(nobody))).unwrap(), None, "{nobody}");
        }
        assert_eq!(of_header(&HeaderMap::new()).unwrap(), None);
        let refused = [
            "{\"identitytoken\":\"x\"}",
            "{\"username\":\"a\\nb\",\"password\":\"x\"}",
            "{\"username\":\"a:b\",\"password\":\"x\"}",
            "{\"auth\":\"!\"}",
            "[1]",
        ];
        for wrong in refused {
            assert!(of_header(&header(&PADDED.encode(wrong))).is_err(), "{wrong}");
        }
        assert!(!format!("{me:?}").contains("word"));
    }

    #[test]
    fn registries_are_found_in_addresses() {
        for (address, wanted) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://127.0.0.1:5001/v2/", "127.0.0.1:5001"),
        ] {
            assert_eq!(registry(address), wanted, "{address}");
        }
    }
}
