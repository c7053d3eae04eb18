//! Every operation of the served description is asked for with what the description allows and with what it does not: what
//! comes back is always something that the description announces.

use super::*;

/// Requests for each operation.
const REQUESTS: u32 = 60;
/// How deep values are made.
const DEEPEST: u32 = 6;

/// Numbers that look random and are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    /// Once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

struct Walk {
    document: Value,
    dice: Dice,
}

impl Walk {
    /// What a schema is, references followed.
    fn schema<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(place) => self.schema(self.document.pointer(&place[1..]).expect("it is there")),
            None => schema,
        }
    }

    /// The same, and one object of the objects that it is made of.
    fn whole(&self, schema: &Value) -> Value {
        let schema = self.schema(schema);
        let parts = schema["allOf"].as_array().filter(|parts| parts.len() > 1);
        let Some(parts) = parts else { return schema.clone() };
        let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
        for part in parts {
            let part = self.whole(part);
            properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
            required.extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        json!({"type": "object", "properties": properties, "required": required})
    }

    /// Something that a schema allows, and now and then something that it does not.
    fn value(&mut self, name: &str, schema: &Value, depth: u32) -> Value {
        if self.dice.once_in(12) || depth > DEEPEST {
            return self.junk();
        }
        let schema = self.whole(schema);
        if let Some(all) = schema["enum"].as_array() {
            return self.dice.one_of(&all.iter().collect::<Vec<_>>()).clone();
        }
        if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            let all: Vec<_> = all.iter().collect();
            let one = self.dice.one_of(&all).clone();
            return self.value(name, &one, depth + 1);
        }
        let kinds = kinds(&schema);
        match self.dice.one_of(&kinds.iter().map(String::as_str).collect::<Vec<_>>()) {
            "object" => {
                let mut fields = serde_json::Map::new();
                for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                    let is_required =
                        schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                    if is_required && !self.dice.once_in(20) || self.dice.once_in(2) {
                        let value = self.value(name, field, depth + 1);
                        fields.insert(name.clone(), value);
                    }
                }
                if self.dice.once_in(20) {
                    fields.insert("colour".into(), self.junk());
                }
                Value::Object(fields)
            }
            "array" => {
                let many = self.dice.below(4);
                (0..many).map(|_| self.value(name, &schema["items"], depth + 1)).collect()
            }
            "string" => self.text(name),
            "integer" | "number" => json!(self.dice.one_of(&[&0, &1, &2, &80, &3000, &70_000])),
            "boolean" => json!(self.dice.once_in(2)),
            _ => Value::Null,
        }
    }

    /// Mostly what a field of this name has.
    fn text(&mut self, name: &str) -> Value {
        let all = match name {
            _ if self.dice.once_in(8) => &["", "\u{1f980}", "a\u{0}b", "../x", "2001:db8::1"][..],
            "address" | "source_addresses" => &["203.0.113.9", "10.0.0.1"],
            _ => &["web", "x"],
        };
        json!(self.dice.one_of(all))
    }

    fn junk(&mut self) -> Value {
        // `json!` would copy what is inside, each time.
        let deep = (0..200).fold(json!(1), |inner, _| Value::Array(vec![inner]));
        let big = json!(u64::MAX);
        let all = [
            json!(null),
            json!(-1),
            big,
            json!(1.5),
            json!("x".repeat(300)),
            json!([]),
            json!({}),
            deep,
        ];
        self.dice.one_of(&all.iter().collect::<Vec<_>>()).clone()
    }

    /// A request for an operation: its path with a query, its headers, its body and the body's type.
    fn request(&mut self, path: &str, operation: &Value) -> (String, Vec<(String, String)>, Bytes) {
        let (mut path, mut query, mut headers) = (path.to_owned(), Vec::new(), Vec::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let is_needed = parameter["required"] == true;
            if !is_needed && !self.dice.once_in(3) {
                continue;
            }
            let value = self.value(name, &parameter["schema"], 0);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Without one, the path is that of another operation.
            let value = if text.is_empty() { "x".into() } else { text };
            match parameter["in"].as_str().unwrap() {
                "path" => path = path.replace(&format!("{{{name}}}"), &escaped(&value)),
                "query" => query.push(format!("{name}={}", escaped(&value))),
                _ => {
                    let quoted = format!("\"{}\"", self.dice.below(4));
                    let all = ["*", &quoted, &quoted, "x"];
                    headers.push((name.to_owned(), self.dice.one_of(&all).to_owned()));
                }
            }
        }
        if path.ends_with("/events") {
            query.retain(|said| !said.starts_with("follow="));
            query.push("follow=false".into());
        }
        if self.dice.once_in(15) {
            query.push("colour=red".into());
        }
        let mut body = Bytes::new();
        if let Some((kind, content)) =
            operation["requestBody"]["content"].as_object().and_then(|all| all.iter().next())
        {
            let value = self.value("", &content["schema"], 0);
            let text = value.to_string();
            let cut = if self.dice.once_in(15) { text.len() / 2 } else { text.len() };
            body = Bytes::copy_from_slice(&text.as_bytes()[..cut]);
            let kind = if self.dice.once_in(15) { "text/plain" } else { kind };
            headers.push(("content-type".into(), kind.to_owned()));
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        (path + &query, headers, body)
    }

    /// Why a value is not what a schema says; empty where it is.
    fn differs(&self, schema: &Value, value: &Value) -> String {
        let schema = &self.whole(schema);
        if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            let fits = all.iter().filter(|one| self.differs(one, value).is_empty()).count();
            return if fits > 0 { String::new() } else { format!("{value} fits none of {all:?}") };
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let differs = self.differs(part, value);
            if !differs.is_empty() {
                return differs;
            }
        }
        if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
            return format!("{value} is none of {}", schema["enum"]);
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if schema.get("type").is_some() && !kinds(schema).iter().any(|known| known == kind) {
            return format!("{value} is no {}", schema["type"]);
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                return format!("{name} lacks in {value}");
            }
        }
        let fields = value.as_object().into_iter().flatten().filter_map(|(name, value)| {
            let known = schema["properties"].as_object()?;
            match known.get(name) {
                Some(field) => Some(self.differs(field, value)),
                None => Some(format!("{name} is not described")),
            }
        });
        let items = value.as_array().into_iter().flatten();
        let items = items.map(|item| self.differs(&schema["items"], item));
        fields.chain(items).find(|differs| !differs.is_empty()).unwrap_or_default()
    }

    /// Whether an answer is one that the description announces.
    fn check(&self, operation: &Value, answer: &Answer) -> Result<(), String> {
        let described = &operation["responses"][answer.status.to_string()];
        if described.is_null() {
            return Err("its status is not described".into());
        }
        let Some(content) = described["content"].as_object() else {
            let empty = answer.body.is_empty();
            return if empty { Ok(()) } else { Err("a body is not described".into()) };
        };
        let kind = answer.headers["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap_or_default();
        let Some(content) = content.get(kind) else {
            return Err(format!("{kind} is not described"));
        };
        if !kind.ends_with("json") || content.get("schema").is_none() {
            return Ok(());
        }
        match self.differs(&content["schema"], &answer.json()) {
            differs if differs.is_empty() => Ok(()),
            differs => Err(differs),
        }
    }
}

