//! One ciphertext for a whole group, with the sender's signature (protocol section 6).
//!
//! Secrecy comes from the group epoch's key, which every member holds; authenticity from the
//! component's Ed25519 signature, which no member can make. A burst may share one signature over
//! a Merkle tree (RFC 9162's shape, with this protocol's inputs).

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use crate::body::RequestBody;
use crate::buffer::{Hedge, MessageBuf};
use crate::cbor::{Reader, Writer};
use crate::credential::SignedCredential;
use crate::frame::{ENVELOPE_AT, Frame, GCM_TAG, Named, Parsed, Sealed};
use crate::header::{Common, Detail, Draft, Form, Handle, HeaderStem, Times};
use crate::id::{Digest, Kid, MessageId};
use crate::kdf;
use crate::mutants::{self, Check, off};
use crate::open::{Expected, check_times, open_sealed};
use crate::opened::Opened;
use crate::principal::{GroupName, Party, Principal};
use crate::refusal::Refusal;
use crate::route::{Audience, Route};
use crate::seal::{Author, Protection, SealError, encrypt};
use crate::secret::Secret;
use crate::session::Direction;
use crate::sign::{SignatureUse, SigningKey};
use crate::tree::{MAX_PATH, Proof, leaf, root_of, tree_path, tree_root, tree_to_sign};
use crate::wire::{MessageKind, Suite};

/// Most messages under one signature.
pub const MAX_BATCH: usize = 1024;

/// The key of one epoch of a group: handed out pairwise, sealed, by a principal with the role
/// `group:<name>`.
#[derive(Debug, Clone)]
pub struct GroupKey {
    /// The group.
    pub group: GroupName,
    /// Its epoch.
    pub epoch: u32,
    /// The key.
    pub key: Secret<32>,
}

/// A group epoch's keys, ready for use.
pub struct GroupSession {
    group: GroupName,
    epoch: u32,
    direction: Direction,
}

/// A fanout to seal.
#[derive(Debug, Clone, Copy)]
pub struct FanoutSpec<'a> {
    /// Fanout, or notification to a group.
    pub kind: MessageKind,
    /// Where it goes; the audience must be the session's group.
    pub route: &'a Route,
    /// End of its life, in seconds since the Unix epoch.
    pub expires: u64,
    /// Rises by one with every fanout of this signer.
    pub sequence: u64,
}

/// Who signs fanouts.
#[derive(Debug, Clone)]
pub struct FanoutSigner {
    key: SigningKey,
    credential: Arc<SignedCredential>,
}

/// A fanout that is encrypted and not signed yet.
#[derive(Debug)]
pub struct UnsignedFanout {
    /// [1, [COSE_Encrypt0 …
    bytes: BytesMut,
    id: MessageId,
    named: Named,
    to_sign: Vec<u8>,
}

impl GroupSession {
    /// Makes the keys of an epoch ready.
    pub fn new(key: &GroupKey) -> Self {
        let mut info = Vec::with_capacity(96);
        let mut w = Writer::new(&mut info);
        w.array(5);
        w.text("bulla/1 dir");
        w.uint(Suite::Shared.to_wire().into());
        w.text("fanout");
        w.text(key.group.as_str());
        w.uint(key.epoch.into());
        let direction = Direction::new(kdf::expand(&key.key, &info), "bulla/1 msg");
        Self { group: key.group.clone(), epoch: key.epoch, direction }
    }

