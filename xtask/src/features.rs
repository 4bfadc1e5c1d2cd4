//! The Cargo features that are off unless asked for.

/// All of it is linted and tested, in one build each.
const FEATURES: &[&str] = &[
    "bulla/policy-author",
    "bulla-policy/author",
    "bulla-guard/redis",
    "bulla-guard/postgres",
    "bulla-guard/mariadb",
    "bulla-keystore/postgres",
    "bulla-keystore/mariadb",
    "bulla-keystore/pkcs11",
    "bulla-queue/redis",
    "bulla-queue/postgres",
    "bulla-cli/redis",
    "bulla-cli/postgres",
    "bulla-cli/mariadb",
    "bulla-cli/pkcs11",
    "bulla-cli/otel",
    "bulla-cli/count-allocations",
];

/// For `--features`.
pub(crate) fn features() -> String {
    FEATURES.join(",")
}
