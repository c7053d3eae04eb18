//! What was measured, as a table for people and as JSON for machines.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// Figures of one thing, one a round.
#[derive(Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.0.clone())
    }
}

/// A suite's figures.
pub(crate) struct Report {
    suite: &'static str,
    pub(crate) entries: Vec<Value>,
    pub(crate) lines: Vec<String>,
}

impl Report {
    pub(crate) fn new(suite: &'static str) -> Self {
        Self { suite, entries: Vec::new(), lines: Vec::new() }
    }

    /// A figure beside a baseline of the same rounds; the smaller the ratio the better.
    ///
    /// The interval is that of the rounds' own ratios, without the most extreme ones at each end (`cut`). An interval that
    /// spans the target says neither that it holds nor that it does not.
    pub(crate) fn ratio(
        &mut self,
        (name, against): (&str, &str),
        unit: &str,
        value: &Series,
        baseline: &Series,
        target: f64,
    ) {
        let mut ratios: Vec<f64> = value.0.iter().zip(&baseline.0).map(|(a, b)| a / b).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let cut = cut(ratios.len());
        let (low, high) = (ratios[cut], ratios[ratios.len() - 1 - cut]);
        let (holds, verdict) = if high <= target {
            (json!(true), "holds")
        } else if low > target {
            (json!(false), "MISSED")
        } else {
            (json!("inconclusive"), "inconclusive")
        };
        let ratio = median(ratios);
        let (value, base) = (value.median(), baseline.median());
        self.lines.push(format!(
            "{name:<42} {value:>9.3} {unit:<2} beside {base:>9.3} ({against})  ratio {ratio:.4} [{low:.4}, {high:.4}]  target {target:.4}  {verdict}"
        ));
        self.entries.push(json!({
            "name": name, "value": value, "unit": unit, "baseline": against,
            "baseline_value": base, "ratio": ratio, "interval": [low, high], "target": target,
            "holds": holds,
        }));
    }

    /// A figure without a target.
    pub(crate) fn note(&mut self, name: &str, unit: &str, value: f64) {
        self.lines.push(format!("{name:<50} {value:>9.3} {unit}"));
        self.entries.push(json!({
            "name": name, "value": value, "unit": unit, "baseline": null,
            "baseline_value": null, "ratio": null, "target": null, "holds": null,
        }));
    }

    /// Prints the table and writes `target/bench/SUITE.json` below the workspace's root.
    pub(crate) fn write(self) -> Result<()> {
        println!("\n{}", machine());
        self.lines.iter().for_each(|line| println!("{line}"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = root.canonicalize()?.join("target/bench");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}.json", self.suite));
        fs::write(&file, serde_json::to_string_pretty(&self.entries)? + "\n")?;
        println!("written to {}", file.display());
        Ok(())
    }
}

/// Rounds at each end that do not count for an interval: a fifth, and of many rounds as many as leave the median inside 19
/// times of 20, whatever the rounds' distribution is (ranks of the binomial one: n/2 ± 0.98 √n).
pub(crate) fn cut(rounds: usize) -> usize {
    let rank = (rounds as f64 / 2.0 - 0.98 * (rounds as f64).sqrt()) as usize;
    (rounds / 5).max(rank.saturating_sub(1))
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<&str> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .collect();
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = models.first().copied().unwrap_or("unknown processor");
    format!("{model}, {} cores, kernel {}", models.len(), kernel.trim())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}