    /// The group.
    pub fn group(&self) -> &GroupName {
        &self.group
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// 32 bytes that commit to the key of message `id`: signed along, so that no two keys open
    /// one signed ciphertext.
    fn commitment(&self, id: &MessageId) -> Secret<32> {
        let mut info = Vec::with_capacity(48);
        let mut w = Writer::new(&mut info);
        w.array(2);
        w.text("bulla/1 commit");
        w.bytes(id.as_bytes());
        kdf::expand(self.direction.secret(), &info)
    }

    /// What is signed: [label, external AAD, header, ciphertext digest, key commitment].
    fn to_sign(&self, aad: &[u8], header: &[u8], ciphertext: &[u8], id: &MessageId) -> Vec<u8> {
        let aad = mutants::signed_aad(aad);
        let aad = &*aad;
        let mut out = Vec::with_capacity(aad.len() + header.len() + 112);
        let mut w = Writer::new(&mut out);
        w.array(5);
        w.text(SignatureUse::Fanout.label());
        w.bytes(aad);
        w.bytes(header);
        w.bytes(Digest::of(ciphertext).as_bytes());
        w.bytes(self.commitment(id).expose());
        out
    }

    /// Encrypts a fanout in place; [`FanoutSigner`] signs it.
    pub fn seal(
        &self,
        signer: &FanoutSigner,
        spec: &FanoutSpec<'_>,
        hedge: &Hedge,
        mut buf: MessageBuf,
    ) -> Result<UnsignedFanout, SealError> {
        let times = Times::new(hedge, spec.expires)?;
        if !matches!(spec.kind, MessageKind::Fanout | MessageKind::Notification) {
            return Err(SealError::Kind);
        }
        if !self.is_target(spec.route) {
            return Err(SealError::Audience);
        }
        let common = Self::common(spec.kind);
        let party = &signer.credential.party;
        let detail = (&self.group, self.epoch, spec.sequence);
        let stem = HeaderStem::request(Handle::Key(signer.credential.kid), &party.principal);
        let draft = Draft::group(&common, &stem, times, detail);
        let aad = spec.route.request_aad(spec.kind, common.level);
        let author = Author {
            direction: &self.direction,
            incarnation: party.incarnation,
            protection: Protection::Sealed,
        };
        let (id, laid) = author.assign_id(&draft, &aad, hedge, &mut buf)?;
        encrypt(&self.direction.message, &laid, &mut buf)?;
        let to_sign = self.to_sign(buf.aad(&laid), buf.header(&laid), buf.plaintext(), &id);
        let finished = buf.finish(&laid, (Form::Encrypt0, true), None);
        let (bytes, named) = finished.ok_or(SealError::Header)?;
        Ok(UnsignedFanout { bytes, id, named, to_sign })
    }

    fn common(kind: MessageKind) -> Common {
        let form = Form::Encrypt0;
        Common { form, suite: Suite::Shared, kind, level: form.level() }
    }

    fn is_target(&self, route: &Route) -> bool {
        matches!(route.audience(), Audience::Group(group) if *group == self.group)
    }

    /// Opens a fanout: times, then the signature, then the cipher. `signer` is the verified
    /// credential that the header's kid names.
    pub fn open(
        &self,
        mut parsed: Parsed,
        signer: &Arc<SignedCredential>,
        expected: &Expected<'_>,
    ) -> Result<OpenedFanout, Refusal> {
        let header = parsed.header();
        let Detail::Group { epoch, sequence, .. } = header.detail else {
            return Err(Refusal::KindNotAllowed);
        };
        if parsed.claimed_group() != Some(self.group.as_str()) || epoch != self.epoch {
            return Err(Refusal::GroupUnknown);
        }
        if !self.is_target(expected.route) && !off(Check::Audience) {
            return Err(Refusal::AudienceMismatch);
        }
        if (header.handle != Handle::Key(signer.kid)
            || parsed.claimed_sender() != signer.party.principal.as_str())
            && !off(Check::SenderName)
        {
            return Err(Refusal::SenderMismatch);
        }
        if !signer.party.principal.is_component() && !off(Check::FanoutSigner) {
            return Err(Refusal::NotPermitted);
        }
        if header.suite != Suite::Shared && !off(Check::SuiteAllowed) {
            return Err(Refusal::SuiteNotAllowed);
        }
        if header.level < expected.level {
            return Err(Refusal::LevelNotAllowed);
        }
        signer.validity.check_secs(header.iat)?;
        check_times(header.iat, header.exp, expected.now, expected.skew)?;
        let aad = &expected.route.request_aad(header.kind, header.level);
        self.verify(&parsed, signer, aad.to_buf().get().ok_or(Refusal::Malformed)?)?;
        let plaintext = open_sealed(&self.direction.message, &mut parsed, aad)?;
        RequestBody::parse(parsed.slice(&plaintext))?;
        let opened = Opened::new(parsed, plaintext);
        let route = expected.route.clone();
        Ok(OpenedFanout { opened, signer: signer.clone(), route, sequence, epoch })
    }

    fn verify(
        &self,
        parsed: &Parsed,
        signer: &SignedCredential,
        aad: &[u8],
    ) -> Result<(), Refusal> {
        if off(Check::FanoutSignature) {
            return Ok(());
        }
        let key = signer.signing.ok_or(Refusal::SignatureInvalid)?;
        let proof = parsed.proof.as_ref().map(|at| parsed.slice(at)).ok_or(Refusal::Malformed)?;
        let proof = Proof::read(&mut Reader::new(proof))?;
        let header = parsed.slice(&parsed.protected);
        let content = parsed.slice(&parsed.content);
        let to_sign = self.to_sign(aad, header, content, &parsed.header.id);
        match proof {
            Proof::Alone(signature) => key.verify(&to_sign, &signature),
            Proof::Batch { signature, size, index, path } => {
                let root = root_of(leaf(&to_sign), index, size, path)?;
                key.verify(&tree_to_sign(signer.kid, size, &root), &signature)
            }
        }
    }
}

impl fmt::Debug for GroupSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupSession({}, epoch {})", self.group, self.epoch)
    }
}

