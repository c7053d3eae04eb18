//! The API's description, generated from the handlers.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{config, events, handlers, probes, tokens};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lbd",
        description = "A BGP-speaking router and stateful layer-4 load balancer. Errors are problem documents (RFC 9457) whose `pointer` names the field.",
        version = "v1",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Tokens),
    security(("token" = []), ()),
    paths(
        handlers::list_vips,
        handlers::get_vip,
        handlers::put_vip,
        handlers::patch_vip,
        handlers::delete_vip,
        config::apply_config,
        config::confirm_config,
        config::rollback_config,
        config::config_history,
        tokens::list_tokens,
        tokens::make_token,
        tokens::delete_token,
        events::get_events,
        handlers::list_peers,
        handlers::list_routes,
        handlers::list_fib,
        handlers::list_flows,
        handlers::get_status,
        handlers::get_doctor,
        handlers::get_openapi,
        probes::healthz,
        probes::readyz,
        probes::metrics,
    )
)]
struct Api;

/// How clients of a TCP listener say who they are; on the Unix socket the kernel does.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The description (OpenAPI 3.1).
pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}
