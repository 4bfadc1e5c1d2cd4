//! Floors of peers, and exemptions.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, check_message, check_principal, created, ok};
use crate::model::{Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};
use crate::peers::{ExemptRequest, Peer, PeerExemption, RaiseRequest, TakenBack};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_list, _, _>(&[], list)
        .changes::<__path_raise, _, _>(&[404], raise)
        .changes::<__path_exempt, _, _>(&[404], exempt)
        .changes::<__path_take_back, _, _>(&[404], take_back)
}

/// Lists what is known of peers' levels.
#[utoipa::path(get, path = "/v1/peers", operation_id = "list-peers", tag = "peers",
    params(PageRequest),
    responses((status = 200, description = "A part of the list, by name.", body = Page<Peer>)))]
pub(crate) async fn list(State(plane): Plane, uri: Uri, Query(page): Query<PageRequest>) -> Answer {
    Ok(paged(&uri, plane.peers(wanted(page)?).await?))
}

/// Raises a peer's floor, or rehearses that.
#[utoipa::path(post, path = "/v1/peers/floors", operation_id = "raise-floor", tag = "peers",
    request_body = RaiseRequest,
    responses((status = 200, description = "The peer with its floor.", body = Peer)))]
pub(crate) async fn raise(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<RaiseRequest>,
) -> Answer {
    check_principal(&request.principal)?;
    ok(&plane.raise(&by, request).await?)
}

/// Gives an exemption from a peer's floor, for one method and a while.
#[utoipa::path(post, path = "/v1/exemptions", operation_id = "give-exemption", tag = "peers",
    request_body = ExemptRequest,
    responses((status = 201, description = "It is given.", body = PeerExemption)))]
pub(crate) async fn exempt(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<ExemptRequest>,
) -> Answer {
    check_message(&request.principal, &["agent/", "component/"], &request.method)?;
    created(&plane.exempt(&by, request).await?)
}

/// Takes an exemption back.
#[utoipa::path(delete, path = "/v1/exemptions/{id}", operation_id = "take-back-exemption",
    tag = "peers",
    params(("id" = String, Path, description = "Its id (16 hexadecimal digits).")),
    responses((status = 200, description = "It is taken back.", body = TakenBack)))]
pub(crate) async fn take_back(State(plane): Plane, by: Identity, Path(id): Path<String>) -> Answer {
    ok(&plane.take_back(&by, &id).await?)
}
