//! The service: a store, limits, and who waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::arrivals::Arrivals;
use crate::caller::AgentRule;
use crate::grant::Grants;
use crate::hooks::{Hooks, Webhooks};
use crate::limits::Limits;
use crate::name::Place;
use crate::quota::{Quota, Quotas};
use crate::store::{Claim, ClaimTerms, Listed, Millis, Page, Store, StoreError};

/// A queue service.
pub struct Service {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) limits: Limits,
    pub(crate) grants: Option<Grants>,
    pub(crate) open: bool,
    pub(crate) agents: Option<(Arc<str>, AgentRule)>,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) quotas: Quotas,
    arrivals: Arc<Arrivals>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("store", &self.store.name()).finish_non_exhaustive()
    }
}

impl Service {
    /// One that believes nobody without an identity from the listener.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (limits, arrivals) = (Limits::default(), Arc::<Arrivals>::default());
        let told = Arc::downgrade(&arrivals);
        store.on_arrival(Arc::new(move |at| match (told.upgrade(), at) {
            (Some(arrivals), Some(at)) => arrivals.tell(at),
            (Some(arrivals), None) => arrivals.tell_all(),
            (None, _) => {}
        }));
        let quotas = Quotas::default();
        Self {
            store,
            limits,
            grants: None,
            open: false,
            agents: None,
            hooks: None,
            quotas,
            arrivals,
        }
    }

    /// Other limits than Zaqar's.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes pre-signed grants.
    #[must_use]
    pub fn grants(mut self, grants: Grants) -> Self {
        self.grants = Some(grants);
        self
    }

    /// Tells subscribers of messages.
    #[must_use]
    pub fn webhooks(mut self, by: Webhooks) -> Self {
        self.hooks = Some(Hooks::new(by));
        self
    }

    /// Lets agents do what the rule says, in the queues of this project.
    #[must_use]
    pub fn agents(mut self, project: &str, rule: AgentRule) -> Self {
        self.agents = Some((project.into(), rule));
        self
    }

    /// What each agent may have in queues for anybody.
    #[must_use]
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quotas.quota = quota;
        self
    }

    /// Removes agents' queues for anybody in which nothing is any more; how many. To be called now and
    /// then: messages end by themselves, queues do not.
    ///
    /// # Errors
    /// The store fails.
    pub async fn tidy(&self) -> Result<u64, StoreError> {
        let Some((project, rule)) = &self.agents else { return Ok(0) };
        self.quotas.tidy(self.store.as_ref(), (project, *rule), now()).await
    }

    /// Believes what requests say of their project. Only for a listener that nobody else reaches.
    #[must_use]
    pub fn dangerously_open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Ends what is begun.
    pub async fn close(&self) {
        if let Some(hooks) = &self.hooks {
            hooks.close();
        }
        self.store.close().await;
    }

    pub(crate) fn tell(&self, at: &Place) {
        self.arrivals.tell(at);
    }

    /// Claims, and waits for something to claim if there is nothing.
    pub(crate) async fn claim(
        &self,
        at: &Place,
        limit: usize,
        terms: ClaimTerms,
        wait: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        let ask = || async { self.store.claim(at, limit, terms, now()).await };
        self.wait(at, wait, ask, Option::is_none).await
    }

    /// Lists, and waits for something to list if there is nothing.
    pub(crate) async fn list(
        &self,
        at: &Place,
        page: &Page,
        wait: Duration,
    ) -> Result<Listed, StoreError> {
        let ask = || async { self.store.list(at, page, now()).await };
        self.wait(at, wait, ask, Vec::is_empty).await
    }

    /// Pops, and waits for something to pop if there is nothing.
    pub(crate) async fn pop(
        &self,
        at: &Place,
        limit: usize,
        wait: Duration,
    ) -> Result<Listed, StoreError> {
        let ask = || async { self.store.pop(at, limit, now()).await };
        self.wait(at, wait, ask, Vec::is_empty).await
    }

    async fn wait<T, F>(
        &self,
        at: &Place,
        wait: Duration,
        ask: impl Fn() -> F,
        is_nothing: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if wait.is_zero() {
            return ask().await;
        }
        let end = tokio::time::Instant::now() + wait;
        loop {
            // Before asking: what arrives in between is heard.
            let mut waiting = self.arrivals.wait(at);
            let got = ask().await?;
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if !is_nothing(&got) || left.is_zero() {
                return Ok(got);
            }
            let free = self.store.next_free(at, now()).await?;
            let free = free.map(|at| Duration::from_millis(at.saturating_sub(now()).max(1)));
            let until = free.map_or(left, |free| free.min(left));
            // Either way it is asked again.
            let _ = tokio::time::timeout(until, waiting.heard()).await;
        }
    }
}

pub(crate) fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
