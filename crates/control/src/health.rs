//! Health of containers: what is checked, and what is said of it. Nodes check; nothing is decided here.

use crate::{Control, Error, Result};
use model::{
    health::{
        HealthCheck, HealthSpec, merged,
        probe::Purpose,
        resolve,
        status::{ContainerHealth, Health, Word, is_ready, run_of, told},
    },
    image::ImageStatus,
    instance::{ContainerSpec, Instance, State},
};

impl Control {
    /// How a container's health is checked, as it was asked for and as its image says; `None` where neither says anything.
    pub fn health_asked(&self, spec: &ContainerSpec) -> Option<HealthSpec> {
        merged(spec.health.as_ref(), self.health_of_image(spec).as_ref())
    }

    /// How a container's health is checked; `None` when it is not.
    pub fn health_check(&self, spec: &ContainerSpec) -> Option<HealthCheck> {
        resolve(spec.health.as_ref(), self.health_of_image(spec).as_ref())
    }

    fn health_of_image(&self, spec: &ContainerSpec) -> Option<HealthSpec> {
        let status = self.store.get::<ImageStatus>(&spec.image?.to_string())?;
        status.record.content()?.oci.as_ref()?.health.clone()
    }

    /// What is said of a container's health: of its run, or of the last one while it does not run. `None` when it is not
    /// checked, or was never started.
    pub fn health(&self, instance: &Instance, spec: &ContainerSpec) -> Option<Health> {
        self.health_check(spec)?;
        self.health_for(instance, spec, Purpose::Health)
    }

    /// What a container's probes for one purpose say, as [`Self::health`] does. `None` where there are none.
    pub fn probed(&self, instance: &Instance, spec: &ContainerSpec, purpose: Purpose) -> Option<Health> {
        spec.probes.all().into_iter().find(|(of, _)| *of == purpose)?;
        self.health_for(instance, spec, purpose)
    }

    /// Whether an instance can be given work, as the probes and hooks of its containers say. `None` where there are none.
    pub fn is_ready(&self, instance: &Instance) -> Option<bool> {
        let asked = |spec: &ContainerSpec| {
            spec.probes.startup.is_some()
                || spec.probes.readiness.is_some()
                || spec.lifecycle.post_start.is_some()
        };
        if !instance.containers.iter().any(asked) {
            return None;
        }
        let status = self.instance_status(instance.meta.id);
        let record = |key: &str| Some(self.store.get::<ContainerHealth>(key)?.record.clone());
        Some(is_ready(instance, status.as_deref().map(|status| &status.record), record))
    }

    fn health_for(&self, instance: &Instance, spec: &ContainerSpec, purpose: Purpose) -> Option<Health> {
        let status = self.instance_status(instance.meta.id)?;
        if status.record.state == State::Absent {
            return None;
        }
        let run_ms = run_of(&status.record, &spec.name);
        let key = ContainerHealth::key_of(instance.meta.id, &spec.name, purpose);
        let record = self.store.get::<ContainerHealth>(&key);
        Some(told(record.as_deref().map(|stored| &stored.record), run_ms))
    }

    /// The health of a running instance in a word: that of its worst container. `None` where nothing that runs is checked.
    pub fn health_word(&self, instance: &Instance) -> Option<Word> {
        let status = self.instance_status(instance.meta.id)?;
        let running = instance.containers.iter().filter(|spec| run_of(&status.record, &spec.name).is_some());
        let words = running.filter_map(|spec| Some(self.health(instance, spec)?.word));
        words.max_by_key(|word| match word {
            Word::Healthy => 0,
            Word::Starting => 1,
            Word::Unhealthy => 2,
        })
    }
}

/// Refuses a check that is out of bounds.
pub(crate) fn check_health(spec: &ContainerSpec) -> Result<()> {
    let Some(health) = &spec.health else { return Ok(()) };
    health.check().map_err(|wrong| Error::invalid(&format!("health.{}", wrong.name), wrong))
}
