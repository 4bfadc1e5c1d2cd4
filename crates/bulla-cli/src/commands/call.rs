//! `bulla call|cast|fanout`.

use std::io::Read;
use std::time::Duration;

use bulla_api::{CallEvent, CallRequest, CastRequest, MAX_LIFETIME};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::api_client;
use crate::cli::{CallArgs, CastArgs, MessageArgs};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::Home;

/// A request as it was typed, taken apart.
struct Message {
    namespace: Option<String>,
    method: String,
    args: Value,
    context: Option<Value>,
}

impl Message {
    fn parse(typed: &MessageArgs) -> Result<Self> {
        let (namespace, method) = split_method(&typed.method);
        let args = match typed.args.as_deref() {
            None => json!({}),
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                json_argument("the arguments on standard input", &text)?
            }
            Some(text) => json_argument("the arguments", text)?,
        };
        let context =
            typed.context.as_deref().map(|text| json_argument("--context", text)).transpose()?;
        Ok(Self { namespace, method, args, context })
    }
}

/// `host.facts` is `facts` in the namespace `host`; the last dot divides.
fn split_method(typed: &str) -> (Option<String>, String) {
    match typed.rsplit_once('.') {
        Some((namespace, method)) if !namespace.is_empty() && !method.is_empty() => {
            (Some(namespace.to_owned()), method.to_owned())
        }
        _ => (None, typed.to_owned()),
    }
}

fn json_argument(what: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("{what} are not JSON: {error}; for example '{{\"size\": 3}}'"))
    })
}

fn duration_ms(flag: &str, seconds: f64) -> Result<u64> {
    let in_range = seconds.is_finite() && seconds > 0.0 && seconds <= MAX_LIFETIME.as_secs_f64();
    if !in_range {
        return Err(Failure::usage(format!("{flag} must be above 0 and at most 86400 seconds")));
    }
    let millis = Duration::from_secs_f64(seconds).as_millis();
    Ok(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
}

pub(crate) async fn call(home: &Home, args: &CallArgs, out: Output) -> Result<()> {
    let message = Message::parse(&args.message)?;
    let request = CallRequest {
        target: args.message.target.clone(),
        namespace: message.namespace,
        method: message.method,
        version: args.message.version.clone(),
        args: message.args,
        context: message.context,
        timeout_ms: Some(duration_ms("--timeout", args.timeout)?),
    };
    let client = api_client(home, &args.message.api)?;
    let mut events = client.call_with_progress(&request).await?;
    while let Some(event) = events.next().await {
        match event? {
            CallEvent::Progress(item) if out.is_json() => {
                out.json_line(&json!({ "progress": item }))?;
            }
            CallEvent::Progress(item) => out.say(out.dim(&format!("… {item}"))),
            CallEvent::Value(value) if out.is_json() => {
                out.json_line(&json!({ "value": value }))?
            }
            CallEvent::Value(value) => out.line(&serde_json::to_string_pretty(&value)?),
        }
    }
    Ok(())
}

pub(crate) async fn cast(home: &Home, args: &CastArgs, fanout: bool, out: Output) -> Result<()> {
    let message = Message::parse(&args.message)?;
    let request = CastRequest {
        target: args.message.target.clone(),
        namespace: message.namespace,
        method: message.method,
        version: args.message.version.clone(),
        args: message.args,
        context: message.context,
        ttl_ms: Some(duration_ms("--ttl", args.ttl)?),
    };
    let client = api_client(home, &args.message.api)?;
    let sent = if fanout { client.fanout(&request).await } else { client.cast(&request).await }?;
    out.result(&sent, |out| {
        out.say(format!("Sent to {}, message {}.", request.target, sent.message_id));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_dot_divides_namespace_and_method() {
        assert_eq!(split_method("ping"), (None, "ping".into()));
        assert_eq!(split_method("host.facts"), (Some("host".into()), "facts".into()));
        assert_eq!(split_method("a.b.c"), (Some("a.b".into()), "c".into()));
        assert_eq!(split_method(".x"), (None, ".x".into()));
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(duration_ms("--ttl", 1.5).unwrap(), 1500);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 86_401.0] {
            assert_eq!(duration_ms("--ttl", bad).unwrap_err().code(), 2);
        }
    }
}
