//! Access keys of operators and programs.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, created, ok};
use crate::access_keys::{
    AccessKey, AddAccessKeyRequest, AddedAccessKey, ChangeAccessKeyRequest, ChangedAccessKey,
};
use crate::model::{Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_list, _, _>(&[], list)
        .changes::<__path_add_one, _, _>(&[], add_one)
        .changes::<__path_change, _, _>(&[404], change)
        .changes::<__path_remove, _, _>(&[404], remove)
}

/// Lists the access keys, without secrets.
#[utoipa::path(get, path = "/v1/access-keys", operation_id = "list-access-keys",
    tag = "access keys", params(PageRequest),
    responses((status = 200, description = "A part of the list, by user.", body = Page<AccessKey>)))]
pub(crate) async fn list(State(plane): Plane, uri: Uri, Query(page): Query<PageRequest>) -> Answer {
    Ok(paged(&uri, plane.access_keys(wanted(page)?).await?))
}

/// Makes an access key. Its secret is shown this once.
#[utoipa::path(post, path = "/v1/access-keys", operation_id = "add-access-key",
    tag = "access keys", request_body = AddAccessKeyRequest,
    responses((status = 201, description = "The key and its secret.", body = AddedAccessKey)))]
pub(crate) async fn add_one(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<AddAccessKeyRequest>,
) -> Answer {
    created(&plane.add_access_key(&by, request).await?)
}

/// Has an access key refused for now, or taken again.
#[utoipa::path(patch, path = "/v1/access-keys/{id}", operation_id = "change-access-key",
    tag = "access keys",
    params(("id" = String, Path, description = "Its id.")),
    request_body = ChangeAccessKeyRequest,
    responses((status = 200, description = "It is changed.", body = ChangedAccessKey)))]
pub(crate) async fn change(
    State(plane): Plane,
    by: Identity,
    Path(id): Path<String>,
    Json(request): Json<ChangeAccessKeyRequest>,
) -> Answer {
    ok(&plane.change_access_key(&by, &id, request).await?)
}

/// Removes an access key for good, and wipes its secret.
#[utoipa::path(delete, path = "/v1/access-keys/{id}", operation_id = "remove-access-key",
    tag = "access keys",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "It is removed.", body = ChangedAccessKey)))]
pub(crate) async fn remove(State(plane): Plane, by: Identity, Path(id): Path<String>) -> Answer {
    ok(&plane.remove_access_key(&by, &id).await?)
}
