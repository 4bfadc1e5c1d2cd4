//! Credentials: who holds which keys, signed by an issuer whom the root signed (protocol
//! section 2). Chain length two; a receiver holds the root public key and trusts nothing else.

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::id::{Digest, Kid};
use crate::kem::KemPublicKey;
use crate::mutants::{Check, off};
use crate::principal::{Party, Principal, PrincipalKind, TrustDomain};
use crate::random::UnixTime;
use crate::refusal::Refusal;
use crate::root::FIRST_ROOT;
use crate::sign::{SignatureUse, SigningKey, Unverified, VerifyingKey, sign1};
use crate::wire::{Level, SuiteSet};

/// Most roles in one credential.
pub const MAX_ROLES: usize = 32;
/// Longest role or instance name, in bytes.
pub const MAX_ROLE: usize = 80;

/// The one right that an issuer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssuerRight {
    /// May issue credentials of agents.
    Agents,
    /// May issue credentials of components.
    Components,
    /// May sign statements of revocation.
    Revocation,
    /// May sign exemptions from floors, and policies.
    Exemptions,
}

impl IssuerRight {
    /// Every right.
    pub const ALL: &'static [Self] =
        &[Self::Agents, Self::Components, Self::Revocation, Self::Exemptions];

    const fn to_wire(self) -> u64 {
        match self {
            Self::Agents => 1,
            Self::Components => 2,
            Self::Revocation => 3,
            Self::Exemptions => 4,
        }
    }

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agent-issuer",
            Self::Components => "component-issuer",
            Self::Revocation => "revocation",
            Self::Exemptions => "operator",
        }
    }

    /// From its stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|right| right.as_str() == name)
    }

    /// Whether this right covers issuing for `kind`.
    fn covers(self, kind: PrincipalKind) -> bool {
        matches!(
            (self, kind),
            (Self::Agents, PrincipalKind::Agent) | (Self::Components, PrincipalKind::Component)
        )
    }
}

/// When a credential holds: from `not_before` up to and not including `not_after`, in seconds
/// since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// First second after.
    pub not_after: u64,
}

impl Validity {
    /// Refuses a time outside.
    pub fn check(&self, at: UnixTime) -> Result<(), Refusal> {
        self.check_secs(at.secs())
    }

    /// Refuses a time outside, in seconds since the Unix epoch.
    pub fn check_secs(&self, secs: u64) -> Result<(), Refusal> {
        if off(Check::CredentialTime) {
            Ok(())
        } else if secs < self.not_before {
            Err(Refusal::CredentialNotYetValid)
        } else if secs >= self.not_after {
            Err(Refusal::CredentialExpired)
        } else {
            Ok(())
        }
    }
}

/// What the root says of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerCredential {
    /// Names the issuer's key.
    pub kid: Kid,
    /// The trust domain.
    pub domain: TrustDomain,
    /// What the issuer may sign.
    pub right: IssuerRight,
    /// The issuer's key.
    pub key: VerifyingKey,
    /// When it may be used.
    pub validity: Validity,
}

impl IssuerCredential {
    /// Signs this with the root key.
    pub fn sign(&self, root: &SigningKey) -> Bytes {
        let mut payload = Vec::with_capacity(96);
        let mut w = Writer::new(&mut payload);
        w.array(7);
        w.uint(1);
        w.text(self.domain.as_str());
        w.uint(self.right.to_wire());
        w.bytes(self.kid.as_bytes());
        w.bytes(self.key.as_bytes());
        w.uint(self.validity.not_before);
        w.uint(self.validity.not_after);
        sign1(SignatureUse::Credential, root, None, &payload)
    }

    /// Refuses a time that this issuer does not speak for: it is valid at `from` and does not
    /// end before `end`.
    pub(crate) fn covers_time(&self, from: u64, end: u64) -> Result<(), Refusal> {
        self.validity.check_secs(from)?;
        if end > self.validity.not_after { Err(Refusal::CredentialInvalid) } else { Ok(()) }
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(7)?;
        r.this_uint(1)?;
        let domain = TrustDomain::new(r.text()?).map_err(|_| Refusal::CredentialInvalid)?;
        let right = r.uint()?;
        let right = IssuerRight::ALL.iter().copied().find(|known| known.to_wire() == right);
        let issuer = Self {
            domain,
            right: right.ok_or(Refusal::CredentialInvalid)?,
            kid: Kid(r.fixed()?),
            key: VerifyingKey(r.fixed()?),
            validity: Validity { not_before: r.uint()?, not_after: r.uint()? },
        };
        r.end()?;
        Ok(issuer)
    }
}

