//! Enrolment by token (protocol section 10): agents that make their keys themselves.

use std::collections::HashSet;
use std::time::Duration;

use bulla_seal::enrol::{Answer, JoinToken, Request, TokenVerifier};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    KemSecretKey, OsRandom, Party, Principal, Refusal, Secret, SignedCredential, Suite, UnixTime,
};
use thiserror::Error;

use super::issue::NewHolder;
use super::{EVERY_AGENT, KeyType, Keystore, current_kek, from_column, seconds, to_column};
use crate::db::join::{self, NewToken, TokenRow};
use crate::db::principals::PrincipalRow;
use crate::db::{Conn, ROWS_AT_ONCE, credentials, groups, principals};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// How long a token is good unless something else is asked for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Least and most that may be asked for.
pub const TOKEN_LIFETIMES: (Duration, Duration) =
    (Duration::from_secs(10 * 60), Duration::from_secs(60 * 60));

/// When a token ends that is made now.
fn expiry(suite: Suite, lifetime: Duration, now: UnixTime) -> Result<u64> {
    if suite == Suite::Shared {
        return Err(KeystoreError::NoKemSuite);
    }
    let (least, most) = TOKEN_LIFETIMES;
    if !(least..=most).contains(&lifetime) {
        return Err(KeystoreError::TokenLifetime { asked: lifetime.as_secs() });
    }
    Ok(now.secs().saturating_add(lifetime.as_secs()))
}

/// A new agent that has no keys yet, and the token with which it gets a credential for those that
/// it makes. Given out once.
#[derive(Debug)]
pub struct Invitation {
    /// The agent.
    pub party: Party,
    /// The suite of the key that it is to receive with.
    pub suite: Suite,
    /// The token.
    pub token: JoinToken,
    /// Until when it is good, in Unix seconds.
    pub expires: u64,
}

/// What became of a request to enrol.
#[derive(Debug)]
pub enum Enrolment {
    /// Here is the answer, sealed to that request.
    Answered {
        /// Who enrolled.
        party: Party,
        /// The answer as it goes over the bus.
        answer: Vec<u8>,
        /// The request came before, and this is the answer that it got then.
        again: bool,
    },
    /// It gets no answer.
    Refused(EnrolRefusal),
}

/// Why a request to enrol was refused. It is not told to whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnrolRefusal {
    /// No token of that name.
    #[error("there is no such token")]
    Unknown,
    /// The token's time is over.
    #[error("the token of {0} is over: `bulla agent add --again` makes a new one")]
    Expired(Party),
    /// The agent was removed, or its name has another holder.
    #[error("{0} was removed")]
    Gone(Party),
    /// Another request with a token that was used: somebody has a copy of the join file. The
    /// credential that was issued is revoked.
    #[error(
        "the token of {0} was used a second time, with other keys: somebody has a copy of its join file. Its credentials are revoked; `bulla agent revoke` it and add it anew"
    )]
    Reused(Party),
    /// The token was locked before.
    #[error("the token of {0} is locked since it was used a second time")]
    Locked(Party),
    /// It was not made with the token, for this agent and enroller.
    #[error("the request is not in order: {0}")]
    Invalid(Refusal),
}

impl EnrolRefusal {
    /// Its stable name, for logs and counters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "enrol-token-unknown",
            Self::Expired(_) => "enrol-token-expired",
            Self::Gone(_) => "enrol-agent-gone",
            Self::Reused(_) => "enrol-token-reused",
            Self::Locked(_) => "enrol-token-locked",
            Self::Invalid(_) => "enrol-invalid",
        }
    }

    /// Whether somebody holds a token that is not theirs: an alarm, and not just a refusal.
    pub const fn is_alarm(&self) -> bool {
        matches!(self, Self::Reused(_) | Self::Locked(_))
    }
}

impl From<Refusal> for EnrolRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Invalid(refusal)
    }
}

