//! The client's side.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, Request, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use super::base::Message;
use super::key::AccessKey;
use super::{ALGORITHM, CONTENT_DIGEST, SIGNATURE, SIGNATURE_INPUT, digest, fields};

/// The label of our signatures.
const LABEL: &str = "bulla";
/// Fields that are signed where a request has them: they change what it does.
const ALSO: [&str; 2] = ["content-type", "idempotency-key"];

/// A request could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the request can't be signed: {0}")]
pub struct SignError(&'static str);

impl AccessKey {
    /// Signs a request to `scheme://` and the host that its `Host` field names.
    ///
    /// # Errors
    ///
    /// When the request has no `Host` field, or there is no randomness.
    pub fn sign<B>(
        &self,
        scheme: &str,
        request: &mut Request<B>,
        body: &[u8],
    ) -> Result<(), SignError> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        let created = created.map_err(|_| SignError("the clock is before 1970"))?.as_secs();
        let mut nonce = [0; 18];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SignError("there is no randomness"))?;
        self.sign_at(scheme, request, body, (created, &URL_SAFE_NO_PAD.encode(nonce)))
    }

    pub(super) fn sign_at<B>(
        &self,
        scheme: &str,
        request: &mut Request<B>,
        body: &[u8],
        (created, nonce): (u64, &str),
    ) -> Result<(), SignError> {
        const UNFIT: SignError = SignError("it has no host, or a field that is no text");
        let mut components = vec!["@method".to_owned(), "@target-uri".to_owned()];
        if !body.is_empty() {
            let value = HeaderValue::from_str(&digest::of(body)).map_err(|_| UNFIT)?;
            request.headers_mut().insert(CONTENT_DIGEST, value);
            components.push(CONTENT_DIGEST.as_str().to_owned());
        }
        let also = ALSO.into_iter().filter(|name| request.headers().contains_key(*name));
        components.extend(also.map(str::to_owned));
        let quoted = |text: &str| fields::quoted(text).ok_or(UNFIT);
        let list = components.iter().map(|name| quoted(name)).collect::<Result<Vec<_>, _>>()?;
        let parameters = format!(
            "({});created={created};keyid={};nonce={};alg=\"{ALGORITHM}\"",
            list.join(" "),
            quoted(self.id())?,
            quoted(nonce)?
        );
        let message = Message {
            method: request.method(),
            scheme,
            target: request.uri(),
            headers: request.headers(),
        };
        let base = message.base(&components, &parameters).ok_or(UNFIT)?;
        let tag = fields::sequence(self.secret().mac(&base).as_ref());
        for (name, value) in [(SIGNATURE_INPUT, parameters), (SIGNATURE, tag)] {
            let value = HeaderValue::from_str(&format!("{LABEL}={value}")).map_err(|_| UNFIT)?;
            request.headers_mut().insert(name, value);
        }
        debug_assert!(request.headers().contains_key(header::HOST));
        Ok(())
    }
}