/// What an issuer says of a principal.
///
/// An agent's credential has both keys; a component's *audience* credential has the KEM key that
/// all hosts of its type share, its *signing* credential the Ed25519 key of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Names the credential and its keys.
    pub kid: Kid,
    /// Whose it is.
    pub party: Party,
    /// Counts up with every rotation.
    pub epoch: u32,
    /// The key that its holder signs with.
    pub signing: Option<VerifyingKey>,
    /// The key that its holder receives with.
    pub kem: Option<KemPublicKey>,
    /// Suites that the holder accepts.
    pub suites: SuiteSet,
    /// When it may be used.
    pub validity: Validity,
    /// Lowest level that the holder accepts.
    pub accepts: Level,
    /// Level that the holder sends.
    pub sends: Level,
    /// What else the holder may do, such as `group:all` (protocol section 6).
    pub roles: Vec<String>,
    /// Which host of a component type, in a signing credential.
    pub instance: Option<String>,
}

impl Credential {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        let mut w = Writer::new(&mut out);
        w.array(14);
        w.uint(1);
        w.bytes(self.kid.as_bytes());
        w.text(self.party.principal.as_str());
        w.uint(self.party.incarnation.into());
        w.uint(self.epoch.into());
        w.bytes_or_null(self.signing.as_ref().map(|key| &key.as_bytes()[..]));
        w.bytes_or_null(self.kem.as_ref().map(KemPublicKey::as_bytes));
        w.uint(self.suites.to_wire().into());
        w.uint(self.validity.not_before);
        w.uint(self.validity.not_after);
        w.uint(self.accepts.to_wire().into());
        w.uint(self.sends.to_wire().into());
        w.array(self.roles.len());
        for role in &self.roles {
            w.text(role);
        }
        w.text_or_null(self.instance.as_deref());
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(14)?;
        r.this_uint(1)?;
        let kid = Kid(r.fixed()?);
        let principal: Principal = r.text()?.parse().map_err(|_| Refusal::CredentialInvalid)?;
        let party = Party::new(principal, r.uint32()?);
        let epoch = r.uint32()?;
        let signing = Self::read_signing(&mut r)?;
        let kem = r.bytes_or_null()?.map(KemPublicKey::from_wire).transpose()?;
        let suites = SuiteSet::from_wire(r.uint()?).ok_or(Refusal::CredentialInvalid)?;
        let validity = Validity { not_before: r.uint()?, not_after: r.uint()? };
        let accepts = Level::from_wire(r.uint()?).ok_or(Refusal::CredentialInvalid)?;
        let sends = Level::from_wire(r.uint()?).ok_or(Refusal::CredentialInvalid)?;
        let roles = Self::read_roles(&mut r)?;
        let instance = Self::short(r.text_or_null()?)?;
        r.end()?;
        let credential = Self {
            kid,
            party,
            epoch,
            signing,
            kem,
            suites,
            validity,
            accepts,
            sends,
            roles,
            instance,
        };
        credential.check_shape()?;
        Ok(credential)
    }

    fn read_signing(r: &mut Reader<'_>) -> Result<Option<VerifyingKey>, Refusal> {
        let key = r.bytes_or_null()?;
        key.map(|key| key.try_into().map(VerifyingKey).map_err(|_| Refusal::CredentialInvalid))
            .transpose()
    }

    fn read_roles(r: &mut Reader<'_>) -> Result<Vec<String>, Refusal> {
        let count = r.array_up_to(MAX_ROLES)?;
        (0..count)
            .map(|_| Self::short(Some(r.text()?))?.ok_or(Refusal::CredentialInvalid))
            .collect()
    }

    fn short(text: Option<&str>) -> Result<Option<String>, Refusal> {
        match text {
            Some(text) if text.len() > MAX_ROLE => Err(Refusal::CredentialInvalid),
            other => Ok(other.map(str::to_owned)),
        }
    }

    /// Agents hold both keys; a component's credential exactly one, and an instance only with
    /// its signing key.
    fn check_shape(&self) -> Result<(), Refusal> {
        let (signs, receives) = (self.signing.is_some(), self.kem.is_some());
        let ok = match self.party.principal.kind() {
            PrincipalKind::Agent => signs && receives && self.instance.is_none(),
            PrincipalKind::Component => signs != receives && signs == self.instance.is_some(),
        };
        let suite_ok = self.kem.as_ref().is_none_or(|kem| self.suites.contains(kem.suite()))
            && SuiteSet::all().contains_all(self.suites);
        let named = |text: &String| (1..=MAX_ROLE).contains(&text.len());
        let names_ok = self.roles.len() <= MAX_ROLES
            && self.roles.iter().all(named)
            && self.instance.iter().all(named);
        let time_ok = self.validity.not_before < self.validity.not_after;
        if ok && suite_ok && names_ok && time_ok && self.party.incarnation > 0 {
            Ok(())
        } else {
            Err(Refusal::CredentialInvalid)
        }
    }

    /// When its holder renews it, in Unix seconds: at the half of its life, up to a tenth earlier or
    /// later (protocol section 10). Which, follows from the kid, so that it is the same after a
    /// restart, and not the same for all who were added together.
    pub fn renew_at(&self) -> u64 {
        let half = self.validity.not_after.saturating_sub(self.validity.not_before) / 2;
        let spread = half / 10;
        let draw = u64::from_be_bytes(self.kid.0) % spread.saturating_mul(2).saturating_add(1);
        let after = half.saturating_sub(spread).saturating_add(draw);
        self.validity.not_before.saturating_add(after)
    }

    /// From when on nothing that was sealed to its KEM key can be alive, in Unix seconds: its end,
    /// the life of an offer, the life of a message, and the skew (protocol section 10). Then the
    /// key is destroyed.
    pub fn retire_at(&self, skew: u64) -> u64 {
        let end = self.validity.not_after.saturating_add(crate::offer::MAX_OFFER_LIFE);
        end.saturating_add(crate::seal::MAX_LIFE).saturating_add(skew)
    }

    /// Refuses a credential of a lower epoch than the highest verified for its holder.
    pub fn check_epoch(&self, highest: u32) -> Result<(), Refusal> {
        if self.epoch < highest { Err(Refusal::EpochStale) } else { Ok(()) }
    }

    /// Whether the holder has `role`.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }

    /// Whether the holder may hand out the keys of `group`: it has the role `group:<name>`, or
    /// [`KEYS_EVERY_GROUP`] (protocol section 10, **[P-43]**).
    pub fn may_key_group(&self, group: &crate::GroupName) -> bool {
        let held = |role: &String| {
            role == KEYS_EVERY_GROUP || role.strip_prefix("group:") == Some(group.as_str())
        };
        self.roles.iter().any(held)
    }
}

