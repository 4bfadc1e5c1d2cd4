//! The API's own description: OpenAPI 3.1, made from the table of operations.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths,
};

use super::{Answer, table};
use crate::operation::Table;

pub(super) fn add(table: Table) -> Table {
    table.tells::<__path_document, _, _>(&[], document)
}

/// Shows this description.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)))]
pub(crate) async fn document() -> Answer {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, openapi()).into_response())
}

/// The description of the API in OpenAPI 3.1, as JSON with a line for each member.
pub fn openapi() -> String {
    let mut document = head();
    table().describe(&mut document);
    // Maps with text as keys always have a JSON form.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn head() -> OpenApi {
    let tags = [
        ("messages", "Sealed calls, casts and fanouts."),
        ("agents", "Agents: adding, showing, revoking, rotating, letting join again."),
        ("components", "The control plane's services and their hosts."),
        ("groups", "Targets of fanouts."),
        ("peers", "Floors of peers, and exemptions."),
        ("policy", "Who may call what."),
        ("journal", "What happened."),
        ("access keys", "Keys that operators and programs sign requests with."),
        ("health", "How the control plane is."),
    ];
    let tags =
        tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    let certificate = SecurityScheme::MutualTls {
        description: Some("A client certificate that names its operator.".to_owned()),
        deprecated: None,
        extensions: None,
    };
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token of a plain listener on a loopback address."))
        .build();
    let none = Vec::<String>::new();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Bulla control plane")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Sealed RPC over a message broker that nobody has to trust. Times are Unix \
                     times in milliseconds, durations milliseconds. Whatever fails is a problem \
                     (RFC 9457).",
                ))
                .license(Some(
                    LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build(),
                ))
                .build(),
        )
        .paths(Paths::new())
        .tags(Some(tags))
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("certificate", certificate)
                .security_scheme("token", SecurityScheme::Http(token))
                .build(),
        ))
        .security(Some([
            SecurityRequirement::new("certificate", none.clone()),
            SecurityRequirement::new("token", none),
        ]))
        .build()
}
