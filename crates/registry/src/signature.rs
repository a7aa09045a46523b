//! Signatures that cosign keeps beside images: a manifest with the tag `sha256-HEX.sig`, whose layers are what was
//! signed, each with its signature as an annotation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey};

use crate::client::Client;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::manifest::Content;
use crate::reference::Reference;

const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD_MAX: u64 = 4 << 20;
/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 100;

/// A signature, and what was signed.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The simple signing document.
    pub payload: Vec<u8>,
    /// The signature of it.
    pub signature: Vec<u8>,
}

impl Client {
    /// Signatures of a manifest; none if the repository has none.
    pub fn signatures(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Signature>, Error> {
        let tag = format!("{}.sig", digest.as_str().replace(':', "-"));
        let place = reference
            .without_tag_and_digest()
            .with_tag(&tag)
            .map_err(|e| Error::new(ErrorKind::Protocol, format!("{tag}: {e}")))?;
        let manifest = match self.manifest(&place) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let Content::Image { layers, .. } = manifest.content()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for layer in layers.iter().take(SIGNATURES_MAX) {
            let text = layer.annotations.get(ANNOTATION).map(|text| STANDARD.decode(text));
            if let Some(Ok(signature)) = text
                && layer.size <= PAYLOAD_MAX
            {
                found.push(Signature { payload: self.config(&place, layer)?, signature });
            }
        }
        Ok(found)
    }
}

/// The signature is by the owner of this public key (PEM): ECDSA over P-256 or P-384, or Ed25519.
pub fn is_by(pem: &[u8], payload: &[u8], signature: &[u8]) -> bool {
    let Some(der) = der_of(pem) else { return false };
    let (algorithm, length): (&dyn ring::signature::VerificationAlgorithm, usize) = match () {
        () if has(&der, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) => (&ECDSA_P256_SHA256_ASN1, 65),
        () if has(&der, &[0x2b, 0x81, 0x04, 0x00, 0x22]) => (&ECDSA_P384_SHA384_ASN1, 97),
        () if has(&der, &[0x06, 0x03, 0x2b, 0x65, 0x70]) => (&ED25519, 32),
        () => return false,
    };
    // (the key is the end of its SubjectPublicKeyInfo, RFC 5280)
    let Some(at) = der.len().checked_sub(length) else { return false };
    UnparsedPublicKey::new(algorithm, &der[at..]).verify(payload, signature).is_ok()
}

fn has(der: &[u8], object_id: &[u8]) -> bool {
    der.windows(object_id.len()).any(|window| window == object_id)
}

fn der_of(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}