/// The role of who hands out the keys of every group, also of those that come later. No group has that name.
pub const KEYS_EVERY_GROUP: &str = "group:*";

/// An issuer's key with its credential.
#[derive(Debug, Clone)]
pub struct Issuer {
    key: SigningKey,
    credential: IssuerCredential,
}

impl Issuer {
    /// The key must be the one that the credential names.
    pub fn new(key: SigningKey, credential: IssuerCredential) -> Result<Self, Refusal> {
        if key.verifying_key() == credential.key {
            Ok(Self { key, credential })
        } else {
            Err(Refusal::CredentialInvalid)
        }
    }

    /// What the root says of this issuer.
    pub fn credential(&self) -> &IssuerCredential {
        &self.credential
    }

    /// Signs `credential`. Refuses what this issuer has no right to, what is not well formed and
    /// what would outlive the issuer itself.
    pub fn issue(&self, credential: &Credential) -> Result<SignedCredential, Refusal> {
        credential.check_shape()?;
        if !self.credential.right.covers(credential.party.principal.kind())
            || credential.validity.not_after > self.credential.validity.not_after
        {
            return Err(Refusal::CredentialInvalid);
        }
        let bytes = self.sign(SignatureUse::Credential, &credential.encode());
        Ok(SignedCredential { digest: Digest::of(&bytes), bytes, credential: credential.clone() })
    }

