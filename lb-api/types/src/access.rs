//! Who may do what.

use serde::{Deserialize, Serialize};

use crate::resource::Condition;

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything but tokens.
    Viewer,
    /// Changes VIPs and the configuration.
    Operator,
    /// Makes and removes tokens.
    Admin,
}

impl Role {
    /// Its name, as JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A token (`GET /api/v1/tokens`, `POST /api/v1/tokens`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// A name for people.
    pub metadata: TokenMetadata,
    /// What is asked for.
    pub spec: TokenSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TokenStatus>,
}

/// What a token is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenMetadata {
    /// Lower-case letters, digits and hyphens.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub name: String,
}

/// What is asked of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenSpec {
    /// What its holder may do.
    pub role: Role,
    /// Seconds from when it is made until it is no longer taken; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3_162_240_000u64))]
    pub expires_in_secs: Option<u64>,
}

/// What holds of a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenStatus {
    /// `Valid`: whether it is taken.
    pub conditions: Vec<Condition>,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When it is no longer taken (RFC 3339); never if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What a client sends as `Authorization: Bearer`; only in the answer that it is made with. Only its hash is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for TokenStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { conditions, created, expires, token: _ } = self;
        let mut status = f.debug_struct("TokenStatus");
        let status = status.field("conditions", conditions).field("created", created);
        status.field("expires", expires).finish_non_exhaustive()
    }
}
