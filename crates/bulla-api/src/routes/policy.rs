//! Policies: who may call what.

use axum::extract::State;
use axum::http::Uri;
use bulla_http::{Identity, Json, Path, Query};

use super::{Answer, Plane, bad_request, created, ok};
use crate::failure::CallFailure;
use crate::model::{Page, PageRequest};
use crate::operation::Table;
use crate::page::{paged, wanted};
use crate::policies::{
    Difference, ExplainRequest, Explanation, MAX_POLICY, PolicyChange, PolicyCheck, PolicySource,
    PolicyStanding, PolicyVersion, RollBackRequest, ShadowStanding,
};

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_standing, _, _>(&[], standing)
        .tells::<__path_versions, _, _>(&[], versions)
        .changes::<__path_activate, _, _>(&[422], activate)
        .tells::<__path_version, _, _>(&[404], version)
        .tells::<__path_check, _, _>(&[], check)
        .tells::<__path_explain, _, _>(&[422], explain)
        .changes::<__path_roll_back, _, _>(&[404, 409], roll_back)
        .tells::<__path_shadow, _, _>(&[], shadow)
        .changes::<__path_begin_shadow, _, _>(&[422], begin_shadow)
        .changes::<__path_end_shadow, _, _>(&[409], end_shadow)
        .tells::<__path_differences, _, _>(&[409], differences)
}

/// Tells which policy counts.
#[utoipa::path(get, path = "/v1/policy", operation_id = "show-policy", tag = "policy",
    responses((status = 200, description = "What counts.", body = PolicyStanding)))]
pub(crate) async fn standing(State(plane): Plane) -> Answer {
    ok(&plane.policy().await?)
}

/// Lists the versions, without their texts.
#[utoipa::path(get, path = "/v1/policy/versions", operation_id = "list-policy-versions",
    tag = "policy", params(PageRequest),
    responses((status = 200, description = "A part of the list, the oldest first.",
        body = Page<PolicyVersion>)))]
pub(crate) async fn versions(
    State(plane): Plane,
    uri: Uri,
    Query(page): Query<PageRequest>,
) -> Answer {
    Ok(paged(&uri, plane.policies(wanted(page)?).await?))
}

/// Activates a policy.
///
/// Control-plane processes go by it within a second, agents as soon as they hear of it. No call is
/// lost: each is judged by the former policy or by the new one.
#[utoipa::path(post, path = "/v1/policy/versions", operation_id = "activate-policy", tag = "policy",
    request_body = PolicySource,
    responses((status = 201, description = "It is active.", body = PolicyChange)))]
pub(crate) async fn activate(
    State(plane): Plane,
    by: Identity,
    Json(source): Json<PolicySource>,
) -> Answer {
    check_size(&source.source)?;
    created(&plane.activate_policy(&by, source).await?)
}

/// Shows one version with its text.
#[utoipa::path(get, path = "/v1/policy/versions/{version}", operation_id = "show-policy-version",
    tag = "policy",
    params(("version" = u32, Path, description = "Its number, from 1.")),
    responses((status = 200, description = "The version.", body = PolicyVersion)))]
pub(crate) async fn version(State(plane): Plane, Path(version): Path<u32>) -> Answer {
    ok(&plane.policy_version(version).await?)
}

/// Checks a policy and lists who reaches what by it. Changes nothing.
#[utoipa::path(post, path = "/v1/policy/check", operation_id = "check-policy", tag = "policy",
    request_body = PolicySource,
    responses((status = 200, description = "Whether it is good, and what it says.",
        body = PolicyCheck)))]
pub(crate) async fn check(State(plane): Plane, Json(source): Json<PolicySource>) -> Answer {
    check_size(&source.source)?;
    ok(&plane.check_policy(source).await?)
}

/// Judges one request, and tells what would have to change. Changes nothing.
#[utoipa::path(post, path = "/v1/policy/explain", operation_id = "explain-policy", tag = "policy",
    request_body = ExplainRequest,
    responses((status = 200, description = "How it is judged.", body = Explanation)))]
pub(crate) async fn explain(State(plane): Plane, Json(request): Json<ExplainRequest>) -> Answer {
    check_size(request.source.as_deref().unwrap_or_default())?;
    ok(&plane.explain(request).await?)
}

/// Goes back to an earlier version, or to the built-in rule.
#[utoipa::path(post, path = "/v1/policy/rollback", operation_id = "roll-back-policy",
    tag = "policy", request_body = RollBackRequest,
    responses((status = 200, description = "What it says counts again.", body = PolicyChange)))]
pub(crate) async fn roll_back(
    State(plane): Plane,
    by: Identity,
    Json(request): Json<RollBackRequest>,
) -> Answer {
    ok(&plane.roll_back(&by, request).await?)
}

/// Shows the policy in the shadow, if one judges there.
#[utoipa::path(get, path = "/v1/policy/shadow", operation_id = "show-shadow", tag = "policy",
    responses((status = 200, description = "What judges there.", body = ShadowStanding)))]
pub(crate) async fn shadow(State(plane): Plane) -> Answer {
    ok(&plane.shadow().await?)
}

/// Lets a policy judge live traffic beside the active one, deciding nothing.
#[utoipa::path(put, path = "/v1/policy/shadow", operation_id = "begin-shadow", tag = "policy",
    request_body = PolicySource,
    responses((status = 200, description = "It judges there.", body = ShadowStanding)))]
pub(crate) async fn begin_shadow(
    State(plane): Plane,
    by: Identity,
    Json(source): Json<PolicySource>,
) -> Answer {
    check_size(&source.source)?;
    ok(&plane.begin_shadow(&by, source).await?)
}

/// Lets none judge in the shadow any more.
#[utoipa::path(delete, path = "/v1/policy/shadow", operation_id = "end-shadow", tag = "policy",
    responses((status = 200, description = "None does.", body = ShadowStanding)))]
pub(crate) async fn end_shadow(State(plane): Plane, by: Identity) -> Answer {
    ok(&plane.end_shadow(&by).await?)
}

/// Lists what the policy in the shadow would decide otherwise.
#[utoipa::path(get, path = "/v1/policy/shadow/differences", operation_id = "list-differences",
    tag = "policy", params(PageRequest),
    responses((status = 200, description = "A part of the list.", body = Page<Difference>)))]
pub(crate) async fn differences(
    State(plane): Plane,
    uri: Uri,
    Query(page): Query<PageRequest>,
) -> Answer {
    Ok(paged(&uri, plane.differences(wanted(page)?).await?))
}

fn check_size(source: &str) -> Result<(), CallFailure> {
    if source.len() <= MAX_POLICY {
        return Ok(());
    }
    Err(bad_request("`source` is larger than 4 MiB".to_owned()))
}