    pub(crate) fn sign(&self, usage: SignatureUse, payload: &[u8]) -> Bytes {
        sign1(usage, &self.key, Some(self.credential.kid), payload)
    }

    /// Refuses what this issuer may not sign, or not for that time.
    pub(crate) fn check_may(&self, right: IssuerRight, from: u64, end: u64) -> Result<(), Refusal> {
        if self.credential.right != right {
            return Err(Refusal::IssuerUnknown);
        }
        self.credential.covers_time(from, end)
    }
}

/// A credential with its signature: made by an [`Issuer`] or verified by a [`TrustStore`], never
/// built from parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCredential {
    bytes: Bytes,
    digest: Digest,
    credential: Credential,
}

impl SignedCredential {
    /// The COSE_Sign1.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the COSE_Sign1.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl std::ops::Deref for SignedCredential {
    type Target = Credential;

    fn deref(&self) -> &Credential {
        &self.credential
    }
}

/// A root that another one followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerRoot {
    /// Its public key.
    pub key: VerifyingKey,
    /// First Unix second in which it counts for nothing.
    pub until: u64,
}

/// An issuer as some root signed it.
#[derive(Debug, Clone)]
struct KnownIssuer {
    credential: IssuerCredential,
    bytes: Bytes,
    root: VerifyingKey,
}

/// What a receiver trusts: the root key of one trust domain, for a while the one before it, and the
/// issuers that they signed.
#[derive(Debug, Clone)]
pub struct TrustStore {
    domain: TrustDomain,
    root: VerifyingKey,
    sequence: u32,
    former: Option<FormerRoot>,
    issuers: Vec<KnownIssuer>,
}

impl TrustStore {
    /// Trusts `root` for `domain`, with no issuer yet.
    pub fn new(domain: TrustDomain, root: VerifyingKey) -> Self {
        Self { domain, root, sequence: FIRST_ROOT, former: None, issuers: Vec::new() }
    }

