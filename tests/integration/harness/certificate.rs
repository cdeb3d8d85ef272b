//! A certificate of localhost, and the authority that clients have to trust for it.

/// A certificate with its key and its authority, all in PEM.
#[derive(Debug)]
pub struct Certificate {
    /// What clients trust.
    pub authority: String,
    /// What the server shows.
    pub certificate: String,
    /// The server's private key.
    pub key: String,
}

impl Certificate {
    /// One for `localhost` and `127.0.0.1`, of a fresh authority.
    pub fn of_localhost() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "An authority of the tests");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);

        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "gate");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Self { authority, certificate, key: key.serialize_pem() }
    }
}
