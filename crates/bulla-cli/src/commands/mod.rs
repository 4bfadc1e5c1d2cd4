//! One file a command.

pub(crate) mod access_key;
pub(crate) mod agent;
mod agent_add;
mod agent_join;
mod agent_rotate;
mod agent_show;
pub(crate) mod attack;
pub(crate) mod audit;
pub(crate) mod broker;
pub(crate) mod call;
pub(crate) mod component;
pub(crate) mod db;
pub(crate) mod doctor;
mod grants;
pub(crate) mod group;
pub(crate) mod init;
pub(crate) mod kek;
pub(crate) mod keystore;
pub(crate) mod package;
pub(crate) mod peers;
mod peers_clear;
pub(crate) mod policy;
mod policy_explain;
pub(crate) mod queue;
pub(crate) mod queue_ask;
pub(crate) mod root;
pub(crate) mod serve;
pub(crate) mod tap;
pub(crate) mod up;

use std::path::{Path, PathBuf};

use bulla_api::{Client, Credential, Endpoint};
use bulla_http::certs::Files;

use crate::cli::ApiArgs;
use crate::failure::{Failure, Result};
use crate::settings::{DEFAULT_LISTEN, Home, Settings};

/// The API's client: the address from the flag, from what the running control plane wrote, or
/// from the settings.
pub(crate) fn api_client(home: &Home, args: &ApiArgs) -> Result<Client> {
    let settings = Settings::load(home.dir())?;
    let given = args.api.as_deref();
    let url = match given {
        Some(url) => url.to_owned(),
        None => match std::fs::read_to_string(home.api_url()) {
            Ok(url) => url.trim().to_owned(),
            Err(_) => {
                let listen = settings.api.listen.map(|listen| listen.to_string());
                let scheme = if settings.api.plain { "http" } else { "https" };
                format!("{scheme}://{}", listen.as_deref().unwrap_or(DEFAULT_LISTEN))
            }
        },
    };
    if given.is_none() && !home.is_initialised() {
        return Err(Failure::new(format!(
            "there is no deployment in {}; run `bulla up` first, or name its folder with --home",
            home.dir().display()
        )));
    }
    let credential = credential(args, &settings)?;
    let endpoint = if let Some(credential) = credential {
        let ca = args.ca.clone().or(settings.api.ca);
        let ca = ca.unwrap_or_else(|| Files::in_dir(&home.tls()).ca);
        Endpoint::Shown { url, ca, credential }
    } else if url.starts_with("http://") {
        Endpoint::Loopback { url, token: home.token() }
    } else {
        Endpoint::Tls { url, files: settings.api.tls.operator(home, None)? }
    };
    Ok(Client::new(&endpoint)?)
}

/// What is shown instead of the operator's certificate: by flags, then by settings.
fn credential(args: &ApiArgs, settings: &Settings) -> Result<Option<Credential>> {
    let of = |key: &Option<PathBuf>, token: &Option<PathBuf>| match (key, token) {
        (Some(_), Some(_)) => Err(Failure::usage(
            "an access key and a token of Keystone's are given; a request shows one of them",
        )),
        (Some(key), None) => Ok(Some(Credential::AccessKey(key.clone()))),
        (None, Some(token)) => Ok(Some(Credential::KeystoneToken(token.clone()))),
        (None, None) => Ok(None),
    };
    let given = of(&args.access_key, &args.keystone_token)?;
    match given {
        None => of(&settings.api.access_key, &settings.api.keystone_token),
        given => Ok(given),
    }
}

/// Makes a folder that only its owner may enter.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::new(format!("can't make the folder {}: {error}", path.display())))
}
