//! How quick users are made. Not decided by: printed.

use std::time::Instant;

use crate::common::*;

#[tokio::test]
async fn many_users_are_made_together() {
    let Some(world) = World::start().await else { return };
    let count = std::env::var("BULLA_USERS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let agents: Vec<_> = (0..count).map(|n| agent(&format!("db-{n}"))).collect();
    let survey = world.users.survey().await.unwrap();
    let begun = Instant::now();
    let passwords = world.users.add(&survey, &agents).await.unwrap();
    let took = begun.elapsed().as_secs_f64();
    println!("{count} users in {took:.2} s: {:.0} a second", count as f64 / took);
    assert_eq!(passwords.len(), count);
    let begun = Instant::now();
    let known = world.users.known(&world.users.survey().await.unwrap());
    println!("listed in {:.3} s", begun.elapsed().as_secs_f64());
    assert_eq!(known.len(), count);
    let last = passwords.last().unwrap().as_ref().unwrap();
    let name = world.users.name_of(&agents.last().unwrap().id);
    let url = bulla_broker::with_login(&world.rabbit.url(), Some((&name, last))).unwrap();
    connect(&url).await;
}
