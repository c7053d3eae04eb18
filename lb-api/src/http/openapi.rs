//! The API's description, generated from the handlers.

use lb_api_types::event::EventDocument;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::resources::Collection;
use super::{
    backends, bgp, config, events, fib, flows, handlers, probes, resources, services, tokens, views,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lbd",
        description = "A BGP-speaking router and stateful layer-4 load balancer. Errors are problem documents (RFC 9457) whose `pointer` names the field.",
        version = "v1",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(EventDocument)),
    modifiers(&Tokens, &Kinds, &Refusals),
    security(("token" = []), ()),
    paths(
        backends::list_backends,
        backends::get_backend,
        backends::put_backend,
        backends::patch_backend,
        backends::delete_backend,
        config::validate_config,
        config::diff_config,
        views::list_interfaces,
        views::get_interface,
        views::get_version,
        views::get_schema,
        config::get_config,
        config::apply_config,
        config::confirm_config,
        config::rollback_config,
        config::config_history,
        tokens::list_tokens,
        tokens::get_token,
        tokens::make_token,
        tokens::delete_token,
        events::get_events,
        bgp::clear_peer,
        bgp::explain,
        bgp::list_routes,
        handlers::list_fib,
        fib::lookup_fib,
        fib::audit_fib,
        fib::repair_fib,
        services::audit_services,
        services::repair_services,
        flows::list_flows,
        events::get_flow_events,
        handlers::get_status,
        handlers::get_doctor,
        handlers::get_openapi,
        probes::healthz,
        probes::readyz,
        probes::metrics,
    )
)]
struct Api;

/// What is the same for every kind of resource.
struct Kinds;

impl Modify for Kinds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for of in Collection::all() {
            document.paths.paths.extend(resources::described(of));
            let components = document.components.get_or_insert_default();
            components.schemas.extend(of.schemas().1);
        }
    }
}

/// What every operation of the API may be answered.
const ANY: [(&str, &str); 5] = [
    ("400", "The path, the query, a header or the body cannot be read"),
    ("401", "Over TCP, a token is missing or not taken"),
    ("403", "The caller's role does not allow it"),
    ("429", "Too many requests come from there, or too many logins have failed"),
    ("503", "lbd is stopping, or its dataplane does not answer"),
];
/// What every operation that reads a body may be answered beside these.
const WITH_BODY: [(&str, &str); 4] = [
    ("408", "The body does not arrive in time"),
    ("413", "The body has more than 1 MiB, a whole configuration more than 64 MiB"),
    ("415", "The body is of another content type than is wanted"),
    ("422", "A field is wrong"),
];

/// Describes these, so that no operation says them of itself.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let all = document.paths.paths.iter_mut().filter(|(path, _)| path.starts_with("/api/"));
        for operation in all.flat_map(|(_, item)| operations(item)) {
            let with_body = operation.request_body.as_ref().map_or(&[][..], |_| &WITH_BODY);
            for &(status, words) in ANY.iter().chain(with_body) {
                let all = &mut operation.responses.responses;
                all.entry(status.into()).or_insert_with(|| problem(words).into());
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn problem(words: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(words).content("application/problem+json", content).build()
}

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
