//! A relay whose guest is played here, and is hostile.

use super::*;
use crate::container::{
    bundle::tests::example,
    files::inside::{InsideFiles, Machine as Place},
    files::turn::Turn,
    protocol::{ContainerState, Exec, Request, STATE},
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
    /// A machine whose guest has its order, and where it is told that it is up.
    fn begin(machine: Machine) -> (Self, io::PipeReader) {
        let directory = tempfile::tempdir().unwrap();
        let mut pod = example();
        pod.places.state = directory.path().join("state");
        pod.places.run = directory.path().join("run");
        pod.places.cgroup_root = format!("holm-relay-test-{}", std::process::id());
        [&pod.places.state, &pod.places.run].into_iter().for_each(|it| fs::create_dir_all(it).unwrap());
        pod.machine = Some(machine);
        let cgroups = Tree::probe(&pod.places.cgroup_root).unwrap();
        let child = sys::spawn::Command::new("/bin/sleep").args(["600"]).die_with_parent().spawn().unwrap();
        let qemu = child.pid();
        let (near, far) = UnixStream::pair().unwrap();
        let (up, told) = io::pipe().unwrap();
        let lock = Lock::try_create(&pod.places.run.join("shim.lock")).unwrap().unwrap();
        let told = File::from(OwnedFd::from(told));
        let mut relay = Relay::over(pod, near, child, cgroups, (lock, told)).unwrap();
        let relay = std::thread::spawn(move || relay.run_until_ended());
        let guest = Link::new(File::from(OwnedFd::from(far)), Side::Guest).unwrap();
        let mut stage = Self { directory, guest, qemu, relay };
        stage.say(&ToHost::Hello { kernel: "6.1".into() });
        assert!(matches!(stage.hear(), ToGuest::Order(_)));
        (stage, up)
    }

    /// A pod that is up.
    fn up() -> Self {
        let (mut stage, mut up) = Self::begin(super::super::example());
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

/// Asks for a program with these as its three streams.
fn ask_exec(client: &UnixStream, ends: [&UnixStream; 3]) {
    let exec = Exec {
        container: None,
        argv: vec!["true".into()],
        env: vec![],
        cwd: None,
        user: None,
        tty: false,
        size: None,
        tied: false,
    };
    let line = serde_json::to_string(&Request::Exec(exec)).unwrap() + "\n";
    let sent = sys::fdpass::send(client, line.as_bytes(), &ends.map(AsFd::as_fd)).unwrap();
    assert_eq!(sent, line.len());
}

#[test]
fn one_stream_too_many_is_refused_with_its_ends_and_no_place_is_lost() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let (_, most) = getrlimit(RLIMIT_NOFILE).unwrap();
    setrlimit(RLIMIT_NOFILE, most, most).unwrap();
    let mut stage = Stage::up();
    let mut client = stage.client();
    let (near, far) = UnixStream::pair().unwrap();
    let mut taken = vec![];
    let mut take = |stage: &mut Stage, client: &UnixStream| {
        ask_exec(client, [&far; 3]);
        match stage.hear() {
            ToGuest::Line { streams, .. } => taken.extend(streams),
            message => panic!("{message:?}"),
        }
    };
    // As many programs with three streams as there are places for.
    for _ in 0..341 {
        take(&mut stage, client.get_ref());
    }
    let (mut mine, refused) = UnixStream::pair().unwrap();
    ask_exec(client.get_ref(), [&refused; 3]);
    drop(refused);
    match answer(&mut client) {
        Reply::Failed { message, .. } => assert!(message.contains("too many streams"), "{message}"),
        reply => panic!("{reply:?}"),
    }
    mine.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(mine.read(&mut [0; 8]).unwrap(), 0, "its ends are closed");
    // So many places as one program needs are free again, and no descriptor of the one that was refused is taken for its.
    let first: Vec<ChannelId> = taken.drain(..3).collect();
    first.into_iter().for_each(|stream| stage.guest.refuse(stream));
    stage.say(&ToHost::Usage { connection: 1, usage: Default::default() });
    assert!(matches!(answer(&mut client), Reply::Usage { .. }));
    ask_exec(client.get_ref(), [&far; 3]);
    assert!(matches!(stage.hear(), ToGuest::Line { streams, .. } if streams.len() == 3));
    drop((near, far));
    stage.end();
}

#[test]
fn a_terminal_that_nobody_takes_is_closed_in_the_guest() {
    let mut stage = Stage::up();
    let mut client = stage.client();
    ask(&mut client, "usage");
    let gone = match stage.hear() {
        ToGuest::Usage { connection } => connection,
        message => panic!("{message:?}"),
    };
    drop(client);
    assert!(matches!(stage.hear(), ToGuest::Closed { connection } if connection == gone));
    let executing = serde_json::to_string(&Reply::Executing { pid: 1 }).unwrap();
    let done = serde_json::to_string(&Reply::Done).unwrap();
    for (connection, line) in [(gone, executing.as_str()), (WATCH, done.as_str()), (gone, "no reply")] {
        let (mut near, far) = UnixStream::pair().unwrap();
        let copy = far.try_clone().unwrap();
        let stream = stage.guest.open(Some(far.into()), Some(copy.into())).unwrap();
        stage.say(&ToHost::Line { connection, line: line.into(), stream: Some(stream) });
        let deadline = Instant::now() + PATIENCE;
        while stage.guest.has(stream) {
            assert!(Instant::now() < deadline && !stage.guest.is_over(), "{line}: it is left open");
            stage.guest.serve(0);
            assert!(stage.guest.next::<ToGuest>().is_none());
            std::thread::yield_now();
        }
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 0, "{line}");
    }
    stage.end();
}

