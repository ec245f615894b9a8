//! `COPY` and `ADD`: files of the context, of other stages and images, of the web, and texts of the Dockerfile.

use super::{
    builder::{Builder, Fault},
    given::Given,
    stage::{Base, Built, StageWork},
};
use crate::{
    error::{Failure, Result},
    streams::{FileStat, FilesIn, ImageIn, Owner, Pick, Picked, Reader, SourceFiles, Target},
};
use model::{
    dockerfile::instruction::{Copy, Source},
    error::Code,
    instance::{ContainerSpec, Instance},
};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Kind of a directory in a mode (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const KIND: u32 = 0o170_000;

/// What an instruction copies.
pub struct Gathered {
    parts: Vec<Arc<dyn Picked>>,
    /// Of all of it.
    pub digest: String,
    /// A user whose number the image knows.
    user: Option<String>,
}

impl Gathered {
    /// What the history says of it.
    pub fn created_by(&self, copy: &Copy) -> String {
        let word = if copy.is_add { "ADD" } else { "COPY" };
        let what = if self.count() == 1 { "file" } else { "multi" };
        format!("/bin/sh -c #(nop) {word} {what}:{} in {} ", self.digest, copy.target)
    }

    fn count(&self) -> usize {
        self.parts.iter().map(|part| part.count()).sum()
    }
}

/// A container that only lends its files.
pub fn idle(user: Option<String>) -> ContainerSpec {
    ContainerSpec {
        entrypoint: Some(vec!["/idle".into()]),
        working_dir: Some("/".into()),
        user: Some(user.unwrap_or_else(|| "0:0".into())),
        ..ContainerSpec::default()
    }
}

impl Builder {
    /// Finds what is copied.
    pub(super) async fn gather(
        &self,
        work: &StageWork<'_>,
        copy: &Copy,
    ) -> std::result::Result<Gathered, Fault> {
        let (ids, user) = owner(copy)?;
        let usual = if copy.from.is_some() { Owner::Kept } else { Owner::Root };
        let owner = if user.is_some() { Owner::Root } else { ids.unwrap_or(usual) };
        let mode = copy.mode().map_err(|why| Failure::new(Code::Invalid, why))?;
        let mut parts = vec![];
        let mut digests = vec![user.clone().unwrap_or_default()];
        for source in &copy.sources {
            self.check()?;
            let (files, pattern) = self.files_of(work, copy, source).await?;
            let unpacks = copy.is_add && matches!(source, Source::Path(_));
            let picked = files.pick(Pick { pattern, unpacks, owner, mode }).await.map_err(|error| {
                let word = if copy.is_add { "ADD" } else { "COPY" };
                Failure::from(control::Error {
                    message: format!("{word} failed: {}", error.message),
                    ..error
                })
            })?;
            if let Some(wanted) = &copy.checksum {
                check_sum(wanted, &picked.sum().await?)?;
            }
            digests.push(picked.digest());
            parts.push(picked);
        }
        let gathered = Gathered {
            parts,
            digest: super::chain::Key::base(&digests.iter().map(String::as_str).collect::<Vec<_>>())
                .text()
                .to_string(),
            user,
        };
        let (_, is_directory) = work.progress.target(&copy.target);
        if gathered.count() > 1 && !is_directory {
            let word = if copy.is_add { "ADD" } else { "COPY" };
            return Err(Failure::new(Code::Invalid, format!(
                "When using {word} with more than one source file, the destination must be a directory and end with a /"
            ))
            .into());
        }
        Ok(gathered)
    }

    /// The files that a source is taken from, and its name among them.
    pub(super) async fn files_of(
        &self,
        work: &StageWork<'_>,
        copy: &Copy,
        source: &Source,
    ) -> Result<(Arc<dyn SourceFiles>, String)> {
        let streams = self.door.app().streams();
        match (source, &copy.from) {
            (Source::Text { name, content, .. }, _) => {
                Ok((streams.source_file(name, content.clone().into_bytes()).await?, name.clone()))
            }
            (Source::Web(url), _) => {
                let name = name_of_web(url, &copy.target)?;
                let fetch = async { Ok::<_, Failure>(streams.source_web(url, &name).await?) };
                let fetched = self.unless_cut(fetch).await?;
                Ok((fetched, escaped(&name)))
            }
            (Source::Path(path), None) => Ok((self.files(&work.plan.context).await?, path.clone())),
            (Source::Path(path), Some(from)) => {
                if let Some(Given::Directory(directory)) = self.given(work, from) {
                    return Ok((self.given_files(from, directory).await?, path.clone()));
                }
                let base = self.base_named(work, from).await?;
                self.files_of_image(&base, path).await
            }
        }
    }

    /// What was given under a name that no stage has.
    fn given(&self, work: &StageWork<'_>, name: &str) -> Option<&Given> {
        self.asked.given.get(name).filter(|_| work.plan.file.stage_of(name, work.stage).is_none())
    }

    /// A stage before this one, or an image.
    async fn base_named(&self, work: &StageWork<'_>, name: &str) -> Result<Base> {
        if let Some(built) = self.stage_named(work.plan, work.stages, work.stage, name).await? {
            return built.base.ok_or_else(|| {
                Failure::new(Code::Invalid, format!("the stage {name} has no files"))
                    .hint("COPY some into it")
            });
        }
        let local = match self.given(work, name) {
            Some(Given::Image(image)) => self.image(image).await?,
            _ => self.image(name).await?,
        };
        self.stand_on(&local.content.digest, "", name).await
    }

    /// What lies at a path of an image, as files of their own.
    async fn files_of_image(&self, base: &Base, path: &str) -> Result<(Arc<dyn SourceFiles>, String)> {
        let (directory, name) = split(path);
        let room = self.enter(base, idle(None), Some(vec![])).await?;
        let streams = self.door.app().streams();
        let outcome = async {
            let has_pattern = name.contains(['*', '?', '[']);
            let asked = if has_pattern { format!("{directory}/.") } else { format!("{directory}/{name}") };
            let missing = |error: control::Error| match error.code {
                Code::NotFound => {
                    Failure::new(Code::NotFound, format!("COPY failed: stat {path}: file does not exist"))
                }
                _ => error.into(),
            };
            let stat = streams.file_stat(&room, &asked).await.map_err(missing)?;
            let target = if stat.link_target.is_empty() { asked } else { stat.link_target };
            let (stat, archive) = streams.files_out(&room, &target).await.map_err(missing)?;
            let files = streams.source_archive(archive, "").await?;
            let whole = matches!(stat.name.as_str(), "." | "/");
            Ok((
                files,
                if has_pattern {
                    name.clone()
                } else if whole {
                    ".".into()
                } else {
                    escaped(&stat.name)
                },
            ))
        }
        .await;
        self.leave(room.meta.id).await;
        outcome
    }

    /// What lies at a path of a container, links followed.
    pub(super) async fn look(&self, room: &Instance, path: &str) -> Result<Option<FileStat>> {
        let streams = self.door.app().streams();
        for asked in [format!("{}/.", path.trim_end_matches('/')), path.to_string()] {
            match streams.file_stat(room, &asked).await {
                Ok(stat) => return Ok(Some(stat)),
                Err(error) if matches!(error.code, Code::NotFound | Code::Invalid) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Directories that are made on the way to a target: as with docker they get the owner that `--chown` names.
    async fn missing(&self, room: Option<&Instance>, copy: &Copy, target: &Target) -> Result<Vec<String>> {
        let mut made = vec![];
        if copy.chown.as_deref().is_none_or(str::is_empty) {
            return Ok(made);
        }
        let above = |path: &str| path.rsplit_once('/').map_or(String::new(), |(above, _)| above.to_string());
        let mut path = if target.is_directory { target.path.clone() } else { above(&target.path) };
        while !path.trim_matches('/').is_empty() {
            if let Some(room) = room
                && self.look(room, &path).await?.is_some()
            {
                break;
            }
            made.push(path.clone());
            path = above(&path);
        }
        made.reverse();
        Ok(made)
    }

    /// Puts files into an image.
    pub(super) async fn place(
        &self,
        work: &StageWork<'_>,
        now: &Built,
        copy: &Copy,
        files: &Gathered,
        created_by: &str,
    ) -> std::result::Result<ImageIn, Fault> {
        let (path, is_directory) = work.progress.target(&copy.target);
        let newest_s = self.newest_s;
        let mut target = Target { path, is_directory, is_new: true, made: vec![], is_last: true, newest_s };
        let streams = self.door.app().streams();
        let Some(base) = &now.base else {
            if let Some(user) = &files.user {
                let message = format!("there is no user {user} in an image that is FROM scratch");
                return Err(Failure::new(Code::Invalid, message).hint("write --chown=NUMBER:NUMBER").into());
            }
            target.made = self.missing(None, copy, &target).await?;
            let mut all: Reader = Box::new(tokio::io::empty());
            for (at, part) in files.parts.iter().enumerate() {
                let is_last = at + 1 == files.parts.len();
                let made = std::mem::take(&mut target.made);
                all = Box::new(all.chain(part.send(Target { is_last, made, ..target.clone() })));
            }
            let document = self.remembered(&work.progress.document(&now.document), created_by, false);
            return Ok(streams.image_of_root(all, document).await?);
        };
        let room = self.enter(base, idle(files.user.clone()), Some(vec![])).await?;
        let outcome = async {
            let there = self.look(&room, &target.path).await?;
            let is_there = there.as_ref().is_some_and(|stat| stat.mode & KIND == DIRECTORY);
            (target.is_directory, target.is_new) = (target.is_directory || is_there, there.is_none());
            target.made = self.missing(Some(&room), copy, &target).await?;
            for part in &files.parts {
                self.check()?;
                let into = FilesIn { path: "/".into(), keeps_kinds: true, as_user: files.user.is_some() };
                let made = std::mem::take(&mut target.made);
                streams.files_in(&room, into, part.send(Target { made, ..target.clone() })).await?;
            }
            self.commit(&room, base, now, work, created_by).await
        }
        .await;
        self.leave(room.meta.id).await;
        outcome.map_err(Fault::from)
    }
}

/// Whom `--chown` means: numbers, or names that only the image knows.
fn owner(copy: &Copy) -> Result<(Option<Owner>, Option<String>)> {
    let Some(text) = copy.chown.as_deref().filter(|text| !text.is_empty()) else { return Ok((None, None)) };
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    if user.is_empty() || group.is_empty() {
        let message = format!("invalid --chown={text:.64}");
        return Err(Failure::new(Code::Invalid, message).hint("write --chown=USER[:GROUP]"));
    }
    match (user.parse(), group.parse()) {
        (Ok(uid), Ok(gid)) => Ok((Some(Owner::Ids(uid, gid)), None)),
        _ => Ok((None, Some(text.to_string()))),
    }
}

fn check_sum(wanted: &str, found: &str) -> Result<()> {
    let wanted = wanted.strip_prefix("sha256:").unwrap_or(wanted).to_ascii_lowercase();
    if wanted == found {
        return Ok(());
    }
    let message = format!("digest mismatch sha256:{found}: sha256:{wanted}");
    Err(Failure::new(Code::Invalid, message).hint("compare --checksum with what its maker tells"))
}

/// The name of a file of the web: the last part of its path.
fn name_of_web(url: &str, target: &str) -> Result<String> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.splitn(4, '/').nth(3).unwrap_or("");
    let name = path.rsplit('/').next().unwrap_or("");
    if !name.is_empty() && name != "." && name != ".." {
        return Ok(name.to_string());
    }
    if target.ends_with('/') {
        let message = format!("cannot determine filename from url: {url:.200}");
        return Err(Failure::new(Code::Invalid, message).hint("name the file in the target"));
    }
    Ok("file".into())
}

/// A name that is no pattern.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// A path of an image: the directory above the first part with a pattern, and the rest.
fn split(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let at = parts.iter().position(|part| part.contains(['*', '?', '[']));
    let at = at.unwrap_or(parts.len().saturating_sub(1));
    let (above, rest) = parts.split_at(at);
    let directory = above.iter().map(|part| format!("/{part}")).collect::<String>();
    (directory, rest.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_images_are_cut_before_their_patterns() {
        for (path, directory, name) in [
            ("/etc/passwd", "/etc", "passwd"),
            ("etc", "", "etc"),
            ("/", "", ""),
            ("/usr/*/bin/x", "/usr", "*/bin/x"),
            ("/a/b*", "/a", "b*"),
        ] {
            assert_eq!(split(path), (directory.to_string(), name.to_string()), "{path}");
        }
    }

    #[test]
    fn owners_are_numbers_or_names() {
        let copy = |chown: &str| Copy {
            is_add: false,
            sources: vec![],
            target: "/".into(),
            from: None,
            chown: Some(chown.into()),
            chmod: None,
            checksum: None,
        };
        assert_eq!(owner(&copy("7")).unwrap(), (Some(Owner::Ids(7, 7)), None));
        assert_eq!(owner(&copy("7:8")).unwrap(), (Some(Owner::Ids(7, 8)), None));
        assert_eq!(owner(&copy("web:8")).unwrap(), (None, Some("web:8".into())));
        assert!(owner(&copy(":8")).is_err() && owner(&copy("7:")).is_err());
    }

    #[test]
    fn files_of_the_web_have_names() {
        assert_eq!(name_of_web("https://example.org/a/b.tar?x=/y", "/t/").unwrap(), "b.tar");
        assert!(name_of_web("https://example.org/", "/t/").is_err());
        assert_eq!(name_of_web("https://example.org", "/t").unwrap(), "file");
    }
}
