//! The daemon dies before and after every step, at all points there are; the next one comes to the same end.

use crate::lab::{Lab, pod, vm};
use control::instance::{NewInstance, rebuild::Rebuild};
use model::id::InstanceId;
use node::fake::{Fuse, Verb};

/// Points of a story that is longer than any should be.
const POINTS_MAX: usize = 500;
/// How often a story is told with several deaths.
const DEATHS_TOLD: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Create,
    Stop,
    HardStop,
    Start,
    Reboot,
    HardReboot,
    Pause,
    Resume,
    Suspend,
    SuspendPaused,
    Wake,
    Discard,
    Rebuild,
    RebuildStopped,
    RebuildPaused,
    TrySize,
    RevertSize,
    Delete,
    DeleteStopped,
    DeleteRebuilding,
    DeleteAsleep,
    Rescue,
    RescueStopped,
    Unrescue,
}

impl Story {
    const POWER: [Self; 5] = [Self::Create, Self::Stop, Self::HardStop, Self::Start, Self::Pause];
    const BOOTS: [Self; 3] = [Self::Reboot, Self::HardReboot, Self::Resume];
    /// Of VMs alone.
    const SLEEP: [Self; 5] =
        [Self::Suspend, Self::SuspendPaused, Self::Wake, Self::Discard, Self::DeleteAsleep];
    const RENEWAL: [Self; 5] =
        [Self::Rebuild, Self::RebuildStopped, Self::RebuildPaused, Self::TrySize, Self::RevertSize];
    /// Of VMs alone.
    const RESCUE: [Self; 3] = [Self::Rescue, Self::RescueStopped, Self::Unrescue];
    const END: [Self; 3] = [Self::Delete, Self::DeleteStopped, Self::DeleteRebuilding];

    /// Brings the instance where the story begins, without a crash.
    async fn begin(self, lab: &Lab, new: NewInstance) -> InstanceId {
        let id = lab.create(new).await;
        if self != Self::Create {
            lab.rest(id).await;
        }
        match self {
            Self::Start | Self::DeleteStopped | Self::RebuildStopped | Self::RescueStopped => {
                lab.control.stop_instance(&lab.caller, &id.to_string(), true, None).await.unwrap();
            }
            Self::Wake | Self::Discard | Self::DeleteAsleep => {
                lab.control.suspend_instance(&lab.caller, &id.to_string()).await.unwrap();
            }
            Self::Resume | Self::RebuildPaused | Self::SuspendPaused => {
                lab.control.pause_instance(&lab.caller, &id.to_string()).await.unwrap();
            }
            Self::RevertSize => {
                lab.control.try_size(&lab.caller, &id.to_string(), "g2.c1m1g").await.unwrap();
            }
            Self::Unrescue => {
                lab.control.rescue_instance(&lab.caller, &id.to_string(), None).await.unwrap();
                lab.supply().await;
            }
            Self::DeleteRebuilding => {
                lab.control
                    .rebuild_instance(&lab.caller, &id.to_string(), &Rebuild::default())
                    .await
                    .unwrap();
                return id;
            }
            _ => return id,
        }
        lab.rest(id).await;
        id
    }

    /// The wish whose way to its end is interrupted.
    async fn wish(self, lab: &Lab, id: InstanceId) {
        let (control, caller, id) = (&lab.control, &lab.caller, &id.to_string());
        match self {
            Self::Create => return,
            Self::Stop => control.stop_instance(caller, id, false, None).await.unwrap(),
            Self::Discard => control.stop_instance(caller, id, false, None).await.unwrap(),
            Self::Suspend | Self::SuspendPaused => control.suspend_instance(caller, id).await.unwrap(),
            Self::HardStop => control.stop_instance(caller, id, true, None).await.unwrap(),
            Self::Start => control.start_instance(caller, id).await.unwrap(),
            Self::Reboot => control.reboot_instance(caller, id, false).await.unwrap(),
            Self::HardReboot => control.reboot_instance(caller, id, true).await.unwrap(),
            Self::Pause => control.pause_instance(caller, id).await.unwrap(),
            Self::Resume | Self::Wake => control.resume_instance(caller, id).await.unwrap(),
            Self::Rebuild | Self::RebuildStopped | Self::RebuildPaused => {
                let rebuilt = control.rebuild_instance(caller, id, &Rebuild::default()).await.unwrap();
                lab.supply().await;
                rebuilt
            }
            Self::Rescue | Self::RescueStopped => {
                let rescued = control.rescue_instance(caller, id, None).await.unwrap();
                lab.supply().await;
                rescued
            }
            Self::Unrescue => control.unrescue_instance(caller, id).await.unwrap(),
            Self::TrySize => control.try_size(caller, id, "g2.c1m1g").await.unwrap(),
            Self::RevertSize => control.revert_size(caller, id).await.unwrap(),
            Self::Delete | Self::DeleteStopped | Self::DeleteRebuilding | Self::DeleteAsleep => {
                control.delete_instance(caller, id).await.unwrap()
            }
        };
    }
}

