//! How the control plane and the deployment are.

use axum::extract::State;

use super::{Answer, Plane, ok};
use crate::access_keys::Examination;
use crate::failure::CallFailure;
use crate::model::Status;
use crate::operation::Table;

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_status, _, _>(&[], status)
        .tells::<__path_health, _, _>(&[], health)
        .tells::<__path_examine, _, _>(&[], examine)
}

/// Tells how this control-plane process is.
#[utoipa::path(get, path = "/v1/status", operation_id = "status", tag = "health",
    responses((status = 200, description = "How it is.", body = Status)))]
pub(crate) async fn status(State(plane): Plane) -> Answer {
    ok(&plane.status().await?)
}

/// Tells whether messages can be sent: 200, or 503 while the bus is away.
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "health",
    responses((status = 200, description = "They can.", body = Status)))]
pub(crate) async fn health(State(plane): Plane) -> Answer {
    let status = plane.status().await?;
    if status.bus.connected {
        return ok(&status);
    }
    let why = status.bus.problem.unwrap_or_else(|| "not connected".to_owned());
    Err(CallFailure::BusDown { why: format!("{}: {why}", status.bus.address) })
}

/// Looks for what is wrong with the deployment, as `bulla doctor` does.
#[utoipa::path(get, path = "/v1/doctor", operation_id = "examine", tag = "health",
    responses((status = 200, description = "What was found.", body = Examination)))]
pub(crate) async fn examine(State(plane): Plane) -> Answer {
    ok(&plane.examine().await?)
}
