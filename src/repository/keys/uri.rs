//! PKCS#11 URIs (RFC 7512): which key on which token, and the library that reaches it.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _, path::PathBuf};

use percent_encoding::percent_decode_str;

/// The longest URI that is read, in bytes.
const URI_BYTES_MAX: usize = 4096;

/// A parsed URI. What it does not say fits anything.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct TokenUri {
    pub(super) text: String,
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) slot_id: Option<u64>,
    /// CKA_LABEL.
    pub(super) object: Option<String>,
    /// CKA_ID.
    pub(super) id: Option<Vec<u8>>,
    /// The library to load.
    pub(super) module_path: Option<PathBuf>,
    /// A file with the PIN.
    pub(super) pin_source: Option<PathBuf>,
}

impl fmt::Debug for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TokenUri {
    /// Parses a URI; else what is wrong with it. A PIN in it is refused, and never repeated.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URI_BYTES_MAX {
            return Err(format!("it is longer than {URI_BYTES_MAX} bytes"));
        }
        let rest = text.strip_prefix("pkcs11:").ok_or("it does not begin with pkcs11:")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self { text: text.to_owned(), ..Self::default() };
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = split(attribute)?;
            match name {
                "token" => put(&mut uri.token, name, string(name, value)?)?,
                "manufacturer" => put(&mut uri.manufacturer, name, string(name, value)?)?,
                "model" => put(&mut uri.model, name, string(name, value)?)?,
                "serial" => put(&mut uri.serial, name, string(name, value)?)?,
                "object" => put(&mut uri.object, name, string(name, value)?)?,
                "id" => put(&mut uri.id, name, percent_decode_str(value).collect())?,
                "slot-id" => {
                    let id = value.parse().map_err(|_| "slot-id is no number".to_owned())?;
                    put(&mut uri.slot_id, name, id)?;
                }
                "type" if ["private", "public"].contains(&value) => {}
                name => return Err(format!("its attribute {name} is not known here")),
            }
        }
        for attribute in query.split('&').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = split(attribute)?;
            match name {
                "module-path" => {
                    let path = OsString::from_vec(percent_decode_str(value).collect());
                    put(&mut uri.module_path, name, path.into())?;
                }
                "pin-source" => put(&mut uri.pin_source, name, pin_file(&string(name, value)?)?)?,
                "pin-value" => return Err("a PIN does not belong into it; name a file with pin-source".to_owned()),
                name => return Err(format!("its attribute {name} is not known here")),
            }
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err("it names no key; add object=LABEL or id=%01".to_owned());
        }
        Ok(uri)
    }
}

fn split(attribute: &str) -> Result<(&str, &str), String> {
    attribute.split_once('=').ok_or_else(|| "an attribute has no value".to_owned())
}

fn string(name: &str, value: &str) -> Result<String, String> {
    let decoded = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn put<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("it has {name} twice")),
        None => Ok(()),
    }
}

/// `file:/path`, or the path alone. A program (`|…`) is not run.
fn pin_file(source: &str) -> Result<PathBuf, String> {
    let path = source.strip_prefix("file:").unwrap_or(source);
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    if path.starts_with('/') { Ok(path.into()) } else { Err("pin-source is no file: with a whole path".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_of_rfc_7512_are_read() {
        let uri = "pkcs11:token=My%20HSM;serial=12;object=root;id=%01%FF;type=private?module-path=/lib/p11.so&pin-source=file:/run/pin";
        let parsed = TokenUri::parse(uri).unwrap();
        assert_eq!((parsed.token.as_deref(), parsed.serial.as_deref()), (Some("My HSM"), Some("12")));
        assert_eq!((parsed.object.as_deref(), parsed.id.as_deref()), (Some("root"), Some(&[1, 255][..])));
        assert_eq!(parsed.module_path, Some("/lib/p11.so".into()));
        assert_eq!(parsed.pin_source, Some("/run/pin".into()));
        for source in ["/run/pin", "file:///run/pin"] {
            let parsed = TokenUri::parse(&format!("pkcs11:object=a?pin-source={source}")).unwrap();
            assert_eq!(parsed.pin_source, Some("/run/pin".into()), "{source}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_no_pin_is_repeated() {
        for uri in [
            "object=root",
            "pkcs11:token=a",
            "pkcs11:object=a;object=b",
            "pkcs11:object=a;colour=red",
            "pkcs11:object=%FF",
            "pkcs11:object",
            "pkcs11:object=a;slot-id=one",
            "pkcs11:object=a?pin-source=|cat%20pin",
            "pkcs11:object=a?pin-source=pin",
            "pkcs11:object=a?pin-value=271828",
        ] {
            let why = TokenUri::parse(uri).unwrap_err();
            assert!(!why.contains("271828"), "{why}");
        }
        assert!(TokenUri::parse(&format!("pkcs11:object={}", "a".repeat(URI_BYTES_MAX))).is_err());
    }
}
