//! What happened.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use bulla_http::{Query, Stopping};

use super::{Answer, Plane, bad_request, ok};
use crate::journal::{JournalCheckpoints, JournalEntry, JournalRequest};
use crate::model::Page;
use crate::operation::Table;
use crate::page::{check_limit, opened, paged};
use crate::sse;

/// Where a reader of events was (WHATWG HTML, "server-sent events").
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn add(table: Table) -> Table {
    table
        .tells::<__path_read, _, _>(&[], read)
        .tells::<__path_follow, _, _>(&[], follow)
        .tells::<__path_checkpoints, _, _>(&[], checkpoints)
}

/// Reads the journals that this host keeps, the oldest record first.
///
/// Records are not verified here: `bulla audit verify` does that, with the files and the public key.
#[utoipa::path(get, path = "/v1/journal", operation_id = "read-journal", tag = "journal",
    params(JournalRequest),
    responses((status = 200, description = "A part of the records.", body = Page<JournalEntry>)))]
pub(crate) async fn read(
    State(plane): Plane,
    uri: Uri,
    Query(mut request): Query<JournalRequest>,
) -> Answer {
    check_limit(request.limit)?;
    request.after = request.after.map(|place| opened(&place)).transpose()?;
    Ok(paged(&uri, plane.journal(request).await?))
}

/// Follows the journals that this host keeps.
///
/// Events `entry`, from now on, or behind the record that `Last-Event-ID` (or `after`) names: a
/// reader that lost its connection misses nothing. Ends when the control plane stops.
#[utoipa::path(get, path = "/v1/journal/stream", operation_id = "follow-journal", tag = "journal",
    params(JournalRequest, ("Last-Event-ID" = Option<String>, Header,
        description = "The `id` of the last event that was read.")),
    responses((status = 200, description = "Events without end.",
        body = JournalEntry, content_type = "text/event-stream")))]
pub(crate) async fn follow(
    State(plane): Plane,
    headers: HeaderMap,
    stopping: Stopping,
    Query(mut request): Query<JournalRequest>,
) -> Answer {
    check_limit(request.limit)?;
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        let last = last.to_str().map_err(|_| {
            bad_request("`Last-Event-ID` must be the id of an event of this stream".to_owned())
        })?;
        request.after = Some(last.to_owned());
    }
    request.after = request.after.map(|place| opened(&place)).transpose()?;
    Ok(sse::journal(plane.follow_journal(request).await?, stopping))
}

/// Shows the newest signed checkpoint of each journal.
///
/// A copy that is kept elsewhere shows when the end of a journal was cut off.
#[utoipa::path(get, path = "/v1/journal/checkpoints", operation_id = "list-checkpoints",
    tag = "journal",
    responses((status = 200, description = "The checkpoints.", body = JournalCheckpoints)))]
pub(crate) async fn checkpoints(State(plane): Plane) -> Answer {
    ok(&plane.checkpoints().await?)
}
