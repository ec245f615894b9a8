//! `holm advise`: what instances use, and which of them would do with less.

use super::{
    completion,
    failure::Result,
    output::{Cell, Column, Shown, column},
    session::Session,
    wording,
};
use api::v1::types::advice::Advice;

/// Arguments of `holm advise`.
#[derive(Debug, Clone, clap::Args)]
pub struct AdviseArgs {
    /// Instance [default: all that run]
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub name: Option<String>,
    /// Instances of all projects (admin only)
    #[arg(long)]
    pub all_projects: bool,
}

impl Shown for Advice {
    const COLUMNS: &'static [Column<Self>] = &[
        column("INSTANCE", |a| Cell::text(&a.instance.name)),
        column("MEMORY", |a| {
            let (peak, has) = (wording::mebibytes(a.memory_peak_mib), wording::mebibytes(a.memory_mib));
            Cell::text(format!("{peak}/{has}"))
        }),
        column("CPUS", |a| Cell::text(format!("{}/{}", cpus(a.cpu_peak_millis), a.vcpus))),
        column("MEASURED", |a| Cell::text(measured(a))),
        column("WOULD DO", |a| Cell::maybe(a.flavor.as_ref().map(|flavor| &flavor.name))),
        column("COMMAND", |a| Cell::maybe(command(a))),
    ];

    fn name(&self) -> String {
        self.instance.name.clone()
    }
}

fn cpus(millis: u64) -> String {
    format!("{}.{}", millis / 1_000, millis % 1_000 / 100)
}

fn measured(advice: &Advice) -> String {
    wording::duration(advice.measured_s.cast_signed())
}

fn command(advice: &Advice) -> Option<String> {
    let flavor = advice.flavor.as_ref()?;
    Some(format!("holm set {} --flavor {}", advice.instance.name, flavor.name))
}

/// One sentence: what it uses, and what would do.
pub fn sentence(advice: &Advice) -> String {
    let (peak, has) = (wording::mebibytes(advice.memory_peak_mib), wording::mebibytes(advice.memory_mib));
    let used = format!(
        "at most {peak} of {has} and {} of {} CPUs in the last {}",
        cpus(advice.cpu_peak_millis),
        advice.vcpus,
        measured(advice)
    );
    match (&advice.flavor, command(advice)) {
        (Some(flavor), Some(command)) => format!("{used}; {} would do: {command}", flavor.name),
        _ => used,
    }
}

/// Runs the command.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, args: &AdviseArgs) -> Result {
    let project = args.all_projects.then_some("*");
    let all = session.client.advice(args.name.as_deref(), project).await?;
    if all.is_empty() && session.printer.format.is_none() && session.stdout_is_terminal {
        session.say("nothing is measured: an instance is while it runs");
        return Ok(());
    }
    session.printer.list(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::types::Reference;

    #[test]
    fn the_sentence_says_what_is_used_and_what_would_do() {
        let reference = |name: &str| Reference { id: uuid::Uuid::nil(), name: name.into() };
        let mut advice = Advice {
            instance: reference("web"),
            vcpus: 2,
            memory_mib: 4_096,
            measured_s: 26 * 3_600,
            memory_peak_mib: 210,
            cpu_peak_millis: 340,
            flavor: Some(reference("g1.c1m512")),
        };
        let used = "at most 210 MiB of 4 GiB and 0.3 of 2 CPUs in the last 26h";
        let would_do = format!("{used}; g1.c1m512 would do: holm set web --flavor g1.c1m512");
        assert_eq!(sentence(&advice), would_do);
        advice.flavor = None;
        assert_eq!(sentence(&advice), used);
    }
}
