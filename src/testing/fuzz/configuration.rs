//! The configuration file.

use std::path::Path;

use crate::config::{Config, ConfigError, Overrides};

/// Whatever the text is, it is a configuration or an error in one line that names the file and a line of it.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = Path::new("/nowhere/at/all/tufgate.toml");
    match Config::parse(path, &text, &Overrides::default()) {
        Ok(config) => {
            assert!(!config.mounts.is_empty() && !config.repositories.is_empty());
            assert!(!config.state.dir.starts_with(&config.cache.dir), "deleting the cache would reset trust");
            for mount in &config.mounts {
                for name in mount.trust.repositories() {
                    assert!(config.repositories.iter().any(|repository| repository.name == name));
                }
            }
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n'), "{sentence:?}");
            if let ConfigError::Syntax { line, .. } = &error {
                assert!((1..=1 + text.matches('\n').count()).contains(line), "{sentence}");
            }
        }
    }
}