#[test]
fn who_asks_a_guest_that_hung_up_is_told_at_once() {
    let mut stage = Stage::up();
    let (client, mut other) = (stage.client(), stage.client());
    let (near, _far) = UnixStream::pair().unwrap();
    stage.guest = Link::new(File::from(OwnedFd::from(near)), Side::Guest).unwrap();
    let (mut mine, far) = UnixStream::pair().unwrap();
    // The relay may not have seen yet that it hung up: who asks by then is told when it has.
    ask(&mut other, "state");
    answer(&mut other);
    ask_exec(client.get_ref(), [&far; 3]);
    drop(far);
    mine.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(mine.read(&mut [0; 8]).unwrap(), 0, "its ends are closed");
    let mut client = client;
    assert_eq!(client.read_line(&mut String::new()).unwrap(), 0, "as by a shim that has ended");
    assert!(
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(stage.qemu), None).is_ok(),
        "before its machine is"
    );
    stage.end();
}

#[test]
fn a_machine_for_maintenance_serves_files_alone_and_ends_when_nobody_uses_it() {
    let (mut stage, mut up) = Stage::begin(Machine { maintenance: true, ..super::super::example() });
    stage.say(&ToHost::Prepared);
    let mut word = [0; 2];
    up.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"up", "nothing is started in it");
    let mut client = stage.client();
    ask(&mut client, "state");
    assert!(matches!(answer(&mut client), Reply::Done));
    for what in ["watch", "processes", "usage", "pause", "start"] {
        ask(&mut client, what);
        let Reply::Failed { message, .. } = answer(&mut client) else { panic!("{what} is answered") };
        assert!(message.contains("its files alone"), "{message}");
    }
    assert!(!stage.run().join(STATE).exists(), "it has no state that somebody could take for the pod's");
    // As long as somebody has it.
    std::thread::sleep(maintenance::LINGER + Duration::from_secs(1));
    assert!(stage.guest.next::<ToGuest>().is_none());
    ask(&mut client, "state");
    assert!(matches!(answer(&mut client), Reply::Done));
    let left = Instant::now();
    drop(client);
    loop {
        match stage.hear() {
            ToGuest::Bye => break,
            message => assert!(matches!(message, ToGuest::Closed { .. }), "{message:?}"),
        }
    }
    assert!(left.elapsed() >= maintenance::LINGER);
    // Who comes now is not served, and tries again when it is gone.
    let mut late = stage.client();
    ask(&mut late, "state");
    assert_eq!(late.read_line(&mut String::new()).unwrap(), 0);
    stage.end();
}