/// Everything that may differ between two ends: what users see, what the host has, what the store holds.
async fn end(lab: &Lab, id: InstanceId) -> String {
    // Ids are made anew in each lab, so only the number of keys can be compared.
    let keys: Vec<String> =
        lab.footprint().await.into_iter().map(|(key, mark)| format!("{key}={mark}")).collect();
    let counters = keys.iter().filter(|k| k.contains("/counter/"));
    let mut counters: Vec<_> = counters.filter_map(|k| k.rsplit('/').next()).collect();
    counters.sort_unstable();
    let asked = lab.host.count(Verb::Kill, id) > 0;
    let host = format!("killed={asked} host={}", lab.host.ids().len());
    let told = lab.end(id).replace(&id.to_string(), "ID");
    format!("{told}; {host}; keys {}; {counters:?}", keys.len())
}

/// Runs a story whose daemons die at these points, one after the other, and then one that lives. Gives the end, and
/// whether all of them died.
async fn tell(story: Story, new: NewInstance, deaths: &[usize]) -> (String, bool) {
    let lab = Lab::new().await;
    let id = story.begin(&lab, new).await;
    story.wish(&lab, id).await;
    let mut died = true;
    for point in deaths {
        let daemon = lab.daemon(Fuse::at(*point)).await;
        died &= lab.drive_to_death(&daemon, id).await;
        if !died {
            break;
        }
    }
    lab.rest(id).await;
    let first = end(&lab, id).await;
    lab.rest(id).await;
    assert_eq!(end(&lab, id).await, first, "{story:?} {deaths:?}: one run more changes nothing");
    (first, died)
}

/// Each story is told with a death at every point there is.
async fn check_every_point(stories: &[Story]) {
    for story in stories.iter().copied() {
        let is_of_vms = Story::SLEEP.contains(&story) || Story::RESCUE.contains(&story);
        let kinds = if is_of_vms { vec![vm("db")] } else { vec![vm("db"), pod("web")] };
        for new in kinds {
            let (wanted, _) = tell(story, new.clone(), &[]).await;
            let mut points = 0;
            loop {
                let (ended, died) = tell(story, new.clone(), &[points]).await;
                assert_eq!(ended, wanted, "{story:?} of {}, died at point {points}", new.name);
                if !died {
                    break;
                }
                points += 1;
                assert!(points < POINTS_MAX, "{story:?} has no end");
            }
            println!("{story:?} of {}: {points} points; {wanted}", new.name);
            assert!(points >= 4, "{story:?} passes {points} points: the fuse is not in its way");
        }
    }
}

/// Each story is told with three deaths at random points.
async fn check_three_deaths(stories: &[Story]) {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    for story in stories.iter().copied() {
        let (wanted, _) = tell(story, vm("db"), &[]).await;
        for _ in 0..DEATHS_TOLD {
            let deaths = [(); 3].map(|()| rand::Rng::random_range(&mut rng, 0..24));
            let (ended, _) = tell(story, vm("db"), &deaths).await;
            assert_eq!(ended, wanted, "SEED={seed} {story:?} {deaths:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_power_comes_to_the_same_end() {
    check_every_point(&Story::POWER).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_power_come_to_the_same_end() {
    check_three_deaths(&Story::POWER).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_boots_comes_to_the_same_end() {
    check_every_point(&Story::BOOTS).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_boots_come_to_the_same_end() {
    check_three_deaths(&Story::BOOTS).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_sleep_comes_to_the_same_end() {
    check_every_point(&Story::SLEEP).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_sleep_come_to_the_same_end() {
    check_three_deaths(&Story::SLEEP).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_renewal_comes_to_the_same_end() {
    check_every_point(&Story::RENEWAL).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_renewal_come_to_the_same_end() {
    check_three_deaths(&Story::RENEWAL).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_rescue_comes_to_the_same_end() {
    check_every_point(&Story::RESCUE).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_rescue_come_to_the_same_end() {
    check_three_deaths(&Story::RESCUE).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_of_the_end_comes_to_the_same_end() {
    check_every_point(&Story::END).await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_on_the_way_of_the_end_come_to_the_same_end() {
    check_three_deaths(&Story::END).await;
}
