//! Figures that are the better the greater they are.

use serde_json::json;

use crate::report::{Report, Series, cut};

impl Report {
    /// A figure beside a baseline of the same rounds; the interval is as for `ratio`.
    pub(crate) fn at_least(
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
        let (holds, verdict) = if low >= target {
            (json!(true), "holds")
        } else if high < target {
            (json!(false), "MISSED")
        } else {
            (json!("inconclusive"), "inconclusive")
        };
        let ratio = Series(ratios).median();
        let (value, base) = (value.median(), baseline.median());
        self.lines.push(format!(
            "{name:<42} {value:>9.2} {unit:<6} beside {base:>9.2} ({against})  ratio {ratio:.3} [{low:.3}, {high:.3}]  target {target:.2} or more  {verdict}"
        ));
        self.entries.push(json!({
            "name": name, "value": value, "unit": unit, "baseline": against,
            "baseline_value": base, "ratio": ratio, "interval": [low, high], "target": target,
            "holds": holds,
        }));
    }
}
