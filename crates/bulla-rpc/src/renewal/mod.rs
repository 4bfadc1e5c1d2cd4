//! Renewal (protocol section 10), the side that asks: an agent gets its next credential, a host of
//! a component type its next signing credential and its type's keys. The control plane answers the
//! methods in [`wire`].
//!
//! Each step leaves a state on the disk from which the next start goes on: an agent's new keys and
//! its request are written down before it asks, the answer before it is used, and what was written
//! down is burnt only when the control plane knows that the agent has it.

mod login;
mod pending;
pub mod wire;

use std::fs::{self, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_seal::{
    NameError, OsRandom, Principal, RandomFailed, Refusal, RenewalClaims, SignedCredential,
    SigningKey, TrustStore,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{CallError, RemoteError};
use crate::identity::{self, AudienceEntry, Identity, KeyFile, KeyFileError};
use crate::target::Target;
use pending::Pending;
use wire::{HoldArgs, ReceiveAnswer, ReceiveArgs, RenewAnswer, RenewArgs};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys could not be renewed. Those that are there stay in use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RenewalError {
    /// An announcement of a new root is refused.
    #[error("the announcement of a new root is refused: {refusal}{}", rejoin(refusal))]
    Root {
        /// Why.
        refusal: Refusal,
    },
    /// The control plane refused.
    #[error("the control plane refuses to renew: {0}")]
    Refused(RemoteError),
    /// It can't be asked.
    #[error("the control plane can't be asked to renew: {0}")]
    Call(CallError),
    /// What it answered is not what was asked for.
    #[error("the control plane's answer can't be used: {0}")]
    Unusable(String),
    /// The key file, or what is kept beside it, can't be read or written.
    #[error("{0}; renewed keys are kept there")]
    KeyFile(#[from] KeyFileError),
    /// Another process renews with this key file just now.
    #[error("another process renews {} just now", path.display())]
    Busy {
        /// The key file.
        path: PathBuf,
    },
    /// The keys were renewed, but not the password of the broker user.
    #[error("the keys are renewed, but the broker password could not be changed: {0}")]
    Login(String),
    /// A shared key follows no credential.
    #[error(
        "a shared key is not renewed: a new one, sent under the old, would be known to whoever has \
         the old. `bulla agent revoke` the agent and add it anew"
    )]
    Shared,
    /// A key can't be used.
    #[error(transparent)]
    Offer(#[from] bulla_seal::OfferError),
    /// A name can't be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}

impl RenewalError {
    /// Whether it is worth nothing to ask again: the control plane has decided.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(error) => error.kind.starts_with("renew-"),
            Self::Shared => true,
            _ => false,
        }
    }
}

impl From<CallError> for RenewalError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Remote(error) => Self::Refused(error),
            other => Self::Call(other),
        }
    }
}

fn rejoin(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::RootEnded => {
            ". The root that is trusted here was followed by another, and its time is over: this \
             principal was away for too long. Have a join file made for it with `bulla agent add ID \
             --again`, or for a component's host a key file with `bulla component add`"
        }
        _ => "",
    }
}

fn unusable(why: impl ToString) -> RenewalError {
    RenewalError::Unusable(why.to_string())
}

/// Renews the keys of one key file, and of the endpoint that runs with them.
#[derive(Debug)]
pub struct Renewer {
    client: Client,
    path: PathBuf,
    file: KeyFile,
    /// The broker's password is not asked for before.
    login_again: Option<Instant>,
}

/// Holds off other processes with the same key file.
#[derive(Debug)]
struct Lock {
    _file: Option<fs::File>,
}

