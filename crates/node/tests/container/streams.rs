//! Logs, exec with and without a terminal, and the console.

use crate::{
    confinement::exec,
    lab::{Lab, PATIENCE, until},
};
use model::plan::LogLimits;
use node::driver::{AttachRequest, Driver, DriverError, ExecRequest, LogQuery, Stdio};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn request(argv: &[&str], tty: bool) -> ExecRequest {
    ExecRequest {
        container: None,
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![("COLOUR".into(), "blue".into())],
        cwd: Some("/tmp".into()),
        user: None,
        tty,
        size: tty.then_some((33, 101)),
        tied: false,
    }
}

#[tokio::test]
async fn exec_passes_streams_and_exit_codes() {
    let mut lab = Lab::new();
    let plan = lab.start("exec sleep 1000").await;
    let (input, input_far) = UnixStream::pair().unwrap();
    let (output, output_far) = UnixStream::pair().unwrap();
    let stdio = Stdio { stdin: Some(input_far.into()), stdout: Some(output_far.into()), stderr: None };
    let asked = request(&["sh", "-c", "pwd; echo $COLOUR; cat; exit 42"], false);
    let handle = lab.driver.exec(plan.id, &asked, stdio).await.unwrap();
    let text = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut input = input;
        input.write_all(b"typed\n").unwrap();
        drop(input);
        std::io::read_to_string(output).unwrap()
    });
    assert_eq!(text.await.unwrap(), "/tmp\nblue\ntyped\n");
    assert_eq!(handle.wait().await.unwrap(), 42);
    assert_eq!(handle.wait().await.unwrap(), 42, "it can be asked again");

    let killed = lab.driver.exec(plan.id, &request(&["sleep", "1000"], false), no_streams()).await.unwrap();
    killed.signal(15).await.unwrap();
    assert_eq!(killed.wait().await.unwrap(), 143);

    for (argv, wanted) in [(["/no/such"], 127), (["/etc/passwd"], 126)] {
        match lab.driver.exec(plan.id, &request(&argv, false), no_streams()).await {
            Err(DriverError::NotRun { code, .. }) => assert_eq!(code, wanted),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    lab.driver.kill(plan.id).await.unwrap();
    let after = lab.driver.exec(plan.id, &request(&["true"], false), no_streams()).await;
    assert!(matches!(after, Err(DriverError::NotRunning)), "{:?}", after.map(|_| ()));
    lab.close().await;
}

fn no_streams() -> Stdio {
    Stdio { stdin: None, stdout: None, stderr: None }
}

#[tokio::test]
async fn exec_with_a_terminal() {
    let mut lab = Lab::new();
    let plan = lab.start("exec sleep 1000").await;
    let (near, far) = UnixStream::pair().unwrap();
    let stdio = Stdio { stdin: Some(far.into()), stdout: None, stderr: None };
    let handle = lab.driver.exec(plan.id, &request(&["sh"], true), stdio).await.unwrap();
    near.set_nonblocking(true).unwrap();
    let mut near = tokio::net::UnixStream::from_std(near).unwrap();
    near.write_all(b"tty; stty size; echo $TERM\n").await.unwrap();
    let text = read_until(&mut near, "xterm\r\n").await;
    assert!(text.contains("/dev/pts/0") && text.contains("33 101"), "{text}");
    handle.resize(50, 120).await.unwrap();
    near.write_all(b"stty size\n").await.unwrap();
    read_until(&mut near, "50 120").await;
    near.write_all(b"exit 9\n").await.unwrap();
    assert_eq!(handle.wait().await.unwrap(), 9);
    lab.close().await;
}

async fn read_until(stream: &mut tokio::net::UnixStream, wanted: &str) -> String {
    let mut text = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !text.contains(wanted) {
        let mut buffer = [0; 4096];
        let left = deadline.saturating_duration_since(Instant::now());
        let length = tokio::time::timeout(left, stream.read(&mut buffer)).await;
        let length = length.unwrap_or_else(|_| panic!("{wanted:?} did not come: {text}")).unwrap();
        assert!(length > 0, "closed before {wanted:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[tokio::test]
async fn the_console_is_the_first_containers_terminal() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "");
    container.argv = vec!["sh".into()];
    container.tty = true;
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    let mut console = lab.driver.console(plan.id).await.unwrap();
    console.write_all(b"echo typed-$((40+2)); ls -l /dev/console; tty\n").await.unwrap();
    let text = read_until(&mut console, "/dev/pts/0").await;
    assert!(text.contains("typed-42"), "{text}");
    let mut second = lab.driver.console(plan.id).await.unwrap();
    second.write_all(b"echo from-the-second\n").await.unwrap();
    read_until(&mut second, "from-the-second\r\n").await;
    read_until(&mut console, "from-the-second\r\n").await;
    drop(second);
    console.write_all(b"exit 3\n").await.unwrap();
    assert_eq!(lab.ended(plan.id).await.code, Some(3));
    let tail = lab.driver.console_log(plan.id, 4096).await.unwrap();
    assert!(String::from_utf8_lossy(&tail).contains("typed-42"));
    lab.close().await;
}

/// The near ends of input, output and errors, and the far ones.
fn three_pairs() -> ([UnixStream; 3], [OwnedFd; 3]) {
    let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
    let [(a, x), (b, y), (c, z)] = pairs;
    ([a, b, c], [x.into(), y.into(), z.into()])
}

#[tokio::test]
async fn who_joins_before_the_start_misses_nothing() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "echo first; echo oops >&2; read word; echo got $word; exit 4");
    container.stdin_open = true;
    let plan = lab.pod(vec![container]);
    let asked = AttachRequest { container: None, input: true, keeps_input: false, waits: false };
    let (_, far) = three_pairs();
    let refused = lab.driver.attach(plan.id, &asked, far).await;
    assert!(matches!(refused, Err(DriverError::NotRunning)), "{:?}", refused.map(|_| ()));
    let asked = AttachRequest { waits: true, ..asked };
    let ([mut input, output, errors], far) = three_pairs();
    let place = lab.driver.attach(plan.id, &asked, far).await.unwrap();
    // One who waits and goes again leaves his place.
    let ([_, gone, _], far) = three_pairs();
    drop(lab.driver.attach(plan.id, &asked, far).await.unwrap());
    assert_eq!(std::io::read_to_string(gone).unwrap(), "");
    std::io::Write::write_all(&mut input, b"hello\n").unwrap();
    lab.driver.start(&plan).await.unwrap();
    let read = move || (std::io::read_to_string(output).unwrap(), std::io::read_to_string(errors).unwrap());
    let said = tokio::task::spawn_blocking(read).await.unwrap();
    assert_eq!(said, ("first\ngot hello\n".into(), "oops\n".into()));
    assert_eq!(lab.ended(plan.id).await.code, Some(4));
    drop(place);

    // A pod that goes before it starts again lets those go who wait for it.
    let ([_, output, _], far) = three_pairs();
    let _place = lab.driver.attach(plan.id, &asked, far).await.unwrap();
    lab.driver.destroy(plan.id).await.unwrap();
    assert_eq!(std::io::read_to_string(output).unwrap(), "");
    lab.close().await;
}

