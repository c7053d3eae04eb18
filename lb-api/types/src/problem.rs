//! Errors as RFC 9457 problem documents.

use serde::{Deserialize, Serialize};

/// A problem document (`application/problem+json`, RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of problem, as a relative URI: `/problems/invalid-field`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What is wrong here and what to do, in one sentence.
    pub detail: String,
    /// The field, as a JSON pointer (RFC 6901): `/spec/backends/0/port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Every field that is wrong, where there is more than one; `detail` and `pointer` name the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// The request's id, as the answer's `X-Request-Id` and the audit log say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldProblem {
    /// What is wrong and what to do, in one sentence.
    pub detail: String,
    /// The field, as a JSON pointer (RFC 6901).
    pub pointer: String,
}
