//! Waiting until what was begun is useful, with one line of progress on stderr.
//!
//! ```text
//!   terminal:      ⠹ db: creating, fetching image 40 % (12 s)      rewritten in place, gone at the end
//!   no terminal:   db: creating, fetching image 40 %               one line per new phase or progress text
//! ```
//! The server is asked to answer when the thing has settled, so a wait ends at once; beside it the thing is looked at
//! now and then for the progress line. Ctrl-C ends the wait and never what was begun.

use super::{
    failure::{Failure, Result},
    session::Session,
    wording,
};
use api::{
    client::Noun,
    v1::types::{
        image::{Image, ImageState},
        instance::Instance,
        list::WaitQuery,
        snapshot::{Snapshot, SnapshotState},
        volume::{Volume, VolumeState},
    },
};
use model::{error::Code, instance::phase::Phase};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Longest that one call waits on the server, in seconds; a wait is made of as many as it takes.
const CALL_WAIT_S: u64 = 60;
/// Between two looks for the progress line.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);
/// Between two steps of the spinner.
const SPIN_INTERVAL: Duration = Duration::from_millis(100);
const SPINNER: [char; 8] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧'];
/// Exit code after Ctrl-C, as shells have it: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Options of commands that can wait.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WaitArgs {
    /// Return at once; what was begun goes on by itself
    #[arg(long)]
    pub no_wait: bool,
    /// Stop waiting after this time (90s, 10m); what was begun goes on
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = wording::parse_seconds)]
    pub timeout: u64,
}

/// A thing that takes its time.
pub trait Waited: Noun {
    /// What it is doing, in a few words.
    fn progress(&self) -> String;
    /// Nothing more happens by itself.
    fn is_settled(&self) -> bool;
    /// Why it will not get where it was to go.
    fn failure(&self) -> Option<Failure>;
}

impl Waited for Instance {
    fn progress(&self) -> String {
        match self.progress.as_str() {
            "" => self.phase.to_string(),
            text => format!("{}, {text}", self.phase),
        }
    }

    fn is_settled(&self) -> bool {
        self.phase.is_settled()
    }

    fn failure(&self) -> Option<Failure> {
        let cannot_sleep = self.phase == Phase::Suspending && self.fault.is_some();
        if self.phase != Phase::Failed && !cannot_sleep {
            return None;
        }
        let name = &self.head.name;
        Some(match &self.fault {
            Some(fault) => Failure::new(fault.code, format!("{name} failed: {}", fault.message))
                .hint(hint_or_info(&fault.hint, name)),
            None => Failure::new(Code::Internal, format!("{name} failed")).hint(hint_or_info("", name)),
        })
    }
}

fn hint_or_info(hint: &str, name: &str) -> String {
    if hint.is_empty() {
        format!("`holm info {name}` tells more; holm goes on trying")
    } else {
        hint.to_string()
    }
}

impl Waited for Image {
    fn progress(&self) -> String {
        match self.progress {
            Some(p) if p.total_bytes > 0 => format!(
                "{} {} {} % ({} of {})",
                self.state.as_str(),
                bar(p.done_bytes, p.total_bytes),
                percent(p.done_bytes, p.total_bytes),
                wording::bytes(p.done_bytes),
                wording::bytes(p.total_bytes)
            ),
            Some(p) if p.done_bytes > 0 => {
                format!("{} {}", self.state.as_str(), wording::bytes(p.done_bytes))
            }
            _ => self.state.as_str().to_string(),
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self.state, ImageState::Ready | ImageState::Failed)
    }

    fn failure(&self) -> Option<Failure> {
        if self.state != ImageState::Failed {
            return None;
        }
        let fault = self.fault.as_ref();
        let message = fault.map_or("no reason is known", |f| f.message.as_str());
        let code = fault.map_or(Code::Internal, |f| f.code);
        let failure = Failure::new(code, format!("image {} cannot be had: {message}", self.head.name));
        Some(failure.hint(fault.map_or("", |f| f.hint.as_str())))
    }
}

impl Waited for Snapshot {
    fn progress(&self) -> String {
        self.state.as_str().to_string()
    }

