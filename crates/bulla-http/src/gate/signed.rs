//! Requests that are signed with an access key, or with an agent's own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::Body as _;

use super::answers::{refused, unavailable};
use super::{Gate, Refused};
use crate::identity::{Authenticator, Identity};
use crate::problem::Problem;
use crate::signature::{CONTENT_DIGEST, Claimed, Fault, digest_matches};

impl Gate {
    pub(super) async fn signed(
        &self,
        request: &mut Request<Body>,
        scheme: &str,
    ) -> Result<Identity, Refused> {
        let credential = Authenticator::AccessKey.as_str();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let has_body = !request.body().is_end_stream();
        let parts = (request.method(), request.uri(), request.headers());
        let claimed = Claimed::read(parts, scheme, has_body, now, self.times)
            .map_err(|fault: Fault| refused(credential, fault.name(), fault.advice()))?;
        if claimed.is_agents() {
            return self.by_agent(request, &claimed, has_body, now).await;
        }
        let (Some(keys), Some(nonces)) = (&self.by.access_keys, &self.by.nonces) else {
            let detail = "signatures with access keys are not taken here";
            return Err(refused(credential, "credential-not-taken", detail));
        };
        // One answer to whoever holds no key: which ids there are is nobody's business.
        let wrong = |why| {
            let detail =
                "the access key is not taken, or the signature is not made with its secret";
            refused(credential, why, detail)
        };
        let cant = |why: String| {
            tracing::error!(%why, "an access key can't be checked");
            let problem = unavailable("access keys can't be checked; the log says why");
            Refused { credential, why: "access-keys-unavailable", problem }
        };
        let found = keys.find(claimed.key()).await.map_err(cant)?;
        let owner = match found {
            Ok(owner) => owner,
            Err(why) => {
                let _ = self.nobody.as_ref().map(|nobody| claimed.is_by(nobody));
                return Err(wrong(why));
            }
        };
        if !claimed.is_by(&owner.secret) {
            return Err(wrong("signature-wrong"));
        }
        if self.of_this_process(&claimed, credential).await? {
            return Box::pin(self.signed(request, scheme)).await;
        }
        let first = nonces.first(claimed.seen(), now).await;
        if !first.map_err(|error| cant(error.0))? {
            let detail = "this signature was used before; sign each request anew";
            return Err(refused(credential, "signature-again", detail));
        }
        let identity = Identity::access_key(&owner.user).ok_or_else(|| wrong("access-key-user"))?;
        // Whoever signed it may have it read.
        self.check_body(request, claimed.digest(), has_body).await?;
        keys.used(claimed.key());
        Ok(identity)
    }

    /// One that says it is signed with an agent's own key: `agent/ID#KEY`.
    async fn by_agent(
        &self,
        request: &mut Request<Body>,
        claimed: &Claimed,
        has_body: bool,
        now: u64,
    ) -> Result<Identity, Refused> {
        let credential = Authenticator::AgentKey.as_str();
        let (Some(keys), Some(nonces)) = (&self.by.agent_keys, &self.by.nonces) else {
            let detail = "signatures with agents' own keys are not taken here";
            return Err(refused(credential, "credential-not-taken", detail));
        };
        let wrong = |why| {
            let detail = "the agent's key is not taken, or the signature is not made with it";
            refused(credential, why, detail)
        };
        let cant = |why: String| {
            tracing::error!(%why, "an agent's key can't be checked");
            let problem = unavailable("keys of agents can't be checked; the log says why");
            Refused { credential, why: "agent-keys-unavailable", problem }
        };
        let named = claimed.key().strip_prefix("agent/").and_then(|rest| rest.split_once('#'));
        let (agent, key) = named.ok_or_else(|| wrong("agent-key-name"))?;
        let found = keys.find(agent, key).await.map_err(cant)?.map_err(wrong)?;
        if !claimed.is_by_agent(&found) {
            return Err(wrong("signature-wrong"));
        }
        if self.of_this_process(claimed, credential).await? {
            return Box::pin(self.by_agent(request, claimed, has_body, now)).await;
        }
        let first = nonces.first(claimed.seen(), now).await;
        if !first.map_err(|error| cant(error.0))? {
            let detail = "this signature was used before; sign each request anew";
            return Err(refused(credential, "signature-again", detail));
        }
        let identity = Identity::agent(agent).ok_or_else(|| wrong("agent-key-name"))?;
        self.check_body(request, claimed.digest(), has_body).await?;
        Ok(identity)
    }

    /// Where used signatures are forgotten with the process: that this one was not used before it began.
    /// None is used before its own time, and none from before the beginning is taken. Whether that took a
    /// while, in which its key may have been taken away.
    async fn of_this_process(
        &self,
        claimed: &Claimed,
        credential: &'static str,
    ) -> Result<bool, Refused> {
        let created = claimed.seen().created;
        if created < self.since {
            let detail = "the request was signed before this service started; sign it again";
            let problem = unavailable(detail);
            return Err(Refused { credential, why: "signature-before-start", problem });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The clock of who signed it is ahead, by as much as is allowed at the most.
        let ahead = Duration::from_secs(created).saturating_sub(now);
        if self.since == 0 || ahead.is_zero() {
            return Ok(false);
        }
        tokio::time::sleep(ahead).await;
        Ok(true)
    }

    /// Reads the body, which must be the one that was signed.
    async fn check_body(
        &self,
        request: &mut Request<Body>,
        digest: Option<&str>,
        has_body: bool,
    ) -> Result<(), Refused> {
        let credential = Authenticator::AccessKey.as_str();
        let Some(digest) = digest else {
            // Nothing was signed because there is nothing.
            request.headers_mut().remove(CONTENT_DIGEST);
            return Ok(());
        };
        let body = if has_body {
            let body = std::mem::take(request.body_mut());
            let reading = tokio::time::timeout(self.limits.body, self.read(body)).await;
            let slow = || {
                Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body-too-slow",
                    "The request body took too long",
                    "the request body did not arrive in time",
                )
            };
            let read = reading.unwrap_or_else(|_| Err(slow()));
            read.map_err(|problem| Refused { credential, why: "body", problem })?
        } else {
            Bytes::new()
        };
        if !digest_matches(digest, &body) {
            let detail = "the request body is not the one that was signed";
            return Err(refused(credential, "content-digest", detail));
        }
        *request.body_mut() = Body::from(body);
        Ok(())
    }

    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let limit = self.limits.max_body;
        if body.size_hint().lower() > limit as u64 {
            return Err(Problem::too_large(limit));
        }
        let mut stream = body.into_data_stream();
        let mut read = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "broken-body",
                    "The request body is broken",
                    format!("the request body could not be read: {error}"),
                )
            })?;
            if read.len().saturating_add(chunk.len()) > limit {
                return Err(Problem::too_large(limit));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.freeze())
    }
}
