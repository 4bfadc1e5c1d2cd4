//! The join file: with it an agent gets its key file over the bus. TOML, mode 0600.

use std::fmt;
use std::fs;
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_seal::enrol::{
    Applicant, Application, ApplicationParts, EnrolError, Enrolled, JoinToken,
};
use bulla_seal::{
    KemSecretKey, OsRandom, Party, Principal, Secret, SignedCredential, SigningKey, Suite, TokenId,
    TrustDomain, TrustStore, UnixTime,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::key_file::{
    AudienceEntry, BusEntry, KeyFile, KeyFileError, Opener, first_root, is_first_root, misplaced,
};

/// What stands in a join file, and in no key file, at the beginning of a line.
const MARK: &str = "[join]";
/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// The contents of a join file, binary values in base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JoinFile {
    /// Format; 1.
    pub version: u32,
    /// `agent/<id>`.
    pub principal: String,
    /// The incarnation that the token is for.
    pub incarnation: u32,
    /// The trust domain.
    pub trust_domain: String,
    /// The root public key.
    pub root: String,
    /// Its sequence, if it followed another.
    #[serde(default = "first_root", skip_serializing_if = "is_first_root")]
    pub root_sequence: u32,
    /// Issuers' credentials, signed by the root.
    pub issuers: Vec<String>,
    /// The enroller's credential: whom the request is sealed to.
    pub enroller: String,
    /// The suite of the key that the agent is to make: `x25519` or `x-wing`.
    pub suite: String,
    /// Whether the deployment issues statements of revocation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statements: bool,
    /// The token.
    pub join: TokenEntry,
    /// Where the bus is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusEntry>,
}

/// A one-time token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenEntry {
    /// Its name, in base64.
    pub id: String,
    /// The secret.
    pub secret: String,
    /// First Unix second in which it is over.
    pub expires: u64,
}

/// What a file that was given to an agent turns out to be.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "read once")]
pub enum Injected {
    /// Its keys.
    Key(KeyFile),
    /// A token, with which it gets a credential for keys that it makes.
    Join(JoinFile),
}

/// What a join file says, verified.
#[derive(Debug)]
pub struct JoinTerms {
    /// Who is to join.
    pub party: Party,
    /// The root, with the issuers that the file knows.
    pub trust: TrustStore,
    /// The enroller's credential.
    pub enroller: SignedCredential,
    /// The suite of the key to make.
    pub suite: Suite,
    /// When the token is over, in Unix seconds.
    pub expires: u64,
    token: JoinToken,
}

impl Injected {
    /// Reads a file that only its owner may read: a join file, a key file, or a configuration
    /// file with one of them in its section `[bulla]` (`join_file = …` or `key_file = …`, in
    /// base64).
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        let Some(line) = fragment(&text) else { return Self::parse(&text, path) };
        let value = text.get(line).and_then(|line| line.split_once('='));
        let value = value.map(|(_, value)| value.trim()).unwrap_or_default();
        let bytes = BASE64.decode(value).map(Zeroizing::new);
        let inner = bytes.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let inner = Zeroizing::new(inner.ok_or_else(|| {
            malformed(path, "what its section [bulla] holds is not base64".into())
        })?);
        Self::parse(&inner, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        if is_join_file(text) {
            Ok(Self::Join(JoinFile::parse(text, path)?))
        } else {
            Ok(Self::Key(KeyFile::parse(text, path)?))
        }
    }
}

impl JoinFile {
    fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let file: Self =
            toml::from_str(text).map_err(|e| misplaced(path, "join file", e.span(), text))?;
        if file.version != 1 {
            return Err(malformed(path, "its version is not 1; use a newer bulla".into()));
        }
        Ok(file)
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<Zeroizing<String>, KeyFileError> {
        let body = toml::to_string(self).map(Zeroizing::new);
        let body = body.map_err(|e| malformed(Path::new("join file"), e.to_string()))?;
        Ok(Zeroizing::new(format!(
            "# Join file of {}. Who uses it first, within its time, is {}: keep it secret,\n\
             # mode 0600. It is burnt when the agent has its keys.\n{}",
            self.principal, self.principal, *body
        )))
    }

