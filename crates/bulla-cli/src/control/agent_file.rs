//! How the file that an agent starts with is packed for its way there, and what to say of it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::FormatArg;
use crate::commands::private_folder;
use crate::failure::{Failure, Result};

/// What is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A one-time token.
    Token,
    /// The agent's keys.
    Key,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "join",
            Self::Key => "key",
        }
    }

    /// The name of the file for an agent, in this format.
    pub(crate) fn file_name(self, id: &str, format: FormatArg) -> String {
        match format {
            FormatArg::File => format!("{id}.{}", self.as_str()),
            FormatArg::CloudInit => format!("{id}.{}.cloud-init.yaml", self.as_str()),
            FormatArg::ConfigDrive => format!("{id}.{}.config-drive", self.as_str()),
            FormatArg::Trove => format!("{id}.{}.guest_info.conf", self.as_str()),
        }
    }

    /// Where the file goes on the agent's machine.
    fn guest_path(self) -> String {
        format!("/etc/bulla/agent.{}", self.as_str())
    }
}

/// A file about to be written.
pub(crate) struct Packed<'a> {
    pub(crate) kind: Kind,
    pub(crate) format: FormatArg,
    pub(crate) id: &'a str,
    pub(crate) text: &'a Zeroizing<String>,
}

impl Packed<'_> {
    /// Writes it; waits for the disk if it is to be `durable`.
    pub(crate) fn write(&self, path: &Path, durable: bool) -> Result<()> {
        if self.format != FormatArg::ConfigDrive {
            return self.files().iter().try_for_each(|(_, text)| create(path, text, durable));
        }
        for (name, text) in self.files() {
            let path = path.join(name);
            path.parent().map_or(Ok(()), private_folder)?;
            create(&path, &text, durable)?;
        }
        Ok(())
    }

    /// What there is to write: names within the folder of a config drive, or the one file's own.
    pub(crate) fn files(&self) -> Vec<(String, Zeroizing<String>)> {
        let named = |text| vec![(self.kind.file_name(self.id, self.format), text)];
        match self.format {
            FormatArg::File => named(self.text.clone()),
            FormatArg::CloudInit => named(self.cloud_config()),
            FormatArg::Trove => named(self.guest_info()),
            FormatArg::ConfigDrive => {
                let meta = json!({ "uuid": self.id, "name": self.id, "hostname": self.id });
                let meta = Zeroizing::new(format!("{meta:#}\n"));
                let within = |name| format!("openstack/latest/{name}");
                vec![(within("meta_data.json"), meta), (within("user_data"), self.cloud_config())]
            }
        }
    }

    fn encoded(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.text.as_bytes()))
    }

    fn cloud_config(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "#cloud-config\n\
             # The {} file of agent/{}: keep it secret.\n\
             write_files:\n\
             \x20 - path: {}\n\
             \x20   owner: root:root\n\
             \x20   permissions: '0600'\n\
             \x20   encoding: b64\n\
             \x20   content: {}\n",
            self.kind.as_str(),
            self.id,
            self.kind.guest_path(),
            *self.encoded()
        ))
    }

    fn guest_info(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# The {kind} file of agent/{id}, for guest_info.conf: keep it secret.\n\
             [bulla]\n\
             {kind}_file = {}\n",
            *self.encoded(),
            kind = self.kind.as_str(),
            id = self.id,
        ))
    }
}

/// Writes a new file of mode 0600.
pub(crate) fn create(path: &Path, text: &Zeroizing<String>, durable: bool) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        if durable { file.sync_all() } else { Ok(()) }
    });
    written.map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))
}

/// Where the file goes, what to run there, and who can read it on the way.
pub(crate) fn instruction(kind: Kind, format: FormatArg, id: &str, path: &Path) -> Vec<String> {
    let (flag, file) = (kind.as_str(), path.display());
    let guest = kind.guest_path();
    let mut lines = match format {
        FormatArg::File => {
            return vec![
                "Take it to the agent's machine, mode 0600, and run there:".to_owned(),
                format!("  bulla agent run --{flag} {id}.{flag}"),
            ];
        }
        FormatArg::CloudInit => vec![
            "It is user data. Give it to the new machine:".to_owned(),
            format!("  openstack server create --user-data {file} ..."),
            "and let a service there run:".to_owned(),
            format!("  bulla agent run --{flag} {guest} --state /var/lib/bulla"),
        ],
        FormatArg::ConfigDrive => vec![
            "It is the content of a config drive. Make the drive, and attach it to the new \
             machine:"
                .to_owned(),
            format!("  genisoimage -R -V config-2 -o {id}.iso {file}"),
            "(or `openstack baremetal node deploy --config-drive`), and let a service there run:"
                .to_owned(),
            format!("  bulla agent run --{flag} {guest} --state /var/lib/bulla"),
        ],
        FormatArg::Trove => vec![
            "It is a fragment: append it to the guest_info.conf that Trove injects (it ends up in \
             /etc/trove/conf.d), mode 0600, and let a service on the guest run:"
                .to_owned(),
            format!(
                "  bulla agent run --{flag} /etc/trove/conf.d/guest_info.conf --state \
                 /var/lib/bulla"
            ),
        ],
    };
    // What was injected stays readable: say what that is worth.
    lines.push(match kind {
        Kind::Token => {
            "What is injected (user data, config drive) stays readable there. This is a \
                        one-time token: worth nothing once it was used, or its time is over."
                .to_owned()
        }
        Kind::Key => "What is injected (user data, config drive) stays readable there. This is \
                      the long-term key: whoever reads it, now or later, is this agent. Prefer \
                      --token where the agent can ask first."
            .to_owned(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use bulla_rpc::identity::Injected;

    use super::*;

    fn packed(text: &Zeroizing<String>, format: FormatArg) -> Packed<'_> {
        Packed { kind: Kind::Key, format, id: "db-1", text }
    }

    #[test]
    fn user_data_is_what_cloud_init_writes_back() {
        let text = Zeroizing::new("version = 1\n".to_owned());
        let config = packed(&text, FormatArg::CloudInit).cloud_config();
        assert!(config.starts_with("#cloud-config\n"));
        let content = config.lines().find_map(|l| l.trim().strip_prefix("content: ")).unwrap();
        assert_eq!(BASE64.decode(content).unwrap(), text.as_bytes());
        assert!(config.contains("  - path: /etc/bulla/agent.key\n    owner"), "{}", *config);
    }

    #[test]
    fn a_fragment_is_read_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest_info.conf");
        let text = Zeroizing::new("version = 7\n".to_owned());
        let fragment = packed(&text, FormatArg::Trove).guest_info();
        let whole = Zeroizing::new(format!("[DEFAULT]\nguest_id = 7\n{}", *fragment));
        create(&path, &whole, false).unwrap();
        // It was found and read: what is wrong is what stands in it.
        let said = Injected::read(&path).unwrap_err().to_string();
        assert!(said.contains("not a key file"), "{said}");
        bulla_rpc::identity::burn(&path).unwrap();
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left.contains("guest_id = 7") && !left.contains("key_file"), "{left}");
    }
}
