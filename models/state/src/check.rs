//! Running the checker.

use std::fmt;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// What the checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// States, counted as often as they were reached.
    pub generated: usize,
    /// The longest way.
    pub depth: usize,
    /// Milliseconds.
    pub took_ms: u128,
    /// Properties that do not hold, each with the actions that lead there.
    pub broken: Vec<(String, String)>,
    /// What should be reachable and was not.
    pub unreached: Vec<String>,
}

impl Outcome {
    /// Everything holds, and everything that should be possible is.
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty() && self.unreached.is_empty()
    }

    /// Whether this property was found broken.
    pub fn breaks(&self, property: &str) -> bool {
        self.broken.iter().any(|(name, _)| name == property)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, generated, depth, took_ms, .. } = self;
        write!(f, "{states} states ({generated} generated, depth {depth}) in {took_ms} ms")?;
        for (name, path) in &self.broken {
            write!(f, "\n  broken: {name}: {path}")?;
        }
        for name in &self.unreached {
            write!(f, "\n  never happens: {name}")?;
        }
        Ok(())
    }
}

/// Looks at every state.
pub fn check<M>(model: M) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Send + Sync + fmt::Debug + PartialEq + Clone,
    M::Action: fmt::Debug + PartialEq + Clone + Send + Sync,
{
    run(model, HasDiscoveries::All)
}

/// Looks until this property is broken.
pub fn find<M>(model: M, property: &'static str) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Send + Sync + fmt::Debug + PartialEq + Clone,
    M::Action: fmt::Debug + PartialEq + Clone + Send + Sync,
{
    run(model, HasDiscoveries::AnyOf([property].into()))
}

fn run<M>(model: M, until: HasDiscoveries) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Send + Sync + fmt::Debug + PartialEq + Clone,
    M::Action: fmt::Debug + PartialEq + Clone + Send + Sync,
{
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = model.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (mut broken, mut unreached) = (vec![], vec![]);
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        match (&property.expectation, found) {
            (Expectation::Sometimes, None) => unreached.push(property.name.to_owned()),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => {
                let actions = path.clone().into_actions();
                broken.push((property.name.to_owned(), format!("{actions:?}")));
            }
        }
    }
    Outcome {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took_ms: start.elapsed().as_millis(),
        broken,
        unreached,
    }
}