    fn is_settled(&self) -> bool {
        self.state != SnapshotState::Creating
    }

    fn failure(&self) -> Option<Failure> {
        if self.state != SnapshotState::Failed {
            return None;
        }
        let fault = self.fault.as_ref();
        let message = fault.map_or("no reason is known", |f| f.message.as_str());
        let code = fault.map_or(Code::Internal, |f| f.code);
        let failure = Failure::new(code, format!("snapshot {} cannot be taken: {message}", self.head.name));
        Some(failure.hint(fault.map_or("", |f| f.hint.as_str())))
    }
}

impl Waited for Volume {
    fn progress(&self) -> String {
        self.state.as_str().to_string()
    }

    fn is_settled(&self) -> bool {
        !matches!(self.state, VolumeState::Deleting)
    }

    fn failure(&self) -> Option<Failure> {
        if self.state != VolumeState::Failed {
            return None;
        }
        let fault = self.fault.as_ref();
        let message = fault.map_or("no reason is known", |f| f.message.as_str());
        let failure = Failure::new(
            fault.map_or(Code::Internal, |f| f.code),
            format!("volume {} failed: {message}", self.head.name),
        );
        Some(failure.hint(fault.map_or("", |f| f.hint.as_str())))
    }
}

/// How much of a whole, in percent.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { (u128::from(part) * 100 / u128::from(whole)) as u64 }
}

/// A bar of 20 characters.
pub fn bar(part: u64, whole: u64) -> String {
    let full = usize::try_from(percent(part.min(whole), whole) / 5).unwrap_or(20).min(20);
    format!("[{}{}]", "#".repeat(full), "-".repeat(20 - full))
}

/// The one line of progress.
#[derive(Debug)]
pub struct Line {
    live: bool,
    quiet: bool,
    text: String,
    began: Instant,
    shown: bool,
    step: usize,
}

impl Line {
    /// A line that shows nothing yet.
    pub fn new(session: &Session) -> Self {
        Self {
            live: session.stderr_is_terminal && !session.quiet,
            quiet: session.quiet,
            text: String::new(),
            began: Instant::now(),
            shown: false,
            step: 0,
        }
    }

    /// Sets the text.
    pub fn tell(&mut self, text: &str) {
        if !self.live && !self.quiet && self.text != text {
            eprintln!("{text}");
        }
        self.text = text.to_string();
        self.draw();
    }