    /// Writes a new file with mode 0600; an existing one is not overwritten.
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, self.to_text()?.as_bytes())
    }

    /// Verifies everything in it as of `now`. `path` is for messages only.
    pub fn open(&self, path: &Path, now: UnixTime) -> Result<JoinTerms, KeyFileError> {
        let opener = Opener { what: "join file", path, now };
        let roots = (self.root_sequence, None);
        let trust = opener.trust_of(&self.trust_domain, &self.root, roots, &self.issuers)?;
        let principal: Principal = self
            .principal
            .parse()
            .map_err(|e: bulla_seal::NameError| opener.malformed(e.to_string()))?;
        if !principal.is_agent() {
            return Err(opener.malformed("only agents join"));
        }
        let suite: Suite = self.suite.parse().map_err(|_| opener.malformed("unknown suite"))?;
        let enroller = opener.bytes("enroller", &self.enroller)?;
        let enroller = trust
            .verify(&enroller, now)
            .map_err(|refusal| opener.refused("the enroller", refusal))?;
        let token = JoinToken {
            id: TokenId(opener.fixed("join.id", &self.join.id)?),
            secret: Secret::new(opener.fixed("join.secret", &self.join.secret)?),
        };
        let (party, expires) = (Party::new(principal, self.incarnation), self.join.expires);
        Ok(JoinTerms { party, trust, enroller, suite, expires, token })
    }

    /// The key file of an agent that enrolled with this.
    pub fn key_file(&self, application: &Application, enrolled: &Enrolled) -> KeyFile {
        let parts = application.parts();
        let credential = BASE64.encode(enrolled.credential.as_bytes());
        KeyFile {
            version: 1,
            principal: parts.party.principal.to_string(),
            incarnation: parts.party.incarnation,
            trust_domain: self.trust_domain.clone(),
            root: self.root.clone(),
            root_sequence: self.root_sequence,
            former_root: None,
            issuers: enrolled.trust.issuers().map(|(_, bytes)| BASE64.encode(bytes)).collect(),
            shared_key: None,
            signing_key: Some(BASE64.encode(parts.signing.seed().expose())),
            signing_credential: Some(credential.clone()),
            receive: vec![AudienceEntry {
                suite: parts.kem.suite().as_str().to_owned(),
                key: BASE64.encode(parts.kem.expose()),
                credential,
            }],
            peers: enrolled.peers.iter().map(|peer| BASE64.encode(peer)).collect(),
            pairs: Vec::new(),
            statements: self.statements,
            renewed: false,
            bus: self.bus.clone(),
        }
    }
}

impl JoinTerms {
    /// The name of the token.
    pub fn token(&self) -> TokenId {
        self.token.id
    }

    /// Makes the agent's keys, and the request for their credential.
    pub fn apply(&self, now: UnixTime) -> Result<Application, EnrolError> {
        let random = &mut OsRandom::default();
        let signing = SigningKey::generate(random)?;
        let kem = KemSecretKey::generate(self.suite, random)?;
        let applicant = Applicant {
            domain: self.trust.domain(),
            party: &self.party,
            token: &self.token,
            enroller: &self.enroller,
        };
        applicant.apply(signing, kem, now, random)
    }
}

impl Drop for JoinFile {
    fn drop(&mut self) {
        self.join.secret.zeroize();
        self.bus.iter_mut().for_each(|bus| bus.url.zeroize());
    }
}

impl fmt::Debug for JoinFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinFile({}, ..)", self.principal)
    }
}

/// An application under way, kept so that an agent that is restarted asks with the same request:
/// another one would be a second use of its token.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PendingFile {
    version: u32,
    principal: String,
    incarnation: u32,
    trust_domain: String,
    signing_key: String,
    suite: String,
    receive_key: String,
    request: String,
    answer_key: String,
}

impl PendingFile {
    /// What there is to keep of `application`.
    pub fn new(application: &Application) -> Self {
        let parts = application.parts();
        Self {
            version: 1,
            principal: parts.party.principal.to_string(),
            incarnation: parts.party.incarnation,
            trust_domain: parts.domain.to_string(),
            signing_key: BASE64.encode(parts.signing.seed().expose()),
            suite: parts.kem.suite().as_str().to_owned(),
            receive_key: BASE64.encode(parts.kem.expose()),
            request: BASE64.encode(&parts.request),
            answer_key: BASE64.encode(parts.answer_key.expose()),
        }
    }

