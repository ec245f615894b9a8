//! Files of containers, as archives: `docker cp`, `docker export`, `docker diff`.

use super::found;
use crate::{
    app::Asker,
    docker::{body, door::Door, query::Query},
    error::{Failure, Result},
    limits::IMAGE_BYTES_MAX,
    streams::{FileChangeKind, FileStat, FilesIn},
    v1::audit::{deed, known, note_as},
};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use model::error::Code;
use serde_json::{Value, json};

/// Tells what lies at the path that was asked for.
const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// HEAD of a path.
pub async fn stat(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    let stat = door.app().streams().file_stat(found.instance(), path(&query)?).await?;
    Ok(([(STAT, header(&stat)?)], StatusCode::OK).into_response())
}

/// GET of a path.
pub async fn get(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    let (stat, archive) = door.app().streams().files_out(found.instance(), path(&query)?).await?;
    let mut response = body::answer(&door, &caller, archive)?;
    response.headers_mut().insert(STAT, header(&stat)?);
    Ok(response)
}

/// PUT of an archive into a directory.
pub async fn put(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
    request: Request,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    let instance = found.instance();
    let into = FilesIn {
        path: path(&query)?.to_string(),
        keeps_kinds: query.flag("noOverwriteDirNonDir"),
        as_user: query.flag("copyUIDGID"),
    };
    let _slot = door.app().stream_slot(&caller)?;
    let archive = body::reader(request.into_body(), IMAGE_BYTES_MAX);
    let outcome = door.app().streams().files_in(instance, into, archive).await;
    let subject = known(instance.meta.id, &instance.meta.name);
    note_as(door.app(), &caller, deed("copy", "instance", &name), outcome, subject).await?;
    Ok(StatusCode::OK)
}

/// GET of all files.
pub async fn export(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    body::answer(&door, &caller, door.app().streams().export(found.instance()).await?)
}

/// GET of what differs from the image.
pub async fn changes(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>> {
    let found = found::find(&door, &caller, &name)?;
    // Many changes take much room until they are told.
    let _slot = door.app().stream_slot(&caller)?;
    let changes = door.app().streams().file_changes(found.instance()).await?;
    let number = |kind| match kind {
        FileChangeKind::Modified => 0,
        FileChangeKind::Added => 1,
        FileChangeKind::Deleted => 2,
    };
    Ok(Json(changes.iter().map(|it| json!({ "Path": it.path, "Kind": number(it.kind) })).collect()))
}

fn path(query: &Query) -> Result<&str> {
    query.text("path").ok_or_else(|| Failure::new(Code::Invalid, "missing path"))
}

fn header(stat: &FileStat) -> Result<HeaderValue> {
    let mtime = Timestamp::new(stat.mtime.0, i32::try_from(stat.mtime.1).unwrap_or(0)).unwrap_or_default();
    let told = json!({
        "name": stat.name,
        "size": stat.size_bytes,
        "mode": go_mode(stat.mode),
        "mtime": mtime.to_string(),
        "linkTarget": stat.link_target,
    });
    HeaderValue::from_str(&STANDARD.encode(told.to_string()))
        .map_err(|_| Failure::new(Code::Internal, "the header cannot be made"))
}

/// A mode as Go's `os.FileMode` has it: permissions as ever, kinds and the special bits elsewhere.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        0o020_000 => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let bits: u32 = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum();
    kind | bits | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told_as_go_has_them() {
        for (mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 0x8000_01ed),
            (0o120_777, 0x0800_01ff),
            (0o104_755, 0x0080_01ed),
            (0o041_777, 0x8010_01ff),
            (0o020_666, 0x0420_01b6),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }
}
