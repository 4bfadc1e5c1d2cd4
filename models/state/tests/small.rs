//! The models at their small size: they hold, and every broken twin is found out.

use bulla_models::claims::Claims;
use bulla_models::floors::Floors;
use bulla_models::{Size, check, find};

#[test]
fn claims_hold() {
    for (name, model) in Claims::all(Size::Small) {
        let outcome = check(model);
        println!("{name}: {outcome}");
        assert!(outcome.is_sound(), "{name}: {outcome}");
    }
}

#[test]
fn broken_claims_are_found_out() {
    for (property, model) in Claims::twins(Size::Small) {
        let twin = model.twin;
        let outcome = find(model, property);
        println!("{twin:?}: {outcome}");
        assert!(outcome.breaks(property), "{twin:?} does not break \"{property}\": {outcome}");
    }
}

#[test]
fn floors_hold() {
    for (name, model) in Floors::all(Size::Small) {
        let outcome = check(model);
        println!("{name}: {outcome}");
        assert!(outcome.is_sound(), "{name}: {outcome}");
    }
}

#[test]
fn broken_floors_are_found_out() {
    for (property, model) in Floors::twins(Size::Small) {
        let twin = model.twin;
        let outcome = find(model, property);
        println!("{twin:?}: {outcome}");
        assert!(outcome.breaks(property), "{twin:?} does not break \"{property}\": {outcome}");
    }
}
