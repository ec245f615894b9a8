//! The shared libraries that a program needs, found where its loader would find them.
//!
//! Only the usual directories and the run paths of the files themselves are looked in: the guest's loader has no cache of
//! others. Levels of processors (`glibc-hwcaps`) are passed over, as the guest's processor may be of a lower one.

use super::elf::Program;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Most libraries of a program.
const LIBRARIES_MAX: usize = 64;

/// Directories in which every loader of this processor looks, those of Debian and its like first.
fn usual_directories() -> Vec<PathBuf> {
    let own = format!("{}-linux-gnu", std::env::consts::ARCH);
    let directories =
        [format!("/lib/{own}"), format!("/usr/lib/{own}"), "/lib64".into(), "/usr/lib64".into()];
    directories.into_iter().chain(["/lib".into(), "/usr/lib".into()]).map(PathBuf::from).collect()
}

/// All libraries of a program and its loader: their files, with those by which the loader looks for them.
///
/// # Errors
/// `NotFound`, with the name of a library that is in no usual place.
pub(super) fn of(program: &Program) -> io::Result<Vec<(PathBuf, Program)>> {
    let mut found: BTreeMap<PathBuf, Program> = BTreeMap::new();
    let mut names = program.needed.clone();
    let mut run_paths = program.run_paths.clone();
    if let Some(loader) = &program.interpreter {
        found.insert(loader.clone(), Program::open(loader)?);
    }
    while let Some(name) = names.pop() {
        let has = |path: &PathBuf| path.file_name().is_some_and(|file| *file == *name);
        if found.keys().any(has) {
            continue;
        }
        if found.len() == LIBRARIES_MAX {
            let what = format!("it needs more than {LIBRARIES_MAX} libraries");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let (path, library) = find(&name, &run_paths, program.machine)?;
        names.extend(library.needed.iter().cloned());
        run_paths.extend(library.run_paths.iter().cloned());
        found.insert(path, library);
    }
    Ok(found.into_iter().collect())
}

/// The first library of a name that is for the same processor.
fn find(name: &str, run_paths: &[PathBuf], machine: u64) -> io::Result<(PathBuf, Program)> {
    let run_paths = run_paths.iter().filter(|path| path.is_absolute()).cloned();
    for directory in run_paths.chain(usual_directories()) {
        let path = directory.join(Path::new(name).file_name().unwrap_or_default());
        match Program::open(&path) {
            Ok(library) if library.machine == machine => return Ok((path, library)),
            _ => {}
        }
    }
    let what = format!("its library {name} is in no directory that every loader looks in");
    Err(io::Error::new(io::ErrorKind::NotFound, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_with_its_loader_and_all_its_libraries() {
        let program = Program::open(&std::env::current_exe().expect("a program")).expect("an ELF file");
        let found = of(&program).expect("found");
        let names: Vec<&str> = found.iter().filter_map(|(path, _)| path.file_name()?.to_str()).collect();
        for needed in &program.needed {
            assert!(names.contains(&needed.as_str()), "{needed} in {names:?}");
        }
        assert!(found.iter().any(|(path, _)| Some(path) == program.interpreter.as_ref()));
    }

    #[test]
    fn a_library_that_is_nowhere_is_named() {
        let error = find("libnothing.so.7", &[], 62).expect_err("nowhere").to_string();
        assert!(error.contains("libnothing.so.7"), "{error}");
    }
}
