//! The password of an agent's own broker user, which changes with its keys. The agent makes the next
//! one itself and writes it down before anybody is told, with the former one beside it, so that
//! whichever of the two the broker has just now lets it in.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulla_seal::{OsRandom, Random};
use bulla_transport::{Login, TransportEvent, with_password};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use zeroize::Zeroizing;

use super::wire::{self, LoginAnswer, LoginArgs};
use super::{RenewalError, Renewer};
use crate::identity::{self, KeyFile};

/// Bytes of a password, before they are text.
const PASSWORD: usize = 32;
/// How often it is asked again after the connection was closed, which is what was asked for.
const ATTEMPTS: u32 = 4;

/// How long is waited while somebody else is logged in as this agent.
const LATER: Duration = Duration::from_secs(20);

enum Asked {
    Done,
    Later,
    /// The connection was closed meanwhile.
    Lost,
}

impl Renewer {
    /// Whether the broker may not have the password yet that is in the key file, and it is time to
    /// ask for that.
    pub fn is_login_under_way(&self) -> bool {
        let pending = self.file.bus.as_ref().is_some_and(|bus| bus.login_pending);
        let due = self.login_again.is_none_or(|again| again <= Instant::now());
        pending && due && self.endpoint().transport().logins().is_some()
    }

    /// Last step for the broker's password: has the control plane make it the broker's, and close
    /// what was opened with the former one. Does nothing if that is done.
    ///
    /// # Errors
    /// The control plane or the broker can't do it now: the agent goes on with both passwords.
    pub async fn renew_login(&mut self) -> Result<(), RenewalError> {
        if !self.is_login_under_way() {
            return Ok(());
        }
        let _alone = self.lock()?;
        self.settle_login().await
    }

    pub(super) async fn settle_login(&mut self) -> Result<(), RenewalError> {
        if !self.is_login_under_way() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            match self.ask_for_login().await? {
                Asked::Done => return self.login_is_done(),
                Asked::Later => {
                    self.login_again = Instant::now().checked_add(LATER);
                    return Ok(());
                }
                Asked::Lost => {}
            }
        }
        Err(RenewalError::Login("the connection was closed each time".to_owned()))
    }

    fn login_is_done(&mut self) -> Result<(), RenewalError> {
        let mut file = self.on_disk()?;
        if let Some(bus) = &mut file.bus {
            bus.login_pending = false;
        }
        identity::replace(&self.path, &file)?;
        self.use_logins_of(&file);
        self.file = file;
        Ok(())
    }

    async fn ask_for_login(&self) -> Result<Asked, RenewalError> {
        let present = self.credential().ok_or(RenewalError::Shared)?;
        let (transport, bus) = (self.endpoint().transport(), self.file.bus.as_ref());
        let login = bus.and_then(|bus| Login::of_url(&bus.url));
        let (Some(logins), Some(login)) = (transport.logins(), login) else {
            return Ok(Asked::Done);
        };
        let mut events = transport.events();
        let args = LoginArgs {
            kid: present.kid.to_string(),
            password: login.password.to_string(),
            used: logins.newest_is_used(),
        };
        tokio::select! {
            asked = self.call::<_, LoginAnswer>(wire::LOGIN, &args) => {
                let answer = asked.map_err(|error| RenewalError::Login(error.to_string()))?;
                Ok(if answer.done { Asked::Done } else { Asked::Later })
            }
            () = lost(&mut events) => Ok(Asked::Lost),
        }
    }

    /// Puts the next password into a key file that is about to be written, if `user` is whom it
    /// logs in as. One that may not be the broker's yet stays: nobody knows which of three it would
    /// be otherwise.
    pub(super) fn next_login(&self, file: &mut KeyFile, user: &str) -> Result<(), RenewalError> {
        let changes = self.endpoint().transport().logins().is_some();
        let Some(bus) = file.bus.as_mut().filter(|bus| changes && !bus.login_pending) else {
            return Ok(());
        };
        if Login::of_url(&bus.url).is_none_or(|login| login.user != user) {
            return Ok(());
        }
        let mut bytes = Zeroizing::new([0; PASSWORD]);
        OsRandom::default().fill(&mut *bytes)?;
        let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        if let Some(next) = with_password(&bus.url, &password) {
            bus.former_url = Some(std::mem::replace(&mut bus.url, next.to_string()));
            bus.login_pending = true;
        }
        Ok(())
    }

    /// From now on the transport comes back with what is in `file`.
    pub(super) fn use_logins_of(&self, file: &KeyFile) {
        if let (Some(logins), Some(bus)) = (self.endpoint().transport().logins(), &file.bus) {
            logins.set_urls(bus.urls());
        }
    }
}

/// Resolves when the connection is lost.
async fn lost(events: &mut Receiver<TransportEvent>) {
    loop {
        match events.recv().await {
            Ok(TransportEvent::Lost { .. }) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
