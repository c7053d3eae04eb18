//! `lbd clean`: takes everything of ours out of the kernel.

use anyhow::{Result, bail};
use lb_api_types::config::Config;

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
    // Also where the kernel loads no programs, or maps are of other sizes than the configuration's.
    if let Some(attached) = lb_dataplane::clean(pin_dir)? {
        let names = attached.into_iter().map(|one| one.name);
        done.extend(names.map(|name| format!("detached from {name}")));
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
