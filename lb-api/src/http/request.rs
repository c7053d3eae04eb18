//! What every request has: an id that its answer, a problem and the audit log repeat, and an end.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Refused;

/// How long an answer may take to begin, its request's body included.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a client brings at most.
const MAX_ID: usize = 64;

tokio::task_local! {
    static ID: String;
}

/// The id of the request that is answered; empty outside of one.
pub(super) fn id() -> String {
    ID.try_with(Clone::clone).unwrap_or_default()
}

/// Runs what a request of this id asks for in a task of its own.
pub(super) async fn within<T>(id: String, what: impl Future<Output = T>) -> T {
    ID.scope(id, what).await
}

/// Gives a request its id, the client's own where it brings a fit one, and its end.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let brought = request.headers().get(HEADER).and_then(|id| id.to_str().ok());
    let id = brought.filter(|id| is_fit(id)).map_or_else(fresh, str::to_owned);
    let header = HeaderValue::from_str(&id);
    let answer = ID.scope(id, async {
        match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Refused::slow_answer().into_response(),
        }
    });
    let mut answer = answer.await;
    if let Ok(header) = header {
        answer.headers_mut().insert(HEADER, header);
    }
    answer
}

fn is_fit(id: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(plain)
}

/// One that no other request of any daemon has: a number of this process, and a count.
fn fresh() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or_default());
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{:016x}-{}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
