//! Keys on PKCS#11 tokens: HSMs, smart cards, YubiKeys. The private key never leaves the token.
//!
//! The library that reaches a token is named by the URI's `module-path` or by `TUFGATE_PKCS11_MODULE`. It is loaded once
//! and initialised once for the process. A PIN that was wrong is not presented again: tokens lock after a few.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
        rsa::{PkcsMgfType, PkcsPssParams},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use sha2::{Digest as _, Sha256, Sha384};
use spki::{
    ObjectIdentifier,
    der::{
        Decode as _, Encode as _,
        asn1::{OctetStringRef, UintRef},
    },
};

use super::{
    super::RepositoryError,
    PublicPart, Signer, TokenFile,
    public::Curve,
    secrets::{Secret, SecretKind, Secrets, Wanted, from_file},
    token_file,
    uri::TokenUri,
};
use crate::tuf::PublicKey;

/// The variable that names the library where a URI does not.
const MODULE_VARIABLE: &str = "TUFGATE_PKCS11_MODULE";

/// A private key on a token, in a session that is logged in.
pub struct TokenKey {
    public: PublicPart,
    uri: TokenUri,
    key: ObjectHandle,
    /// What the token can sign with.
    mechanisms: Vec<MechanismType>,
    /// Where the token wants the PIN before each signature (CKA_ALWAYS_AUTHENTICATE), as a YubiKey's PIV slot 9c does.
    each_time: Option<Login>,
    session: Mutex<Session>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("uri", &self.uri).field("keyid", &self.public.keyid).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Finds the public key that a URI names and writes the file by which repositories know it. Nothing may exist at
    /// `path`, which ends in `.token.json`.
    pub fn register(uri: &str, path: &Path, secrets: &Secrets) -> Result<TokenFile, RepositoryError> {
        if !token_file::is_one(path) {
            let why = "the file of a key on a token is called NAME.token.json".to_owned();
            return Err(RepositoryError::BadKey { path: path.to_owned(), why });
        }
        let uri = parse(uri)?;
        let token = Token::find(&uri, secrets)?;
        let session = token.open_session()?;
        // Public keys can mostly be seen by anybody; where not, whoever has the PIN sees them.
        let public = match token.public(&session)? {
            Some(public) => public,
            None => {
                token.login(&session, secrets)?;
                token.public(&session)?.ok_or_else(|| token.absent("public"))?
            }
        };
        let file = TokenFile { uri: uri.text.clone(), public };
        token_file::write(path, &file)?;
        Ok(file)
    }

    /// Opens the private key that a token file names; the PIN comes from the URI's `pin-source` or from `secrets`.
    pub fn open(file: TokenFile, secrets: &Secrets) -> Result<Self, RepositoryError> {
        let uri = parse(&file.uri)?;
        let token = Token::find(&uri, secrets)?;
        let session = token.open_session()?;
        let login = token.login(&session, secrets)?;
        let key = token.one(&session, ObjectClass::PRIVATE_KEY)?.ok_or_else(|| token.absent("private"))?;
        let failed = failed(&uri);
        let always = session.get_attributes(key, &[AttributeType::AlwaysAuthenticate]).unwrap_or_default();
        let each_time = always.contains(&Attribute::AlwaysAuthenticate(true)).then_some(login);
        let mechanisms = token.module.get_mechanism_list(token.slot).map_err(failed)?;
        Ok(Self { public: file.public, uri, key, mechanisms, each_time, session: Mutex::new(session) })
    }

