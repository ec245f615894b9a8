//! A log in at the serial console without a password, for whoever owns a guest and has no other way in.
//!
//! The guest's own agent, which is root there, has the getty of the serial port start once with a shell of root's. What it
//! writes for that lies in memory and is gone when the getty has started, so the next log in is asked for its password as
//! ever: no password, key or file stays in the guest. Made for guests with systemd.

use super::agent::{Agent, AgentError};
use crate::driver::DriverError;

/// Exit code of a guest that is made otherwise.
const NO_SYSTEMD: i64 = 90;

const OPEN: &str = r#"
[ -d /run/systemd/system ] || exit 90
unit=serial-getty@ttyS0.service
place=/run/systemd/system/$unit.d
mkdir -p $place || exit 1
trap 'rm -f $place/holm-login.conf; rmdir $place 2>/dev/null; systemctl daemon-reload' EXIT
cat >$place/holm-login.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 ttyS0 vt220
UNIT
systemctl daemon-reload && systemctl restart $unit
"#;

const CLOSE: &str = "systemctl restart serial-getty@ttyS0.service";

/// Logs root in. Whoever was logged in there before is logged out.
pub async fn open(agent: Agent<'_>) -> Result<i64, AgentError> {
    agent.run_script(OPEN).await
}

/// Ends what was begun there, and asks for a name and a password again.
pub async fn close(agent: Agent<'_>) -> Result<i64, AgentError> {
    agent.run_script(CLOSE).await
}

/// What the agent's answer means; `None` where there is no agent.
pub fn judge(code: Option<i64>) -> Result<(), DriverError> {
    let unsupported =
        |what: &str, hint: &str| Err(DriverError::Unsupported { what: what.into(), hint: hint.into() });
    match code {
        Some(0) => Ok(()),
        None => unsupported(
            "the guest's agent does not run, and nobody else can let root in",
            "install qemu-guest-agent in it; or mend the VM from another disk with `holm rescue`",
        ),
        Some(NO_SYSTEMD) => unsupported(
            "the guest has no systemd, whose serial console alone can be opened",
            "log in at its prompt, or mend the VM from another disk with `holm rescue`",
        ),
        Some(code) => Err(DriverError::Refused {
            operation: "opening the serial console".into(),
            answer: format!("the guest's own script failed with {code}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_cannot_are_told() {
        assert!(judge(Some(0)).is_ok());
        assert!(matches!(judge(None), Err(DriverError::Unsupported { .. })));
        assert!(matches!(judge(Some(NO_SYSTEMD)), Err(DriverError::Unsupported { .. })));
        assert!(matches!(judge(Some(1)), Err(DriverError::Refused { .. })));
    }
}
