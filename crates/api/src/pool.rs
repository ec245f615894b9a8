//! Places for what lasts: streams and builds. Every project has a share of them, and peers of the local sockets a reserve,
//! so that no tenant takes the places of all others. What a caller has open ends with what let the caller in.
//!
//! ```text
//!   all places ├──────── remote callers, each project up to its share ────────┤─ reserve ─┤
//!              └──────── local peers: as many as are free ────────────────────────────────┘
//! ```

use crate::error::{Failure, Result};
use control::{Caller, Control, Proof};
use model::{error::Code, id::ProjectId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often it is asked whether who has a stream open may still have it.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// One in so many places is for local peers alone.
const RESERVE: usize = 8;

/// Places of one kind.
pub struct Pool {
    /// What they are for, in the plural.
    what: &'static str,
    max: usize,
    share: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_project: HashMap<ProjectId, usize>,
}

/// One place, until it is dropped.
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    project: ProjectId,
}

/// A place for a stream. It tells when the stream has to end.
pub struct StreamPlace {
    _place: Place,
    ended: CancellationToken,
    // Ends the one who asks again.
    _over: DropGuard,
}

impl Pool {
    /// `max` places, of which one project may have `share`.
    pub fn new(what: &'static str, max: usize, share: usize) -> Self {
        Self { what, max, share, taken: Arc::default() }
    }

    /// One more place.
    ///
    /// # Errors
    /// `too_many`, with the limit that was met.
    pub fn take(&self, caller: &Caller) -> Result<Place> {
        let is_local = caller.proof == Proof::Peer;
        let free = if is_local { self.max } else { self.max - self.max / RESERVE };
        let mut taken = lock(&self.taken);
        if taken.all >= free {
            let message = format!("{free} {} are open, no more are possible", self.what);
            return Err(Failure::new(Code::TooMany, message).hint("end one, or try again in a while"));
        }
        let own = taken.by_project.get(&caller.project).copied().unwrap_or(0);
        if !is_local && own >= self.share {
            let message = format!("this project has {own} {} open, no more are possible", self.what);
            return Err(Failure::new(Code::TooMany, message).hint("end one of them"));
        }
        taken.all += 1;
        *taken.by_project.entry(caller.project).or_default() += 1;
        Ok(Place { taken: Arc::clone(&self.taken), project: caller.project })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(own) = taken.by_project.get_mut(&self.project) {
            *own -= 1;
            if *own == 0 {
                taken.by_project.remove(&self.project);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Nothing can panic while it is held.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamPlace {
    /// A place for a stream of the caller's, which ends with the server, and when what let the caller in does not hold
    /// any more.
    pub fn new(place: Place, control: &Control, caller: &Caller, stopping: &CancellationToken) -> Self {
        let (ended, over) = (stopping.child_token(), CancellationToken::new());
        if caller.proof != Proof::Peer {
            tokio::spawn(ask_again(control.clone(), caller.clone(), ended.clone(), over.clone()));
        }
        Self { _place: place, ended, _over: over.drop_guard() }
    }

    /// Cancelled when the stream has to end.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

async fn ask_again(control: Control, caller: Caller, ended: CancellationToken, over: CancellationToken) {
    while control.still_holds(&caller) {
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            () = over.cancelled() => return,
            () = ended.cancelled() => return,
        }
    }
    tracing::info!(actor = caller.actor, "a stream ends: what let its caller in does not hold any more");
    ended.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Role;

    fn caller(project: u8, proof: Proof) -> Caller {
        let project = ProjectId::from_random([project; 16]);
        Caller { project, role: Role::Member, actor: "test".into(), request_id: "r".into(), proof }
    }

    #[test]
    fn no_project_takes_the_places_of_others_and_no_tenant_those_of_local_peers() {
        let pool = Pool::new("streams", 16, 6);
        let remote = |project| caller(project, Proof::Token("t".into()));
        let mut held: Vec<Place> = (0..6).map(|_| pool.take(&remote(1)).unwrap()).collect();
        let refused = pool.take(&remote(1)).err().unwrap();
        assert!(refused.error.message.contains("6 streams"), "{}", refused.error.message);
        held.extend((0..6).map(|_| pool.take(&remote(2)).unwrap()));
        held.extend((0..2).map(|_| pool.take(&remote(3)).unwrap()));
        assert!(pool.take(&remote(3)).err().unwrap().error.message.contains("14 streams"));
        held.extend((0..2).map(|_| pool.take(&caller(1, Proof::Peer)).unwrap()));
        assert!(pool.take(&caller(1, Proof::Peer)).is_err());
        held.clear();
        assert!(lock(&pool.taken).by_project.is_empty());
        pool.take(&remote(1)).unwrap();
    }
}
