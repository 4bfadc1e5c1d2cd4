//! Agents.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, bad_request, check_count, check_time, created, ok};
use crate::agents::{
    AddAgentsRequest, AddedAgent, AddedAgents, AgentDetails, MAX_ADDED, RejoinRequest,
    RevokedAgent, RotateAgentRequest, RotatedAgent, StartsWith,
};
use crate::failure::CallFailure;
use crate::model::{Agent, KeyType, Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_list, _, _>(&[], list)
        .changes::<__path_add_many, _, _>(&[409], add_many)
        .tells::<__path_show, _, _>(&[404], show)
        .changes::<__path_revoke, _, _>(&[404], revoke)
        .changes::<__path_rejoin, _, _>(&[404, 409], rejoin)
        .changes::<__path_rotate, _, _>(&[404], rotate)
}

/// Lists the agents.
#[utoipa::path(get, path = "/v1/agents", operation_id = "list-agents", tag = "agents",
    params(PageRequest),
    responses((status = 200, description = "A part of the list, by id.", body = Page<Agent>)))]
pub(crate) async fn list(State(plane): Plane, uri: Uri, Query(page): Query<PageRequest>) -> Answer {
    Ok(paged(&uri, plane.agents(wanted(page)?).await?))
}

/// Adds agents, all of them or none.
///
/// The answer holds the files that they start with: whoever has one can be that agent.
#[utoipa::path(post, path = "/v1/agents", operation_id = "add-agents", tag = "agents",
    request_body = AddAgentsRequest,
    responses((status = 201, description = "They are added.", body = AddedAgents)))]
pub(crate) async fn add_many(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<AddAgentsRequest>,
) -> Answer {
    check_count("ids", request.ids.len(), MAX_ADDED)?;
    check_token(request.expires_s)?;
    if request.key_type == KeyType::Shared && request.starts_with == StartsWith::Token {
        return Err(bad_request(
            "a shared key comes with its file: `starts_with` must be `key`; a token is for key \
             pairs, which agents make themselves"
                .to_owned(),
        ));
    }
    created(&plane.add_agents(&by, request).await?)
}

/// Shows everything about one agent's keys, and no secret.
#[utoipa::path(get, path = "/v1/agents/{id}", operation_id = "show-agent", tag = "agents",
    params(("id" = String, Path, description = "Its id, such as `db-1`.", example = "local")),
    responses((status = 200, description = "The agent.", body = AgentDetails)))]
pub(crate) async fn show(State(plane): Plane, Path(id): Path<String>) -> Answer {
    ok(&plane.agent(&id).await?)
}

/// Revokes an agent: nothing takes its keys any more, and its name is free again.
#[utoipa::path(delete, path = "/v1/agents/{id}", operation_id = "revoke-agent", tag = "agents",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "It is revoked.", body = RevokedAgent)))]
pub(crate) async fn revoke(State(plane): Plane, by: Identity, Path(id): Path<String>) -> Answer {
    ok(&plane.revoke_agent(&by, &id).await?)
}

/// Lets an agent join again.
///
/// For one that did not join yet, was off for longer than its keys live, or is in quarantine because
/// two copies of it were found: this is how an operator approves it. The file that it had before is
/// worth nothing then.
#[utoipa::path(post, path = "/v1/agents/{id}/rejoin", operation_id = "rejoin-agent", tag = "agents",
    params(("id" = String, Path, description = "Its id.")),
    request_body = RejoinRequest,
    responses((status = 201, description = "It may join.", body = AddedAgent)))]
pub(crate) async fn rejoin(
    State(plane): Plane,
    by: Identity,
    Path(id): Path<String>,
    Json(request): Json<RejoinRequest>,
) -> Answer {
    check_token(request.expires_s)?;
    created(&plane.rejoin_agent(&by, &id, request).await?)
}

/// Has an agent renew its keys now, with calls flowing.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate", operation_id = "rotate-agent", tag = "agents",
    params(("id" = String, Path, description = "Its id.", example = "local")),
    request_body = RotateAgentRequest,
    responses((status = 200, description = "What became of it.", body = RotatedAgent)))]
pub(crate) async fn rotate(
    State(plane): Plane,
    by: Identity,
    Path(id): Path<String>,
    Json(request): Json<RotateAgentRequest>,
) -> Answer {
    check_time("timeout_ms", request.timeout_ms)?;
    ok(&plane.rotate_agent(&by, &id, request).await?)
}

fn check_token(expires_s: u64) -> Result<(), CallFailure> {
    if (600..=3600).contains(&expires_s) {
        return Ok(());
    }
    Err(bad_request(
        "`expires_s` must be 600 to 3600: a token is good for 10 to 60 minutes".to_owned(),
    ))
}
