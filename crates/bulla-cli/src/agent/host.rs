//! `host.facts`: what this machine is and how it is doing.

use bulla_rpc::{HandlerResult, RemoteError, kinds};
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// Facts of this machine. Sizes are in bytes, times in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) hostname: String,
    pub(crate) kernel: Kernel,
    pub(crate) os: Os,
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    pub(crate) disks: Vec<Disk>,
    /// Since it was started.
    pub(crate) uptime: u64,
    /// When it was started, since the Unix epoch.
    pub(crate) boot_time: u64,
    pub(crate) load: Load,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) architecture: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Os {
    /// Such as `debian`.
    pub(crate) id: String,
    /// For people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub(crate) name: String,
    pub(crate) version: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) model: Option<String>,
    /// What runs at the same time, hyper-threads counted.
    pub(crate) cores: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What can be had without swapping.
    pub(crate) available: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) mount: String,
    pub(crate) device: String,
    pub(crate) file_system: String,
    pub(crate) size: u64,
    /// For users other than root.
    pub(crate) free: u64,
}

/// Averages of how many want to run, over 1, 5 and 15 minutes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) one: f64,
    pub(crate) five: f64,
    pub(crate) fifteen: f64,
}

/// The facts as they are now. Off the async threads: a file system on the network can be slow.
pub(crate) async fn facts() -> HandlerResult<Facts> {
    let failed = |error: String| {
        RemoteError::new(kinds::INTERNAL, format!("the machine's facts can't be read: {error}"))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn read() -> Result<Facts, sysinfo::Error> {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(what)?;
    let name = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    let load = System::load_average()?;
    Ok(Facts {
        hostname: text(name.nodename()),
        kernel: Kernel {
            name: text(name.sysname()),
            release: text(name.release()),
            architecture: text(name.machine()),
        },
        os: Os {
            id: System::distribution_id(),
            name: System::long_os_version().unwrap_or_else(|_| text(name.sysname())),
            version: System::os_version().ok(),
        },
        cpu: cpu(&system),
        memory: Memory {
            total: system.total_memory(),
            available: system.available_memory(),
            swap_total: system.total_swap(),
            swap_free: system.free_swap(),
        },
        disks: disks()?,
        uptime: System::uptime()?,
        boot_time: System::boot_time()?,
        load: Load { one: load.one, five: load.five, fifteen: load.fifteen },
    })
}

fn cpu(system: &System) -> Cpu {
    let cpus = system.cpus();
    let model = cpus.first().map(|cpu| cpu.brand().trim().to_owned());
    Cpu { model: model.filter(|model| !model.is_empty()), cores: cpus.len() }
}

/// File systems that hold something, each once.
fn disks() -> Result<Vec<Disk>, sysinfo::Error> {
    let disks = Disks::new_with_refreshed_list()?;
    let mut found: Vec<Disk> = disks
        .iter()
        .filter(|disk| disk.total_space() > 0)
        .map(|disk| Disk {
            mount: disk.mount_point().to_string_lossy().into_owned(),
            device: disk.name().to_string_lossy().into_owned(),
            file_system: disk.file_system().to_string_lossy().into_owned(),
            size: disk.total_space(),
            free: disk.available_space(),
        })
        .collect();
    found.sort_by(|a, b| a.mount.cmp(&b.mount));
    found.dedup_by(|a, b| a.mount == b.mount);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc(file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{file}")).unwrap()
    }

    #[tokio::test]
    async fn the_facts_are_this_machines() {
        let before: f64 = proc("uptime").split(' ').next().unwrap().parse().unwrap();
        let facts = facts().await.unwrap();
        assert_eq!(facts.hostname, proc("sys/kernel/hostname").trim());
        assert_eq!(facts.kernel.name, "Linux");
        assert_eq!(facts.kernel.release, proc("sys/kernel/osrelease").trim());
        let cores = proc("cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        assert_eq!(facts.cpu.cores, cores);
        let total = proc("meminfo").lines().next().unwrap().to_owned();
        let total: u64 = total.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(facts.memory.total, total * 1024);
        assert!(facts.memory.available > 0 && facts.memory.available <= facts.memory.total);
        assert!(facts.uptime + 1 >= before as u64);
        let booted = proc("stat");
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        assert!(facts.boot_time.abs_diff(booted.parse().unwrap()) <= 2);
        assert!(facts.disks.iter().all(|disk| disk.free <= disk.size && !disk.mount.is_empty()));
        assert!(!facts.os.name.is_empty());
    }

    #[tokio::test]
    async fn the_facts_travel() {
        let facts = facts().await.unwrap();
        let bytes = bulla_rpc::value::to_vec(&facts).unwrap();
        let value: serde_json::Value = bulla_rpc::value::decode(&bytes).unwrap();
        assert_eq!(value["hostname"], facts.hostname);
        assert_eq!(value["memory"]["total"], facts.memory.total);
    }
}
