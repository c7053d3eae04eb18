//! `checks.yaml` of a topology: what must hold, step by step, and the faults between.
//!
//! Each step is a mapping with one of the keys `do`, `eventually`, `always`, `never` (their value says in words what is
//! done or holds) or `fault`. The first four run a shell command in a node and look for a text in what it prints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::clab::Endpoint;
use crate::lab::Lab;
use crate::wait;

/// Seconds that a step has, unless it says so itself.
const DEFAULT_SECONDS: u64 = 20;
const DEFAULT_SECONDS_OF_ALWAYS: u64 = 2;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    steps: Vec<RawStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    r#do: Option<String>,
    eventually: Option<String>,
    always: Option<String>,
    never: Option<String>,
    #[serde(default, with = "serde_norway::with::singleton_map_recursive")]
    fault: Option<Fault>,
    node: Option<String>,
    run: Option<String>,
    expect: Option<String>,
    seconds: Option<u64>,
}

/// Something that goes wrong, or is put right again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Takes an interface down: `node:interface`.
    LinkDown(String),
    /// Brings it up again.
    LinkUp(String),
    /// Loses packets at an interface, silently.
    Loss {
        /// `node:interface`.
        at: String,
        /// Share that is lost; 0 heals.
        percent: u8,
    },
    /// `kill -9` of a node's programs.
    Kill(String),
    /// Starts a node's programs.
    Start(String),
}

/// One step, checked.
#[derive(Debug)]
struct Command<'a> {
    words: &'a str,
    node: &'a str,
    run: &'a str,
    expect: Option<&'a str>,
    seconds: Option<u64>,
}

/// Reads a file; a step that cannot be understood is an error here, not when its turn comes.
pub fn read(path: &Path) -> Result<Checks> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Checks> {
    let checks: Checks = serde_norway::from_str(text)?;
    for (index, step) in checks.steps.iter().enumerate() {
        step.check().with_context(|| format!("step {}", index + 1))?;
    }
    Ok(checks)
}

impl RawStep {
    fn check(&self) -> Result<()> {
        let kinds = [&self.r#do, &self.eventually, &self.always, &self.never];
        let given = kinds.iter().filter(|kind| kind.is_some()).count();
        if self.fault.is_some() {
            ensure!(given == 0 && self.run.is_none(), "a `fault` stands alone");
            return Ok(());
        }
        ensure!(given == 1, "say one of `do`, `eventually`, `always`, `never`, `fault`");
        ensure!(
            self.node.is_some() && self.run.is_some(),
            "say the `node` and what to `run` there"
        );
        ensure!(
            self.r#do.is_some() != self.expect.is_some(),
            "say what to `expect`, except of `do`"
        );
        Ok(())
    }

    fn command<'a>(&'a self, words: &'a str) -> Command<'a> {
        Command {
            words,
            node: self.node.as_deref().unwrap_or_default(),
            run: self.run.as_deref().unwrap_or_default(),
            expect: self.expect.as_deref(),
            seconds: self.seconds,
        }
    }

    fn carry_out(&self, lab: &mut Lab) -> Result<()> {
        if let Some(fault) = &self.fault {
            return fault.inject(lab);
        }
        if let Some(words) = &self.r#do {
            let command = self.command(words);
            return lab.run(command.node, command.run).map(drop);
        }
        if let Some(words) = &self.eventually {
            let command = self.command(words);
            return wait::eventually(words, command.within(DEFAULT_SECONDS), || command.holds(lab));
        }
        if let Some(words) = &self.always {
            let command = self.command(words);
            let during = command.within(DEFAULT_SECONDS_OF_ALWAYS);
            return wait::always(words, during, || command.holds(lab));
        }
        if let Some(words) = &self.never {
            let command = self.command(words);
            let during = command.within(DEFAULT_SECONDS_OF_ALWAYS);
            return wait::always(words, during, || command.holds_not(lab));
        }
        Ok(())
    }
}

impl Command<'_> {
    fn within(&self, default: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(default))
    }

    fn holds(&self, lab: &Lab) -> Result<()> {
        let said = lab.run(self.node, self.run)?;
        let expected = self.expect.unwrap_or_default();
        ensure!(said.contains(expected), "no `{expected}` in: {}", said.trim());
        Ok(())
    }

    fn holds_not(&self, lab: &Lab) -> Result<()> {
        let said = lab.run(self.node, self.run)?;
        let unwanted = self.expect.unwrap_or_default();
        ensure!(!said.contains(unwanted), "{}: `{unwanted}` in: {}", self.words, said.trim());
        Ok(())
    }
}

impl Fault {
    fn inject(&self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::LinkDown(at) => lab.set_link(&end(at)?, "down"),
            Self::LinkUp(at) => lab.set_link(&end(at)?, "up"),
            Self::Loss { at, percent } => lab.lose(&end(at)?, *percent),
            Self::Kill(node) => lab.stop(node, Signal::SIGKILL),
            Self::Start(node) => lab.start(node),
        }
    }
}

fn end(at: &str) -> Result<Endpoint> {
    let Some((node, interface)) = at.split_once(':') else {
        bail!("`{at}` is not `node:interface`");
    };
    Ok(Endpoint { node: node.to_owned(), interface: interface.to_owned() })
}

impl Checks {
    /// Carries the steps out in order; the first that fails ends it. `progress` hears each step's words.
    pub fn carry_out(&self, lab: &mut Lab, progress: impl Fn(&str)) -> Result<()> {
        for (index, step) in self.steps.iter().enumerate() {
            let fault = step.fault.as_ref().map(|fault| format!("fault: {fault:?}"));
            let kinds = [&step.r#do, &step.eventually, &step.always, &step.never, &fault];
            let words = kinds.into_iter().flatten().next().map_or("", String::as_str);
            progress(words);
            step.carry_out(lab).with_context(|| format!("step {} ({words})", index + 1))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_faults_are_read() {
        let checks = parse(
            "steps:\n- {eventually: x holds, node: a, run: ls, expect: x, seconds: 3}\n\
             - fault: {loss: {at: 'a:eth1', percent: 20}}\n- fault: {kill: a}\n",
        )
        .unwrap();
        assert_eq!(checks.steps.len(), 3);
        assert_eq!(checks.steps[2].fault, Some(Fault::Kill("a".to_owned())));
    }

    #[test]
    fn a_step_that_cannot_be_meant_is_refused_with_its_number() {
        for (text, said) in [
            ("steps:\n- {node: a, run: ls}", "say one of"),
            ("steps:\n- {always: x, never: y, node: a, run: ls, expect: z}", "say one of"),
            ("steps:\n- {always: x, run: ls, expect: z}", "say the `node`"),
            ("steps:\n- {always: x, node: a, run: ls}", "say what to `expect`"),
            ("steps:\n- {fault: {kill: a}, do: x}", "stands alone"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains("step 1") && error.contains(said), "{text}: {error}");
        }
    }
}
