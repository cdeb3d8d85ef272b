//! Who works with this process, as it is written down: in what is approved, and in the log.

use std::sync::OnceLock;

use super::RepositoryError;
use crate::base::text::is_unseen;

/// The longest name, in characters.
const NAME_MAX: usize = 100;

static OF_PROCESS: OnceLock<Option<String>> = OnceLock::new();

/// Makes this the process's author, once, as with passphrases: it is written deep inside an edit, which has no use for it.
/// An empty name is none: then nobody is written down. `None`: the login name.
pub fn install_author(name: Option<String>) -> Result<(), RepositoryError> {
    let name = match name {
        Some(name) => checked(name)?,
        None => login_name(),
    };
    let _ = OF_PROCESS.set(name);
    Ok(())
}

/// Who that is; without [`install_author`] the login name.
pub fn author() -> Option<String> {
    OF_PROCESS.get_or_init(login_name).clone()
}

fn checked(name: String) -> Result<Option<String>, RepositoryError> {
    let name = name.trim();
    if name.chars().any(is_unseen) || name.chars().count() > NAME_MAX {
        return Err(RepositoryError::AuthorName { max: NAME_MAX });
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// A login name that cannot be written is none.
fn login_name() -> Option<String> {
    ["LOGNAME", "USER"].iter().find_map(|variable| checked(std::env::var(variable).ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_of_one_line_and_an_empty_one_is_none() {
        assert_eq!(checked(" Alice Example ".to_owned()).unwrap().as_deref(), Some("Alice Example"));
        assert_eq!(checked(String::new()).unwrap(), None);
        for bad in ["a\nb".to_owned(), "\u{1b}[2J".to_owned(), "mal\u{202e}lory".to_owned(), "x".repeat(101)] {
            assert!(matches!(checked(bad), Err(RepositoryError::AuthorName { .. })));
        }
    }
}
