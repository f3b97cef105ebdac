//! `ipc-token`: what a client shows where the system does not tell the daemon whose it is.

use std::path::Path;

use super::files::{self, DiskError, MODE_PRIVATE};

/// Hexadecimal digits of a token.
pub const TOKEN_DIGITS: usize = 64;
/// The token's file, in bytes.
const TOKEN_FILE_BYTES_MAX: usize = 256;

/// The token in this file, made if there is none.
pub fn load_or_create(path: &Path) -> Result<String, DiskError> {
    match load(path) {
        Err(error) if error.is_missing() => {}
        result => return result,
    }
    let token = files::random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if files::create_atomic(path, format!("{token}\n").as_bytes(), MODE_PRIVATE)? {
        Ok(token)
    } else {
        load(path)
    }
}

/// The token in this file, in lowercase.
pub fn load(path: &Path) -> Result<String, DiskError> {
    let bytes = files::read_private(path, TOKEN_FILE_BYTES_MAX)?;
    let text = bytes.trim_ascii();
    if text.len() != TOKEN_DIGITS || !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(DiskError::Refused(format!(
            "{} does not hold {TOKEN_DIGITS} hexadecimal digits: remove it, and the daemon makes a new one",
            path.display()
        )));
    }
    Ok(text.iter().map(|digit| char::from(digit.to_ascii_lowercase())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_then_read_and_refused_when_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipc-token");
        let token = load_or_create(&path).unwrap();
        assert!(token.len() == TOKEN_DIGITS && token.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_eq!(load_or_create(&path).unwrap(), token);

        files::write_atomic(&path, token.to_uppercase().as_bytes(), MODE_PRIVATE).unwrap();
        assert_eq!(load(&path).unwrap(), token);
        files::set_mode(&path, 0o604).unwrap();
        assert!(load_or_create(&path).is_err());
        for wrong in ["", "abc", &format!("{token}0"), &"g".repeat(64)] {
            files::write_atomic(&path, wrong.as_bytes(), MODE_PRIVATE).unwrap();
            assert!(
                load_or_create(&path).unwrap_err().to_string().contains("64 hexadecimal digits"),
                "{wrong}"
            );
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        assert!(load_or_create(&link).unwrap_err().to_string().contains("is a link"));
    }
}