impl FanoutSigner {
    /// The key must be the one that the credential names.
    pub fn new(key: SigningKey, credential: Arc<SignedCredential>) -> Result<Self, Refusal> {
        if credential.signing == Some(key.verifying_key()) {
            Ok(Self { key, credential })
        } else {
            Err(Refusal::CredentialInvalid)
        }
    }

    /// The credential; it travels beside the envelope.
    pub fn credential(&self) -> &Arc<SignedCredential> {
        &self.credential
    }

    /// Signs one fanout.
    pub fn sign(&self, fanout: UnsignedFanout) -> Frame {
        let signature = self.key.sign(&fanout.to_sign);
        fanout.close(self, |w| w.bytes(&signature))
    }

    /// Signs up to [`MAX_BATCH`] fanouts with one signature; each still verifies alone.
    pub fn sign_batch(&self, fanouts: Vec<UnsignedFanout>) -> Vec<Frame> {
        if fanouts.len() == 1 {
            return fanouts.into_iter().map(|fanout| self.sign(fanout)).collect();
        }
        let mut frames = Vec::with_capacity(fanouts.len());
        let mut rest = fanouts.into_iter().peekable();
        while rest.peek().is_some() {
            let batch: Vec<_> = rest.by_ref().take(MAX_BATCH).collect();
            self.sign_tree(batch, &mut frames);
        }
        frames
    }

    fn sign_tree(&self, fanouts: Vec<UnsignedFanout>, frames: &mut Vec<Frame>) {
        let leaves: Vec<[u8; 32]> = fanouts.iter().map(|f| leaf(&f.to_sign)).collect();
        let size = leaves.len();
        let tree = tree_to_sign(self.credential.kid, size, &tree_root(&leaves));
        let signature = self.key.sign(&tree);
        for (index, fanout) in fanouts.into_iter().enumerate() {
            let mut path = Vec::with_capacity(MAX_PATH);
            tree_path(&leaves, index, &mut path);
            frames.push(fanout.close(self, |w| {
                w.array(4);
                w.bytes(&signature);
                w.uint(size as u64);
                w.uint(index as u64);
                w.array(path.len());
                path.iter().for_each(|node| w.bytes(node));
            }));
        }
    }
}

impl UnsignedFanout {
    /// Its id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    fn close(
        mut self,
        signer: &FanoutSigner,
        proof: impl FnOnce(&mut Writer<'_, BytesMut>),
    ) -> Frame {
        proof(&mut Writer::new(&mut self.bytes));
        debug_assert!(self.bytes.len() > ENVELOPE_AT + GCM_TAG);
        Sealed { bytes: self.bytes, id: self.id, named: self.named }
            .into_frame(Some(signer.credential.as_bytes()))
    }
}

/// A fanout whose sender is proven. Only [`GroupSession::open`] makes one.
#[derive(Debug)]
pub struct OpenedFanout {
    opened: Opened,
    signer: Arc<SignedCredential>,
    route: Route,
    sequence: u64,
    epoch: u32,
}

impl OpenedFanout {
    /// Who signed it.
    pub fn sender(&self) -> &Party {
        #[cfg(bulla_mutants)]
        if let Some(claimed) = self.opened.claimed.get() {
            return claimed;
        }
        &self.signer.party
    }

    /// The signer's credential.
    pub fn signer(&self) -> &Arc<SignedCredential> {
        &self.signer
    }

    /// Fanout or notification.
    pub fn kind(&self) -> MessageKind {
        self.opened.parsed.header.kind
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.opened.parsed.header.id
    }

    /// When it was made, in seconds since the Unix epoch.
    pub fn issued_at(&self) -> u64 {
        self.opened.parsed.header.iat
    }

    /// End of its life, in seconds since the Unix epoch.
    pub fn expires(&self) -> u64 {
        self.opened.parsed.header.exp
    }

    /// The signer's count: a gap means that one was withheld.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The group key's epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Names its envelope.
    pub fn digest(&self) -> Digest {
        self.opened.digest()
    }

    /// Where it was taken from.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// What was asked.
    pub fn body(&self) -> Result<RequestBody<'_>, Refusal> {
        RequestBody::parse(self.opened.plaintext())
    }
}

impl Parsed {
    /// The kid of the credential that signed a fanout, as the header claims it.
    pub fn claimed_signer(&self) -> Option<Kid> {
        match (&self.header.detail, self.header.handle) {
            (Detail::Group { .. }, Handle::Key(kid)) => Some(kid),
            _ => None,
        }
    }

    /// The sender as the header claims it, if it is a principal's name at all.
    pub fn claimed_principal(&self) -> Option<Principal> {
        self.claimed_sender().parse().ok()
    }
}