    /// The mechanism, and what it is given: the message, or its digest where the token does not hash.
    fn mechanism(&self, message: &[u8]) -> Result<(Mechanism<'static>, Vec<u8>), RepositoryError> {
        let can = |mechanism| self.mechanisms.contains(&mechanism);
        // Without a hash the mechanism has one part only, between whose beginning and end this binding cannot log in.
        let hashes = self.each_time.is_some();
        Ok(match self.public.scheme.as_str() {
            "ed25519" => (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), message.to_vec()),
            "ecdsa-sha2-nistp256" if hashes && can(MechanismType::ECDSA_SHA256) => {
                (Mechanism::EcdsaSha256, message.to_vec())
            }
            "ecdsa-sha2-nistp384" if hashes && can(MechanismType::ECDSA_SHA384) => {
                (Mechanism::EcdsaSha384, message.to_vec())
            }
            "ecdsa-sha2-nistp256" => (Mechanism::Ecdsa, Sha256::digest(message).to_vec()),
            "ecdsa-sha2-nistp384" => (Mechanism::Ecdsa, Sha384::digest(message).to_vec()),
            "rsassa-pss-sha256" => {
                let salt = Sha256::output_size().try_into().map_err(failed(&self.uri))?;
                let pss = PkcsPssParams { hash_alg: MechanismType::SHA256, mgf: PkcsMgfType::MGF1_SHA256, s_len: salt };
                if can(MechanismType::SHA256_RSA_PKCS_PSS) {
                    (Mechanism::Sha256RsaPkcsPss(pss), message.to_vec())
                } else {
                    (Mechanism::RsaPkcsPss(pss), Sha256::digest(message).to_vec())
                }
            }
            scheme => return Err(trouble(&self.uri, format!("no token signs {scheme} here"))),
        })
    }
}

impl Signer for TokenKey {
    fn public(&self) -> &PublicPart {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let (mechanism, data) = self.mechanism(message)?;
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &self.each_time {
            None => session.sign(&mechanism, self.key, &data).map_err(failed(&self.uri))?,
            Some(login) => {
                session.sign_init(&mechanism, self.key).map_err(failed(&self.uri))?;
                login.present(&session, UserType::ContextSpecific)?;
                session.sign_update(&data).map_err(failed(&self.uri))?;
                session.sign_final().map_err(failed(&self.uri))?
            }
        };
        let signature = if self.public.keytype == "ecdsa" { asn1(&made).map_err(failed(&self.uri))? } else { made };
        // A URI may fit another private key than the public one that was registered.
        let verifies =
            PublicKey::from_schema(&self.public.to_schema()).is_ok_and(|key| key.verify(&signature, message));
        if verifies {
            return Ok(signature);
        }
        let why = "what it signed does not verify with the public part in its token file; register the key anew";
        Err(trouble(&self.uri, why.to_owned()))
    }
}

/// The one token that a URI fits.
struct Token<'a> {
    uri: &'a TokenUri,
    module: Pkcs11,
    slot: Slot,
    info: TokenInfo,
}

impl<'a> Token<'a> {
    fn find(uri: &'a TokenUri, secrets: &Secrets) -> Result<Self, RepositoryError> {
        let path = match &uri.module_path {
            Some(path) => path.clone(),
            None => secrets.variable(MODULE_VARIABLE).map(PathBuf::from).ok_or_else(|| {
                let why = format!("it names no library; add ?module-path=FILE, or set {MODULE_VARIABLE}");
                trouble(uri, why)
            })?,
        };
        let module = module(uri, &path)?;
        let mut fitting = Vec::new();
        let mut present = Vec::new();
        for slot in module.get_slots_with_token().map_err(failed(uri))? {
            // A slot whose token is pulled out right now is as good as empty.
            let Ok(info) = module.get_token_info(slot) else { continue };
            present.push(format!("`{}`", info.label()));
            let says = |asked: &Option<String>, found: &str| asked.as_ref().is_none_or(|asked| asked == found);
            if info.token_initialized()
                && says(&uri.token, info.label())
                && says(&uri.manufacturer, info.manufacturer_id())
                && says(&uri.model, info.model())
                && says(&uri.serial, info.serial_number())
                && uri.slot_id.is_none_or(|id| id == slot.id())
            {
                fitting.push((slot, info));
            }
        }
        match (fitting.pop(), fitting.is_empty()) {
            (Some((slot, info)), true) => Ok(Self { uri, module, slot, info }),
            (Some(_), false) => {
                Err(trouble(uri, "more than one token fits; add token=LABEL or serial=NUMBER".to_owned()))
            }
            (None, _) => {
                let others = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
                Err(trouble(uri, format!("its token is not there (present: {others}); insert it, or correct the URI")))
            }
        }
    }

