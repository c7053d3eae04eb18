//! `lbd clean`: takes everything of ours out of the kernel.

use anyhow::{Result, bail};
use lb_api_types::config::Config;
use lb_dataplane::Dataplane;

use super::dataplane::options;
use crate::http::answers;

/// What was taken away, one line each.
///
/// # Errors
///
/// A daemon runs, or the kernel refuses.
pub async fn clean(config: &Config) -> Result<Vec<String>> {
    let socket = &config.api.socket;
    if answers(socket) {
        bail!("lbd runs and answers at {}: stop it first", socket.display());
    }
    let mut done = Vec::new();
    let pin_dir = &config.dataplane.pin_dir;
    if pin_dir.exists() {
        let dataplane = Dataplane::open(&options(&config.dataplane))?;
        for attached in dataplane.attached() {
            done.push(format!("detached from {}", attached.name));
        }
        dataplane.destroy()?;
        done.push(format!("removed programs, flows and tables from {}", pin_dir.display()));
    }
    let (routes, addresses) = lb_routing::cleanup().await?;
    done.push(format!("removed {routes} kernel routes and {addresses} addresses of interfaces"));
    if socket.exists() {
        std::fs::remove_file(socket)?;
        done.push(format!("removed {}", socket.display()));
    }
    Ok(done)
}
