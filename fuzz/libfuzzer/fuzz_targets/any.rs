//! The target that `BULLA_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use bulla_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("BULLA_FUZZ_TARGET").unwrap_or_default();
    bulla_fuzz::target(&name).expect("BULLA_FUZZ_TARGET names no target")
});

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