    fn open_session(&self) -> Result<Session, RepositoryError> {
        self.module.open_ro_session(self.slot).map_err(failed(self.uri))
    }

    fn login(&self, session: &Session, secrets: &Secrets) -> Result<Login, RepositoryError> {
        let label = self.info.label().to_owned();
        let secret = if self.info.protected_authentication_path() {
            None
        } else {
            let shown = format!("token {label}");
            let wanted = Wanted { kind: SecretKind::Pin, name: &label, key: &shown };
            let secret = match &self.uri.pin_source {
                Some(path) => from_file(SecretKind::Pin, path)?,
                None => secrets.find(&wanted)?,
            };
            Some(secret)
        };
        let login = Login { uri: self.uri.clone(), module: self.module.clone(), slot: self.slot, secret };
        login.present(session, UserType::User)?;
        if let Some(secret) = &login.secret {
            let shown = format!("token {label}");
            secrets.remember(&Wanted { kind: SecretKind::Pin, name: &label, key: &shown }, secret);
        }
        Ok(login)
    }

    /// The one object of a class that the URI fits.
    fn one(&self, session: &Session, class: ObjectClass) -> Result<Option<ObjectHandle>, RepositoryError> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(self.uri.object.clone().map(|label| Attribute::Label(label.into_bytes())));
        template.extend(self.uri.id.clone().map(Attribute::Id));
        let found = session.find_objects(&template).map_err(failed(self.uri))?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(trouble(self.uri, "more than one key fits; add both object=LABEL and id=%01".to_owned())),
        }
    }

    fn public(&self, session: &Session) -> Result<Option<PublicPart>, RepositoryError> {
        let Some(key) = self.one(session, ObjectClass::PUBLIC_KEY)? else { return Ok(None) };
        let asked = [
            AttributeType::KeyType,
            AttributeType::EcParams,
            AttributeType::EcPoint,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
        ];
        let mut facts = Facts::default();
        for attribute in session.get_attributes(key, &asked).map_err(failed(self.uri))? {
            match attribute {
                Attribute::KeyType(kind) => facts.kind = Some(kind),
                Attribute::EcParams(bytes) => facts.curve = bytes,
                Attribute::EcPoint(bytes) => facts.point = bytes,
                Attribute::Modulus(bytes) => facts.modulus = bytes,
                Attribute::PublicExponent(bytes) => facts.exponent = bytes,
                _ => {}
            }
        }
        let unusable = || trouble(self.uri, "it is no Ed25519, ECDSA (P-256, P-384) or RSA key".to_owned());
        let part = facts.public().ok_or_else(unusable)?;
        part.check().map_err(|_| unusable())?;
        Ok(Some(part))
    }

    fn absent(&self, class: &str) -> RepositoryError {
        let why = format!("token `{}` has no such {class} key; correct object= and id=", self.info.label());
        trouble(self.uri, why)
    }
}

