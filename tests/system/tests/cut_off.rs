//! A run of the tests that is cut off leaves nothing: told to end, it sweeps before it goes; killed, the next one does.

use lab::{Lab, Options, Remains, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);
/// Names, to a process of this program, the file to note in what it made before it is cut off.
const VICTIM: &str = "HOLM_TEST_CUT_OFF";
const OWN_NAME: &str = "cut_off::a_run_that_is_cut_off_leaves_nothing";

#[test]
fn a_run_that_is_cut_off_leaves_nothing() {
    if let Some(note) = env::var_os(VICTIM) {
        be_cut_off(Path::new(&note));
    }
    let scratch = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let note = scratch.path().join(signal.as_str());
        let mut run = Command::new(env::current_exe().unwrap());
        run.args([OWN_NAME, "--exact", "--nocapture"]).env(VICTIM, &note).process_group(0);
        let mut run = Run(run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a run"));
        let text = until(LONG, || fs::read_to_string(&note).ok()).expect("the run has its guests");
        let (directory, prefix) = text.split_once('\n').unwrap();
        let (directory, remains) = (PathBuf::from(directory), Remains::of(Path::new(directory), prefix));
        assert!(remains.processes().len() >= 4, "{:?}", remains.processes());
        assert!(!remains.mounts().is_empty() && !remains.control_groups().is_empty());
        // The daemon dies with the run's group where that is killed, as a test runner does it.
        run.signal(signal);
        run.0.wait().expect("its end");
        if signal == Signal::SIGKILL {
            assert!(!remains.processes().is_empty(), "shims and QEMU live on");
            Lab::before_start(Options::default());
        }
        assert_eq!(remains.processes(), [], "{signal}");
        assert_eq!(remains.mounts(), [] as [&Path; 0], "{signal}");
        assert_eq!(remains.control_groups(), [] as [&str; 0], "{signal}");
        assert!(!directory.exists(), "{signal}: {}", directory.display());
    }
}

/// Another run, with a group of processes of its own; it does not outlive this one.
struct Run(Child);

impl Run {
    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(-i32::try_from(self.0.id()).unwrap());
        // None of them may be left.
        let _ = kill(group, signal);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

/// A run with a container and a VM that goes on until it is ended.
fn be_cut_off(note: &Path) -> ! {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    shop.launch(&shop.idle_container("box"));
    shop.launch(&shop.micro("vm"));
    let made = note.with_extension("new");
    fs::write(&made, format!("{}\n{}", lab.directory().display(), lab.prefix())).unwrap();
    fs::rename(made, note).unwrap();
    loop {
        thread::sleep(LONG);
    }
}
