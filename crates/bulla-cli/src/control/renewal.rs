//! The control plane's half of renewal (protocol section 10): the methods of namespace `renewal`.
//! Who asks is proven by the seal, and under which credential; that the new key is theirs, by its
//! signature.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_broker::Password;
use bulla_journal::{Events, Text, events};
use bulla_keystore::{Keystore, KeystoreError, RenewRefusal, Renewal, Renewed};
use bulla_rpc::renewal::wire::{
    self, AudienceKey, HoldArgs, LoginAnswer, LoginArgs, ReceiveAnswer, ReceiveArgs, RenewAnswer,
    RenewArgs,
};
use bulla_rpc::{
    Clock, Context, HandlerResult, Method, RemoteError, Router, SystemClock, directory, kinds,
};
use bulla_seal::{KemPublicKey, KemSecretKey, Party, Principal, RenewalClaims, SignedCredential};

use super::CONTROL;
use super::logins::Logins;

/// How long after the time at which a credential is to be renewed every copy of its agent that runs
/// has asked for the next one, in seconds.
const COPIES_SHOW_UP: u64 = 3600;

/// Adds the methods to the directory's.
pub(crate) fn with_renewal(
    router: Router,
    keystore: &Keystore,
    logins: &Arc<Logins>,
    events: &Events,
) -> Router {
    let (keystore, logins, events) = (keystore.clone(), logins.clone(), events.clone());
    let service = Service { keystore, logins, events };
    let login = service.clone();
    let (agent, hold, host, receive) = (service.clone(), service.clone(), service.clone(), service);
    let open = |method: Method| method.namespace(wire::NAMESPACE).idempotent().of_the_protocol();
    router
        .with(
            open(Method::new(wire::AGENT, move |context: Context, args: RenewArgs| {
                let service = agent.clone();
                async move { service.agent(&context, &args).await }
            }))
            .open_to_agents(),
        )
        .with(
            open(Method::new(wire::HOLD, move |context: Context, args: HoldArgs| {
                let service = hold.clone();
                async move { service.hold(&context, &args).await }
            }))
            .open_to_agents(),
        )
        .with(
            open(Method::new(wire::LOGIN, move |context: Context, args: LoginArgs| {
                let service = login.clone();
                async move { service.login(&context, &args).await }
            }))
            .open_to_agents(),
        )
        .with(
            open(Method::new(wire::HOST, move |context: Context, args: RenewArgs| {
                let service = host.clone();
                async move { service.host(&context, &args).await }
            }))
            .open_to_components(),
        )
        .with(
            open(Method::new(wire::RECEIVE, move |context: Context, args: ReceiveArgs| {
                let service = receive.clone();
                async move { service.receive(&context, &args).await }
            }))
            .open_to_components(),
        )
}

#[derive(Clone)]
struct Service {
    keystore: Keystore,
    logins: Arc<Logins>,
    events: Events,
}

impl Service {
    /// An agent's next credential.
    async fn agent(&self, context: &Context, args: &RenewArgs) -> HandlerResult<RenewAnswer> {
        let (claims, request) = self.claims(context, args)?;
        let present = present(context)?;
        let Some(kem) = claims.kem.clone() else {
            return Err(bad("it names no key to receive with"));
        };
        if present.kem.as_ref().map(KemPublicKey::suite) != Some(kem.suite()) {
            return Err(bad("the new key to receive with is of another suite"));
        }
        let renewal = Renewal {
            party: claims.party.clone(),
            credential: claims.credential,
            counter: claims.counter,
            request: RenewalClaims::digest(&request),
            signing: claims.signing,
            kem,
        };
        match self.keystore.renew_agent(&renewal).await.map_err(broken)? {
            Renewed::Issued { credential, again } => {
                let (agent, epoch) = (claims.party.clone(), credential.epoch);
                self.events.emit(events::AgentRenewed { agent, epoch, again });
                let broker_user = self.broker_user(claims.party.principal.name()).await;
                Ok(RenewAnswer { broker_user, ..self.answer(&credential).await? })
            }
            Renewed::Refused(refusal) => {
                let (name, alarm) = (refusal.as_str(), refusal.is_alarm());
                if let RenewRefusal::Cloned(party) = &refusal {
                    let agent = party.principal.clone();
                    self.events.emit(events::AgentQuarantined { agent, refusal: name });
                    self.logins.cut_quarantined(&self.keystore, party.principal.name());
                }
                let (sender, why) = (claims.party.clone(), Text::of(&refusal));
                self.events.emit(events::RenewalRefused { refusal: name, sender, alarm, why });
                Err(RemoteError::new(name, refusal.to_string()))
            }
        }
    }

