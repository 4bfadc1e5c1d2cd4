use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bulla_services::require;
use sqlx::Connection;

use super::*;
use crate::conformance::{self, BOB, LEASE_MS, done, granted, reply, request};
use crate::store::{ClaimOutcome, ClaimRequest, ClaimStore, Completed, Duplicate, Refused};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A request of now.
fn live(n: u128) -> ClaimRequest {
    let now_ms = now_ms();
    ClaimRequest { iat: now_ms / 1000, exp: now_ms / 1000 + 600, now_ms, ..request(n) }
}

async fn retried<T, F: Future<Output = Result<T, StoreError>>>(attempt: impl Fn() -> F) -> T {
    for _ in 0..600 {
        if let Ok(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the connection did not come back");
}

/// The same tests on every database. `$other(url, n)` makes database `n` and gives its address.
macro_rules! on {
    ($name:ident, $guard:ident, $connection:ty) => {
        mod $name {
            use bulla_services::$guard;

            use super::*;

            async fn execute(url: &str, statement: String) {
                let mut conn = <$connection>::connect(url).await.unwrap();
                let statement = sqlx::AssertSqlSafe(statement);
                sqlx::query(statement).execute(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }

            /// A database of its own.
            async fn another(server: &$guard, n: u32) -> String {
                execute(&server.url(), format!("CREATE DATABASE other{n}")).await;
                let url = server.url();
                let (before, _) = url.rsplit_once('/').unwrap();
                format!("{before}/other{n}")
            }

            async fn open(server: &$guard) -> SqlClaims {
                SqlClaims::open(SqlOptions::new(server.url(), NewStore::NothingBefore))
                    .await
                    .unwrap()
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn conforms() {
                let Some(server) = require($guard::start()) else { return };
                let number = AtomicU32::new(0);
                let fresh = |store| {
                    let (n, server) = (number.fetch_add(1, Relaxed), &server);
                    async move {
                        let url = another(server, n).await;
                        let new = SqlOptions::new(url, NewStore::NothingBefore);
                        let options = SqlOptions { store, ..new };
                        let claims = SqlClaims::open_with_clock_of_requests(options).await?;
                        Ok(Arc::new(claims) as Arc<dyn ClaimStore>)
                    }
                };
                conformance::run(&fresh).await.unwrap();
                conformance::agrees_with_memory(&fresh, 0..6, 200).await.unwrap();
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn hosts_share_it_by_its_own_clock() {
                let Some(server) = require($guard::start()) else { return };
                // Both make the tables at one time.
                let (alice, bob) = tokio::join!(open(&server), open(&server));
                assert!(alice.is_shared());
                let hour = 3_600_000;
                let behind = ClaimRequest { now_ms: now_ms() - hour, ..live(1) };
                let grant = granted(&alice, &behind).await.unwrap();
                assert_eq!(grant.until_ms, behind.now_ms + LEASE_MS, "in the clock of who asks");
                let ahead = ClaimRequest { worker: BOB, now_ms: now_ms() + hour, ..live(1) };
                let ClaimOutcome::Duplicate(Duplicate::Held { until_ms }) =
                    bob.claim(ahead.clone()).await.unwrap()
                else {
                    panic!("not held");
                };
                assert!(until_ms > ahead.now_ms && until_ms <= ahead.now_ms + LEASE_MS);
                let longer = grant.until_ms + 5000;
                let extended = alice.extend(&behind.key, grant, longer).await.unwrap().unwrap();
                assert_eq!(extended.until_ms, longer);
                let sweep = crate::SweepRequest { now_ms: ahead.now_ms, worker: BOB, lease_ms: 1 };
                let swept = bob.sweep(sweep).await.unwrap();
                assert!(swept.in_doubt.is_empty() && swept.purged == 0);
                let completed = alice.complete(&behind.key, grant, done("sealed")).await.unwrap();
                assert_eq!(completed, Completed::Stored);
                let answered = Duplicate::Done { reply: Some(reply("sealed")) };
                assert_eq!(bob.claim(ahead).await.unwrap(), answered.into());
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn of_many_hosts_one_is_granted() {
                let Some(server) = require($guard::start()) else { return };
                let mut hosts = Vec::new();
                for _ in 0..4 {
                    hosts.push(open(&server).await);
                }
                let claims = (0..400u128).flat_map(|n| {
                    let each = hosts.iter().zip(0..);
                    each.map(move |(host, worker)| {
                        let request = ClaimRequest { worker: crate::Worker(worker), ..live(n) };
                        let host = host.clone();
                        tokio::spawn(async move { host.claim(request).await.unwrap() })
                    })
                });
                let mut winners = 0;
                for claim in claims.collect::<Vec<_>>() {
                    winners += u32::from(matches!(claim.await.unwrap(), ClaimOutcome::Granted(_)));
                }
                assert_eq!(winners, 400);
                let stats = hosts[0].stats().await.unwrap();
                assert_eq!((stats.entries, stats.in_flight, stats.senders), (400, 400, 1));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_crash_of_the_server_loses_nothing() {
                let Some(mut server) = require($guard::start()) else { return };
                let store = open(&server).await;
                let first = live(1);
                let grant = granted(&store, &first).await.unwrap();
                server.kill();
                let error = store.claim(live(2)).await.unwrap_err();
                assert!(matches!(error, StoreError::Io { .. }), "{error}");
                server.restart().unwrap();
                let completed = retried(|| store.complete(&first.key, grant, done("x"))).await;
                assert_eq!(completed, Completed::Stored);
                let answered = Duplicate::Done { reply: Some(reply("x")) };
                assert_eq!(store.claim(first).await.unwrap(), answered.into());
                assert_eq!(store.stats().await.unwrap().blind_until, None);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn lost_tables_and_other_servers_are_noticed() {
                let Some(server) = require($guard::start()) else { return };
                let first = open(&server).await;
                granted(&first, &live(1)).await.unwrap();
                first.close().await;
                // As after a failover.
                let moved = "UPDATE claim_ledger SET generation = 'another'".to_owned();
                execute(&server.url(), moved).await;
                let outcome = open(&server).await.claim(live(2)).await.unwrap();
                assert_eq!(outcome, ClaimOutcome::Refused(Refused::BeforeStart));

                SqlClaims::revert(&server.url(), 0).await.unwrap();
                let options = SqlOptions::new(server.url(), NewStore::MayBeLost);
                let store = SqlClaims::open(options).await.unwrap();
                let outcome = store.claim(live(1)).await.unwrap();
                assert_eq!(outcome, ClaimOutcome::Refused(Refused::BeforeStart));
                store.close().await;

                execute(&server.url(), "UPDATE claim_schema SET version = 99".to_owned()).await;
                let options = SqlOptions::new(server.url(), NewStore::MayBeLost);
                let error = SqlClaims::open(options).await.unwrap_err();
                assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn passwords_are_in_no_message() {
                let Some(server) = require($guard::start()) else { return };
                let url = server.url().replace("test-only", "wrong-secret");
                let options = SqlOptions::new(url, NewStore::NothingBefore);
                let mut told = format!("{options:?}");
                let error = SqlClaims::open(options).await.unwrap_err();
                assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
                told += &format!("{error} {error:?} {:?}", open(&server).await);
                let scheme = server.url().split_once(':').unwrap().0.to_owned();
                for rest in ["u:wrong-secret@[::1", "u:wrong-secret@h:1/d?port=x", "wrong-secret"] {
                    let url = format!("{scheme}://{rest}");
                    let options = SqlOptions::new(url, NewStore::NothingBefore);
                    if let Err(error) = SqlClaims::open(options).await {
                        told += &format!("{error} {error:?}");
                    }
                }
                let told = told.replace("://wrong-secret", "");
                assert!(!told.contains("secret") && !told.contains("test-only"), "{told}");
            }
        }
    };
}

#[cfg(feature = "postgres")]
on!(postgres, Postgres, sqlx::PgConnection);
#[cfg(feature = "mariadb")]
on!(mariadb, MariaDb, sqlx::MySqlConnection);