    /// The same with what is known of the roots before: this one's sequence, and the one that it
    /// followed, if that still counts.
    #[must_use]
    pub fn with_roots(mut self, sequence: u32, former: Option<FormerRoot>) -> Self {
        (self.sequence, self.former) = (sequence, former);
        self
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root public key.
    pub fn root(&self) -> &VerifyingKey {
        &self.root
    }

    /// The root's sequence: 1, and one more with each that [followed](Self::take_root).
    pub fn root_sequence(&self) -> u32 {
        self.sequence
    }

    /// The root before this one, while it counts.
    pub fn former_root(&self) -> Option<FormerRoot> {
        self.former
    }

    /// Another root follows; the present one and its issuers count until `until`.
    pub(crate) fn follow(&mut self, root: VerifyingKey, sequence: u32, until: u64) {
        let former = std::mem::replace(&mut self.root, root);
        self.former = Some(FormerRoot { key: former, until });
        self.sequence = sequence;
        self.issuers.retain(|known| known.root == former || known.root == root);
    }

    /// Ends the former root at its time, with the issuers that no other root signed. Whether there
    /// was anything to end.
    pub fn retire_root(&mut self, now: UnixTime) -> bool {
        if self.former.is_none_or(|former| now.secs() < former.until) {
            return false;
        }
        self.former = None;
        let root = self.root;
        self.issuers.retain(|known| known.root == root);
        true
    }

    /// The same root with no issuer: nothing verifies any more. For who learns that the only root
    /// it trusts [has ended](Refusal::RootEnded).
    #[must_use]
    pub fn distrusting(&self) -> Self {
        Self { issuers: Vec::new(), former: None, ..self.clone() }
    }

    /// The known issuers' credentials as signed, for handing on.
    pub fn issuers(&self) -> impl Iterator<Item = (&IssuerCredential, &Bytes)> {
        self.issuers.iter().map(|known| (&known.credential, &known.bytes))
    }

    /// Adds an issuer that the root signed for this trust domain, or the former root while it
    /// counts. What the root signed is not replaced by what the former one did.
    pub fn add_issuer(&mut self, bytes: &[u8]) -> Result<&IssuerCredential, Refusal> {
        let signed = Unverified::parse(bytes).map_err(|_| Refusal::IssuerUnknown)?;
        if signed.kid().is_some() {
            return Err(Refusal::IssuerUnknown);
        }
        let roots = [Some(self.root), self.former.map(|former| former.key)];
        let verified = roots.into_iter().flatten().find_map(|root| {
            let payload = signed.verify(SignatureUse::Credential, &root).ok()?;
            Some((root, payload))
        });
        let (root, payload) = verified.ok_or(Refusal::IssuerUnknown)?;
        let credential = IssuerCredential::decode(payload)?;
        if credential.domain != self.domain {
            return Err(Refusal::IssuerUnknown);
        }
        let same = |known: &KnownIssuer| known.credential.kid == credential.kid;
        if root != self.root && self.issuers.iter().any(|known| same(known) && known.root != root) {
            return Err(Refusal::IssuerUnknown);
        }
        let place = self.issuers.iter().position(same).unwrap_or(self.issuers.len());
        let known = KnownIssuer { credential, bytes: Bytes::copy_from_slice(bytes), root };
        match self.issuers.get_mut(place) {
            Some(former) => *former = known,
            None => self.issuers.push(known),
        }
        self.issuers.get(place).map(|known| &known.credential).ok_or(Refusal::IssuerUnknown)
    }

    fn issuer_of(&self, signed: &Unverified<'_>) -> Result<&IssuerCredential, Refusal> {
        let kid = signed.kid().ok_or(Refusal::IssuerUnknown)?;
        let known = self
            .issuers
            .iter()
            .find(|known| known.credential.kid == kid || off(Check::IssuerKnown));
        known.map(|known| &known.credential).ok_or(Refusal::IssuerUnknown)
    }

    /// The payload of what an issuer with exactly this right signed for this use.
    pub(crate) fn verify_by<'a>(
        &self,
        right: IssuerRight,
        usage: SignatureUse,
        bytes: &'a [u8],
    ) -> Result<(&'a [u8], &IssuerCredential), Refusal> {
        let signed = Unverified::parse(bytes)?;
        let issuer = self.issuer_of(&signed)?;
        if issuer.right != right && !off(Check::StatementSignature) {
            return Err(Refusal::IssuerUnknown);
        }
        if off(Check::StatementSignature) {
            return Ok((signed.dangerous_payload(), issuer));
        }
        Ok((signed.verify(usage, &issuer.key)?, issuer))
    }

    /// Verifies a credential as it stood at `at`: known issuer with the right for this sort of
    /// principal, both valid at that time.
    pub fn verify(&self, bytes: &[u8], at: UnixTime) -> Result<SignedCredential, Refusal> {
        let (issuer, credential) = self.signed(bytes)?;
        issuer.validity.check(at)?;
        credential.validity.check(at)?;
        Ok(credential)
    }

    /// Verifies a credential that may be over, as it stood at its own end: for a receiver that
    /// still opens what was sealed to it in time.
    pub fn verify_ended(&self, bytes: &[u8], now: UnixTime) -> Result<SignedCredential, Refusal> {
        let (issuer, credential) = self.signed(bytes)?;
        let last = credential.validity.not_after.saturating_sub(1);
        let at = UnixTime::from_secs(last.min(now.secs()));
        issuer.validity.check(at)?;
        credential.validity.check(at)?;
        Ok(credential)
    }