/// How far an agent that was invited has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinState {
    /// It was given a token, which is good until then (in Unix seconds).
    Invited {
        /// When the token ends.
        until: u64,
    },
    /// Its token was not used in time.
    Expired,
    /// It enrolled.
    Joined,
    /// Its token or its renewal was used twice; its credentials are revoked.
    Quarantined {
        /// How often.
        alarms: u64,
    },
}

/// A key that requests are sealed to.
type EnrollerKey = (KemSecretKey, SignedCredential);

/// The place of one wrapped value of a token.
fn token_row<'a>(column: &'static str, row: (&'a str, u32, u32)) -> Row<'a> {
    let (name, incarnation, epoch) = row;
    Row { table: "join_tokens", column, name, incarnation, epoch }
}

impl TokenRow {
    fn place(&self, column: &'static str) -> Row<'_> {
        token_row(column, (&self.agent, self.incarnation, self.epoch))
    }

    fn party(&self) -> Result<Party> {
        let principal = self.agent.parse().map_err(|_| KeystoreError::damaged("agent id"))?;
        Ok(Party::new(principal, self.incarnation))
    }
}

impl Keystore {
    /// Adds an agent that makes its keys itself, and a token for it. It joins group `all`.
    /// With `again`, one that was added so and has not enrolled gets another token in the place of
    /// its first, and one whose credentials are all over, because it was off for long, gets a token
    /// to come back with, in the same incarnation.
    pub async fn invite_agent(
        &self,
        id: &str,
        suite: Suite,
        lifetime: Duration,
        again: bool,
    ) -> Result<Invitation> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let invitation = self.invite(&mut tx, id, suite, lifetime, again, now).await?;
        tx.commit().await?;
        Ok(invitation)
    }

    /// [`invite_agent`](Self::invite_agent) for many, in one transaction: all or none.
    pub async fn invite_agents(
        &self,
        ids: &[String],
        suite: Suite,
        lifetime: Duration,
    ) -> Result<Vec<Invitation>> {
        let now = self.now();
        let mut seen = HashSet::with_capacity(ids.len());
        if let Some(twice) = ids.iter().find(|id| !seen.insert(id.as_str())) {
            return Err(KeystoreError::NameTaken(Party::new(Principal::agent(twice)?, 1)));
        }
        let expires = expiry(suite, lifetime, now)?;
        let mut tx = self.db.write().await?;
        let rows = self.insert_agents(&mut tx, ids, KeyType::Pair, suite, now).await;
        let rows = match rows {
            Err(KeystoreError::NameTaken(party)) => {
                let row = principals::active(&mut tx, "agent", party.principal.name()).await?;
                let row = row.ok_or_else(|| KeystoreError::damaged("agent"))?;
                self.may_invite_again(&mut tx, &row, &party, false).await?;
                return Err(KeystoreError::NameTaken(party));
            }
            rows => rows?,
        };
        let rows = rows.into_iter().map(|(row_id, party)| (row_id, party, 1)).collect();
        let invitations = self.store_tokens(&mut tx, rows, suite, expires, now).await?;
        tx.commit().await?;
        Ok(invitations)
    }

    async fn invite(
        &self,
        conn: &mut Conn,
        id: &str,
        suite: Suite,
        lifetime: Duration,
        again: bool,
        now: UnixTime,
    ) -> Result<Invitation> {
        let principal = Principal::agent(id)?;
        let expires = expiry(suite, lifetime, now)?;
        let (row_id, party, epoch) = match principals::active(conn, "agent", id).await? {
            Some(row) => {
                let party = Party::new(principal, row.incarnation);
                let epoch = self.may_invite_again(conn, &row, &party, again).await?;
                join::set_suite(conn, row.id, suite.to_wire().into(), seconds(now)).await?;
                (row.id, party, epoch)
            }
            None => {
                let (row_id, party) =
                    self.insert_principal(conn, principal, "pair", suite, now).await?;
                if let Some((group, _)) = groups::find(conn, EVERY_AGENT).await? {
                    groups::add(conn, group, row_id, seconds(now)).await?;
                }
                (row_id, party, 1)
            }
        };
        let row = vec![(row_id, party, epoch)];
        self.store_tokens(conn, row, suite, expires, now)
            .await?
            .pop()
            .ok_or_else(|| KeystoreError::damaged("join token"))
    }

    /// The epoch of the next token of an agent that has not enrolled yet, or was off for so long
    /// that none of its credentials is valid.
    async fn may_invite_again(
        &self,
        conn: &mut Conn,
        row: &PrincipalRow,
        party: &Party,
        again: bool,
    ) -> Result<u32> {
        let newest = join::newest(conn, row.id).await?;
        let epoch = newest.as_ref().map_or(1, |(epoch, ..)| epoch.saturating_add(1));
        if newest.is_some_and(|(_, state, ..)| state == "open") {
            if !again {
                return Err(KeystoreError::NotJoined(party.clone()));
            }
            join::delete_open(conn, row.id).await?;
            return Ok(epoch);
        }
        let credential = credentials::newest(conn, row.id, "agent").await?;
        let cut_off = join::alarms(conn, row.id).await? != (0, 0);
        match credential {
            Some(last) if again && !cut_off && last.not_after > seconds(self.now()) => {
                let until = from_column(last.not_after).secs();
                Err(KeystoreError::StillGood { party: party.clone(), until })
            }
            Some(_) if again && !cut_off => Ok(epoch),
            _ => Err(KeystoreError::NameTaken(party.clone())),
        }
    }

    /// Makes and stores a one-time token for each of the agents, whose rows and epochs are given.
    async fn store_tokens(
        &self,
        conn: &mut Conn,
        invited: Vec<(i64, Party, u32)>,
        suite: Suite,
        expires: u64,
        now: UnixTime,
    ) -> Result<Vec<Invitation>> {
        let random = &mut OsRandom::default();
        let kek = current_kek(conn, &self.keks).await?;
        let wrap = kek.wrap_key();
        let mut invitations = Vec::with_capacity(invited.len());
        for some in invited.chunks(ROWS_AT_ONCE) {
            let mut sealed = Vec::with_capacity(some.len());
            let first = invitations.len();
            for (_, party, epoch) in some {
                let token = JoinToken::generate(random)?;
                let agent = party.principal.as_str();
                let place = |column| token_row(column, (agent, party.incarnation, *epoch));
                let secret =
                    wrap.wrap(random, &place("encrypted_secret"), token.secret.expose())?;
                let verifier = token.verifier();
                let verifier =
                    wrap.wrap(random, &place("encrypted_verifier"), verifier.expose().expose())?;
                sealed.push((secret, verifier));
                invitations.push(Invitation { party: party.clone(), suite, token, expires });
            }
            let made = invitations.iter().skip(first);
            let rows = some.iter().zip(&sealed).zip(made);
            let rows = rows.map(|(((row_id, party, epoch), (secret, verifier)), made)| NewToken {
                token_id: made.token.id.as_bytes(),
                principal_id: *row_id,
                agent: party.principal.as_str(),
                incarnation: party.incarnation,
                epoch: *epoch,
                suite: suite.to_wire().into(),
                encrypted_secret: secret,
                encrypted_verifier: verifier,
                expires: to_column(expires),
            });
            join::insert(conn, &rows.collect::<Vec<_>>(), seconds(now)).await?;
        }
        Ok(invitations)
    }

    /// Judges a request to enrol, and issues if it is the first that was made with its token.
    /// `enroller` is the component type that the request is sealed to.
    ///
    /// What is refused changes nothing, but for a second use of a token: that locks it and revokes
    /// what was issued.
    pub async fn enrol(&self, enroller: &str, bytes: &[u8]) -> Result<Enrolment> {
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err(refusal) => return Ok(Enrolment::Refused(refusal.into())),
        };
        let row = join::token(&mut self.db.read().await?, request.token().as_bytes()).await?;
        let Some(row) = row else { return Ok(Enrolment::Refused(EnrolRefusal::Unknown)) };
        // One symmetric step, before anything is written or any asymmetric work is done: who only
        // saw the token's name gets no further.
        let verifier = self.unwrap_token(&row, "encrypted_verifier", &row.encrypted_verifier)?;
        if let Err(refusal) = request.check_proof(&TokenVerifier::new(verifier)) {
            return Ok(Enrolment::Refused(refusal.into()));
        }
        // Beside the transaction: it has a connection of its own.
        let keys = self.receive_keys(enroller).await?;
        let now = self.now();
        let mut tx = self.db.write().await?;
        let outcome = self.judge(&mut tx, &request, &keys, now).await?;
        // A refusal may have locked a token.
        tx.commit().await?;
        Ok(outcome)
    }

    /// Looks again at the token under the write lock.
    async fn judge(
        &self,
        tx: &mut Conn,
        request: &Request<'_>,
        keys: &[EnrollerKey],
        now: UnixTime,
    ) -> Result<Enrolment> {
        let refused = |why| Ok(Enrolment::Refused(why));
        let Some(row) = join::token(tx, request.token().as_bytes()).await? else {
            return refused(EnrolRefusal::Unknown);
        };
        let party = row.party()?;
        let living = principals::active(tx, "agent", party.principal.name()).await?;
        if living.is_none_or(|living| living.id != row.principal_id) {
            return refused(EnrolRefusal::Gone(party));
        }
        match row.state.as_str() {
            "open" if row.expires <= seconds(now) && !off(Check::TokenExpiry) => {
                refused(EnrolRefusal::Expired(party))
            }
            "open" => self.accept(tx, request, &row, keys, now).await,
            "used" if row.request.as_deref() == Some(request.digest().as_bytes()) => {
                let sealed = row.encrypted_answer.as_deref();
                let sealed = sealed.ok_or_else(|| KeystoreError::damaged("enrolment answer"))?;
                let place = row.place("encrypted_answer");
                let answer = self.keks.open(&place, sealed, "enrolment answer")?;
                Ok(Enrolment::Answered { party, answer: answer.to_vec(), again: true })
            }
            "used" => {
                self.quarantine(tx, row.principal_id).await?;
                join::lock(tx, request.token().as_bytes(), seconds(now)).await?;
                refused(EnrolRefusal::Reused(party))
            }
            _ => {
                join::lock(tx, request.token().as_bytes(), seconds(now)).await?;
                refused(EnrolRefusal::Locked(party))
            }
        }
    }

    /// The first request with its token: opens it, issues, and binds the token to it.
    async fn accept(
        &self,
        tx: &mut Conn,
        request: &Request<'_>,
        row: &TokenRow,
        keys: &[EnrollerKey],
        now: UnixTime,
    ) -> Result<Enrolment> {
        let party = row.party()?;
        // The key may have been rotated since the token was made.
        let named = keys.iter().find(|(_, own)| own.kid == request.audience());
        let (Some((key, own)), Some((_, newest))) = (named, keys.first()) else {
            return Ok(Enrolment::Refused(Refusal::AudienceMismatch.into()));
        };
        let secret = row.encrypted_secret.as_deref();
        let secret = secret.ok_or_else(|| KeystoreError::damaged("enrolment token"))?;
        let secret = self.unwrap_token(row, "encrypted_secret", secret)?;
        let token = JoinToken { id: request.token(), secret };
        let opened = request.open(self.trust().domain(), (&party, &token), (own, key));
        let opened = match opened {
            Ok(opened) if u32::from(opened.kem().suite().to_wire()) == row.suite => opened,
            Ok(_) => return Ok(Enrolment::Refused(Refusal::SuiteNotAllowed.into())),
            Err(refusal) => return Ok(Enrolment::Refused(refusal.into())),
        };
        let keys = (*opened.signing(), opened.kem().clone());
        // An agent that comes back goes on counting: its former credential and request count no more.
        let last = credentials::newest(tx, row.principal_id, "agent").await?;
        let epoch = last.as_ref().map_or(1, |last| last.epoch.saturating_add(1));
        let new = NewHolder { principal_id: row.principal_id, party: party.clone(), epoch, keys };
        let credential = self.issue_agents(tx, vec![new], now).await?.pop();
        let credential = credential.ok_or_else(|| KeystoreError::damaged("new credential"))?;
        if last.is_some() {
            let reached = join::reached(tx, row.principal_id).await?;
            let counter = reached.map_or(0, |(counter, _)| counter).saturating_add(1);
            let (request, bytes) = (opened.digest(), credential.as_bytes());
            let request = request.as_bytes();
            join::insert_renewal(tx, row.principal_id, counter, request, bytes, seconds(now))
                .await?;
        }
        let answer = Answer {
            credential: credential.as_bytes().clone(),
            issuers: self.trust().issuers().map(|(_, bytes)| bytes.clone()).collect(),
            peers: vec![newest.as_bytes().clone()],
        };
        let random = &mut OsRandom::default();
        let answer = opened.answer(&answer, now, random).map_err(KeystoreError::Enrol)?;
        let place = row.place("encrypted_answer");
        let kek = current_kek(tx, &self.keks).await?;
        let wrapped = kek.wrap_key().wrap(random, &place, &answer)?;
        let (id, digest) = (request.token(), opened.digest());
        if off(Check::TokenOnce) {
            return Ok(Enrolment::Answered { party, answer: answer.to_vec(), again: false });
        }
        let bound =
            join::bind(tx, id.as_bytes(), digest.as_bytes(), &wrapped, seconds(now)).await?;
        if !bound {
            return Err(KeystoreError::damaged("enrolment token"));
        }
        Ok(Enrolment::Answered { party, answer: answer.to_vec(), again: false })
    }

    fn unwrap_token(
        &self,
        row: &TokenRow,
        column: &'static str,
        wrapped: &[u8],
    ) -> Result<Secret<32>> {
        self.keks.open_fixed(&row.place(column), wrapped, format!("token of {}", row.agent))
    }

    /// Revokes every credential of one incarnation of an agent. The next
    /// [statement](Self::statement) lists them.
    pub(super) async fn quarantine(&self, tx: &mut Conn, principal_id: i64) -> Result<()> {
        self.list_kids(tx, principal_id, 0).await?;
        self.check_room(tx).await
    }

    /// The ids of agents in quarantine: until they are removed, nothing is issued to them.
    pub async fn quarantined_agents(&self) -> Result<Vec<String>> {
        join::quarantined(&mut self.db.read().await?).await
    }

    /// How far an agent's enrolment has come; `None` if it was added with its keys.
    pub async fn join_state(&self, id: &str) -> Result<Option<JoinState>> {
        let principal = Principal::agent(id)?;
        let mut conn = self.db.read().await?;
        let row = principals::active(&mut conn, "agent", id).await?;
        let row = row.ok_or(KeystoreError::UnknownPrincipal(principal))?;
        let (tokens, renewals) = join::alarms(&mut conn, row.id).await?;
        let alarms = tokens.unsigned_abs().saturating_add(renewals.unsigned_abs());
        if alarms > 0 {
            return Ok(Some(JoinState::Quarantined { alarms }));
        }
        let Some((_, state, expires, _)) = join::newest(&mut conn, row.id).await? else {
            return Ok(None);
        };
        Ok(Some(match state.as_str() {
            "open" if expires <= seconds(self.now()) => JoinState::Expired,
            "open" => JoinState::Invited { until: from_column(expires).secs() },
            _ => JoinState::Joined,
        }))
    }
}