    /// The agent has its credential: peers are told of it.
    async fn hold(&self, context: &Context, args: &HoldArgs) -> HandlerResult<()> {
        let sender = context.sender();
        let kid = directory::wire::kid(&args.kid).ok_or_else(|| bad("a kid has 16 hex digits"))?;
        let news = self.keystore.confirm_renewal(sender, kid).await.map_err(broken)?;
        tracing::debug!(agent = %sender, %kid, news, "an agent has its new keys");
        Ok(())
    }

    /// The agent's broker user, if it has a password. A broker that does not answer is no reason to
    /// renew no keys.
    async fn broker_user(&self, id: &str) -> Option<String> {
        match self.logins.user_with_password(id).await {
            Ok(user) => user,
            Err(error) => {
                tracing::warn!(%error, agent = id, "its broker password is not changed this time");
                None
            }
        }
    }

    /// The password that an agent made for its broker user, which it has written down.
    async fn login(&self, context: &Context, args: &LoginArgs) -> HandlerResult<LoginAnswer> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let password = Password::parse(&args.password);
        let password = password.ok_or_else(|| bad("a password is 32 bytes in base64url"))?;
        let id = sender.principal.name();
        let alone = self.must_be_alone(id, &args.kid).await?;
        if args.used {
            // It let the agent in.
            let agent = sender.principal.clone();
            self.events.emit(events::BrokerLoginChanged { agent });
            return Ok(LoginAnswer { done: true });
        }
        let changed = self.logins.change(id, &password, alone).await.map_err(|error| {
            tracing::error!(%error, agent = id, "its broker password could not be changed");
            RemoteError::new(kinds::INTERNAL, "the control plane can't change it just now")
        })?;
        if let Some(connections) = &changed {
            tracing::warn!(
                agent = id,
                connections = connections.join(", "),
                "more than one process is logged in at the broker as this agent, so that its \
                 password is not changed yet: if it goes on, there is a copy of the agent"
            );
        }
        Ok(LoginAnswer { done: changed.is_none() })
    }

    /// Whether the agent's password may change only while nobody else is logged in with the present
    /// one. A copy of the agent has the former credential, and asks for the next one when that is due:
    /// it is let in until an hour after, so that it is noticed.
    async fn must_be_alone(&self, id: &str, kid: &str) -> HandlerResult<bool> {
        let details = self.keystore.show_agent(id).await.map_err(broken)?;
        let mut held = details.credentials.iter().filter(|own| own.handed_out);
        // An old request that was held back on the way must not bring an old password back.
        if held.next().is_none_or(|newest| newest.credential.kid.to_string() != kid) {
            return Err(bad("it is not under the agent's newest credential"));
        }
        let now = SystemClock.now().secs();
        Ok(held.next().is_some_and(|former| {
            former.credential.renew_at().saturating_add(COPIES_SHOW_UP) > now
        }))
    }

    /// The next signing credential of a host with a key file.
    async fn host(&self, context: &Context, args: &RenewArgs) -> HandlerResult<RenewAnswer> {
        let (claims, _) = self.claims(context, args)?;
        let present = present(context)?;
        let (name, instance) = (host(context.sender())?, claims.instance.as_deref());
        let Some(instance) = instance.filter(|asked| present.instance.as_deref() == Some(asked))
        else {
            return Err(bad("it is not of the host that asks"));
        };
        self.check_living(context.sender()).await?;
        let renewed = self.keystore.renew_host(name, instance, claims.signing, present.kid).await;
        let credential = renewed.map_err(broken)?.ok_or_else(revoked)?;
        let component = context.sender().principal.clone();
        self.events.emit(events::HostRenewed { component, host: Text::new(instance) });
        self.answer(&credential).await
    }

    /// What a component type receives with, for a host of it.
    async fn receive(&self, context: &Context, args: &ReceiveArgs) -> HandlerResult<ReceiveAnswer> {
        let (present, name) = (present(context)?, host(context.sender())?);
        self.check_living(context.sender()).await?;
        let keys = self.keystore.host_keys(name, present.kid).await.map_err(broken)?;
        let keys = keys.ok_or_else(revoked)?;
        let kids: Vec<String> = keys.iter().map(|(_, own)| own.kid.to_string()).collect();
        let keys = (kids != args.have).then(|| keys.iter().map(audience_key).collect());
        Ok(ReceiveAnswer { keys })
    }

    /// The claims of a request, and its bytes: by the sender, about the credential under which it
    /// asks, signed by the new key.
    fn claims(
        &self,
        context: &Context,
        args: &RenewArgs,
    ) -> HandlerResult<(RenewalClaims, Vec<u8>)> {
        let bytes = BASE64.decode(&args.request).map_err(bad)?;
        let trust = self.keystore.trust_store();
        let claims = RenewalClaims::verify(&bytes, trust.domain()).map_err(bad)?;
        let present = present(context)?;
        if claims.party != *context.sender() || claims.credential != present.kid {
            return Err(bad("it is not about the credential under which it is asked for"));
        }
        if claims.party.principal.is_agent() && claims.counter != u64::from(present.epoch) {
            return Err(bad("its counter is not that of the credential"));
        }
        Ok((claims, bytes))
    }

    async fn answer(&self, credential: &SignedCredential) -> HandlerResult<RenewAnswer> {
        let control = Principal::component(CONTROL).map_err(bad)?;
        let control = self.keystore.credential(&control).await.map_err(broken)?;
        Ok(RenewAnswer {
            credential: BASE64.encode(credential.as_bytes()),
            peers: vec![BASE64.encode(control.as_bytes())],
            broker_user: None,
        })
    }

    /// A credential outlives its holder's removal; what it gets with it does not.
    async fn check_living(&self, sender: &Party) -> HandlerResult<()> {
        match self.keystore.party(&sender.principal).await {
            Ok(living) if living == *sender => Ok(()),
            Ok(_) | Err(KeystoreError::UnknownPrincipal(_)) => {
                Err(not_permitted(&format!("{sender} was removed")))
            }
            Err(error) => Err(broken(error)),
        }
    }
}

