//! `create`: a VIP out of the command line's words.

use serde_json::{Map, Value, json};

use super::CtlError;
use super::apply::{dry, path, path_of};
use super::arguments::{NewHealthCheck, NewPool, NewVip};
use super::client::Client;
use crate::resources::Kind;

/// Creates it; lbd says what of it is wrong.
pub(super) async fn vip(client: &Client, new: NewVip) -> Result<String, CtlError> {
    let (name, dry_run) = (new.name.clone(), new.how.dry_run);
    client.create(&path(&name, dry_run), &document(new)).await?;
    Ok(format!("vip {name} created{}\n", dry(dry_run)))
}

/// Creates a pool.
pub(super) async fn pool(client: &Client, new: NewPool) -> Result<String, CtlError> {
    let spec = json!({"addresses": new.addresses});
    resource(client, Kind::Pool, &new.name, spec, new.dry_run).await
}

/// Creates a health check.
pub(super) async fn health_check(client: &Client, new: NewHealthCheck) -> Result<String, CtlError> {
    let NewHealthCheck { name, kind, interval, timeout, rise, fall, dry_run } = new;
    let fields = [
        ("kind", kind.map(Value::from)),
        ("interval_ms", interval.map(Value::from)),
        ("timeout_ms", timeout.map(Value::from)),
        ("rise", rise.map(Value::from)),
        ("fall", fall.map(Value::from)),
    ];
    let said = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    resource(client, Kind::HealthCheck, &name, Value::Object(said.collect()), dry_run).await
}

async fn resource(
    client: &Client,
    kind: Kind,
    name: &str,
    spec: Value,
    dry_run: bool,
) -> Result<String, CtlError> {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    client.create(&path_of(Some(kind), name, dry_run), &body).await?;
    Ok(format!("{} {name} created{}\n", kind.noun(), dry(dry_run)))
}

fn document(new: NewVip) -> Value {
    let backends = new.backend.iter();
    let backends: Vec<_> =
        backends.map(|b| json!({"address": b.ip().to_string(), "port": b.port()})).collect();
    let mut spec = Map::new();
    spec.insert("port".into(), json!(new.port.0));
    spec.insert("backends".into(), backends.into());
    let mut say = |field: &str, value: Option<Value>| {
        value.and_then(|value| spec.insert(field.into(), value));
    };
    say("address", new.address.map(|address| address.to_string().into()));
    say("pool", new.pool.map(Value::from));
    say("last_port", new.port.1.map(Value::from));
    say("protocol", new.protocol.map(Value::from));
    say("algorithm", new.algorithm.map(Value::from));
    say("health_check", new.health_check.map(|kind| json!({"kind": kind})));
    say("advertise", new.no_advertise.then_some(Value::Bool(false)));
    let mut metadata = json!({"name": new.name});
    let labels = new.label.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
    let labels: Map<_, _> = labels.map(|(name, value)| (name.to_owned(), value.into())).collect();
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    json!({"metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::arguments::{Arguments, Command, Create};

    #[test]
    fn the_command_line_says_what_a_file_would() {
        let line = "lbctl create vip web --address 203.0.113.7 --port 80-89 --backend 10.0.0.1:8080 --backend 10.0.0.2:8081 \
                    --protocol udp --algorithm round-robin --health-check none --no-advertise";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Create { what: Create::Vip(new) } = parsed.command else { unreachable!() };
        let expected = json!({
            "metadata": {"name": "web"},
            "spec": {
                "address": "203.0.113.7", "port": 80, "last_port": 89, "protocol": "udp", "algorithm": "round-robin",
                "backends": [{"address": "10.0.0.1", "port": 8080}, {"address": "10.0.0.2", "port": 8081}],
                "health_check": {"kind": "none"}, "advertise": false,
            },
        });
        assert_eq!(document(new), expected);
    }

    #[test]
    fn what_is_not_said_is_left_to_lbd() {
        let line = "lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080";
        let parsed = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Create { what: Create::Vip(new) } = parsed.command else { unreachable!() };
        let fields = document(new)["spec"].as_object().unwrap().len();
        assert_eq!(fields, 3);
    }
}
