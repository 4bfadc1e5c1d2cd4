//! The query string.

use axum::http::request::Parts;

use crate::fault::Fault;

/// The parameters of a request, in their order. Of one that comes twice the last counts.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A list: with commas, or by a parameter that comes again; `None` if it is empty.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let all: Vec<_> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        all.iter().any(|one| !one.is_empty()).then_some(all)
    }

    /// Those that are none of these.
    pub(super) fn others<'p>(
        &'p self,
        known: &'p [&str],
    ) -> impl Iterator<Item = (&'p str, &'p str)> {
        let pairs = self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        pairs.filter(|(key, _)| !known.contains(key))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Fault> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let what = "The value must be an integer.";
            Fault::named(
                "Invalid parameter",
                format!("The \"{name}\" parameter is invalid. {what}"),
            )
        })
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None | Some("false" | "False") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(Fault::named(
                "Invalid parameter",
                format!(
                    "The \"{name}\" parameter is invalid. The value of the parameter must be \
                     \"true\" or \"false\"."
                ),
            )),
        }
    }

    /// How many, from one up to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Fault> {
        let Some(limit) = self.number("limit")? else { return Ok(default) };
        let fits = usize::try_from(limit).ok().filter(|limit| (1..=max).contains(limit));
        let bad = || format!("Limit must be at least 1 and no greater than {max}.");
        fits.ok_or_else(|| Fault::request(bad()))
    }
}

/// The query of the next page: what was asked, with another marker.
pub(super) fn next(params: &Params, keep: &[&str], marker: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for name in keep {
        if let Some(value) = params.get(name) {
            query.append_pair(name, value);
        }
    }
    query.append_pair("marker", marker);
    query.finish()
}
