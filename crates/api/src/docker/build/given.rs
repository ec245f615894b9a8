//! Contexts with a name of their own (`--build-context NAME=…`): a directory of the client or an image, in the place of what the
//! Dockerfile calls so in `FROM`, `COPY --from` and `RUN --mount=from`.
//!
//! ```text
//!   FROM base              a stage of this name, then what was given under it, then an image
//!   FROM busybox AS base   what was given as `base` takes the place of the stage
//! ```

use super::{
    builder::{Builder, Plan},
    chain::Key,
    numbers::Numbers,
    stage::Built,
};
use crate::{
    docker::buildkit::{Wanted, take},
    error::{Failure, Result},
    streams::{Owner, Pick, SourceFiles, Target},
};
use model::{
    dockerfile::{
        ignore::{IGNORE_BYTES_MAX, Ignore},
        progress::Progress,
    },
    error::Code,
    image_reference::Reference,
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// Most of them.
const GIVEN_MAX: usize = 64;
/// What is left out of a directory.
const IGNORE: &str = ".dockerignore";

/// What is given under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// An image.
    Image(String),
    /// A directory, as the client calls it.
    Directory(String),
}

/// All that is given, by its name.
#[derive(Debug, Default)]
pub struct AllGiven(BTreeMap<String, Given>);

impl AllGiven {
    /// Gives something under a name.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, name: &str, given: Given) -> Result<()> {
        if self.0.len() == GIVEN_MAX {
            let message = format!("a build has at most {GIVEN_MAX} contexts with a name");
            return Err(Failure::new(Code::TooLarge, message).field("--build-context"));
        }
        self.0.insert(familiar(name), given);
        Ok(())
    }

    /// What is given under a name. Of an image all its names are the same: `alpine`, `docker.io/library/alpine:latest`.
    pub fn get(&self, name: &str) -> Option<&Given> {
        if self.0.is_empty() { None } else { self.0.get(&familiar(name)) }
    }
}

/// A name as BuildKit's clients write it.
fn familiar(name: &str) -> String {
    let text = name.parse::<Reference>().map_or_else(|_| name.to_ascii_lowercase(), |full| full.familiar());
    text.strip_suffix(":latest").unwrap_or(&text).to_string()
}

impl Builder {
    /// The files of a directory that was given. The client is asked once.
    pub(super) async fn given_files(&self, name: &str, directory: &str) -> Result<Arc<dyn SourceFiles>> {
        let missing = || Failure::new(Code::Invalid, "only a client with a session gives contexts");
        let session = self.session.as_ref().ok_or_else(missing)?;
        let fetch = async {
            session.check_files()?;
            self.tell.begin(|| format!("[context {name}] load {IGNORE}")).await;
            let wanted = |paths, excludes| Wanted { directory: directory.to_string(), paths, excludes };
            let alone = take(&self.door, session, &wanted(vec![IGNORE.to_string()], vec![])).await?;
            let ignore = alone.read(IGNORE, IGNORE_BYTES_MAX as u64).await?;
            let ignore = Ignore::read(&ignore.unwrap_or_default()).map_err(|error| self.wrong(&error))?;
            self.tell.end().await;
            self.tell.begin(|| format!("[context {name}] load from client")).await;
            let files = take(&self.door, session, &wanted(vec![], ignore.patterns())).await?;
            let files = if ignore.is_empty() { files } else { files.without(ignore).await? };
            self.tell.end().await;
            Ok::<_, Failure>(files)
        };
        let cell = self.shared.given.cell(name);
        self.unless_cut(async { cell.get_or_try_init(|| fetch).await.cloned() }).await
    }

    /// A stage that begins with the files of a directory that was given.
    pub(super) async fn begin_on_files(
        &self,
        plan: &Plan,
        name: &str,
        directory: &str,
        numbers: &mut Numbers,
    ) -> Result<Built> {
        let files = self.given_files(name, directory).await?;
        let pick = Pick { pattern: ".".into(), owner: Owner::Kept, ..Pick::default() };
        let picked = files.pick(pick).await?;
        let base = Key::base(&["given", &picked.digest(), &self.epoch()]);
        let key = base.next(&["files"]);
        let mut now = Built::nothing(base, !self.asked.no_cache);
        self.tell.begin(|| numbers.next(&format!("FROM {name}"))).await;
        let progress = Progress::new(&plan.globals, plan.file.escape, json!({}));
        if !self.take_known(&mut now, key.clone(), &progress).await? {
            let root = Target {
                path: "/".into(),
                is_directory: true,
                is_last: true,
                newest_s: self.newest_s,
                ..Target::default()
            };
            let created_by = format!("FROM {name} (a context)");
            let document = self.remembered(&json!({}), &created_by, false);
            let made = self.door.app().streams().image_of_root(picked.send(root), document).await?;
            self.stand(&mut now, key, made, &created_by).await?;
        }
        self.tell.end().await;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_image_are_the_same() {
        let mut all = AllGiven::default();
        all.add("alpine", Given::Image("x".into())).unwrap();
        all.add("shop/base:1", Given::Directory("y".into())).unwrap();
        for name in ["alpine", "alpine:latest", "docker.io/library/alpine", "docker.io/library/alpine:latest"]
        {
            assert_eq!(all.get(name), Some(&Given::Image("x".into())), "{name}");
        }
        assert_eq!(all.get("docker.io/shop/base:1"), Some(&Given::Directory("y".into())));
        for name in ["alpine:3", "shop/base", "0", ""] {
            assert_eq!(all.get(name), None, "{name}");
        }
        for number in 2..GIVEN_MAX {
            all.add(&format!("n{number}"), Given::Image("x".into())).unwrap();
        }
        assert!(all.add("more", Given::Image("x".into())).is_err());
    }
}
