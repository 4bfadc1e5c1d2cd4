//! The table of operations: from one line of it come the route and its description.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bulla_http::{Identity, PROBLEM_CONTENT_TYPE, Problem};
use utoipa::__dev::SchemaReferences;
use utoipa::Path;
use utoipa::openapi::path::{
    Operation as Described, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, OpenApi, Ref, RefOr, Required, ResponseBuilder,
};

use crate::once;
use crate::plane::ControlPlane;

/// What the handlers share.
pub(crate) type Shared = Arc<dyn ControlPlane>;

/// The operation that a request asks for. It is in the request's extensions before anything of the
/// operation runs, so that who may ask for it can be decided there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its `operationId`, such as `add-agents`.
    pub id: Arc<str>,
    /// Whether it changes something or sends a message.
    pub changes: bool,
}

/// All operations.
#[derive(Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    schemas: Vec<(String, RefOr<Schema>)>,
    /// Of problems.
    statuses: BTreeSet<u16>,
}

struct Entry {
    path: String,
    methods: Vec<HttpMethod>,
    described: Described,
    changes: bool,
    handler: MethodRouter<Shared>,
}

/// Every operation can end in one of these.
const ALWAYS: &[u16] = &[401, 403, 429, 500, 503];
/// Those whose request has a body.
const WITH_BODY: &[u16] = &[400, 408, 413, 415];
/// Those that can be asked for with an idempotency key.
const ONCE: &[u16] = &[400, 408, 409, 413, 422];

impl Table {
    /// Adds an operation that only tells something; `fails` are statuses of its own.
    pub(crate) fn tells<P, H, T>(self, fails: &[u16], handler: H) -> Self
    where
        P: Path + SchemaReferences,
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.add::<P, H, T>(fails, handler, false)
    }

    /// Adds an operation that changes something: an idempotency key may go with it.
    pub(crate) fn changes<P, H, T>(self, fails: &[u16], handler: H) -> Self
    where
        P: Path + SchemaReferences,
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.add::<P, H, T>(fails, handler, true)
    }

    fn add<P, H, T>(mut self, fails: &[u16], handler: H, changes: bool) -> Self
    where
        P: Path + SchemaReferences,
        H: Handler<T, Shared>,
        T: 'static,
    {
        let (path, methods) = (P::path(), P::methods());
        P::schemas(&mut self.schemas);
        let filter = methods.iter().map(filter).reduce(MethodFilter::or);
        let Some(filter) = filter else { return self };
        let mut described = P::operation();
        let asks = path.contains('{') || described.parameters.is_some();
        let mut statuses = [ALWAYS, fails].concat();
        if asks {
            statuses.push(400);
        }
        if described.request_body.is_some() {
            statuses.extend(WITH_BODY);
        }
        if changes {
            statuses.extend(ONCE);
            described.parameters.get_or_insert_default().push(idempotency_key().into());
        }
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            self.statuses.insert(status);
            let named = Ref::new(format!("#/components/responses/{}", name(status)));
            let responses = &mut described.responses.responses;
            responses.entry(status.to_string()).or_insert(RefOr::Ref(named));
        }
        self.entries.push(Entry {
            path,
            methods,
            described,
            changes,
            handler: on(filter, handler),
        });
        self
    }

    /// The router.
    pub(crate) fn router(self, plane: &Shared) -> axum::Router<Shared> {
        self.entries.into_iter().fold(axum::Router::new(), |router, entry| {
            let Entry { path, described, changes, handler, .. } = entry;
            let id = described.operation_id.unwrap_or_default().into();
            let handler = match changes {
                true => handler.layer(from_fn_with_state(plane.clone(), once::once)),
                false => handler,
            };
            // Before anything of it runs, or is answered again.
            let handler: MethodRouter<Shared> =
                handler.layer(from_fn_with_state(plane.clone(), authorize));
            router.route(&path, handler.layer(Extension(Operation { id, changes })))
        })
    }

    /// The operations that there are.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let of = |entry: &Entry| Operation {
            id: entry.described.operation_id.clone().unwrap_or_default().into(),
            changes: entry.changes,
        };
        self.entries.iter().map(of).collect()
    }

    /// Puts paths and schemas into a document.
    pub(crate) fn describe(self, document: &mut OpenApi) {
        let mut paths = Paths::new();
        for entry in self.entries {
            paths.add_path_operation(entry.path, entry.methods, entry.described);
        }
        document.paths = paths;
        let mut schemas = self.schemas;
        schemas.push(("Problem".to_owned(), problem_schema().into()));
        schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
        schemas.dedup_by(|(one, _), (other, _)| one == other);
        let components = document.components.take().unwrap_or_default();
        let components: ComponentsBuilder = components.into();
        let problems = self.statuses.into_iter().map(|status| (name(status), problem(status)));
        let components = components.schemas_from_iter(schemas).responses_from_iter(problems);
        document.components = Some(components.build());
    }
}

impl Operation {
    /// Whether it sends a message: who may do that is decided with the message.
    pub fn sends(&self) -> bool {
        matches!(&*self.id, "call" | "cast" | "fanout")
    }

    /// Whether it shows what happens, of whomever: what the bus carries, and the journal.
    pub fn watches(&self) -> bool {
        matches!(&*self.id, "tap" | "read-journal" | "follow-journal" | "list-checkpoints")
    }
}

/// Asks the control plane whether who asks may.
async fn authorize(
    State(plane): State<Shared>,
    Extension(operation): Extension<Operation>,
    by: Identity,
    named: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let named = match named {
        Ok(named) => named,
        Err(refused) => {
            let (detail, title) = (refused.body_text(), "The path is wrong");
            return Problem::new(StatusCode::BAD_REQUEST, "bad-path", title, detail)
                .into_response();
        }
    };
    let named: Vec<(&str, &str)> = named.iter().collect();
    match plane.authorize(&by, &operation, &named).await {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// What the description calls the answer with a problem of this status.
fn name(status: u16) -> String {
    let text = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    text.unwrap_or("Problem").chars().filter(char::is_ascii_alphabetic).collect()
}

fn problem(status: u16) -> RefOr<utoipa::openapi::Response> {
    let text = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new()
        .description(text.unwrap_or("Problem"))
        .content(PROBLEM_CONTENT_TYPE, content)
        .build()
        .into()
}

/// [`bulla_http::Problem`].
fn problem_schema() -> Object {
    let text = |what: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(what));
    let status = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(400))
        .maximum(Some(599))
        .description(Some("The status code of the answer."));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "What went wrong (RFC 9457). `type` is a stable URN; members that belong to it stand \
             beside the four.",
        ))
        .property("type", text("A stable URN, such as `urn:bulla:problem:unknown-target`."))
        .property("title", text("What this type of problem is."))
        .property("status", status)
        .property("detail", text("What happened this time, and what to do."))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .build()
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(once::MAX_KEY + 2))
        .pattern(Some("^[\\x21\\x23-\\x5b\\x5d-\\x7e]+$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A key that the client makes up for this request. The same request with the same key \
             gets the first answer for 24 hours, and nothing is done again.",
        ))
        .schema(Some(schema))
        .build()
}
