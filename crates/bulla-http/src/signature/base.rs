//! The signature base (RFC 9421 section 2.5): the text that is signed.

use axum::http::{HeaderMap, Method, Uri, header};

/// A request as its signature sees it.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) method: &'a Method,
    /// `http` or `https`.
    pub(super) scheme: &'a str,
    /// The path and the query.
    pub(super) target: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

impl Message<'_> {
    /// The base for these components; `None` if one is not there, is not known here, or comes twice.
    pub(super) fn base(&self, components: &[String], parameters: &str) -> Option<String> {
        let mut out = String::new();
        for (at, name) in components.iter().enumerate() {
            if components.get(..at).is_some_and(|before| before.contains(name)) {
                return None;
            }
            let value = self.component(name)?;
            // Neither holds a line end: one is our own, the other a header's value.
            out += &format!("{}: {value}\n", super::fields::quoted(name)?);
        }
        out += &format!("\"@signature-params\": {parameters}");
        Some(out)
    }

    fn component(&self, name: &str) -> Option<String> {
        match name {
            "@method" => Some(self.method.as_str().to_owned()),
            "@scheme" => Some(self.scheme.to_owned()),
            "@authority" => self.authority(),
            "@target-uri" => {
                Some(format!("{}://{}{}", self.scheme, self.authority()?, self.request_target()))
            }
            "@request-target" => Some(self.request_target()),
            "@path" => Some(self.path().to_owned()),
            "@query" => Some(format!("?{}", self.target.query().unwrap_or_default())),
            name if name.starts_with('@') => None,
            name => self.field(name),
        }
    }

    fn path(&self) -> &str {
        match self.target.path() {
            "" => "/",
            path => path,
        }
    }

    fn request_target(&self) -> String {
        match self.target.query() {
            Some(query) => format!("{}?{query}", self.path()),
            None => self.path().to_owned(),
        }
    }

    /// From the one `Host` field: in lower case, without the scheme's own port.
    fn authority(&self) -> Option<String> {
        // With a URL in the request line there would be two authorities.
        if self.target.authority().is_some() {
            return None;
        }
        let mut hosts = self.headers.get_all(header::HOST).iter();
        let host = hosts.next()?.to_str().ok()?.to_ascii_lowercase();
        if hosts.next().is_some() || host.is_empty() {
            return None;
        }
        let own = if self.scheme == "https" { ":443" } else { ":80" };
        Some(host.strip_suffix(own).unwrap_or(&host).to_owned())
    }

    /// Every value of a field, in one line.
    fn field(&self, name: &str) -> Option<String> {
        let lower = name.bytes().all(|b| !b.is_ascii_uppercase());
        let mut values = Vec::new();
        for value in self.headers.get_all(name) {
            values.push(value.to_str().ok()?.trim().to_owned());
        }
        (lower && !values.is_empty()).then(|| values.join(", "))
    }
}
