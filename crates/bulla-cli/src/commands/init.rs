//! `bulla init`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bulla_http::certs;
use bulla_keystore::{Initialized, Kek, KekSource, Keystore, StoreAddress, root_key};
use bulla_seal::{SuiteSet, TrustDomain};
use serde_json::json;

use super::private_folder;
use crate::cli::{InitArgs, SuiteArg};
use crate::control::kek::Sources;
use crate::control::{CONTROL, owner_address};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::settings::{Home, Settings};

pub(crate) async fn run(home: &Home, args: &InitArgs, out: Output) -> Result<()> {
    if home.is_initialised() {
        return Err(Failure::new(format!(
            "there is a deployment in {} already; nothing was changed",
            home.dir().display()
        )));
    }
    make(home, args).await?;
    let keystore = owner_address(home, &Settings::load(home.dir())?)?.to_string();
    let kek = match Sources::of(home)?.current {
        KekSource::File(path) => path.display().to_string(),
        other => other.to_string(),
    };
    let made = json!({
        "home": home.dir(),
        "trust_domain": args.trust_domain,
        "settings": home.settings(),
        "kek": kek,
        "root_key": home.root_key(),
        "keystore": keystore,
        "tls": home.tls(),
    });
    let show = |path: PathBuf| path.display().to_string();
    out.result(&made, |out| {
        out.say(format!("Made a deployment in {}:", out.bold(&home.dir().display().to_string())));
        let rows = [
            (show(home.settings()), "settings, each with its default"),
            (kek, "key-encryption key: back it up apart from the keystore"),
            (keystore.clone(), "keystore: worth nothing without that key"),
            (show(home.tls()), "certificates of the API and of the operator"),
            (show(home.root_key()), "root key"),
        ];
        let rows = rows.map(|(place, what)| vec![format!("  {place}"), what.to_owned()]);
        out.table(&["", ""], rows.to_vec());
        root_key_notice(home, out);
        out.say("");
        out.say(format!("Next: {}", out.bold("bulla up")));
    })
}

/// Nothing needs the root key until an issuer is renewed: it should not lie here.
pub(crate) fn root_key_notice(home: &Home, out: Output) {
    out.say("");
    out.say(format!(
        "{} Take {} off this machine and keep it offline: whoever has it can become anyone.\n\
         Nothing needs it until an issuer is renewed, in five years.",
        out.secret("!"),
        home.root_key().display()
    ));
}

/// Makes everything; what was made is taken away again if a later step fails.
pub(crate) async fn make(home: &Home, args: &InitArgs) -> Result<()> {
    let domain = TrustDomain::new(&args.trust_domain)?;
    private_folder(home.dir())?;
    let address = owner_address(home, &Settings::load(home.dir())?)?;
    let kek = match Sources::of(home)?.current {
        KekSource::File(path) => path,
        _ => home.kek(),
    };
    // Nothing is taken away that was there before.
    let fresh: Vec<_> = [home.keystore(), kek, home.root_key(), home.unused(), home.journal_key()]
        .into_iter()
        .filter(|path| !path.exists())
        .collect();
    let made = make_files(home, args, &domain, &address).await;
    if made.is_err() {
        for path in fresh {
            // Best effort: what was not made can't be taken away.
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_dir_all(home.tls());
    }
    made
}

async fn make_files(
    home: &Home,
    args: &InitArgs,
    domain: &TrustDomain,
    address: &StoreAddress,
) -> Result<()> {
    // First, because it may have to come from elsewhere and not be there.
    let kek = first_kek(home)?;
    if !home.settings().exists() {
        write_new(&home.settings(), Settings::TEMPLATE, 0o600)?;
    }
    for dir in [home.tls(), home.agents(), home.components(), home.state()] {
        private_folder(&dir)?;
    }
    write_new(&home.unused(), "", 0o600)?;
    crate::journal::key(&home.journal_key(), domain)?;
    certs::make(&home.tls(), &args.hosts, &args.operator)?;
    let Initialized { keystore, root } = Keystore::init(address, domain, kek).await?;
    root_key::create_file(home.root_key(), domain, &root)?;
    let suites = match args.suite {
        SuiteArg::X25519 => SuiteSet::only(bulla_seal::Suite::X25519),
        SuiteArg::XWing => SuiteSet::only(bulla_seal::Suite::XWing),
    };
    let roles = [bulla_seal::KEYS_EVERY_GROUP.to_owned()];
    keystore.add_component(CONTROL, &roles, suites).await?;
    keystore.close().await;
    Ok(())
}

/// A file is made; a key in the environment, a credential or a token is taken, and made in a
/// token that has none.
fn first_kek(home: &Home) -> Result<Kek> {
    let source = Sources::of(home)?.current;
    if let KekSource::File(_) = source {
        return Ok(source.create()?);
    }
    match source.load() {
        Err(error) if error.is_absent() => Ok(source.create()?),
        loaded => Ok(loaded?),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))
}
