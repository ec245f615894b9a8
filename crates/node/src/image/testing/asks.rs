//! Images that were asked for: what is told of a pull that fails, what is tried again by itself, and what when somebody
//! asks anew.

use super::{
    faulty::{FaultyServer, Reply, Seen},
    fixture::TestImage,
    registries::{honest, image},
};
use crate::image::reconcile::{Images, RegistrySettings};
use control::{Caller, Control, Role, image::NewImage};
use model::{
    error::Code,
    id::{ImageId, NodeId, ProjectId},
    image::{Image, ImageState, ImageStatus},
};
use reconcile::Outcome;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use store::{Memory, Store};

const LONG: Duration = Duration::from_secs(20);

/// What the registry does now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Honest,
    Unknown,
    Forbidding,
    Lying,
    Foreign,
    Broken,
    Silent,
}

/// A node that pulls from a registry with moods.
struct House {
    control: Control,
    caller: Caller,
    store: Store,
    images: Arc<Images>,
    mood: Arc<Mutex<Mood>>,
    server: FaultyServer,
    _dir: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.expect("opens");
        let control = Control::new(store.clone());
        let beginning = control::bootstrap::Beginning {
            external_v4: "203.0.113.0/28".parse().expect("valid"),
            external_v6: None,
        };
        control.bootstrap(&beginning).await.expect("begins");
        let root = control::finalize::system_caller(ProjectId::from_random([0; 16]));
        let project = control.find_project(&root, "default").expect("there").record.meta.id;
        let caller = Caller {
            project,
            role: Role::Admin,
            actor: "test".into(),
            request_id: "r".into(),
            proof: Default::default(),
        };
        let dir = tempfile::tempdir().expect("temp dir");
        let node = NodeId::from_random([7; 16]);
        let images =
            Images::open(store.clone(), node, dir.path(), RegistrySettings::default()).expect("opens");
        let mood = Arc::new(Mutex::new(Mood::Honest));
        let server = serve(Arc::clone(&mood)).await;
        Self { control, caller, store, images: Arc::new(images), mood, server, _dir: dir }
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().expect("not poisoned") = mood;
    }

    /// Asks for the image as `holm image pull` does, for the first time or anew.
    async fn ask(&self) -> ImageId {
        let new = NewImage::from_registry(&format!("{}/app:1", self.server.address));
        self.control.create_image(&self.caller, new).await.expect("asked").meta.id
    }

    fn state(&self, id: ImageId) -> ImageState {
        let image = self.store.get::<Image>(&id.to_string()).expect("there");
        let status = self.store.get::<ImageStatus>(&id.to_string());
        image.record.state(status.as_ref().map(|s| &s.record)).clone()
    }

    async fn run(&self, id: ImageId) -> Outcome {
        tokio::time::timeout(LONG, self.images.run(id)).await.expect("ends").expect("runs")
    }

    async fn until(&self, id: ImageId, what: &str, holds: impl Fn(&ImageState) -> bool) {
        let began = Instant::now();
        while !holds(&self.state(id)) {
            assert!(began.elapsed() < LONG, "not {what}: {:?}", self.state(id));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pulls(&self) -> usize {
        self.server.requests("/manifests/").len()
    }
}

async fn serve(mood: Arc<Mutex<Mood>>) -> FaultyServer {
    let (good, foreign) = (image(), TestImage::for_platform(&[], "linux", "s390x"));
    let silent = AtomicUsize::new(0);
    FaultyServer::start(move |seen: &Seen, _| {
        let mood = *mood.lock().expect("not poisoned");
        match mood {
            Mood::Honest => honest(&good, seen),
            Mood::Unknown => Reply::new(404, r#"{"errors":[{"message":"unknown"}]}"#),
            Mood::Forbidding => Reply::new(403, r#"{"errors":[{"message":"not for you"}]}"#),
            Mood::Foreign => honest(&foreign, seen),
            Mood::Broken => Reply::new(503, ""),
            Mood::Lying => {
                let mut reply = honest(&good, seen);
                if seen.path.contains("/blobs/") {
                    reply.body[5] ^= 1;
                }
                reply
            }
            Mood::Silent => {
                silent.fetch_add(1, Ordering::Relaxed);
                Reply { silence: Some(LONG * 2), ..Reply::new(200, "") }
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_cannot_be_had_is_told_at_once_and_tried_again_when_somebody_asks() {
    for (mood, code) in [
        (Mood::Unknown, Code::NotFound),
        (Mood::Forbidding, Code::Forbidden),
        (Mood::Lying, Code::Conflict),
        (Mood::Foreign, Code::Unsupported),
    ] {
        let house = House::new().await;
        house.be(mood);
        let id = house.ask().await;
        assert_eq!(house.run(id).await, Outcome::Done, "{mood:?}: nothing is tried again by itself");
        let ImageState::Failed(fault) = house.state(id) else { panic!("{mood:?}: {:?}", house.state(id)) };
        assert_eq!(fault.code, code, "{fault:?}");
        assert!(fault.message.contains("/app:1 could not be pulled") && !fault.hint.is_empty(), "{fault:?}");
        let pulls = house.pulls();
        assert_eq!(house.run(id).await, Outcome::Done);
        assert_eq!(house.pulls(), pulls, "{mood:?}: a run more asks nobody");
        house.be(Mood::Honest);
        assert_eq!(house.ask().await, id, "the same image");
        assert_eq!(house.state(id), ImageState::Waiting, "{mood:?}: the old failure is none of this ask");
        assert_eq!(house.run(id).await, Outcome::Done);
        assert!(matches!(house.state(id), ImageState::Ready(_)), "{mood:?}: {:?}", house.state(id));
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_told_while_the_pull_goes_on() {
    let house = House::new().await;
    house.be(Mood::Broken);
    let id = house.ask().await;
    let images = Arc::clone(&house.images);
    let run = tokio::spawn(async move { images.run(id).await });
    house.until(id, "told", |state| matches!(state, ImageState::Failed(_))).await;
    let ImageState::Failed(fault) = house.state(id) else { unreachable!("just seen") };
    assert!(fault.message.contains("503") && fault.message.ends_with("trying again"), "{fault:?}");
    assert!(!run.is_finished(), "it goes on");
    house.be(Mood::Honest);
    assert_eq!(run.await.expect("no panic").expect("runs"), Outcome::Done);
    assert!(matches!(house.state(id), ImageState::Ready(_)), "{:?}", house.state(id));
}

#[tokio::test]
async fn who_asks_anew_does_not_wait_for_an_earlier_ask() {
    let house = House::new().await;
    house.be(Mood::Silent);
    let id = house.ask().await;
    let images = Arc::clone(&house.images);
    let run = tokio::spawn(async move { images.run(id).await });
    house.until(id, "begun", |state| matches!(state, ImageState::Fetching { .. })).await;
    house.be(Mood::Honest);
    house.ask().await;
    assert_eq!(run.await.expect("no panic").expect("runs"), Outcome::Again);
    assert_eq!(house.run(id).await, Outcome::Done);
    assert!(matches!(house.state(id), ImageState::Ready(_)));
}

#[tokio::test]
async fn a_deleted_image_is_pulled_no_further() {
    let house = House::new().await;
    house.be(Mood::Silent);
    let id = house.ask().await;
    let images = Arc::clone(&house.images);
    let run = tokio::spawn(async move { images.run(id).await });
    house.until(id, "begun", |state| matches!(state, ImageState::Fetching { .. })).await;
    house.control.delete_image(&house.caller, &id.to_string()).await.expect("deleted");
    assert_eq!(run.await.expect("no panic").expect("runs"), Outcome::Again);
    assert_eq!(house.run(id).await, Outcome::Done);
    assert!(house.store.get::<ImageStatus>(&id.to_string()).is_none());
}

#[tokio::test]
async fn an_image_that_is_here_stays_whatever_a_later_look_finds() {
    let house = House::new().await;
    let id = house.ask().await;
    house.run(id).await;
    let ready = house.state(id);
    assert!(matches!(ready, ImageState::Ready(_)), "{ready:?}");
    house.be(Mood::Unknown);
    house.ask().await;
    assert_eq!(house.run(id).await, Outcome::Done);
    assert_eq!(house.state(id), ready);
    let stale = |house: &House| {
        house.store.get::<ImageStatus>(&id.to_string()).expect("there").record.stale.as_ref().map(|f| f.code)
    };
    assert_eq!(stale(&house), Some(Code::NotFound));
    house.be(Mood::Honest);
    house.ask().await;
    let blobs = house.server.requests("/blobs/").len();
    assert_eq!(house.run(id).await, Outcome::Done);
    assert_eq!((house.state(id), stale(&house)), (ready, None));
    assert_eq!(house.server.requests("/blobs/").len(), blobs, "nothing came twice");
}
