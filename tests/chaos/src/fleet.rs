//! Two worker processes that are started again whenever they end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failed;
use crate::dice::Dice;
use crate::progress::Progress;
use crate::settings::{Death, Point, Settings};
use crate::worker::READY;

/// Only a worker that hangs takes longer to start.
const START_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
const KILL_AFTER_AT_MOST: Duration = Duration::from_secs(3);

/// How workers die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deaths {
    /// They are left alone.
    None,
    /// `kill -9` at random moments.
    Random,
    /// By their own hand, at each point in turn.
    AtPoints,
    /// By their own hand, at this point.
    At(Point),
}

pub(crate) struct Fleet {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    up: [watch::Receiver<bool>; 2],
}

struct Shared {
    program: PathBuf,
    deaths: Deaths,
    dice: Dice,
    /// Calls in the whole run: the more, the longer a worker lives, so that a long run is one of
    /// calls and not of restarts.
    calls: u64,
    progress: Arc<Progress>,
    stop: CancellationToken,
    lives: AtomicUsize,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

impl Fleet {
    pub(crate) fn start(
        program: PathBuf,
        workers: [Settings; 2],
        deaths: Deaths,
        (calls, seed): (u64, u64),
        progress: Arc<Progress>,
    ) -> Self {
        let shared = Arc::new(Shared {
            program,
            deaths,
            dice: Dice::new(seed),
            calls,
            progress,
            stop: CancellationToken::new(),
            lives: AtomicUsize::new(0),
            ended: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let up = workers.map(|settings| {
            let (tell, up) = watch::channel(false);
            tasks.spawn(shared.clone().keep(settings, tell));
            up
        });
        Self { shared, tasks, up }
    }

    /// Waits until both serve.
    pub(crate) async fn ready(&mut self) -> Result<(), Failed> {
        for up in &mut self.up {
            tokio::time::timeout(2 * START_LIMIT, up.wait_for(|up| *up))
                .await
                .map_err(|_| "the workers don't start")??;
        }
        Ok(())
    }

    /// Ends both; how workers ended before, and how often.
    pub(crate) async fn stop(self) -> BTreeMap<String, u64> {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let ended = self.shared.ended.lock();
        ended.iter().map(|(how, times)| ((*how).to_owned(), *times)).collect()
    }
}

impl Shared {
    async fn keep(self: Arc<Self>, settings: Settings, up: watch::Sender<bool>) {
        while !self.stop.is_cancelled() {
            let death = self.death();
            let settings = Settings { death, ..settings.clone() };
            let life = self.one_life(&settings, &up);
            let ended = tokio::select! {
                ended = life => ended,
                () = self.stop.cancelled() => return,
            };
            match ended {
                Ok(how) => *self.ended.lock().entry(how).or_default() += 1,
                Err(_) => {
                    *self.ended.lock().entry("not-started").or_default() += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn death(&self) -> Option<Death> {
        let lives = self.lives.fetch_add(1, Relaxed);
        let point = match self.deaths {
            Deaths::AtPoints => Point::ALL.get(lives % Point::ALL.len()).copied()?,
            Deaths::At(point) => point,
            Deaths::None | Deaths::Random => return None,
        };
        Some(Death { point, passing: self.dice.between(8, (self.calls / 50).max(40)) })
    }

    /// From its start to its death. It is killed when this is dropped.
    async fn one_life(
        &self,
        settings: &Settings,
        up: &watch::Sender<bool>,
    ) -> Result<&'static str, Failed> {
        let (mut child, _stdin) =
            tokio::time::timeout(START_LIMIT, start(&self.program, settings)).await??;
        up.send_replace(true);
        if self.deaths == Deaths::Random {
            let calls = self.progress.ended() + self.dice.between(5, (self.calls / 50).max(60));
            if self.progress.reach(calls, KILL_AFTER_AT_MOST).await {
                tokio::time::sleep(self.dice.millis(0, 20)).await;
                child.kill().await?;
                return Ok("killed");
            }
        }
        let status = child.wait().await?;
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        Ok(match settings.death {
            Some(death) if killed => death.point.as_str(),
            _ => "fell",
        })
    }
}

async fn start(program: &PathBuf, settings: &Settings) -> Result<(Child, ChildStdin), Failed> {
    let mut child = Command::new(program)
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("a worker has no standard input")?;
    let stdout = child.stdout.take().ok_or("a worker has no standard output")?;
    stdin.write_all(format!("{}\n", serde_json::to_string(settings)?).as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    if line.trim_end() != READY {
        return Err("the worker did not start".into());
    }
    Ok((child, stdin))
}
