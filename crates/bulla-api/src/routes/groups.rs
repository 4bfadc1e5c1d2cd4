//! Groups, the targets of fanouts.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, bad_request, check_count, created, ok};
use crate::components::{AddGroupRequest, AddMembersRequest, ExtendedGroup, MAX_MEMBERS, Member};
use crate::model::{Group, Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_list, _, _>(&[], list)
        .changes::<__path_add_one, _, _>(&[404, 409], add_one)
        .tells::<__path_show, _, _>(&[404], show)
        .tells::<__path_members, _, _>(&[404], members)
        .changes::<__path_add_members, _, _>(&[404, 409], add_members)
}

/// Lists the groups.
#[utoipa::path(get, path = "/v1/groups", operation_id = "list-groups", tag = "groups",
    params(PageRequest),
    responses((status = 200, description = "A part of the list, by name.", body = Page<Group>)))]
pub(crate) async fn list(State(plane): Plane, uri: Uri, Query(page): Query<PageRequest>) -> Answer {
    Ok(paged(&uri, plane.groups(wanted(page)?).await?))
}

/// Adds a group.
#[utoipa::path(post, path = "/v1/groups", operation_id = "add-group", tag = "groups",
    request_body = AddGroupRequest,
    responses((status = 201, description = "It is added.", body = ExtendedGroup)))]
pub(crate) async fn add_one(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<AddGroupRequest>,
) -> Answer {
    if request.members.len() > MAX_MEMBERS {
        return Err(bad_request(format!("`members` must name {MAX_MEMBERS} at the most")));
    }
    created(&plane.add_group(&by, request).await?)
}

/// Shows one group.
#[utoipa::path(get, path = "/v1/groups/{name}", operation_id = "show-group", tag = "groups",
    params(("name" = String, Path, description = "Its name.", example = "all")),
    responses((status = 200, description = "The group.", body = Group)))]
pub(crate) async fn show(State(plane): Plane, Path(name): Path<String>) -> Answer {
    ok(&plane.group(&name).await?)
}

/// Lists the members of a group. A group that holds every agent has none of its own.
#[utoipa::path(get, path = "/v1/groups/{name}/members", operation_id = "list-members",
    tag = "groups",
    params(("name" = String, Path, description = "Its name.", example = "all"), PageRequest),
    responses((status = 200, description = "A part of the list, by name.", body = Page<Member>)))]
pub(crate) async fn members(
    State(plane): Plane,
    uri: Uri,
    Path(name): Path<String>,
    Query(page): Query<PageRequest>,
) -> Answer {
    Ok(paged(&uri, plane.members(&name, wanted(page)?).await?))
}

/// Adds members to a group.
#[utoipa::path(post, path = "/v1/groups/{name}/members", operation_id = "add-members",
    tag = "groups",
    params(("name" = String, Path, description = "Its name.")),
    request_body = AddMembersRequest,
    responses((status = 200, description = "They are in it.", body = ExtendedGroup)))]
pub(crate) async fn add_members(
    State(plane): Plane,
    by: Identity,
    Path(name): Path<String>,
    Json(request): Json<AddMembersRequest>,
) -> Answer {
    check_count("members", request.members.len(), MAX_MEMBERS)?;
    ok(&plane.add_members(&by, &name, request).await?)
}