/// What a hostile guest answers to who asks for files.
async fn asked_for_files<T>(hostile: Vec<u8>, ask: impl AsyncFnOnce(InsideFiles) -> T) -> T {
    let mut stage = Stage::up();
    let files = InsideFiles::new(Place::Runs(stage.run()), 65_536, Turn::undisputed());
    let guest = std::thread::spawn(move || {
        let (connection, input, output) = match stage.hear() {
            ToGuest::Files { connection, input, output, .. } => (connection, input, output),
            message => panic!("{message:?}"),
        };
        let (mut answer, far) = UnixStream::pair().unwrap();
        stage.guest.accept(output, Some(far.into()), None);
        stage.guest.accept(input, None, Some(File::options().write(true).open("/dev/null").unwrap().into()));
        let line = serde_json::to_string(&Reply::Done).unwrap();
        stage.say(&ToHost::Line { connection, line, stream: None });
        std::thread::spawn(move || {
            let _ = answer.write_all(&hostile);
        });
        while stage.guest.has(output) {
            let ids: Vec<ChannelId> = stage.guest.wanted().iter().map(|it| it.0).collect();
            ids.into_iter().for_each(|id| stage.guest.serve(id));
            if let Some(message) = stage.guest.next::<ToGuest>() {
                assert!(matches!(message, ToGuest::Closed { .. }), "{message:?}");
            }
            std::thread::yield_now();
        }
        stage
    });
    let told = ask(files).await;
    let stage = tokio::task::spawn_blocking(move || guest.join().unwrap()).await.unwrap();
    tokio::task::spawn_blocking(move || stage.end()).await.unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hostile_guest_says_of_its_files_gets_no_further() {
    use crate::image::{
        tar::{Entry, Kind},
        tar_writer::TarWriter,
    };
    use tokio::io::AsyncReadExt;
    let record =
        |kind: u8, bytes: &[u8]| [[kind].as_slice(), &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let stat = br#"{"name":"\u001b[2J","size_bytes":7,"mode":33188,"mtime":[1,4000000000],"link_target":""}"#;
    let honest = [record(0, stat), record(2, b"")].concat();
    let seen = asked_for_files(honest, async |files| files.look("/etc/passwd".into()).await).await.unwrap();
    assert_eq!((seen.name.as_str(), seen.size_bytes, seen.mtime), ("passwd", 7, (1, 999_999_999)));

    let cut = asked_for_files(record(0, b"5"), async |files| files.weigh().await).await;
    assert!(cut.unwrap_err().to_string().contains("started or ended"));
    let complaint = br#"{"why":"missing","path":"/a"}"#;
    let missing = asked_for_files(record(2, complaint), async |files| files.weigh().await).await;
    assert_eq!(missing.unwrap_err().to_string(), "no such file or directory: /a");
    let changes = [record(1, b"A/x\0C/\0"), record(2, b"")].concat();
    assert_eq!(asked_for_files(changes, async |files| files.compare().await).await.unwrap().len(), 2);
    let changes = [record(1, b"A../x\0"), record(2, b"")].concat();
    assert!(asked_for_files(changes, async |files| files.compare().await).await.is_err());

    let entry = |path: &str, kind, link: &str| Entry {
        path: path.into(),
        link: link.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        mtime: (1, 0),
        xattrs: vec![],
    };
    let mut writer = TarWriter::new(vec![]);
    writer.add(&entry("d/", Kind::Directory, "")).unwrap();
    writer.add(&entry("d/l", Kind::Symlink, "/root/.ssh")).unwrap();
    writer.add(&entry("d/l/authorized_keys", Kind::File, "")).unwrap();
    let archive = writer.finish().unwrap();
    let hostile = [record(0, stat), record(1, &archive), record(2, b"")].concat();
    let read = asked_for_files(hostile, async |files| {
        let (_, mut body) = files.send("/d".into()).await.unwrap();
        let mut all = vec![];
        (body.read_to_end(&mut all).await, all)
    })
    .await;
    assert!(read.0.unwrap_err().to_string().contains("lies in no directory of the archive"));
    assert!(!read.1.windows(15).any(|it| it == b"authorized_keys"));
}
