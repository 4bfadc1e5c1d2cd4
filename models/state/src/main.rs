//! Checks the state models: `bulla-models` small, `bulla-models --full`.

use std::process::ExitCode;

use bulla_models::claims::Claims;
use bulla_models::floors::Floors;
use bulla_models::{Outcome, Size, check, find};

fn main() -> ExitCode {
    let size = match std::env::args().nth(1).as_deref() {
        None => Size::Small,
        Some("--full") => Size::Full,
        Some(other) => {
            eprintln!("unexpected argument `{other}`: give nothing, or --full");
            return ExitCode::from(2);
        }
    };
    let claims = Claims::all(size).into_iter().map(|(name, model)| holds(name, check(model)));
    let floors = Floors::all(size).into_iter().map(|(name, model)| holds(name, check(model)));
    let mut sound = claims.chain(floors).fold(true, |all, one| all & one);
    for (property, model) in Claims::twins(Size::Small) {
        let name = format!("claims, broken twin: {:?}", model.twin);
        sound &= is_found(&name, property, find(model, property));
    }
    for (property, model) in Floors::twins(Size::Small) {
        let name = format!("floors, broken twin: {:?}", model.twin);
        sound &= is_found(&name, property, find(model, property));
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn holds(name: &str, outcome: Outcome) -> bool {
    println!("{} {name}: {outcome}", if outcome.is_sound() { "ok    " } else { "FAILED" });
    outcome.is_sound()
}

fn is_found(name: &str, property: &str, outcome: Outcome) -> bool {
    let found = outcome.breaks(property);
    let Outcome { states, .. } = outcome;
    match found {
        true => println!("ok     {name}: found out after {states} states ({property})"),
        false => println!("FAILED {name}: not found out to break \"{property}\": {outcome}"),
    }
    found
}
