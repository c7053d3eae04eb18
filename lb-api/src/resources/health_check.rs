//! Health checks that VIPs name.

use lb_api_types::resource::{HealthCheckSpec, NamedHealthCheck};
use lb_api_types::vip::HealthCheckKind;

use super::read_metadata;
use crate::read::{Cursor, Object};

const CHECKS: &[(&str, HealthCheckKind)] =
    &[("tcp", HealthCheckKind::Tcp), ("none", HealthCheckKind::None)];

pub(super) fn read(cursor: &Cursor<'_>) -> Option<NamedHealthCheck> {
    let check = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = check.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = check.required("spec").and_then(|spec| {
        let fields = spec.object(&["kind", "port", "interval_ms", "timeout_ms", "rise", "fall"])?;
        let kind = fields.field("kind").map(|kind| kind.one_of(CHECKS));
        read_check(&fields, kind.unwrap_or(Some(HealthCheckKind::Tcp)))
    });
    Some(NamedHealthCheck { metadata: metadata?, spec: spec?, status: None })
}

/// Everything but the kind, which not everybody may leave out.
pub(crate) fn read_check(
    check: &Object<'_>,
    kind: Option<HealthCheckKind>,
) -> Option<HealthCheckSpec> {
    let default = HealthCheckSpec::default();
    let port = match check.field("port") {
        None => Some(None),
        Some(port) => port.number(1..=u16::MAX).map(Some),
    };
    let interval_ms =
        check.field("interval_ms").map_or(Some(default.interval_ms), |i| i.number(100..=3_600_000));
    let most = interval_ms.unwrap_or(3_600_000);
    let timeout_ms = match check.field("timeout_ms") {
        Some(timeout) => timeout.number(10..=most),
        None => Some(default.timeout_ms.min(most)),
    };
    let rise = check.field("rise").map_or(Some(default.rise), |rise| rise.number(1..=100));
    let fall = check.field("fall").map_or(Some(default.fall), |fall| fall.number(1..=100));
    Some(HealthCheckSpec {
        kind: kind?,
        port: port?,
        interval_ms: interval_ms?,
        timeout_ms: timeout_ms?,
        rise: rise?,
        fall: fall?,
    })
}

/// The kind of a check, where it is said.
pub(crate) fn read_kind(check: &Object<'_>) -> Option<Option<HealthCheckKind>> {
    check.field("kind").map(|kind| kind.one_of(CHECKS))
}