fn audience_key((key, credential): &(KemSecretKey, SignedCredential)) -> AudienceKey {
    AudienceKey {
        suite: key.suite().as_str().to_owned(),
        key: BASE64.encode(key.expose()),
        credential: BASE64.encode(credential.as_bytes()),
    }
}

/// The credential under which a call was sealed.
fn present(context: &Context) -> HandlerResult<&SignedCredential> {
    let why = "a shared key has no credential to renew: the agent has to be added anew";
    context.credential().ok_or_else(|| not_permitted(why))
}

/// The component type of a host with a key file.
fn host(sender: &Party) -> HandlerResult<&str> {
    match sender.principal.name() {
        CONTROL => Err(not_permitted("the control plane has its keys from its keystore")),
        name => Ok(name),
    }
}

fn revoked() -> RemoteError {
    RemoteError::new("renew-host-revoked", "this host was revoked")
}

fn bad(why: impl ToString) -> RemoteError {
    RemoteError::new(
        kinds::BAD_ARGUMENTS,
        format!("the request can't be used: {}", why.to_string()),
    )
}

fn not_permitted(why: &str) -> RemoteError {
    RemoteError::new(kinds::NOT_PERMITTED, why)
}

fn broken(error: KeystoreError) -> RemoteError {
    tracing::error!(%error, "a credential could not be renewed");
    RemoteError::new(kinds::INTERNAL, "the control plane can't renew credentials just now")
}
