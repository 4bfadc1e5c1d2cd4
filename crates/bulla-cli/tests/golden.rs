//! What the command line says, held to golden files. After a wanted change:
//! `TRYCMD=overwrite cargo test -p bulla-cli --test golden`, and read the difference.

#[test]
fn the_command_line_says_what_it_said() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .env("BULLA_LOG", "error")
        .case("tests/cmd/*.trycmd");
}
