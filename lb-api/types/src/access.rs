//! Who may do what.

use serde::{Deserialize, Serialize};

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

/// A token that is to be made (`POST /api/v1/tokens`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// A name for people: lower-case letters, digits and hyphens.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Seconds until it is no longer taken; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3_162_240_000u64))]
    pub expires_in_secs: Option<u64>,
}

/// A token that was made: the only time that it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeToken {
    /// Its name.
    pub name: String,
    /// What a client sends as `Authorization: Bearer`. Only its hash is kept.
    pub token: String,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A token, without what it is known by (`GET /api/v1/tokens`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When it is no longer taken (RFC 3339); never if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Whether that is past.
    pub expired: bool,
}
