//! The typed client of the API.

mod endpoint;
mod error;
mod events;
mod http;

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use endpoint::{Credential, Endpoint};
pub use error::ClientError;
pub use events::{CallEvent, CallEvents, TapItems};

use crate::agents::{AgentDetails, RotateAgentRequest, RotatedAgent};
use crate::model::{
    Agent, CallAnswer, CallRequest, CastRequest, Component, Group, Page, PageRequest, Sent, Status,
};
use crate::peers::{ExemptRequest, Peer, PeerExemption, RaiseRequest, TakenBack};
use crate::sse::SILENCE;
use http::{Answer, Asker};

/// How long an answer may take that is the control plane's alone to give.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one control plane. Each request has a connection of its own, which ends with it:
/// dropping the future of a call tells the control plane to stop waiting.
#[derive(Clone)]
pub struct Client {
    asker: Asker,
}

impl Client {
    /// Loads certificates or the token; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// When the URL, a certificate, a key or the token can't be used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self { asker: Asker::new(endpoint)? })
    }

    /// The URL that requests go to.
    #[must_use]
    pub fn url(&self) -> &str {
        self.asker.url()
    }

    /// Calls a method and waits for its value.
    ///
    /// # Errors
    ///
    /// [`ClientError::Failed`] with what the call came to, or why it could not be asked for.
    pub async fn call(&self, request: &CallRequest) -> Result<Value, ClientError> {
        let patience = request.timeout().saturating_add(PATIENCE);
        let answer: CallAnswer = self.post("/v1/calls", request, patience).await?;
        Ok(answer.value)
    }

    /// Calls a method and reports its progress. The stream ends with the value or an error.
    ///
    /// # Errors
    ///
    /// As [`Client::call`], for what is known before the first event.
    pub async fn call_with_progress(
        &self,
        request: &CallRequest,
    ) -> Result<CallEvents, ClientError> {
        let body = encode(request)?;
        let answer = self.asker.ask(Method::POST, "/v1/calls", Some(body), true, SILENCE).await?;
        Ok(CallEvents::new(events(answer).await?))
    }

    /// Sends a message that nobody answers.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn cast(&self, request: &CastRequest) -> Result<Sent, ClientError> {
        self.post("/v1/casts", request, PATIENCE).await
    }

    /// Sends a message to a group.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn fanout(&self, request: &CastRequest) -> Result<Sent, ClientError> {
        self.post("/v1/fanouts", request, PATIENCE).await
    }

    /// A part of the list of agents.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn agents(&self, page: &PageRequest) -> Result<Page<Agent>, ClientError> {
        self.page("/v1/agents", page).await
    }

    /// All agents, page by page.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn all_agents(&self) -> Result<Vec<Agent>, ClientError> {
        self.all("/v1/agents").await
    }

    /// One agent.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn agent(&self, id: &str) -> Result<AgentDetails, ClientError> {
        self.get(&format!("/v1/agents/{}", http::escape(id))).await
    }

    /// Has an agent renew its keys.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn rotate_agent(
        &self,
        id: &str,
        request: &RotateAgentRequest,
    ) -> Result<RotatedAgent, ClientError> {
        let waits = request.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let path = format!("/v1/agents/{}/rotate", http::escape(id));
        self.post(&path, request, waits.saturating_add(PATIENCE)).await
    }

    /// The component types.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn components(&self) -> Result<Vec<Component>, ClientError> {
        self.all("/v1/components").await
    }

    /// The groups.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn groups(&self) -> Result<Vec<Group>, ClientError> {
        self.all("/v1/groups").await
    }

    /// What is known of peers' levels.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        self.all("/v1/peers").await
    }

    /// Raises a peer's floor, or rehearses that.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn raise(&self, request: &RaiseRequest) -> Result<Peer, ClientError> {
        self.post("/v1/peers/floors", request, PATIENCE).await
    }

    /// Gives an exemption from a peer's floor.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn exempt(&self, request: &ExemptRequest) -> Result<PeerExemption, ClientError> {
        self.post("/v1/exemptions", request, PATIENCE).await
    }

    /// Takes an exemption back.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn take_back(&self, id: &str) -> Result<TakenBack, ClientError> {
        let path = format!("/v1/exemptions/{}", http::escape(id));
        let asking = async {
            self.asker.ask(Method::DELETE, &path, None, false, PATIENCE).await?.decode().await
        };
        within(PATIENCE, asking).await
    }

    /// How the control plane is.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Whether the control plane can serve calls; [`crate::CallFailure::BusDown`] if not.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn health(&self) -> Result<Status, ClientError> {
        self.get("/healthz").await
    }

    /// What the bus sees from now on.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn tap(&self) -> Result<TapItems, ClientError> {
        let answer = self.asker.ask(Method::GET, "/v1/tap", None, true, PATIENCE).await?;
        Ok(TapItems::new(events(answer).await?))
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        page: &PageRequest,
    ) -> Result<Page<T>, ClientError> {
        let limit = page.limit.map(|n| format!("limit={n}"));
        let after = page.after.as_ref().map(|place| format!("after={}", http::escape(place)));
        let query: Vec<_> = limit.into_iter().chain(after).collect();
        self.get(&format!("{path}?{}", query.join("&"))).await
    }

    async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut page = PageRequest { after: None, limit: Some(crate::model::MAX_PAGE) };
        let mut all = Vec::new();
        loop {
            let part = self.page(path, &page).await?;
            all.extend(part.items);
            // A next that does not move on would be asked for forever.
            if part.next.is_none() || part.next == page.after {
                return Ok(all);
            }
            page.after = part.next;
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let asking = async {
            self.asker.ask(Method::GET, path, None, false, PATIENCE).await?.decode().await
        };
        within(PATIENCE, asking).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let body = encode(body)?;
        let asking = async {
            self.asker.ask(Method::POST, path, Some(body), false, patience).await?.decode().await
        };
        within(patience, asking).await
    }
}

/// An answer that is to be an event stream.
async fn events(answer: Answer) -> Result<Answer, ClientError> {
    if answer.status() == StatusCode::OK && answer.is("text/event-stream") {
        return Ok(answer);
    }
    match answer.decode::<Value>().await {
        Err(error) => Err(error),
        Ok(_) => Err(ClientError::NotUs { why: "it sent no event stream".to_owned() }),
    }
}

async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(limit, asking).await {
        Ok(answered) => answered,
        Err(_) => Err(ClientError::Silent { limit }),
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|e| ClientError::Unsendable { why: e.to_string() })
}