fn kinds(schema: &Value) -> Vec<String> {
    let kind = &schema["type"];
    match kind.as_array() {
        Some(all) => all.iter().map(|kind| kind.as_str().unwrap().to_owned()).collect(),
        None => vec![kind.as_str().unwrap_or("object").to_owned()],
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn whatever_is_asked_the_answer_is_one_that_the_description_announces() {
    let served = Served::new(vec![vip("file", 99)]).await;
    let document = served.get("/api/v1/openapi.json").await.json();
    let mut walk = Walk { document: document.clone(), dice: Dice(0x9e37_79b9_7f4a_7c15) };
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..REQUESTS {
        // Something to be changed is there unless a configuration waits to be confirmed.
        served.put("web", &good("web")).await;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let (path, headers, body) = walk.request(path, operation);
                let method = method.to_uppercase();
                let answer = served.send_with(&method, &path, &headers, body.clone()).await;
                *seen.entry(answer.status).or_default() += 1;
                if let Err(why) = walk.check(operation, &answer) {
                    panic!(
                        "round {round}: {method} {path} {headers:?} {body:?}: {} {:?}: {why}",
                        answer.status, answer.body
                    );
                }
            }
        }
    }
    // It would mean little if everything were refused.
    for status in [200, 201, 204, 400, 404, 409, 412, 415, 422] {
        assert!(seen.contains_key(&status), "{status} was never seen: {seen:?}");
    }
    assert_eq!(served.get("/healthz").await.status, 200);
}

impl Served {
    pub(super) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Bytes,
    ) -> Answer {
        let stream = UnixStream::connect(socket(self.folder.path())).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(path).header("host", "lbd");
        let request = headers.iter().fold(request, |r, (name, value)| r.header(name, value));
        let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}
