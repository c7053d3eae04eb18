//! What is only seen, in the shape that every resource has.

use serde::{Deserialize, Serialize};

/// What a thing that is only seen is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeenMetadata {
    /// Its name, which no other of its kind has. In a list, things stand in an order that does not change while others come
    /// and go, so that a page may begin after any of them.
    pub name: String,
}

impl SeenMetadata {
    /// That of a name.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// Resources that nobody makes over REST: `spec` is what they are known by, or what the file asks of them.
macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident($spec:ty, $status:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name {
            /// What it is called.
            pub metadata: SeenMetadata,
            /// What it is known by, or what is asked of it.
            pub spec: $spec,
            /// What holds of it now.
            pub status: $status,
        }
    )*};
}

pub(crate) use seen;