#[tokio::test]
async fn input_goes_on_for_those_who_come_later() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "while read word; do echo got $word; done; echo end");
    container.stdin_open = true;
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    for (word, keeps_input) in [("one", true), ("two", false)] {
        let asked = AttachRequest { container: None, input: true, keeps_input, waits: false };
        let ([mut input, _output, _errors], far) = three_pairs();
        lab.driver.attach(plan.id, &asked, far).await.unwrap();
        std::io::Write::write_all(&mut input, format!("{word}\n").as_bytes()).unwrap();
        drop(input);
        lab.output_with(plan.id, &format!("got {word}")).await;
    }
    assert_eq!(lab.ended(plan.id).await.code, Some(0));
    assert_eq!(lab.output(plan.id).await, "got one\ngot two\nend\n");
    lab.close().await;
}

#[tokio::test]
async fn signals_and_processes_of_a_pod() {
    let mut lab = Lab::new();
    let plan = lab.start("trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.05; done").await;
    lab.output_with(plan.id, "up").await;
    let seen = lab.driver.processes(plan.id).await.unwrap();
    let first = &seen[0];
    assert!(first.argv[0] == "sh" && first.uid >= 10_000_000 && first.started_s > 0, "{seen:?}");
    assert!(lab.driver.usage(plan.id).await.unwrap().pids >= 1);
    lab.driver.signal(plan.id, 10).await.unwrap();
    assert_eq!(lab.ended(plan.id).await.code, Some(5));
    lab.close().await;
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "read go; seq 1 200000; echo end");
    container.stdin_open = true;
    container.log = LogLimits { size_bytes_max: 1 << 20, files_max: 2 };
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    let mut console = lab.driver.console(plan.id).await.unwrap();
    console.write_all(b"go\n").await.unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = tokio::time::timeout(PATIENCE, console.read(&mut buffer)).await.unwrap().unwrap();
        if length == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..length]);
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect::<String>() + "end\n";
    assert!(text == wanted.as_bytes(), "{} of {} bytes", text.len(), wanted.len());
    assert_eq!(lab.ended(plan.id).await.code, Some(0));
    lab.close().await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_does_not_hold_the_container_for_ever() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "read go; seq 1 200000");
    container.stdin_open = true;
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    let mut console = lab.driver.console(plan.id).await.unwrap();
    console.write_all(b"go\n").await.unwrap();
    assert_eq!(lab.ended(plan.id).await.code, Some(0));
    drop(console);
    lab.close().await;
}

