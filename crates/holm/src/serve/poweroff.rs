//! Why the daemon is to stop: for a restart or an upgrade, which no guest may notice, or because the machine goes down.

use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// For an answer of systemd, which has much to do when the machine goes down.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whether systemd is taking the machine down. Where there is no systemd nobody can tell, and guests are left alone.
pub async fn goes_down() -> bool {
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let asked = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        // It exits with a failure in this state.
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        Ok(Err(error)) => {
            tracing::warn!(%error, "systemctl cannot tell whether the machine goes down");
            false
        }
        Err(_) => {
            tracing::warn!("systemctl does not tell whether the machine goes down");
            false
        }
    }
}
