//! Changes of an image's config as Dockerfiles write them: `docker commit -c`, `docker import -c`.

use crate::error::{Failure, Result};
use model::{
    dockerfile::{self, Instruction, config, lines::Line},
    error::Code,
};
use serde_json::Value;

/// Most changes of one call.
const CHANGES_MAX: usize = 256;

/// Applies changes to a config as docker shows it (`Env`, `Cmd`, …).
///
/// # Errors
/// `invalid`, with the line.
pub fn apply<'a>(config: &mut Value, changes: impl Iterator<Item = &'a str>) -> Result<()> {
    let lines: Vec<&str> =
        changes.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() > CHANGES_MAX {
        return Err(Failure::new(Code::TooLarge, format!("at most {CHANGES_MAX} changes are possible")));
    }
    lines.into_iter().try_for_each(|line| apply_one(config, line))
}

fn wrong(line: &str, why: &str) -> Failure {
    Failure::new(Code::Invalid, format!("the change {line:.100?} cannot be made: {why}"))
}

fn apply_one(config: &mut Value, text: &str) -> Result<()> {
    use Instruction::{
        Cmd, Entrypoint, Env, Expose, Healthcheck, Label, Onbuild, StopSignal, User, Volume, Workdir,
    };
    let line = Line { number: 1, text: text.to_string(), heredocs: vec![] };
    let read = dockerfile::read_instruction(&line, '\\');
    let change = read.map_err(|error| wrong(text, &error.message).hint(&error.hint))?;
    let fits = matches!(
        change,
        Cmd(_)
            | Entrypoint(_)
            | Env(_)
            | Expose(_)
            | Healthcheck(_)
            | Label(_)
            | Onbuild(_)
            | StopSignal(_)
            | User(_)
            | Volume(_)
            | Workdir(_)
    );
    if !fits {
        return Err(wrong(
            text,
            "write CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
        ));
    }
    let env = config::env(config);
    let value = |name: &str| {
        env.iter()
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.into())
    };
    let change = change.expanded(1, '\\', &value).and_then(|change| config::apply(config, 1, &change));
    change.map_err(|error| wrong(text, &error.message).hint(&error.hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_read_as_in_dockerfiles() {
        let mut config = json!({"Env": ["PATH=/bin", "A=0"], "WorkingDir": "/srv"});
        let changes = [
            "CMD [\"serve\", \"-x\"]",
            "entrypoint exec top -b",
            "ENV A=1 B=\"two words\" C=it\\'s",
            "ENV D  the rest of it",
            "LABEL tier=web",
            "EXPOSE 80 53/udp",
            "USER 7:8\nWORKDIR app",
            "VOLUME [\"/data\"]",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
        ];
        apply(&mut config, changes.into_iter()).unwrap();
        let wanted = json!({
            "Cmd": ["serve", "-x"],
            "Entrypoint": ["/bin/sh", "-c", "exec top -b"],
            "Env": ["PATH=/bin", "A=1", "B=two words", "C=it's", "D=the rest of it"],
            "Labels": {"tier": "web"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "User": "7:8",
            "WorkingDir": "/srv/app",
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "OnBuild": ["RUN true"],
        });
        assert_eq!(config, wanted);
        for wrong in ["RUN true", "CMD", "EXPOSE x", "EXPOSE 0", "ENV A", "ENV A=\"x", "LABEL =x", "FROM x"] {
            assert!(apply(&mut json!({}), [wrong].into_iter()).is_err(), "{wrong}");
        }
    }
}
