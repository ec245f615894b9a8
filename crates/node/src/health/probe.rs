//! One probe: a program beside a container's own, or a connection to its pod, with its time and what it says bounded.

pub(crate) mod ask;
mod grpc;
mod network;
mod tls;

use crate::driver::{Driver, DriverError, ExecHandle, ExecRequest, Stdio};
use model::{
    health::{
        HealthCheck,
        probe::Action,
        status::{NO_EXIT, OUTPUT_BYTES_MAX},
    },
    id::InstanceId,
};
use std::{io, os::fd::OwnedFd, time::Duration};
use tokio::{net::UnixStream, time::timeout};

/// How long the end of a killed probe is waited for.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long output is waited for whose program has ended: what it left behind may hold it open.
const OUTPUT_WAIT: Duration = Duration::from_millis(200);
/// The signal that nothing outlives.
const SIGKILL: i32 = 9;

/// What a probe said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; [`NO_EXIT`] where there is none.
    pub exit_code: i32,
    /// Standard output and error as they came, cut off.
    pub output: String,
}

/// Runs one. `None` when the container does not run.
pub async fn run(
    driver: &dyn Driver,
    id: InstanceId,
    container: &str,
    check: &HealthCheck,
) -> Option<Answer> {
    let asked = match &check.action {
        Action::Exec { argv } => attempt(driver, id, container, check, argv).await,
        Action::Tcp { port } => network::tcp(driver, id, *port, check).await,
        Action::Http { port, path, headers, tls } => {
            network::http(driver, id, (*port, *tls), &network::request(path, headers), check).await
        }
        Action::Grpc { port, service } => network::grpc(driver, id, (*port, service), check).await,
    };
    match asked {
        Ok(answer) => Some(answer),
        Err(DriverError::NotRunning) => None,
        // As docker has it: a program that cannot be run is a check that fails.
        Err(DriverError::NotRun { code, answer }) => Some(Answer { exit_code: code, output: cut(answer) }),
        Err(error) => {
            let output = format!("the probe could not be run: {}", crate::instance::sentence(&error));
            Some(Answer { exit_code: NO_EXIT, output: cut(output) })
        }
    }
}

async fn attempt(
    driver: &dyn Driver,
    id: InstanceId,
    container: &str,
    check: &HealthCheck,
    argv: &[String],
) -> Result<Answer, DriverError> {
    let failed = |source: io::Error| DriverError::Io { operation: "listen to a probe".into(), source };
    let (near, far) = UnixStream::pair().map_err(failed)?;
    let far = far.into_std().map_err(failed)?;
    far.set_nonblocking(false).map_err(failed)?;
    let far = OwnedFd::from(far);
    let second = far.try_clone().map_err(failed)?;
    let request = ExecRequest {
        container: Some(container.to_string()),
        argv: argv.to_vec(),
        env: vec![],
        cwd: None,
        user: None,
        tty: false,
        size: None,
        tied: true,
    };
    let limit = Duration::from_millis(check.timeout_ms);
    let handle = {
        let stdio = Stdio { stdin: None, stdout: Some(far), stderr: Some(second) };
        let started = timeout(limit.max(KILL_WAIT), driver.exec(id, &request, stdio)).await;
        started.map_err(|_| DriverError::Timeout {
            what: "the start of a probe".into(),
            after_ms: limit.max(KILL_WAIT).as_millis() as u64,
        })??
    };
    let mut output = Vec::new();
    let ended = async {
        tokio::select! {
            code = handle.wait() => code,
            // Its output may end first; that is no end of the program.
            () = listen(&near, &mut output) => handle.wait().await,
        }
    };
    let ended = timeout(limit, ended).await;
    let code = match ended {
        Ok(code) => Some(code?),
        Err(_) => None,
    };
    if code.is_none() {
        end(&*handle).await;
        let told = format!("Health check exceeded timeout ({}): ", seconds(check.timeout_ms));
        output = [told.into_bytes(), output].concat();
    } else {
        let _ = timeout(OUTPUT_WAIT, listen(&near, &mut output)).await;
    }
    Ok(Answer {
        exit_code: code.unwrap_or(NO_EXIT),
        output: cut(String::from_utf8_lossy(&output).into_owned()),
    })
}

/// Kills a probe, and waits for it to be gone, so that the next one does not meet it.
async fn end(handle: &dyn ExecHandle) {
    if handle.signal(SIGKILL).await.is_ok() {
        let _ = timeout(KILL_WAIT, handle.wait()).await;
    }
}

/// Reads to the end. More than is kept is read all the same: a probe must not wait for its reader.
async fn listen(near: &UnixStream, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while near.readable().await.is_ok() {
        match near.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(output.len());
                output.extend_from_slice(&buffer[..length.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The beginning of a text, with a sign where there was more.
fn cut(mut text: String) -> String {
    const MORE: &str = "...";
    if text.len() > OUTPUT_BYTES_MAX {
        let end = (0..=OUTPUT_BYTES_MAX - MORE.len()).rev().find(|n| text.is_char_boundary(*n));
        text.truncate(end.unwrap_or(0));
        text.push_str(MORE);
    }
    text
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}
