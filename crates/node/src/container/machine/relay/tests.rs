//! A relay whose guest is played here, and is hostile.

use super::*;
use crate::container::{
    bundle::tests::example,
    protocol::{ContainerState, STATE},
};
use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    thread::JoinHandle,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A relay that runs, and the guest's end of its port.
struct Stage {
    directory: tempfile::TempDir,
    guest: Link,
    qemu: i32,
    relay: JoinHandle<()>,
}

fn state(restarts: u32) -> Reply {
    Reply::State(PodState {
        boot: 1,
        shim: ProcessId { pid: 1, start_time: 1 },
        since_ms: 0,
        paused: false,
        containers: vec![ContainerState {
            name: example().containers[0].name.clone(),
            status: Status::Running { process: ProcessId { pid: 2, start_time: 2 }, since_ms: 0 },
            restarts,
            exit: None,
            role: Default::default(),
            starting: false,
        }],
        confinement: String::new(),
    })
}

impl Stage {
    /// A pod that is up.
    fn up() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut pod = example();
        pod.places.state = directory.path().join("state");
        pod.places.run = directory.path().join("run");
        pod.places.cgroup_root = format!("holm-relay-test-{}", std::process::id());
        [&pod.places.state, &pod.places.run].into_iter().for_each(|it| fs::create_dir_all(it).unwrap());
        pod.machine = Some(super::super::example());
        let cgroups = Tree::probe(&pod.places.cgroup_root).unwrap();
        let child = sys::spawn::Command::new("/bin/sleep").args(["600"]).die_with_parent().spawn().unwrap();
        let qemu = child.pid();
        let (near, far) = UnixStream::pair().unwrap();
        let (mut up, told) = io::pipe().unwrap();
        let lock = Lock::try_create(&pod.places.run.join("shim.lock")).unwrap().unwrap();
        let told = File::from(OwnedFd::from(told));
        let mut relay = Relay::over(pod, near, child, cgroups, (lock, told)).unwrap();
        let relay = std::thread::spawn(move || relay.run_until_ended());
        let guest = Link::new(File::from(OwnedFd::from(far)), Side::Guest).unwrap();
        let mut stage = Self { directory, guest, qemu, relay };
        stage.say(&ToHost::Hello { kernel: "6.1".into() });
        assert!(matches!(stage.hear(), ToGuest::Order(_)));
        stage.say(&ToHost::Prepared);
        assert!(matches!(stage.hear(), ToGuest::Run));
        stage.says_state(0);
        let mut word = [0; 2];
        up.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"up");
        stage
    }

    fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn say(&mut self, message: &ToHost) {
        self.guest.tell(message).unwrap();
    }

    fn says_state(&mut self, restarts: u32) {
        let line = serde_json::to_string(&state(restarts)).unwrap();
        self.say(&ToHost::Line { connection: WATCH, line, stream: None });
    }

    fn hear(&mut self) -> ToGuest {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.guest.next::<ToGuest>() {
                return message;
            }
            assert!(Instant::now() < deadline && !self.guest.is_over(), "the relay says nothing");
            let ready: Vec<ChannelId> = {
                let wanted = self.guest.wanted();
                let mut polled: Vec<_> =
                    wanted.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
                poll(&mut polled, PollTimeout::from(100u16)).unwrap();
                let hit = polled.iter().map(|it| it.any().unwrap_or(true));
                wanted.iter().zip(hit).filter(|(_, hit)| *hit).map(|((id, ..), _)| *id).collect()
            };
            ready.into_iter().for_each(|id| self.guest.serve(id));
        }
    }

    fn client(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.run().join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    /// The machine ends, and with it everything.
    fn end(self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.qemu), Signal::SIGKILL).unwrap();
        drop(self.guest);
        self.relay.join().unwrap();
        assert!(!self.directory.path().join("run").join(SOCKET).exists());
    }
}

fn ask(client: &mut BufReader<UnixStream>, what: &str) {
    client.get_mut().write_all(format!("{{\"ask\":\"{what}\"}}\n").as_bytes()).unwrap();
}

fn answer(client: &mut BufReader<UnixStream>) -> Reply {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn restarts(reply: &Reply) -> u32 {
    match reply {
        Reply::State(state) => state.containers[0].restarts,
        other => panic!("who watches hears {other:?}"),
    }
}

#[test]
fn a_guest_that_changes_without_end_wakes_the_daemon_now_and_then() {
    const CHANGES: u32 = 400;
    let mut stage = Stage::up();
    let mut watching = stage.client();
    ask(&mut watching, "watch");
    assert_eq!(restarts(&answer(&mut watching)), 0);
    let mut other = stage.client();
    let begun = Instant::now();
    for change in 1..=CHANGES {
        stage.says_state(change);
        // The relay has seen it before the next one is said.
        ask(&mut other, "processes");
        let connection = match stage.hear() {
            ToGuest::Processes { connection } => connection,
            message => panic!("{message:?}"),
        };
        stage.say(&ToHost::Processes { connection, processes: vec![] });
        assert!(matches!(answer(&mut other), Reply::Processes { .. }));
    }
    let mut lines = 0;
    let mut last = 0;
    while last < CHANGES {
        let seen = restarts(&answer(&mut watching));
        assert!(seen > last, "changes go on");
        (lines, last) = (lines + 1, seen);
    }
    let may = 34 + begun.elapsed().as_millis() / 250;
    assert!(lines <= may && lines < u128::from(CHANGES) / 2, "{lines} lines, {may} may be");
    let written = fs::read(stage.run().join(STATE)).unwrap();
    assert_eq!(restarts(&Reply::State(serde_json::from_slice(&written).unwrap())), CHANGES);
    stage.end();
}

#[test]
fn nothing_that_a_guest_says_is_for_who_watches() {
    let mut stage = Stage::up();
    let mut watching = stage.client();
    ask(&mut watching, "watch");
    answer(&mut watching);
    let line = serde_json::to_string(&Reply::Done).unwrap();
    // Who came first has this number.
    let connection = 1;
    stage.say(&ToHost::Line { connection, line, stream: None });
    stage.say(&ToHost::Processes { connection, processes: vec![] });
    stage.say(&ToHost::Usage { connection, usage: Default::default() });
    stage.say(&ToHost::Dialled { connection, channel: 1, error: None });
    stage.say(&ToHost::Closed { connection });
    stage.says_state(7);
    assert_eq!(restarts(&answer(&mut watching)), 7);
    stage.end();
}
