//! How many may have machines for work on files at a time: so many of a host, and fewer of a project.
//!
//! Whoever reads an archive slowly keeps its place for as long as that takes. The bound of a project is within the host's, so
//! the slow readers of one project keep each other waiting, and never all others. Who waits does so first for the project's
//! place: the host's are waited for by as many of each project as could have one, in the order in which they came.

use crate::{container::files::FilesError, driver::DriverError};
use model::id::ProjectId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Most requests of a host that have such machines work on files at a time.
const OF_HOST_MAX: usize = 4;
/// Most of one project.
const OF_PROJECT_MAX: usize = 2;
const _: () = assert!(OF_PROJECT_MAX < OF_HOST_MAX, "no project may have all places");
/// How long others wait for one of them to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The places of a host.
#[derive(Debug)]
pub(in crate::container::driver) struct Allotment {
    host: Arc<Semaphore>,
    /// Those of projects that have a place or wait for one.
    projects: Mutex<HashMap<ProjectId, Arc<Semaphore>>>,
}

/// A place, given back by dropping it.
#[derive(Debug)]
pub(super) struct Place {
    _of_host: OwnedSemaphorePermit,
    _of_project: OwnedSemaphorePermit,
}

impl Default for Allotment {
    fn default() -> Self {
        Self { host: Arc::new(Semaphore::new(OF_HOST_MAX)), projects: Mutex::default() }
    }
}

impl Allotment {
    /// Waits for a place.
    ///
    /// # Errors
    /// `FilesError::Crowded` where none becomes free in time.
    pub(super) async fn take(&self, project: ProjectId) -> Result<Place, DriverError> {
        let deadline = Instant::now() + PATIENCE;
        let of_project = one(self.of(project), deadline, "your project's", OF_PROJECT_MAX).await?;
        let of_host = one(Arc::clone(&self.host), deadline, "this host's", OF_HOST_MAX).await?;
        Ok(Place { _of_host: of_host, _of_project: of_project })
    }

    fn of(&self, project: ProjectId) -> Arc<Semaphore> {
        // Nothing can panic while it is held.
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        projects.retain(|known, places| *known == project || Arc::strong_count(places) > 1);
        let places = projects.entry(project).or_insert_with(|| Arc::new(Semaphore::new(OF_PROJECT_MAX)));
        Arc::clone(places)
    }
}

async fn one(
    places: Arc<Semaphore>,
    deadline: Instant,
    whose: &'static str,
    limit: usize,
) -> Result<OwnedSemaphorePermit, DriverError> {
    match timeout_at(deadline, places.acquire_owned()).await {
        Ok(place) => place.map_err(|_| DriverError::NotRunning),
        Err(_) => {
            let waited_s = PATIENCE.as_secs();
            Err(DriverError::Files(FilesError::Crowded { whose, limit, waited_s }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::error::Code;

    fn project(number: u8) -> ProjectId {
        ProjectId::from_random([number; 16])
    }

    async fn refused(places: &Allotment, of: u8) -> FilesError {
        let began = Instant::now();
        match places.take(project(of)).await {
            Err(DriverError::Files(error)) => {
                assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
                error
            }
            other => panic!("it has no place: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_project_keeps_no_other_waiting() {
        let places = Allotment::default();
        let slow = [places.take(project(1)).await.unwrap(), places.take(project(1)).await.unwrap()];
        let error = refused(&places, 1).await;
        assert_eq!(
            error.to_string(),
            "all of your project's 2 places for work on files of stopped pods with a kernel of their own are taken, and none \
             was given back within 60 s"
        );
        assert_eq!(error.code(), Code::TooMany);
        assert!(error.hint().contains("start the container"), "{}", error.hint());
        // However many of it wait, another one has its place at once.
        let waiting = async { tokio::join!(refused(&places, 1), refused(&places, 1), refused(&places, 1)) };
        let other = async {
            tokio::task::yield_now().await;
            let began = Instant::now();
            let place = places.take(project(2)).await.unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO);
            place
        };
        let (_, other) = tokio::join!(waiting, other);

        // The host's own bound, and who came first has the place that is given back.
        let more = places.take(project(2)).await.unwrap();
        let error = refused(&places, 3).await;
        assert!(error.to_string().starts_with("all of this host's 4 places"), "{error}");
        let next = places.take(project(3));
        let given_back = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(more);
        };
        let (next, ()) = tokio::join!(next, given_back);
        drop((next.unwrap(), other, slow));
        drop(places.take(project(4)).await.unwrap());
        assert_eq!(places.host.available_permits(), OF_HOST_MAX);
        assert_eq!(places.projects.lock().unwrap().len(), 1, "who has no place is forgotten");
    }
}
