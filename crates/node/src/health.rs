//! Health checks of this node's containers: a task for each container that runs and has one, no more and no less.
//!
//! ```text
//!   wishes, statuses ──► Health::look ──► tasks: wait, probe, write what it said, wait …
//! ```
//! A task does one thing after the other, so that probes never pile up, and a probe ends with its task, with its time and
//! with the daemon. What was seen is in the records: a new daemon goes on where the last one was.

pub(crate) mod probe;

use crate::{driver::Driver, instance::Clock};
use jiff::Timestamp;
use model::{
    health::{
        HealthCheck,
        probe::Purpose,
        resolve,
        status::{ContainerHealth, Health as Seen, Probe, Word, run_of, told},
    },
    id::{EventId, InstanceId, NodeId},
    image::ImageStatus,
    instance::{ContainerSpec, Instance, InstanceStatus, Kind, State},
    operation::{Event, Subject},
    plan::RestartPolicy,
    record::Record,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use store::{Change, Store, Tx};
use tokio::{sync::watch, task::JoinSet};

/// Pause after an answer that could not be written.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// All health checks of a node.
pub struct Health {
    store: Store,
    node: NodeId,
    drivers: HashMap<Kind, Arc<dyn Driver>>,
    clock: Clock,
}

/// What one task is about. Another run or another check is another task.
#[derive(Debug, Clone, PartialEq)]
struct Watched {
    kind: Kind,
    instance: InstanceId,
    container: String,
    purpose: Purpose,
    run_ms: i64,
    check: HealthCheck,
    /// A run that fails it is ended, to be started again.
    renews: bool,
}

impl Watched {
    /// Key of the record of what was seen.
    fn key(&self) -> String {
        ContainerHealth::key_of(self.instance, &self.container, self.purpose)
    }
}

/// The tasks, by the keys of their containers' records. Each ends when its sender is dropped.
#[derive(Default)]
struct Tasks {
    running: BTreeMap<String, (Watched, watch::Sender<()>)>,
    set: JoinSet<()>,
}

impl Health {
    /// Checks by these drivers.
    pub fn new(store: Store, node: NodeId, drivers: HashMap<Kind, Arc<dyn Driver>>) -> Self {
        Self { store, node, drivers, clock: Arc::new(Timestamp::now) }
    }

    /// The same, with the time read from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Keeps the tasks as the records want them, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        // Subscribed to before the first look, so that nothing is missed between them.
        let mut changes = self.store.subscribe();
        let mut tasks = Tasks::default();
        self.look_at_all(&mut tasks);
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Record { table, key, .. }) => self.look_at(&mut tasks, table, &key),
                    Some(Change::Resync) => self.look_at_all(&mut tasks),
                    None => return,
                },
                Some(_) = tasks.set.join_next() => {}
            }
        }
    }

    fn look_at(self: &Arc<Self>, tasks: &mut Tasks, table: &str, key: &str) {
        match table {
            Instance::TABLE | InstanceStatus::TABLE => {
                if let Ok(id) = key.parse() {
                    self.look(tasks, id);
                }
            }
            // What has started is asked the other questions from then on.
            ContainerHealth::TABLE if key.ends_with(Purpose::Startup.as_str()) => {
                if let Some(id) = ContainerHealth::instance_of(key) {
                    self.look(tasks, id);
                }
            }
            // What an image says of its containers' health may be told anew when it is pulled again.
            ImageStatus::TABLE => {
                for instance in self.store.list::<Instance>() {
                    let uses = |c: &ContainerSpec| c.image.is_some_and(|image| image.to_string() == key);
                    if instance.record.containers.iter().any(uses) {
                        self.look(tasks, instance.record.meta.id);
                    }
                }
            }
            _ => {}
        }
    }

    fn look_at_all(self: &Arc<Self>, tasks: &mut Tasks) {
        let known = tasks.running.values().map(|(watched, _)| watched.instance);
        let there = self.store.list::<Instance>();
        let all: std::collections::BTreeSet<InstanceId> =
            known.chain(there.iter().map(|i| i.record.meta.id)).collect();
        for id in all {
            self.look(tasks, id);
        }
    }

    /// Starts and ends the tasks of an instance.
    fn look(self: &Arc<Self>, tasks: &mut Tasks, id: InstanceId) {
        let wanted = self.wanted(id);
        tasks.running.retain(|_, (watched, _)| watched.instance != id || wanted.contains(watched));
        for watched in wanted {
            let key = watched.key();
            if tasks.running.contains_key(&key) {
                continue;
            }
            let (sender, end) = watch::channel(());
            tasks.set.spawn(Arc::clone(self).watch(watched.clone(), end));
            tasks.running.insert(key, (watched, sender));
        }
    }

    fn wanted(&self, id: InstanceId) -> Vec<Watched> {
        let key = id.to_string();
        let (Some(instance), Some(status)) =
            (self.store.get::<Instance>(&key), self.store.get::<InstanceStatus>(&key))
        else {
            return vec![];
        };
        let (instance, status) = (&instance.record, &status.record);
        let is_ours = instance.node == Some(self.node) && !instance.meta.is_deleting();
        // What is frozen cannot answer, and nobody is to blame.
        if !is_ours || !matches!(status.state, State::Running { .. }) {
            return vec![];
        }
        let watched = |spec: &ContainerSpec| {
            let Some(run_ms) = run_of(status, &spec.name) else { return vec![] };
            let (kind, container) = (instance.kind, spec.name.clone());
            let about = |purpose, check| Watched {
                kind,
                instance: id,
                container: container.clone(),
                purpose,
                run_ms,
                check,
                renews: purpose.restarts()
                    || (purpose.is_health() && spec.restart == RestartPolicy::OnUnhealthy),
            };
            let mut all: Vec<Watched> =
                self.check(spec).map(|check| about(Purpose::Health, check)).into_iter().collect();
            for (purpose, probe) in spec.probes.all() {
                let wanted = about(purpose, probe.check());
                let has_succeeded = self.seen(&wanted).word == Word::Healthy;
                if purpose != Purpose::Startup {
                    all.push(wanted);
                } else if !has_succeeded {
                    // Nothing else is asked of what has not started, and nothing of this kind once it has.
                    all.push(wanted);
                    break;
                }
            }
            all
        };
        instance.containers.iter().flat_map(watched).collect()
    }

    fn check(&self, spec: &ContainerSpec) -> Option<HealthCheck> {
        let status = spec.image.and_then(|id| self.store.get::<ImageStatus>(&id.to_string()));
        let of_image = status.and_then(|status| status.record.content()?.oci.as_ref()?.health.clone());
        resolve(spec.health.as_ref(), of_image.as_ref())
    }

    /// Probes one run of a container again and again.
    async fn watch(self: Arc<Self>, watched: Watched, mut end: watch::Receiver<()>) {
        let Some(driver) = self.drivers.get(&watched.kind).cloned() else { return };
        loop {
            let seen = self.seen(&watched);
            if watched.renews && seen.word == Word::Unhealthy {
                self.renew(&watched, &*driver).await;
            }
            let wait = seen.next_probe_ms(&watched.check, watched.run_ms, (self.clock)());
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                // The sender is gone: nothing is ever sent.
                _ = end.changed() => return,
            }
            let started_at = (self.clock)();
            let answer = tokio::select! {
                answer = probe::run(&*driver, watched.instance, &watched.container, &watched.check) => answer,
                // A probe is tied to its connection: what is dropped here is ended there.
                _ = end.changed() => return,
            };
            // The container ended first, and the next look will say so.
            let Some(answer) = answer else {
                tokio::time::sleep(STORE_PAUSE).await;
                continue;
            };
            let probe = Probe {
                started_at,
                ended_at: (self.clock)(),
                exit_code: answer.exit_code,
                output: answer.output,
            };
            if let Err(error) = self.write(&watched, probe).await {
                tracing::warn!(instance = %watched.instance, %error, "a container's health could not be written");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }

    /// Ends a run that failed its probe; repeated until it has ended, since whoever asked first may have been killed.
    async fn renew(&self, watched: &Watched, driver: &dyn Driver) {
        let Some(instance) = self.store.get::<Instance>(&watched.instance.to_string()) else { return };
        let grace_ms = u64::from(instance.record.grace_s) * 1000;
        let done = driver.renew(watched.instance, &watched.container, watched.run_ms, grace_ms).await;
        if let Err(error) = done {
            let (instance, container, error) =
                (&instance.record.meta.name, &watched.container, crate::instance::sentence(&error));
            tracing::warn!(%instance, container, error, "a container that failed its probe could not be ended");
        }
    }

    /// What is known of this run.
    fn seen(&self, watched: &Watched) -> Seen {
        let key = watched.key();
        let record = self.store.get::<ContainerHealth>(&key);
        told(record.as_deref().map(|stored| &stored.record), Some(watched.run_ms))
    }

    async fn write(&self, watched: &Watched, probe: Probe) -> Result<(), store::Error> {
        let (before, id) = (self.seen(watched), watched.instance.to_string());
        let health = before.after(&watched.check, watched.run_ms, probe);
        let mut tx = Tx::new();
        if health.word != before.word
            && let Some(instance) = self.store.get::<Instance>(&id)
        {
            tx.put(&event(&instance.record, watched, &health, (self.clock)()));
        }
        // A container's health goes with its instance and must not come back.
        tx.expect_exists::<Instance>(&id);
        tx.put(&ContainerHealth {
            instance: watched.instance,
            container: watched.container.clone(),
            purpose: watched.purpose,
            node: self.node,
            run_ms: watched.run_ms,
            health,
        });
        match self.store.commit(tx).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn event(instance: &Instance, watched: &Watched, health: &Seen, now: Timestamp) -> Event {
    let (container, purpose) = (&watched.container, watched.purpose);
    let name = &instance.meta.name;
    let whose = match instance.containers.len() {
        1 => name.to_string(),
        _ => format!("container {container} of {name}"),
    };
    let is_bad = health.word == Word::Unhealthy;
    let message = match health.probes.last().filter(|_| is_bad) {
        Some(probe) => {
            let said = probe.output.lines().next().unwrap_or_default();
            let what = match purpose {
                Purpose::Health => "is unhealthy".to_string(),
                other => format!("fails its {} probe", other.as_str()),
            };
            format!(
                "{whose} {what}: {} probes failed, the last with {}{}{said:.200}",
                health.failing_streak,
                probe.exit_code,
                if said.is_empty() { "" } else { ": " }
            )
        }
        None if purpose.is_health() => format!("{whose} is {}", health.word.as_str()),
        None => format!("{whose} passes its {} probe", purpose.as_str()),
    };
    Event {
        id: EventId::from_random(rand::random()),
        at: now,
        project: Some(instance.meta.project),
        subject: Subject { noun: "instance".into(), id: instance.meta.id.to_string() },
        reason: match purpose {
            Purpose::Health => health.word.as_str().into(),
            other => format!("{} {}", other.as_str(), if is_bad { "failed" } else { "passed" }),
        },
        message,
        warning: is_bad,
    }
}
