//! A method that a test holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulla_rpc::Method;
use tokio::sync::{mpsc, watch};

/// Runs until it is told to go on; says when it started.
pub struct Gate {
    pub started: mpsc::Receiver<u32>,
    pub go: watch::Sender<bool>,
    pub running: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
}

impl Gate {
    pub fn new() -> (Self, Method) {
        let (tx, started) = mpsc::channel(1000);
        let (go, wait) = watch::channel(false);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, top) = (running.clone(), most.clone());
        let method = Method::new("wait", move |_, n: u32| {
            let (tx, mut wait, now, top) = (tx.clone(), wait.clone(), now.clone(), top.clone());
            async move {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                top.fetch_max(running, Ordering::SeqCst);
                tx.send(n).await.unwrap();
                wait.wait_for(|go| *go).await.ok();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(n)
            }
        });
        (Self { started, go, running, most }, method.open_to_agents().open_to_components())
    }
}
