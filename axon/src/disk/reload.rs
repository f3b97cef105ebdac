//! What is read again while the daemon runs: settings, token and contacts, all of them or none.

use axon_proto::contacts::ContactsFile;
use axon_proto::id::AgentId;

use super::root::Root;
use super::{Config, ConfigError, DiskError, contacts, token};

/// What the files say now.
#[derive(Debug)]
pub struct Fresh {
    /// `config.toml`.
    pub config: Config,
    /// The client token.
    pub token: String,
    /// `contacts.toml`.
    pub contacts: ContactsFile,
}

/// Why nothing was read again.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Fresh {
    /// Reads the files of a root, for the agent `own`.
    pub fn read(root: &Root, own: AgentId) -> Result<Self, ReloadError> {
        let config = Config::load(&root.config())?;
        config.check_own(own)?;
        let contacts = contacts::load(&root.contacts(), own)?;
        let token = token::load_or_create(&config.token_path(root))?;
        Ok(Self { config, token, contacts })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axon_proto::id::PublicKey;

    use super::*;

    // shows: TRUST-CON-1
    #[test]
    fn all_is_read_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let own = PublicKey([1; 32]);
        let fresh = Fresh::read(&root, own.agent_id()).unwrap();
        assert_eq!(
            (fresh.config.port, fresh.contacts, fresh.token.len()),
            (7100, ContactsFile::default(), 64)
        );
        fs::write(root.contacts(), "paused = 1").unwrap();
        let error = Fresh::read(&root, own.agent_id()).unwrap_err().to_string();
        assert!(error.contains("contacts.toml, line 1, column 10"), "{error}");
        fs::remove_file(root.contacts()).unwrap();
        let peer =
            format!("[[peers]]\nagent_id = \"{}\"\npubkey = \"{own}\"\naddr = \"a:1\"", own.agent_id());
        fs::write(root.config(), peer).unwrap();
        assert!(Fresh::read(&root, own.agent_id()).is_err());
        fs::write(root.config(), "knock.open = true").unwrap();
        assert!(Fresh::read(&root, own.agent_id()).unwrap().config.knock.open);
        fs::write(root.token(), "short").unwrap();
        assert!(Fresh::read(&root, own.agent_id()).is_err());
    }
}