impl Renewer {
    /// For the endpoint of `client`, which runs with the keys of `file`. `path` is where those are
    /// and go; there need be nothing yet.
    pub fn new(client: &Client, file: &KeyFile, path: &Path) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            file: file.clone(),
            login_again: None,
        }
    }

    fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    fn identity(&self) -> &Identity {
        self.endpoint().identity()
    }

    fn pending_path(&self) -> PathBuf {
        pending::path_beside(&self.path)
    }

    /// The credential that this process signs with; `None` for a shared key.
    pub fn credential(&self) -> Option<Arc<SignedCredential>> {
        self.identity().initiator().map(|own| own.credential().clone())
    }

    /// Whether a renewal was begun and not ended.
    pub fn is_under_way(&self) -> bool {
        self.identity().principal().is_agent() && self.pending_path().exists()
    }

    /// The time by which it is decided, in Unix seconds.
    pub fn now(&self) -> u64 {
        self.endpoint().now().secs()
    }

    /// When to renew, in Unix seconds; `None` for a shared key.
    pub fn due(&self) -> Option<u64> {
        self.credential().map(|credential| credential.renew_at())
    }

    /// Renews now, or goes on with what was cut off.
    ///
    /// # Errors
    /// See [`RenewalError`]. Whatever it is, the keys that are there stay in use, and the next
    /// attempt goes on where this one ended.
    pub async fn renew(&mut self) -> Result<Arc<SignedCredential>, RenewalError> {
        let _alone = self.lock()?;
        if self.identity().principal().is_component() {
            return self.renew_host().await;
        }
        if self.catch_up()? && !self.is_under_way() {
            // Another process with this key file did it.
            self.settle_login().await?;
            return self.credential().ok_or(RenewalError::Shared);
        }
        if !self.is_stored()? {
            self.prepare()?;
            let answer = self.ask().await?;
            self.take(&answer)?;
        }
        self.confirm().await?;
        self.settle_login().await?;
        self.credential().ok_or(RenewalError::Shared)
    }

    /// First step: makes the new keys and the request for their credential, and writes them down,
    /// unless that was done before.
    ///
    /// # Errors
    /// It can't be written: then nobody is asked.
    pub fn prepare(&self) -> Result<(), RenewalError> {
        let path = self.pending_path();
        let present = self.credential().ok_or(RenewalError::Shared)?;
        if let Some(pending) = Pending::read(&path)? {
            if pending.credential == present.kid && pending.party == present.party {
                return Ok(());
            }
            // Of a renewal that ended, or of a former holder of the name.
            burn(&path)?;
        }
        let suite = present.kem.as_ref().map(bulla_seal::KemPublicKey::suite);
        let suite = suite.ok_or(RenewalError::Shared)?;
        let pending = Pending::generate(&present, suite, &self.identity().domain())?;
        Ok(pending.write(&path)?)
    }

    /// Second step: asks with what was [written down](Self::prepare).
    ///
    /// # Errors
    /// Nothing was written down, or the control plane does not answer, or refuses.
    pub async fn ask(&self) -> Result<RenewAnswer, RenewalError> {
        let pending = self.pending()?;
        // A session may be older than the present credential, which has to ask.
        self.endpoint().forget_session_to(&control()?);
        let args = RenewArgs { request: BASE64.encode(&pending.request) };
        self.call(wire::AGENT, &args).await
    }

    /// Third step: verifies the answer, writes the key file anew, with the new keys before the old
    /// ones, and receives under both from now on. Sessions that this process opens from now on are
    /// signed with the new key; those that it has go on.
    ///
    /// # Errors
    /// The answer is not good, or it can't be written: then nothing changed.
    pub fn take(&mut self, answer: &RenewAnswer) -> Result<(), RenewalError> {
        let pending = self.pending()?;
        let trust = self.identity().trust();
        let bytes = BASE64.decode(&answer.credential).map_err(unusable)?;
        let credential = trust.verify(&bytes, self.endpoint().now()).map_err(unusable)?;
        let wanted = credential.party == pending.party
            && u64::from(credential.epoch) == pending.counter.saturating_add(1)
            && credential.signing == Some(pending.signing.verifying_key())
            && credential.kem.as_ref() == Some(pending.kem.public());
        if !wanted {
            return Err(unusable("the credential is not for the keys that were asked for"));
        }
        let mut file = self.on_disk()?;
        sign_with(&mut file, &pending.signing, &credential);
        let entry = AudienceEntry {
            suite: pending.kem.suite().as_str().to_owned(),
            key: BASE64.encode(pending.kem.expose()),
            credential: BASE64.encode(credential.as_bytes()),
        };
        file.receive.insert(0, entry);
        self.know_peers(&mut file, &trust, &answer.peers)?;
        if let Some(user) = &answer.broker_user {
            self.next_login(&mut file, user)?;
        }
        self.store(file)
    }

    /// Fourth step: tells the control plane that this agent has its new keys, so that peers are told
    /// of them, and burns what was written down.
    ///
    /// # Errors
    /// The control plane can't be told, or what was written down can't be removed.
    pub async fn confirm(&self) -> Result<(), RenewalError> {
        let present = self.credential().ok_or(RenewalError::Shared)?;
        let args = HoldArgs { kid: present.kid.to_string() };
        let () = self.call(wire::HOLD, &args).await?;
        burn(&self.pending_path())
    }

    /// Whether the answer to what was written down is in the key file already.
    fn is_stored(&self) -> Result<bool, RenewalError> {
        let Some(pending) = Pending::read(&self.pending_path())? else { return Ok(false) };
        let key = pending.signing.verifying_key();
        Ok(self.credential().is_some_and(|present| present.signing == Some(key)))
    }

    fn pending(&self) -> Result<Pending, RenewalError> {
        let path = self.pending_path();
        Pending::read(&path)?.ok_or_else(|| {
            let source = std::io::ErrorKind::NotFound.into();
            KeyFileError::Io { what: "read", path, source }.into()
        })
    }

    async fn renew_host(&mut self) -> Result<Arc<SignedCredential>, RenewalError> {
        let identity = self.identity();
        let present = self.credential().ok_or(RenewalError::Shared)?;
        let signing = SigningKey::generate(&mut OsRandom::default())?;
        let claims = RenewalClaims {
            party: present.party.clone(),
            instance: present.instance.clone(),
            credential: present.kid,
            counter: 0,
            signing: signing.verifying_key(),
            kem: None,
        };
        let request = claims.sign(&identity.domain(), &signing);
        let args = RenewArgs { request: BASE64.encode(&request) };
        let answer: RenewAnswer = self.call(wire::HOST, &args).await?;
        let trust = self.identity().trust();
        let bytes = BASE64.decode(&answer.credential).map_err(unusable)?;
        let credential = trust.verify(&bytes, self.endpoint().now()).map_err(unusable)?;
        let wanted = credential.party == present.party
            && credential.instance == present.instance
            && credential.signing == Some(signing.verifying_key());
        if !wanted {
            return Err(unusable("the credential is not for the key that was asked for"));
        }
        let mut file = self.on_disk()?;
        sign_with(&mut file, &signing, &credential);
        self.know_peers(&mut file, &trust, &answer.peers)?;
        self.store(file)?;
        self.credential().ok_or(RenewalError::Shared)
    }

    /// Asks which keys this host's component type receives with, and takes over what is new.
    /// Whether anything was.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn fetch_keys(&mut self) -> Result<bool, RenewalError> {
        let have = self.identity().receive_kids();
        let args = ReceiveArgs { have: have.iter().map(ToString::to_string).collect() };
        let answer: ReceiveAnswer = self.call(wire::RECEIVE, &args).await?;
        let Some(keys) = answer.keys else { return Ok(false) };
        if keys.is_empty() {
            return Err(unusable("it knows no key of this component type"));
        }
        let _alone = self.lock()?;
        let mut file = self.on_disk()?;
        let entry = |key: &wire::AudienceKey| AudienceEntry {
            suite: key.suite.clone(),
            key: key.key.clone(),
            credential: key.credential.clone(),
        };
        file.receive = keys.iter().map(entry).collect();
        self.store(file)?;
        let now = self.identity().receive_kids();
        if have.iter().any(|kid| !now.contains(kid)) {
            // Whoever has a key that was taken back reads what was opened under it.
            self.endpoint().drop_sessions();
            tracing::warn!("a key to receive with ended or was revoked; sessions are opened anew");
        }
        Ok(true)
    }

    /// Asks which roots followed the one that is trusted here, and trusts them: first in the key
    /// file, then in this process. Whether there was anything new.
    ///
    /// # Errors
    /// [`RenewalError::Root`] if what is announced is refused; or nobody answers, or the key file
    /// can't be written. Then what was trusted still is, but after
    /// [`Refusal::RootEnded`], after which nobody is.
    pub async fn learn_roots(&mut self) -> Result<bool, RenewalError> {
        let answer = self.client.ask_roots().await?;
        let judged = self
            .endpoint()
            .judge_roots(&answer)
            .map_err(|refusal| RenewalError::Root { refusal })?;
        let _alone = self.lock()?;
        let mut file = self.on_disk()?;
        let before = file.to_text()?;
        let held = self.identity().trust();
        let trust = judged.unwrap_or_else(|| TrustStore::clone(&held));
        let newer = file.root_sequence > trust.root_sequence();
        if !newer {
            file.trust_in(&trust);
        }
        if !self.identity().is_shared() {
            self.know_peers(&mut file, &trust, &answer.peers)?;
        }
        // As the next start will read it. Another process with this key file may be further.
        let (read, _) = file.open(&self.path, self.endpoint().now())?;
        if file.to_text()? != before {
            identity::replace(&self.path, &file)?;
        }
        self.file = file;
        let trust = read.trust();
        let news = trust.root_sequence() != held.root_sequence()
            || !trust.issuers().map(|(_, bytes)| bytes).eq(held.issuers().map(|(_, bytes)| bytes));
        if news {
            self.endpoint().trust_from_now_on(TrustStore::clone(&trust));
        }
        Ok(news)
    }

    /// Ends a former root at its time, also in the key file.
    ///
    /// # Errors
    /// The key file can't be written: at its next opening the former root has ended all the same.
    pub fn retire_root(&mut self) -> Result<bool, RenewalError> {
        if !self.endpoint().retire_root() {
            return Ok(false);
        }
        let _alone = self.lock()?;
        let mut file = self.on_disk()?;
        let trust = self.identity().trust();
        if file.root_sequence == trust.root_sequence() {
            file.trust_in(&trust);
            identity::replace(&self.path, &file)?;
            self.file = file;
        }
        Ok(true)
    }

    /// Destroys former keys to receive with to which nothing can be on its way any more. How many.
    ///
    /// # Errors
    /// The key file can't be written: then they stay.
    pub fn retire(&mut self) -> Result<usize, RenewalError> {
        let (now, skew) = (self.endpoint().now().secs(), self.endpoint().options().skew);
        if !self.identity().principal().is_agent() || self.identity().retired(now, skew) == 0 {
            return Ok(0);
        }
        let _alone = self.lock()?;
        self.catch_up()?;
        let trust = self.identity().trust();
        let mut file = self.on_disk()?;
        let before = file.receive.len();
        file.receive.retain(|entry| {
            let bytes = BASE64.decode(&entry.credential).unwrap_or_default();
            let credential = trust.verify_ended(&bytes, self.endpoint().now());
            credential.is_ok_and(|credential| credential.retire_at(skew) > now)
        });
        let gone = before.saturating_sub(file.receive.len());
        self.store(file)?;
        self.endpoint().forget_ended_sessions();
        Ok(gone)
    }

    /// Takes over what another process with this key file wrote. Whether there was anything.
    fn catch_up(&mut self) -> Result<bool, RenewalError> {
        let present = self.credential().ok_or(RenewalError::Shared)?;
        let file = self.on_disk()?;
        let (other, _) = file.open(&self.path, self.endpoint().now())?;
        let newer = other.initiator().is_some_and(|other| {
            let other = other.credential();
            other.party == present.party && other.epoch > present.epoch
        });
        if newer {
            self.adopt(file, &other)?;
        }
        Ok(newer)
    }

    /// The key file as it is now: somebody may have changed where the bus is. What was never
    /// written there, or is of another, is not it.
    fn on_disk(&self) -> Result<KeyFile, KeyFileError> {
        match KeyFile::read(&self.path) {
            Ok(file)
                if file.principal == self.file.principal
                    && file.incarnation == self.file.incarnation =>
            {
                Ok(file)
            }
            Ok(_) => Err(KeyFileError::Malformed {
                what: "key file",
                path: self.path.clone(),
                why: format!("it is no longer that of {}", self.file.principal),
            }),
            Err(KeyFileError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(self.file.clone())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the key file anew and runs with it from now on.
    fn store(&mut self, mut file: KeyFile) -> Result<(), RenewalError> {
        file.renewed = true;
        let (renewed, _) = file.open(&self.path, self.endpoint().now())?;
        identity::replace(&self.path, &file)?;
        self.adopt(file, &renewed)
    }

    fn adopt(&mut self, file: KeyFile, renewed: &Identity) -> Result<(), RenewalError> {
        let own = renewed.initiator().ok_or(RenewalError::Shared)?;
        let identity = self.client.endpoint().identity();
        // First listen, then speak.
        identity.receive_with(renewed.receive_keys());
        identity.renew(own.key().clone(), own.credential().clone())?;
        self.use_logins_of(&file);
        self.file = file;
        Ok(())
    }

    /// Puts credentials of peers that came along into the key file, in the place of older ones, and
    /// into the directory.
    fn know_peers(
        &self,
        file: &mut KeyFile,
        trust: &TrustStore,
        peers: &[String],
    ) -> Result<(), RenewalError> {
        let now = self.endpoint().now();
        for text in peers.iter().take(bulla_seal::enrol::MAX_PEERS) {
            let bytes = BASE64.decode(text).map_err(unusable)?;
            let peer = trust.verify(&bytes, now).map_err(unusable)?;
            let older = |text: &String| {
                let known = BASE64.decode(text).ok();
                let known = known.and_then(|bytes| trust.verify_ended(&bytes, now).ok());
                known.is_none_or(|known| {
                    known.party.principal == peer.party.principal && known.epoch <= peer.epoch
                })
            };
            file.peers.retain(|known| !older(known));
            file.peers.push(text.clone());
            self.endpoint().directory().learn(Arc::new(peer));
        }
        Ok(())
    }

    async fn call<A, R>(&self, method: &str, args: &A) -> Result<R, RenewalError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let target = Target::Principal(control()?);
        let request = self.client.request(&target, method).namespace(wire::NAMESPACE);
        Ok(request.timeout(PATIENCE).cancel_on_drop(false).call(args).await?)
    }

    /// Alone with the key file: a lock on the file itself, which `replace` exchanges, so that
    /// whoever has it looks whether it is still the one.
    fn lock(&self) -> Result<Lock, RenewalError> {
        let io = |source| KeyFileError::Io { what: "lock", path: self.path.clone(), source };
        loop {
            let file = match fs::File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Lock { _file: None });
                }
                Err(error) => return Err(io(error).into()),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(RenewalError::Busy { path: self.path.clone() });
                }
                Err(TryLockError::Error(error)) => return Err(io(error).into()),
            }
            let (held, there) = (file.metadata().map_err(io)?, fs::metadata(&self.path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                return Ok(Lock { _file: Some(file) });
            }
        }
    }
}

fn control() -> Result<Principal, NameError> {
    Principal::component("control")
}

fn sign_with(file: &mut KeyFile, key: &SigningKey, credential: &SignedCredential) {
    file.signing_key = Some(BASE64.encode(key.seed().expose()));
    file.signing_credential = Some(BASE64.encode(credential.as_bytes()));
}

fn burn(path: &Path) -> Result<(), RenewalError> {
    match identity::burn_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(KeyFileError::Io { what: "burn", path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}
