//! How a VIP's backends are checked.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::resource::HealthCheckSpec;

/// How backends are checked: here, or by a health check that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// The name of the health check that says all of it; nothing else may be said beside it.
    pub from: Option<String>,
    /// `tcp` connects to the backend; `none` takes every backend for healthy.
    pub kind: HealthCheckKind,
    /// The port that is connected to, 1 to 65535; the backend's own by default.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: Option<u16>,
    /// Between the starts of two checks, 100 to 3,600,000 ms.
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 3_600_000))]
    pub interval_ms: u32,
    /// How long a connect may take, 10 ms to the interval.
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 3_600_000))]
    pub timeout_ms: u32,
    /// Successes in a row that make an unhealthy backend healthy, 1 to 100.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub rise: u8,
    /// Failures in a row that make a healthy backend unhealthy, 1 to 100.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub fall: u8,
}

/// What a health check does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    /// A TCP connect to the backend's address and port.
    #[default]
    Tcp,
    /// No check: every backend counts as healthy.
    None,
}

impl HealthCheck {
    /// As a named health check says it.
    #[must_use]
    pub fn of(from: String, spec: HealthCheckSpec) -> Self {
        Self { from: Some(from), ..spec.into() }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheckSpec::default().into()
    }
}

impl From<HealthCheckSpec> for HealthCheck {
    fn from(spec: HealthCheckSpec) -> Self {
        let HealthCheckSpec { kind, port, interval_ms, timeout_ms, rise, fall } = spec;
        Self { from: None, kind, port, interval_ms, timeout_ms, rise, fall }
    }
}

/// What a named health check says is written there alone.
impl Serialize for HealthCheck {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("HealthCheck", 6)?;
        match &self.from {
            Some(from) => fields.serialize_field("from", from)?,
            None => {
                fields.serialize_field("kind", &self.kind)?;
                if let Some(port) = self.port {
                    fields.serialize_field("port", &port)?;
                }
                fields.serialize_field("interval_ms", &self.interval_ms)?;
                fields.serialize_field("timeout_ms", &self.timeout_ms)?;
                fields.serialize_field("rise", &self.rise)?;
                fields.serialize_field("fall", &self.fall)?;
            }
        }
        fields.end()
    }
}