    /// Reads what was kept.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        toml::from_str(&text).map_err(|e| misplaced(path, "kept application", e.span(), &text))
    }

    /// Writes a new file with mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        let text = toml::to_string(self).map(Zeroizing::new);
        let text = text.map_err(|e| malformed(path, e.to_string()))?;
        write_private(path, text.as_bytes())
    }

    /// The application, if it is that of `party`.
    pub fn application(&self, path: &Path, party: &Party) -> Result<Application, KeyFileError> {
        let opener = Opener { what: "kept application", path, now: UnixTime::from_secs(0) };
        let bad = |what: &str| opener.malformed(format!("`{what}` can't be used"));
        if self.version != 1
            || self.principal != party.principal.as_str()
            || self.incarnation != party.incarnation
        {
            return Err(opener.malformed("it is that of another agent: take it away"));
        }
        let domain = TrustDomain::new(&self.trust_domain).map_err(|_| bad("trust-domain"))?;
        let seed = Secret::new(opener.fixed("signing-key", &self.signing_key)?);
        let signing = SigningKey::from_seed(seed).ok_or_else(|| bad("signing-key"))?;
        let suite: Suite = self.suite.parse().map_err(|_| bad("suite"))?;
        let kem = opener.bytes("receive-key", &self.receive_key)?;
        let kem = KemSecretKey::from_bytes(suite, &kem).map_err(|_| bad("receive-key"))?;
        let request = opener.bytes("request", &self.request)?.to_vec().into();
        let answer_key = Secret::new(opener.fixed("answer-key", &self.answer_key)?);
        let party = party.clone();
        let parts = ApplicationParts { party, domain, signing, kem, request, answer_key };
        Ok(Application::from_parts(parts))
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        self.signing_key.zeroize();
        self.receive_key.zeroize();
        self.answer_key.zeroize();
    }
}

impl fmt::Debug for PendingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingFile({}, ..)", self.principal)
    }
}

fn malformed(path: &Path, why: String) -> KeyFileError {
    KeyFileError::Malformed { what: "join file", path: path.to_owned(), why }
}

/// Whether the text is that of a join file.
pub(super) fn is_join_file(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == MARK)
}

/// The text of a file that only its owner may read.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let io = |source| KeyFileError::Io { what: "read", path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(io)?;
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    if meta.len() > MAX_FILE {
        return Err(malformed(path, "it is far too large".into()));
    }
    Ok(Zeroizing::new(fs::read_to_string(path).map_err(io)?))
}

/// Writes a new file with mode 0600, through to the disk.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { what: "write", path: path.to_owned(), source };
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(io)?;
    sync_folder(path).map_err(io)
}

/// Makes the entries of the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The line with a join or key file in the section `[bulla]` of a configuration file.
fn fragment(text: &str) -> Option<std::ops::Range<usize>> {
    let (mut at, mut ours) = (0, false);
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if content.starts_with('[') {
            ours = content == "[bulla]";
        }
        let name = content.split('=').next().unwrap_or_default().trim();
        if ours && matches!(name, "join_file" | "key_file") {
            return Some(at..at + line.trim_end().len());
        }
        at += line.len();
    }
    None
}

/// Whether a join or key file is but a line of a configuration file.
pub fn is_fragment(path: &Path) -> bool {
    fs::read_to_string(path).map(Zeroizing::new).is_ok_and(|text| fragment(&text).is_some())
}

/// Burns what a join file was good for: the file, or the one line of a configuration file that
/// holds it, so that the rest of that file stays.
pub fn burn(path: &Path) -> io::Result<()> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    let Some(line) = fragment(&text) else { return burn_file(path) };
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.seek(io::SeekFrom::Start(line.start as u64))?;
    file.write_all("#".repeat(line.len()).as_bytes())?;
    file.sync_all()
}

/// Overwrites a file's content and removes it, so that nobody finds the secret in it later.
///
/// What a medium keeps of overwritten blocks (flash, copy-on-write) is out of its reach: it is
/// for secrets that are worth nothing any more.
pub fn burn_file(path: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    overwrite(&mut file)?;
    fs::remove_file(path)?;
    sync_folder(path)
}

fn overwrite(file: &mut fs::File) -> io::Result<()> {
    let len = file.metadata()?.len().min(MAX_FILE);
    let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
    file.write_all(&zeros)?;
    file.sync_all()
}

/// Puts `key` in the place of the file `path`, if there is one, and overwrites what was there. At
/// no moment is there neither.
pub fn replace(path: &Path, key: &KeyFile) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { what: "write", path: path.to_owned(), source };
    let mut next: PathBuf = path.to_owned();
    next.as_mut_os_string().push(".new");
    // Left by an attempt that was cut off: nobody uses it.
    let _ = burn_file(&next);
    key.write(&next)?;
    let former = fs::OpenOptions::new().write(true).open(path);
    fs::rename(&next, path).and_then(|()| sync_folder(path)).map_err(io)?;
    match former {
        Ok(mut former) => overwrite(&mut former).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
    }
}
