//! Component types and their hosts.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, created, ok};
use crate::components::{AddComponentRequest, AddedComponent, RevokedHost, RotatedComponent};
use crate::model::{Component, Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_list, _, _>(&[], list)
        .changes::<__path_add_one, _, _>(&[409], add_one)
        .tells::<__path_show, _, _>(&[404], show)
        .changes::<__path_rotate, _, _>(&[404], rotate)
        .changes::<__path_revoke, _, _>(&[404], revoke)
}

/// Lists the component types.
#[utoipa::path(get, path = "/v1/components", operation_id = "list-components", tag = "components",
    params(PageRequest),
    responses((status = 200, description = "A part of the list, by name.", body = Page<Component>)))]
pub(crate) async fn list(State(plane): Plane, uri: Uri, Query(page): Query<PageRequest>) -> Answer {
    Ok(paged(&uri, plane.components(wanted(page)?).await?))
}

/// Adds a component type, or another host of one.
///
/// The answer holds the key file of that host: whoever has it is that host.
#[utoipa::path(post, path = "/v1/components", operation_id = "add-component", tag = "components",
    request_body = AddComponentRequest,
    responses((status = 201, description = "It is added.", body = AddedComponent)))]
pub(crate) async fn add_one(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<AddComponentRequest>,
) -> Answer {
    created(&plane.add_component(&by, request).await?)
}

/// Shows one component type.
#[utoipa::path(get, path = "/v1/components/{name}", operation_id = "show-component",
    tag = "components",
    params(("name" = String, Path, description = "The type.", example = "control")),
    responses((status = 200, description = "The type.", body = Component)))]
pub(crate) async fn show(State(plane): Plane, Path(name): Path<String>) -> Answer {
    ok(&plane.component(&name).await?)
}

/// Makes a type's next key to receive with; the ones before stay good until their end.
#[utoipa::path(post, path = "/v1/components/{name}/rotate", operation_id = "rotate-component",
    tag = "components",
    params(("name" = String, Path, description = "The type.")),
    responses((status = 200, description = "It has a new key.", body = RotatedComponent)))]
pub(crate) async fn rotate(State(plane): Plane, by: Identity, Path(name): Path<String>) -> Answer {
    ok(&plane.rotate_component(&by, &name).await?)
}

/// Revokes one host of a type, and makes everything new that it held with the others.
#[utoipa::path(delete, path = "/v1/components/{name}/hosts/{instance}",
    operation_id = "revoke-host", tag = "components",
    params(("name" = String, Path, description = "The type."),
        ("instance" = String, Path, description = "The host, as its key file was made for.")),
    responses((status = 200, description = "It is revoked.", body = RevokedHost)))]
pub(crate) async fn revoke(
    State(plane): Plane,
    by: Identity,
    Path((name, instance)): Path<(String, String)>,
) -> Answer {
    ok(&plane.revoke_host(&by, &name, &instance).await?)
}
