//! Parts of lists: opaque places, and the `Link` header (RFC 8288) to the next part.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::failure::CallFailure;
use crate::model::{MAX_PAGE, Page, PageRequest};
use crate::routes::reply;

/// Longest place that is taken, in bytes.
const MAX_PLACE: usize = 4096;

impl<T> Page<T> {
    /// The part of a whole list that is wanted, ordered by `key`, which no two entries share.
    pub fn of(mut all: Vec<T>, wanted: &PageRequest, key: impl Fn(&T) -> String) -> Self {
        all.sort_by_cached_key(&key);
        if let Some(after) = &wanted.after {
            all.retain(|entry| key(entry) > *after);
        }
        let limit = wanted.limit() as usize;
        let more = all.len() > limit;
        all.truncate(limit);
        let next = all.last().filter(|_| more).map(key);
        Self { items: all, next }
    }
}

/// The request as the control plane gets it: with the name that the place stands for.
pub(crate) fn wanted(mut request: PageRequest) -> Result<PageRequest, CallFailure> {
    check_limit(request.limit)?;
    request.after = request.after.map(|place| opened(&place)).transpose()?;
    Ok(request)
}

pub(crate) fn check_limit(limit: Option<u32>) -> Result<(), CallFailure> {
    if limit.is_none_or(|n| (1..=MAX_PAGE).contains(&n)) {
        return Ok(());
    }
    Err(CallFailure::BadRequest { why: format!("`limit` must be 1 to {MAX_PAGE}") })
}

/// What a place stands for.
pub(crate) fn opened(place: &str) -> Result<String, CallFailure> {
    let bad = || CallFailure::BadRequest {
        why: "`after` must be what `next` of the page before said".to_owned(),
    };
    if place.len() > MAX_PLACE {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(place).map_err(|_| bad())?;
    String::from_utf8(bytes).map_err(|_| bad())
}

/// The answer, with its place made opaque and named in a `Link` header too.
pub(crate) fn paged<T: Serialize>(uri: &Uri, mut page: Page<T>) -> Response {
    page.next = page.next.map(|name| URL_SAFE_NO_PAD.encode(name));
    let link = page.next.as_ref().and_then(|next| link(uri, next));
    let mut response = reply(StatusCode::OK, &page);
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same request with another place.
fn link(uri: &Uri, next: &str) -> Option<HeaderValue> {
    let query = uri.query().unwrap_or_default().split('&');
    let kept = query.filter(|part| !part.is_empty() && !part.starts_with("after="));
    let query: Vec<_> = kept.map(str::to_owned).chain([format!("after={next}")]).collect();
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
    HeaderValue::from_str(&link).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_list_without_gaps() {
        let all = || (0..25).rev().map(|n| format!("e-{n:02}")).collect::<Vec<_>>();
        let mut got = Vec::new();
        let mut request = PageRequest { after: None, limit: Some(10) };
        loop {
            let page = Page::of(all(), &request, Clone::clone);
            got.extend(page.items);
            let Some(next) = page.next else { break };
            request.after = Some(next);
        }
        let mut wanted = all();
        wanted.sort();
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_link_keeps_the_rest_of_the_query() {
        let uri: Uri = "/v1/agents?limit=2&after=x&kind=a".parse().unwrap();
        let response = paged(&uri, Page { items: vec![1, 2], next: Some("b&c".into()) });
        let link = response.headers()[header::LINK].to_str().unwrap();
        assert_eq!(link, "</v1/agents?limit=2&kind=a&after=YiZj>; rel=\"next\"");
        assert_eq!(opened("YiZj").unwrap(), "b&c");
        let last = paged(&uri, Page { items: vec![1], next: None });
        assert!(last.headers().get(header::LINK).is_none());
    }

    #[test]
    fn places_that_were_made_up_are_refused() {
        for place in ["%", "a", "_w", &"A".repeat(5000)] {
            assert!(opened(place).is_err(), "{place}");
        }
    }
}
