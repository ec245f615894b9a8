//! What steps are called where each is shown by itself: `[tools 2/3] RUN make`.

use model::dockerfile::{
    Dockerfile,
    instruction::Instruction,
    stage::{Base, Planned, Step},
};

/// Longest name.
const NAME_CHARS_MAX: usize = 500;

/// Numbers of a stage's steps. Those count that may change files, and the image that it is built on.
pub struct Numbers {
    stage: String,
    at: usize,
    total: usize,
}

impl Numbers {
    /// Those of a stage.
    pub fn of(file: &Dockerfile, planned: &Planned) -> Self {
        let stage = &file.stages[planned.stage];
        let own = usize::from(matches!(planned.base, Base::Image(_) | Base::Given(_)));
        let steps = stage.steps.iter().filter(|step| counts(step) && !planned.is_given);
        let total = own + steps.count();
        let name = match (&stage.from.name, file.stages.len()) {
            (_, 1) => String::new(),
            (Some(name), _) => format!("{name} "),
            (None, _) => format!("stage-{} ", planned.stage),
        };
        Self { stage: name, at: 0, total }
    }

    /// The name of the next step.
    pub fn next(&mut self, text: &str) -> String {
        self.at += 1;
        let width = self.total.to_string().len();
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().take(NAME_CHARS_MAX).collect();
        format!("[{}{:>width$}/{}] {text}", self.stage, self.at, self.total)
    }
}

/// Whether a step is one of those.
pub fn counts(step: &Step) -> bool {
    matches!(step.instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::dockerfile::scope::Globals;
    use std::collections::BTreeMap;

    #[test]
    fn steps_that_may_change_files_count() {
        let names = |text: &str| {
            let file = Dockerfile::read(text.as_bytes()).unwrap();
            let globals = Globals::of(&file, &BTreeMap::new(), "amd64").unwrap();
            let mut all = vec![];
            for planned in file.plan(None, &globals, &|_| false).unwrap() {
                let mut numbers = Numbers::of(&file, &planned);
                if let Base::Image(name) = &planned.base {
                    all.push(numbers.next(&format!("FROM {name}")));
                }
                let steps = file.stages[planned.stage].steps.iter().filter(|step| counts(step));
                all.extend(steps.map(|step| numbers.next(&step.text)));
            }
            all
        };
        let one = "FROM busybox\nENV A=1\nRUN  a \\\n  b\nWORKDIR /x\nCMD [\"x\"]";
        assert_eq!(names(one), ["[1/3] FROM busybox", "[2/3] RUN a b", "[3/3] WORKDIR /x"]);
        let two = "FROM a AS tools\nRUN x\nFROM tools\nCOPY --from=tools /x /y";
        assert_eq!(
            names(two),
            ["[tools 1/2] FROM a", "[tools 2/2] RUN x", "[stage-1 1/1] COPY --from=tools /x /y"]
        );
        let many = format!("FROM a\n{}", "RUN x\n".repeat(10));
        assert_eq!(names(&many)[1], "[ 2/11] RUN x");
    }
}
