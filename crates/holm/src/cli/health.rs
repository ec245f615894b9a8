//! Health of containers: the options that say how it is checked, and what `holm info` tells of it.

use super::{output::page::Page, wording};
use api::v1::types::{health::HealthRequest, instance::Instance};
use jiff::Timestamp;
use model::health::test::Test;

/// How a container's health is checked.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Health")]
pub struct HealthArgs {
    /// Shell command that is run in the container again and again; its exit code 0 is health [default: the image's]
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time from one run to the next: 500ms, 30s, 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = wording::parse_milliseconds)]
    pub health_interval: Option<u64>,
    /// Time after which a run is killed and has failed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = wording::parse_milliseconds)]
    pub health_timeout: Option<u64>,
    /// Failures in a row until it is unhealthy [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub health_retries: Option<u32>,
    /// Time after the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = wording::parse_milliseconds)]
    pub health_start_period: Option<u64>,
    /// Time from one run to the next while the start period lasts [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = wording::parse_milliseconds)]
    pub health_start_interval: Option<u64>,
    /// Check nothing, whatever the image says
    #[arg(long, conflicts_with = "health_cmd")]
    pub no_healthcheck: bool,
}

impl HealthArgs {
    /// What is asked for; `None` when that is left to the image.
    pub fn request(&self) -> Option<HealthRequest> {
        let test = match &self.health_cmd {
            _ if self.no_healthcheck => Some(Test::None),
            Some(command) => Some(Test::Shell(command.clone())),
            None => None,
        };
        let request = HealthRequest {
            test,
            interval_ms: self.health_interval,
            timeout_ms: self.health_timeout,
            retries: self.health_retries,
            start_period_ms: self.health_start_period,
            start_interval_ms: self.health_start_interval,
        };
        Some(request).filter(|request| *request != HealthRequest::default())
    }
}

/// What is told of an instance's health: a line for each container that is checked.
pub fn lines(page: &mut Page, instance: &Instance, now: Timestamp) {
    for container in &instance.containers {
        let Some(health) = &container.health else { continue };
        let whose = match instance.containers.len() {
            1 => String::new(),
            _ => format!("{}: ", container.name),
        };
        let streak = match health.failing_streak {
            0 => String::new(),
            1 => ", the last probe failed".into(),
            count => format!(", {count} probes failed in a row"),
        };
        let last = health.probes.last().map_or(String::new(), |probe| {
            let said = probe.output.lines().next().unwrap_or_default();
            let said = if said.is_empty() { String::new() } else { format!(": {said:.80}") };
            format!("; probed {} ago, exit code {}{said}", wording::age(probe.ended_at, now), probe.exit_code)
        });
        page.line("Health", format!("{whose}{}{streak}{last}", health.status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_apis() {
        assert_eq!(HealthArgs::default().request(), None);
        let none = HealthArgs { no_healthcheck: true, ..HealthArgs::default() };
        assert_eq!(none.request().unwrap().test, Some(Test::None));
        let asked = HealthArgs {
            health_cmd: Some("wget -q -O - localhost".into()),
            health_interval: Some(500),
            ..HealthArgs::default()
        };
        let request = asked.request().unwrap();
        assert_eq!(request.test, Some(Test::Shell("wget -q -O - localhost".into())));
        assert_eq!((request.interval_ms, request.retries), (Some(500), None));
    }
}
