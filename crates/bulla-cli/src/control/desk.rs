//! Where a deployment is changed: by a command, or by the API for an operator. What is done is the
//! same; only where it is written down differs.

use std::sync::Arc;

use bulla_journal::{Event, Events};
use bulla_keystore::Keystore;

use super::logins::Logins;
use super::{open_keystore, queue_bus};
use crate::failure::Result;
use crate::journal::CommandJournal;
use crate::settings::{Home, Settings};

/// What a change needs.
pub(crate) struct Desk {
    pub(crate) home: Home,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keystore: Keystore,
    logins: Option<Arc<Logins>>,
    book: Book,
}

/// Where it is written down what was done.
enum Book {
    Command(CommandJournal),
    Process(Events),
}

impl Desk {
    /// For one command. The journal is opened before anything is done.
    pub(crate) async fn open(home: &Home) -> Result<Self> {
        let settings = Arc::new(Settings::load(home.dir())?);
        let keystore = open_keystore(home).await?;
        let book = Book::Command(CommandJournal::open(home).await?);
        Ok(Self { home: home.clone(), settings, keystore, logins: None, book })
    }

    /// Has key files name the queue service that runs here, whatever the bus is otherwise.
    pub(crate) fn over_queue(&mut self) -> Result<()> {
        let mut settings = (*self.settings).clone();
        queue_bus::for_key_files(&self.home, &mut settings)?;
        self.settings = Arc::new(settings);
        Ok(())
    }

    /// For a process that runs.
    pub(crate) fn of_process(
        home: &Home,
        settings: &Settings,
        keystore: &Keystore,
        logins: &Arc<Logins>,
        events: &Events,
    ) -> Self {
        Self {
            home: home.clone(),
            settings: Arc::new(settings.clone()),
            keystore: keystore.clone(),
            logins: Some(logins.clone()),
            book: Book::Process(events.clone()),
        }
    }

    /// Who makes agents' logins at the broker.
    pub(crate) fn logins(&self) -> Result<Arc<Logins>> {
        match &self.logins {
            Some(logins) => Ok(logins.clone()),
            None => Ok(Arc::new(Logins::new(&self.settings, &self.keystore)?)),
        }
    }

    /// Writes down what was done.
    pub(crate) fn record(&self, event: impl Into<Event>) {
        match &self.book {
            Book::Command(journal) => journal.record(event),
            Book::Process(events) => events.emit(event),
        }
    }

    /// Waits until what a command did is on the disk.
    pub(crate) fn flush(&self) -> Result<()> {
        match &self.book {
            Book::Command(journal) => journal.flush(),
            Book::Process(_) => Ok(()),
        }
    }

    /// Ends a command.
    ///
    /// # Errors
    /// What it did is not in the journal.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { keystore, book, .. } = self;
        keystore.close().await;
        match book {
            Book::Command(journal) => journal.finish(),
            Book::Process(_) => Ok(()),
        }
    }
}