    /// What a known issuer with the right for this sort of principal signed, whenever that holds.
    fn signed(&self, bytes: &[u8]) -> Result<(&IssuerCredential, SignedCredential), Refusal> {
        let signed = Unverified::parse(bytes).map_err(|_| Refusal::CredentialInvalid)?;
        let issuer = self.issuer_of(&signed)?;
        let payload = match off(Check::CredentialSignature) {
            true => signed.dangerous_payload(),
            false => signed.verify(SignatureUse::Credential, &issuer.key)?,
        };
        let credential = Credential::decode(payload)?;
        if !issuer.right.covers(credential.party.principal.kind()) && !off(Check::IssuerRight) {
            return Err(Refusal::IssuerUnknown);
        }
        // No issuer speaks for a time after its own: who verified this once need not ask again.
        if credential.validity.not_after > issuer.validity.not_after && !off(Check::CredentialTime)
        {
            return Err(Refusal::CredentialInvalid);
        }
        let digest = Digest::of(bytes);
        Ok((issuer, SignedCredential { digest, bytes: Bytes::copy_from_slice(bytes), credential }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use crate::kem::KemSecretKey;
    use crate::random::OsRandom;
    use crate::wire::Suite;

    const BEGIN: u64 = 1_800_000_000;
    const LIFE: u64 = 1_000_000;

    fn agent(kid: u64, key: &SigningKey) -> Credential {
        let kem = KemSecretKey::generate(Suite::X25519, &mut OsRandom::default()).unwrap();
        Credential {
            kid: Kid(kid.to_be_bytes()),
            party: Party::new(Principal::agent("db-1").unwrap(), 1),
            epoch: 1,
            signing: Some(key.verifying_key()),
            kem: Some(kem.public().clone()),
            suites: SuiteSet::all(),
            validity: Validity { not_before: BEGIN, not_after: BEGIN + LIFE },
            accepts: Level::Sealed,
            sends: Level::Sealed,
            roles: vec![],
            instance: None,
        }
    }

    #[test]
    fn renewal_comes_about_the_half_of_a_life_and_not_for_all_at_once() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let (half, tenth) = (LIFE / 2, LIFE / 20);
        let after = |kid: u64| agent(kid, &key).renew_at() - BEGIN;
        // Protocol section 16, by hand: h - s + kid mod (2s + 1).
        assert_eq!(after(0), half - tenth);
        assert_eq!(after(2 * tenth), half + tenth);
        assert_eq!(after(2 * tenth + 1), half - tenth);
        let mut random = OsRandom::default();
        let mut times: Vec<u64> = (0..400)
            .map(|_| {
                let mut kid = [0; 8];
                random.fill(&mut kid).unwrap();
                after(u64::from_be_bytes(kid))
            })
            .collect();
        times.sort_unstable();
        assert!(times.iter().all(|at| (half - tenth..=half + tenth).contains(at)));
        // No tenth of that time has a quarter of them.
        let most = times.windows(100).map(|w| w[99] - w[0]).min().unwrap();
        assert!(most > tenth / 5, "{most}");
    }

    #[test]
    fn a_former_key_is_kept_until_nothing_sealed_to_it_can_be_alive() {
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        assert_eq!(agent(1, &key).retire_at(120), BEGIN + LIFE + 3_600 + 86_400 + 120);
    }

    #[test]
    fn a_credential_that_is_over_is_verified_as_it_was() {
        let root = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let key = SigningKey::generate(&mut OsRandom::default()).unwrap();
        let domain = TrustDomain::new("cloud.example").unwrap();
        let issuer = IssuerCredential {
            kid: Kid([1; 8]),
            domain: domain.clone(),
            right: IssuerRight::Agents,
            key: key.verifying_key(),
            validity: Validity { not_before: BEGIN, not_after: BEGIN + 2 * LIFE },
        };
        let mut trust = TrustStore::new(domain, root.verifying_key());
        trust.add_issuer(&issuer.sign(&root)).unwrap();
        let issued = Issuer::new(key.clone(), issuer).unwrap().issue(&agent(1, &key)).unwrap();
        let at = UnixTime::from_secs;
        let bytes = issued.as_bytes();
        assert_eq!(trust.verify(bytes, at(BEGIN + LIFE)), Err(Refusal::CredentialExpired));
        for now in [BEGIN, BEGIN + LIFE, BEGIN + 10 * LIFE] {
            assert_eq!(trust.verify_ended(bytes, at(now)).as_ref(), Ok(&issued));
        }
        let early = trust.verify_ended(bytes, at(BEGIN - 1));
        assert_eq!(early, Err(Refusal::CredentialNotYetValid));
        let mut altered = bytes.to_vec();
        altered[40] ^= 1;
        assert!(trust.verify_ended(&altered, at(BEGIN)).is_err());
    }
}