    /// Draws the line anew, on a terminal.
    pub fn draw(&mut self) {
        if !self.live || self.text.is_empty() {
            return;
        }
        self.step += 1;
        let width =
            sys::terminal::size(std::io::stderr()).map_or(80, |size| usize::from(size.columns.max(20)));
        let line = format!(
            "{} {} ({} s)",
            SPINNER[self.step % SPINNER.len()],
            self.text,
            self.began.elapsed().as_secs()
        );
        let cut: String = line.chars().take(width - 1).collect();
        let mut err = std::io::stderr().lock();
        // A progress line that cannot be drawn is no reason to stop what it tells of.
        let _ = write!(err, "\r{cut}\x1b[K").and_then(|()| err.flush());
        self.shown = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
            self.shown = false;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Waits until a thing is settled, or in `phase`. Its failure is an error.
///
/// # Errors
/// It failed, the time is over, it is gone, or Ctrl-C.
pub async fn settle<N: Waited>(
    session: &Session,
    reference: &str,
    name: &str,
    phase: Option<Phase>,
    args: &WaitArgs,
) -> Result<N> {
    let thing = watch::<N>(session, reference, name, phase, args).await?;
    match thing.failure() {
        Some(failure) => Err(failure),
        None => Ok(thing),
    }
}

/// Waits as [`settle`] does, and gives a failed thing too.
///
/// # Errors
/// The time is over, it is gone, or Ctrl-C.
pub async fn watch<N: Waited>(
    session: &Session,
    reference: &str,
    name: &str,
    phase: Option<Phase>,
    args: &WaitArgs,
) -> Result<N> {
    let mut line = Line::new(session);
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        let left_s = deadline.saturating_duration_since(Instant::now()).as_secs();
        let wait = WaitQuery {
            wait: Some(u32::try_from(left_s.clamp(1, CALL_WAIT_S)).unwrap_or(1)),
            phase: phase.map(|p| p.to_string()),
        };
        let answer = tokio::select! {
            answer = session.client.get_waiting::<N>(reference, &wait) => Some(answer?),
            failed = look::<N>(session, reference, name, &mut line) => Some(failed?),
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(thing) = answer else {
            line.clear();
            session.say(format!("no longer waiting: {name} goes on by itself (`holm info {name}`)"));
            return Err(Failure::silent(INTERRUPTED));
        };
        let arrived = match phase {
            Some(phase) => thing.progress().starts_with(phase.as_str()),
            None => thing.is_settled(),
        };
        if arrived || thing.failure().is_some() {
            return Ok(thing);
        }
        if Instant::now() >= deadline {
            let message = format!("{name} is still {} after {} s", thing.progress(), args.timeout);
            return Err(
                Failure::new(Code::Timeout, message).hint("it goes on by itself; wait longer with --timeout")
            );
        }
    }
}

/// Looks at a thing for the progress line; ends only when it failed.
async fn look<N: Waited>(session: &Session, reference: &str, name: &str, line: &mut Line) -> Result<N> {
    let mut spin = tokio::time::interval(SPIN_INTERVAL);
    let mut looked = Instant::now();
    loop {
        spin.tick().await;
        if looked.elapsed() >= LOOK_INTERVAL {
            let thing: N = session.client.get(reference).await?;
            looked = Instant::now();
            if thing.failure().is_some() {
                return Ok(thing);
            }
            line.tell(&format!("{name}: {}", thing.progress()));
        } else {
            line.draw();
        }
    }
}

/// Deletes a thing and waits until it is gone.
///
/// # Errors
/// As the server refuses, the time is over, or Ctrl-C.
pub async fn gone<N: Noun>(session: &Session, reference: &str, name: &str, args: &WaitArgs) -> Result {
    leaves::<N>(session, reference, name, args, false).await
}

/// As [`gone`], of what was `accepted` for deletion before: it may be gone already.
///
/// # Errors
/// As the server refuses, or it is not gone in time.
pub async fn leaves<N: Noun>(
    session: &Session,
    reference: &str,
    name: &str,
    args: &WaitArgs,
    mut accepted: bool,
) -> Result {
    let mut line = Line::new(session);
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        let left_s = deadline.saturating_duration_since(Instant::now()).as_secs();
        let wait =
            WaitQuery { wait: Some(u32::try_from(left_s.clamp(1, CALL_WAIT_S)).unwrap_or(1)), phase: None };
        let deleting = session.client.delete::<N>(reference, &wait);
        let answer = tokio::select! {
            answer = deleting => answer,
            () = spin(&mut line, name) => continue,
            _ = tokio::signal::ctrl_c() => {
                line.clear();
                session.say(format!("no longer waiting: {name} goes away by itself"));
                return Err(Failure::silent(INTERRUPTED));
            }
        };
        match answer {
            Ok(None) => return Ok(()),
            Err(error) if error.code() == Code::NotFound && accepted => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(Some(_)) if Instant::now() >= deadline => {
                let message = format!("{name} is still going away after {} s", args.timeout);
                return Err(Failure::new(Code::Timeout, message)
                    .hint("it goes on by itself; `holm events` tells what happens"));
            }
            Ok(Some(_)) => accepted = true,
        }
    }
}

/// Draws the line for ever, once it has taken a moment.
async fn spin(line: &mut Line, name: &str) {
    tokio::time::sleep(LOOK_INTERVAL).await;
    let mut spin = tokio::time::interval(SPIN_INTERVAL);
    line.tell(&format!("{name}: deleting"));
    loop {
        spin.tick().await;
        line.draw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_never_too_long() {
        assert_eq!(bar(0, 0), "[--------------------]");
        assert_eq!(bar(50, 100), "[##########----------]");
        assert_eq!(bar(500, 100), "[####################]");
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
