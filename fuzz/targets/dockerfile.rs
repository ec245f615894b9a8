//! Dockerfiles and `.dockerignore`: anything that a context may hold is read or refused, with a line of the file, and never
//! grows beyond its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::dockerfile::{
    Dockerfile, DockerfileError, VALUE_BYTES_MAX,
    ignore::Ignore,
    progress::{Progress, Work},
    scope::Globals,
    stage::Base,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Builds as far as no file is touched.
fn build(text: &[u8]) -> Result<(), DockerfileError> {
    let file = Dockerfile::read(text)?;
    let given = BTreeMap::from([("A".to_string(), "given".to_string()), ("B".to_string(), String::new())]);
    let globals = Globals::of(&file, &given, "amd64")?;
    let plan = file.plan(None, &globals, &|_| false)?;
    assert!(file.count(&plan) >= plan.len());
    let mut built: BTreeMap<usize, Value> = BTreeMap::new();
    for planned in &plan {
        let stage = &file.stages[planned.stage];
        let config = match &planned.base {
            Base::Scratch => json!({}),
            Base::Stage(at) => {
                assert!(*at < planned.stage, "a stage stands on an earlier one");
                built[at].clone()
            }
            Base::Image(name) | Base::Given(name) => json!({"Env": ["PATH=/bin"], "OnBuild": [name, "RUN x", "COPY a b"]}),
        };
        let mut progress = Progress::new(&globals, file.escape, config);
        let triggers = progress.triggers(stage.line)?;
        for step in triggers.iter().chain(&stage.steps) {
            let told = progress.step(step)?;
            match told.work {
                Work::Run { argv, .. } => assert!(!argv.is_empty()),
                Work::Directory(path) => assert!(path.starts_with('/') && !path.contains("/../"), "{path}"),
                Work::Copy(copy) => {
                    let (path, _) = progress.target(&copy.target);
                    assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
                }
                Work::Nothing => {}
            }
        }
        let env = progress.config["Env"].as_array().expect("a list");
        assert!(env.iter().all(|pair| pair.as_str().is_some_and(|pair| pair.len() <= 2 * VALUE_BYTES_MAX)));
        built.insert(planned.stage, progress.config);
    }
    Ok(())
}

fuzz_target!(|text: &[u8]| {
    if let Err(error) = build(text) {
        let lines = text.split(|byte| *byte == b'\n').count();
        assert!(error.line as usize <= lines && !error.message.is_empty(), "{error:?}");
    }
    if let Ok(ignore) = Ignore::read(text) {
        for path in ["a", "a/b/c", "node_modules/x", ".git/config", ""] {
            ignore.leaves_out(path);
        }
    }
});