#[tokio::test]
async fn logs_are_rotated_cut_and_followed() {
    let mut lab = Lab::new();
    let mut container =
        lab.container("main", "seq 1 5000; echo up; while [ ! -e /go ]; do sleep 0.05; done; echo last");
    container.log = LogLimits { size_bytes_max: 64 * 1024, files_max: 3 };
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "up").await;
    let logs = lab.driver.places(plan.id).state.join("logs");
    let files: Vec<u64> =
        std::fs::read_dir(&logs).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).collect();
    assert!(files.len() == 3 && files.iter().sum::<u64>() < 3 * 140 * 1024, "{files:?}");
    let tail = lab.lines(plan.id, LogQuery { tail_lines: Some(2), ..Default::default() }).await;
    let tail: Vec<String> =
        tail.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
    assert_eq!(tail, ["5000\n", "up\n"]);
    let far = LogQuery { since_ms: Some(i64::MAX / 2_000_000), ..Default::default() };
    assert!(lab.lines(plan.id, far).await.is_empty());
    let query = LogQuery { tail_lines: Some(1), follow: true, ..Default::default() };
    let mut follower = lab.driver.logs(plan.id, &query).await.unwrap();
    assert_eq!(follower.recv().await.unwrap().bytes, b"up\n");
    assert_eq!(exec(&lab, &plan, &["touch", "/go"], None).await.0, 0);
    assert_eq!(follower.recv().await.unwrap().bytes, b"last\n");
    assert!(follower.recv().await.is_none(), "following ends with the container");
    lab.close().await;
}

#[tokio::test]
async fn a_full_disk_does_not_hold_the_container() {
    use nix::mount::{MsFlags, mount, umount};
    let mut lab = Lab::new();
    let container = lab.container("main", "seq 1 100000; echo done >&2");
    let plan = lab.pod(vec![container]);
    let logs = lab.driver.places(plan.id).state.join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    mount(Some("none"), &logs, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    let output = lab.output(plan.id).await;
    umount(&logs).unwrap();
    assert_eq!(exit.code, Some(0));
    assert!(output.starts_with("1\n2\n"), "what fits is kept");
    lab.close().await;
}

#[tokio::test]
async fn many_at_once() {
    let mut lab = Lab::new();
    let plan = lab.start("exec sleep 1000").await;
    let all = (0..20).map(|_| exec(&lab, &plan, &["sh", "-c", "sleep 0.2; echo x"], None));
    for (code, output) in futures::future::join_all(all).await {
        assert_eq!((code, output.as_str()), (0, "x\n"));
    }
    until("no process left beside", async || lab.driver.stats(plan.id).await.unwrap().pids == 1).await;
    lab.close().await;
}
