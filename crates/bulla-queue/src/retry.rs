//! How often a webhook is tried again, and when: Zaqar's policies.

use serde_json::{Map, Value};

/// Where a queue's metadata and a subscription's options hold their policy.
pub(crate) const RETRY_POLICY: &str = "_retry_policy";

/// Steps of the back-off, in seconds.
const INTERVAL: u32 = 5;
/// Longest delay, in seconds, and most tries of a kind.
const MOST: u32 = 43_200;
const MOST_TRIES: u32 = 100;

const NUMBERS: [(&str, u32, u32); 5] = [
    ("retries_with_no_delay", 3, MOST_TRIES),
    ("minimum_delay_retries", 3, MOST_TRIES),
    ("minimum_delay", 5, MOST),
    ("maximum_delay", 30, MOST),
    ("maximum_delay_retries", 3, MOST_TRIES),
];
const FUNCTION: &str = "retry_backoff_function";
const OVERRIDE: &str = "ignore_subscription_override";
const FUNCTIONS: [&str; 4] = ["linear", "arithmetic", "geometric", "exponential"];

/// Whether the policy that these hold, if they do, can be one; otherwise why not.
pub(crate) fn check(holder: &Map<String, Value>) -> Result<(), String> {
    let Some(policy) = holder.get(RETRY_POLICY).filter(|policy| !policy.is_null()) else {
        return Ok(());
    };
    let policy = policy.as_object().ok_or_else(|| "retry_policy must be a dict.".to_owned())?;
    let given = |key: &str| policy.get(key).filter(|value| !value.is_null());
    for (key, _, most) in NUMBERS {
        let fits = |value: &Value| value.as_u64().is_some_and(|n| n <= most.into());
        if given(key).is_some_and(|value| !fits(value)) {
            return Err(format!("Retry policy: {key} must be a integer from 0 to {most}."));
        }
    }
    let known = |value: &Value| value.as_str().is_some_and(|name| FUNCTIONS.contains(&name));
    if given(FUNCTION).is_some_and(|value| !known(value)) {
        return Err("invalid retry_backoff_function.".to_owned());
    }
    if given(OVERRIDE).is_some_and(|value| !value.is_boolean()) {
        return Err("ignore_subscription_override must be a boolean.".to_owned());
    }
    let number = |key| number(policy, key);
    if number("maximum_delay") < number("minimum_delay") + 2 * INTERVAL {
        return Err("invalid minimum_delay and maximum_delay.".to_owned());
    }
    Ok(())
}

fn number(policy: &Map<String, Value>, key: &str) -> u32 {
    let default = NUMBERS.iter().find(|(name, ..)| *name == key).map_or(0, |(_, n, _)| *n);
    let given = policy.get(key).and_then(Value::as_u64);
    given.and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
}

/// How long to wait before each further try, in seconds: of a subscription's policy, or its queue's.
pub(crate) fn delays(options: &Map<String, Value>, metadata: &Map<String, Value>) -> Vec<u32> {
    let policy = |of: &Map<String, Value>| of.get(RETRY_POLICY).and_then(Value::as_object).cloned();
    let (own, queue) = (policy(options), policy(metadata));
    let overrides = |policy: &Option<Map<String, Value>>| {
        policy.as_ref().and_then(|policy| policy.get(OVERRIDE)) == Some(&Value::Bool(true))
    };
    let policy = if overrides(&own) || overrides(&queue) { queue } else { own.or(queue) };
    let policy = policy.unwrap_or_default();
    let number = |key| number(&policy, key);
    let (least, most) = (number("minimum_delay"), number("maximum_delay"));
    let times = |count: u32, delay: u32| std::iter::repeat_n(delay, count as usize);
    let function = policy.get(FUNCTION).and_then(Value::as_str).unwrap_or("linear");
    times(number("retries_with_no_delay"), 0)
        .chain(times(number("minimum_delay_retries"), least))
        .chain(back_off(function, least, most))
        .chain(times(number("maximum_delay_retries"), most))
        .collect()
}

/// From the shortest delay to the longest, as many as there are intervals between them.
fn back_off(function: &str, least: u32, most: u32) -> Vec<u32> {
    let steps = (most.saturating_sub(least) / INTERVAL).clamp(2, MOST_TRIES);
    let (low, high) = (f64::from(least.max(1)), f64::from(most));
    let last = f64::from(steps - 1);
    let at = |step: u32| {
        let i = f64::from(step);
        match function {
            "arithmetic" => low + (high - low) * i * (i + 1.0) / (last * (last + 1.0)),
            "geometric" | "exponential" => low * (high / low).powf(i / last),
            _ => low + f64::from(INTERVAL) * i,
        }
    };
    // Between the two, which are whole.
    (0..steps).map(|step| at(step) as u32).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holding(policy: Value) -> Map<String, Value> {
        json!({ RETRY_POLICY: policy }).as_object().unwrap().clone()
    }

    #[test]
    fn delays_are_zaqars() {
        let none = Map::new();
        let linear = [0, 0, 0, 5, 5, 5, 5, 10, 15, 20, 25, 30, 30, 30];
        assert_eq!(delays(&none, &none), linear);
        let short = holding(json!({
            "retries_with_no_delay": 1, "minimum_delay_retries": 1, "minimum_delay": 1,
            "maximum_delay": 21, "maximum_delay_retries": 0, "retry_backoff_function": "arithmetic",
        }));
        assert_eq!(delays(&short, &none), [0, 1, 1, 4, 11, 21]);
        assert_eq!(delays(&none, &short), [0, 1, 1, 4, 11, 21]);
        let mut growing = short.clone();
        growing[RETRY_POLICY]["retry_backoff_function"] = json!("exponential");
        assert_eq!(delays(&growing, &short), [0, 1, 1, 2, 7, 21]);
        let above = holding(json!({ "ignore_subscription_override": true }));
        assert_eq!(delays(&short, &above), linear);
    }

    #[test]
    fn a_policy_has_bounds() {
        assert!(check(&holding(json!({}))).is_ok() && check(&Map::new()).is_ok());
        for bad in [
            json!([]),
            json!({ "minimum_delay": "5" }),
            json!({ "minimum_delay": -1 }),
            json!({ "maximum_delay": 43_201 }),
            json!({ "retries_with_no_delay": 101 }),
            json!({ "minimum_delay": 25 }),
            json!({ "retry_backoff_function": "quadratic" }),
            json!({ "ignore_subscription_override": 1 }),
        ] {
            assert!(check(&holding(bad.clone())).is_err(), "{bad}");
        }
    }
}
