//! Figures that have a bound of their own, and figures beside others without one.

use serde_json::json;

use crate::report::{Report, Series};

impl Report {
    /// A figure that is to stay below a bound; the interval is the rounds' own, without the most extreme fifth at each end.
    pub(crate) fn bound(&mut self, name: &str, unit: &str, value: &Series, target: f64) {
        let (low, high) = interval(value.0.clone());
        let (holds, verdict) = if high <= target {
            (json!(true), "holds")
        } else if low > target {
            (json!(false), "MISSED")
        } else {
            (json!("inconclusive"), "inconclusive")
        };
        let median = value.median();
        self.lines.push(format!(
            "{name:<50} {median:>9.2} {unit:<2} [{low:.2}, {high:.2}]  target {target:.2}  {verdict}"
        ));
        self.entries.push(json!({
            "name": name, "value": median, "unit": unit, "baseline": "the target",
            "baseline_value": target, "ratio": median / target, "interval": [low, high],
            "target": target, "holds": holds,
        }));
    }

    /// A figure beside another one of the same rounds, without a target.
    pub(crate) fn beside(
        &mut self,
        (name, against): (&str, &str),
        unit: &str,
        value: &Series,
        baseline: &Series,
    ) {
        let ratios = value.0.iter().zip(&baseline.0).map(|(a, b)| a / b).collect();
        let (low, high) = interval(ratios);
        let (value, base) = (value.median(), baseline.median());
        self.lines.push(format!(
            "{name:<50} {value:>9.2} {unit:<2} beside {base:>9.2} ({against})  ratio {:.3} [{low:.3}, {high:.3}]",
            value / base
        ));
        self.entries.push(json!({
            "name": name, "value": value, "unit": unit, "baseline": against,
            "baseline_value": base, "ratio": value / base, "interval": [low, high],
            "target": null, "holds": null,
        }));
    }
}

fn interval(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let cut = values.len() / 5;
    (values[cut], values[values.len() - 1 - cut])
}
