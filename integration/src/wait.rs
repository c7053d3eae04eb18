//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Tries until it succeeds. At the deadline the last error is the reason.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {within:?}: {what}"));
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Tries over and over; the first error ends it.
pub fn always(what: &str, during: Duration, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + during;
    while Instant::now() < end {
        attempt().with_context(|| format!("not always so: {what}"))?;
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn the_last_error_is_the_reason_at_the_deadline() {
        let mut tries = 0;
        let outcome: Result<()> = eventually("it is so", Duration::from_millis(60), || {
            tries += 1;
            bail!("attempt {tries}")
        });
        let said = format!("{:#}", outcome.unwrap_err());
        assert!(said.contains("it is so") && said.ends_with(&format!("attempt {tries}")), "{said}");
    }

    #[test]
    fn always_ends_at_the_first_error() {
        let mut tries = 0;
        let outcome = always("it is so", Duration::from_secs(60), || {
            tries += 1;
            if tries == 3 { bail!("it is not") } else { Ok(()) }
        });
        assert!(outcome.is_err() && tries == 3);
    }
}
