//! What a broker's user, or a compromised guest, does to plain oslo.messaging and to Trove's serializer, done to
//! Rust peers over the oslo carrier on a real RabbitMQ: all of it is refused but what only denies service.
//!
//! The rows are those of the table in `docs/migrate-openstack.md`; the guests' and the conductor's methods are
//! Trove's.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;
mod replies;
mod requests;
mod stage;

use std::future::Future;
use std::pin::Pin;

use bulla_services::{VirtualHost, require};
use replies::*;
use requests::*;
use stage::Stage;

/// What is left of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// It withholds a service, which nobody can prevent end to end; callers notice.
    DeniesService,
}

type Run = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! rows {
    ($($id:literal $left:ident $run:ident,)*) => {
        &[$(($id, Left::$left, |stage| Box::pin($run(stage)))),*]
    };
}

/// Every attack of the facts.
const ROWS: &[(&str, Left, Run)] = rows![
    "O1 O2 O3" Nothing a_request_is_not_readable,
    "O4" Nothing an_exception_is_not_readable,
    "O5" Nothing a_result_is_not_readable,
    "O6" Nothing nobody_decrypts_for_a_stranger,
    "F1" Nothing in_clear_to_a_guest,
    "F2" Nothing in_clear_with_a_context_that_does_not_decode,
    "F3" Nothing in_clear_to_the_task_manager,
    "F4" Nothing in_clear_as_any_guest,
    "F5" Nothing with_the_key_that_everybody_has,
    "F6" Nothing with_code_by_name,
    "F7" Nothing a_guest_reports_for_another,
    "R1" Nothing the_same_bytes_again,
    "R2" Nothing the_same_under_another_id,
    "R3" Nothing the_same_after_others,
    "R4" Nothing at_another_worker,
    "R5 R6" Nothing an_old_heartbeat,
    "C1 C4" Nothing any_bit_changed,
    "C2" Nothing restart_into_delete,
    "C3" Nothing parts_of_two_messages,
    "C5" Nothing for_another_guest,
    "C6" Nothing under_another_name,
    "P1 P2" Nothing a_forged_reply,
    "P3" Nothing the_reply_to_another_call,
    "P4" Nothing a_reply_into_any_queue,
    "P5" DeniesService swallowed_requests,
    "D1 D2" Nothing poison,
    "D3" DeniesService a_deleted_queue,
    // It ends with the guest revoked everywhere, and is therefore the last.
    "F8" Nothing a_deleted_guests_key,
];

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_refused_but_what_only_denies_service() {
    let ids: Vec<&str> = ROWS.iter().flat_map(|(ids, ..)| ids.split(' ')).collect();
    let of = |group: char| ids.iter().filter(|id| id.starts_with(group)).count();
    assert_eq!(['O', 'F', 'R', 'C', 'P', 'D'].map(of), [6, 8, 6, 6, 5, 3]);
    assert_eq!(ids.len(), 34);
    let denying: Vec<&str> =
        ROWS.iter().filter(|row| row.1 == Left::DeniesService).map(|row| row.0).collect();
    assert_eq!(denying, ["P5", "D3"]);

    let Some(host) = require(VirtualHost::new()) else { return };
    let stage = Stage::new(&host.url()).await;
    for (id, _, run) in ROWS {
        stage.ran.lock().clear();
        println!("{id}");
        run(&stage).await;
    }
    stage.close().await;
}
