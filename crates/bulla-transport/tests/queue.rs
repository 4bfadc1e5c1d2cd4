//! The queue transport on a queue service of ours: what every transport must do, and what is its own.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bulla_http::{Listener, Options};
use bulla_queue::{Limits, Service, SqliteQueues, router};
use bulla_transport::conformance::{self, Party, run_all};
use bulla_transport::{
    Address, ConsumeOptions, Inbox, Outbound, QueueOptions, QueueTransport, Transport,
    TransportError,
};
use tokio_util::sync::CancellationToken;

/// A service that asks nobody who they are.
struct Open {
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn open() -> Open {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteQueues::open(dir.path().join("q.db"), 0).await.unwrap();
    let limits = Limits { claim_ttl: 1..=100, grace: 1..=100, ..Limits::default() };
    let service = Service::new(Arc::new(store)).limits(limits).dangerously_open();
    let options = Options::dangerously_open_loopback(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = Listener::bind(options).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    tokio::spawn(listener.serve(router(Arc::new(service)), stop.clone()));
    Open { address, stop, _dir: dir }
}

fn options(address: &str) -> QueueOptions {
    QueueOptions::new(&format!("queue+{address}")).unwrap().max_message(1 << 20)
}

type BoxFuture = Pin<Box<dyn Future<Output = Result<Party, TransportError>> + Send>>;

fn parties(address: String) -> impl Fn() -> BoxFuture {
    move || {
        let options = options(&address);
        Box::pin(async move {
            let party: Party = Arc::new(QueueTransport::connect(options).await?);
            Ok(party)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let service = open().await;
    run_all(&parties(format!("http://{}", service.address))).await.unwrap();
}

/// On a service of somebody else's, such as a real Zaqar without authentication:
/// `BULLA_TEST_ZAQAR=http://127.0.0.1:8888`. There a message that comes again to another process does
/// not say so, and nothing else is different.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_another_service() {
    let Ok(address) = std::env::var("BULLA_TEST_ZAQAR") else {
        return eprintln!("no other service is named");
    };
    let parties = parties(address);
    macro_rules! hold {
        ($($property:ident),* $(,)?) => {
            $(conformance::$property(&parties).await.expect(stringify!($property));)*
        };
    }
    hold!(
        topics_deliver,
        servers_are_addressed,
        fanout_reaches_everybody,
        replies_reach_their_inbox_only,
        reply_hints_arrive,
        bytes_arrive_unchanged,
        competing_consumers_share,
        waiting_consumers_are_woken,
        one_publisher_is_in_order,
        nothing_is_lost_or_doubled,
        put_back_comes_back,
        dropped_deliveries_come_back,
        prefetch_limits,
        largest_message_passes,
        deleted_inboxes_are_gone,
        closed_means_closed,
    );
}

fn topic(topic: &str) -> (Inbox, Address) {
    let (exchange, topic) = ("bulla".to_owned(), topic.to_owned());
    (
        Inbox::Topic { exchange: exchange.clone(), topic: topic.clone() },
        Address::Topic { exchange, topic },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_hand_longer_than_a_claim_is_not_given_to_another() {
    let service = open().await;
    let address = format!("http://{}", service.address);
    let brief = || options(&address).claim(Duration::from_secs(2));
    let (first, second) = (
        QueueTransport::connect(brief()).await.unwrap(),
        QueueTransport::connect(brief()).await.unwrap(),
    );
    let (inbox, to) = topic("component.control");
    let mut slow = first.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    first.publish(&to, Outbound::new("long work".into())).await.unwrap();
    let in_hand = slow.next().await.unwrap();
    let mut other = second.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(5), other.next()).await;
    assert!(early.is_err(), "somebody else got it");
    in_hand.acker.ack();
    slow.stop().await;
    assert_eq!(first.waiting(&inbox).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_had_in_hand_when_it_vanished_comes_to_another() {
    let service = open().await;
    let address = format!("http://{}", service.address);
    let brief = || options(&address).claim(Duration::from_secs(1));
    let (inbox, to) = topic("component.control");
    // A process that ends without a word: its runtime is gone, and nothing was given back.
    let gone = {
        let (inbox, to, options) = (inbox.clone(), to.clone(), brief());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let delivery = runtime.block_on(async {
                let transport = QueueTransport::connect(options).await.unwrap();
                let mut consumer =
                    transport.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
                transport.publish(&to, Outbound::new("work".into())).await.unwrap();
                let delivery = consumer.next().await.unwrap();
                std::mem::forget((transport, consumer));
                delivery
            });
            std::mem::forget(delivery);
            runtime.shutdown_background();
        })
    };
    gone.join().unwrap();
    let second = QueueTransport::connect(brief()).await.unwrap();
    let mut other = second.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(30), other.next()).await;
    let again = again.unwrap().unwrap();
    assert!(again.redelivered && again.payload == "work");
    again.acker.ack();
    second.close().await;
}

#[tokio::test]
async fn something_else_is_no_queue_service() {
    let nobody = QueueTransport::connect(options("http://127.0.0.1:9")).await;
    assert!(matches!(nobody, Err(TransportError::Unreachable { .. })), "{nobody:?}");
}