/// What a token says of a public key.
#[derive(Default)]
struct Facts {
    kind: Option<KeyType>,
    curve: Vec<u8>,
    point: Vec<u8>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl Facts {
    fn public(&self) -> Option<PublicPart> {
        // A DER octet string by the standard; some tokens give its content alone.
        let inner = OctetStringRef::from_der(&self.point).map(|string| string.as_bytes());
        let point = inner.unwrap_or(&self.point);
        match self.kind? {
            KeyType::EC_EDWARDS => PublicPart::ed25519(point.try_into().ok()?).ok(),
            KeyType::EC => {
                let curve = ObjectIdentifier::from_der(&self.curve).ok().and_then(Curve::of)?;
                PublicPart::ecdsa(curve, point).ok()
            }
            KeyType::RSA => {
                let numbers = [UintRef::new(&self.modulus).ok()?, UintRef::new(&self.exponent).ok()?];
                PublicPart::rsa(&numbers.to_der().ok()?).ok()
            }
            _ => None,
        }
    }
}

/// A PIN and the token it is for; without one, the token's own keypad.
struct Login {
    uri: TokenUri,
    module: Pkcs11,
    slot: Slot,
    secret: Option<Secret>,
}

/// Tokens to which a wrong PIN was presented, by the URI.
static REFUSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Login {
    fn present(&self, session: &Session, user: UserType) -> Result<(), RepositoryError> {
        let from = self.secret.as_ref().map_or("its keypad", |secret| secret.from.as_str());
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.contains(&self.uri.text) {
            let why =
                format!("the PIN from {from} was wrong and is not tried again; run the command anew with another");
            return Err(trouble(&self.uri, why));
        }
        let info = self.module.get_token_info(self.slot).map_err(failed(&self.uri))?;
        if info.user_pin_locked() {
            return Err(trouble(&self.uri, LOCKED.to_owned()));
        }
        if info.user_pin_final_try() {
            eprintln!("tufgate: one try is left before token {} locks itself", info.label());
        }
        let pin = self.secret.as_ref().map(|secret| AuthPin::from(secret.expose().to_owned()));
        match session.login(user, pin.as_ref()) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(trouble(&self.uri, LOCKED.to_owned())),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
                refused.insert(self.uri.text.clone());
                let after = self.module.get_token_info(self.slot).ok();
                let left = after.as_ref().map_or("", tries_left);
                let why =
                    format!("the PIN from {from} is wrong{left}; give the right one with --pin-file or TUFGATE_PIN");
                Err(trouble(&self.uri, why))
            }
            Err(error) => Err(failed(&self.uri)(error)),
        }
    }
}

const LOCKED: &str =
    "its PIN is locked after too many wrong ones; unlock it with the token's own tool (the PUK or SO PIN)";

/// What a token's flags tell of tries. They tell no number.
fn tries_left(info: &TokenInfo) -> &'static str {
    if info.user_pin_locked() {
        " and the token has locked itself (its PUK or SO PIN unlocks it)"
    } else if info.user_pin_final_try() {
        " and one try is left"
    } else if info.user_pin_count_low() {
        " and few tries are left"
    } else {
        ""
    }
}

/// The library at `path`, loaded and initialised once.
fn module(uri: &TokenUri, path: &Path) -> Result<Pkcs11, RepositoryError> {
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(|_| {
        let why = format!("its library {} cannot be loaded; install it, or correct module-path", path.display());
        trouble(uri, why)
    })?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(uri)(error)),
    }
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// A signature that a token gives as r and s, each half of it, as the ASN.1 that metadata has.
fn asn1(made: &[u8]) -> Result<Vec<u8>, spki::der::Error> {
    let (r, s) = made.split_at(made.len() / 2);
    [UintRef::new(r)?, UintRef::new(s)?].to_der()
}

fn parse(uri: &str) -> Result<TokenUri, RepositoryError> {
    TokenUri::parse(uri).map_err(|why| RepositoryError::Token { key: "pkcs11: URI".to_owned(), why })
}

fn trouble(uri: &TokenUri, why: String) -> RepositoryError {
    RepositoryError::Token { key: uri.text.clone(), why }
}

/// What the library said, by the names of the standard.
fn failed<E: Into<Failed>>(uri: &TokenUri) -> impl Fn(E) -> RepositoryError + use<'_, E> {
    |error| {
        let Failed(why) = error.into();
        trouble(uri, why)
    }
}

struct Failed(String);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::Pkcs11(said, function) => format!("the token's library answers {function} with {said:?}"),
            other => other.to_string(),
        })
    }
}

impl From<spki::der::Error> for Failed {
    fn from(error: spki::der::Error) -> Self {
        Self(format!("its signature is malformed: {error}"))
    }
}
