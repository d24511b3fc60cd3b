//! The secret in the session cookie.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::TryRng;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// 256 random bits, then the account's id masked by a hash of them.
///
/// The id rides along so that all sessions of an account live under one key: one round trip and one slot per request,
/// and signing out everywhere is one deletion. The mask keeps every position of the token unpredictable to a reader of
/// many; it is no secret, for the random part alone proves the session.
#[derive(Clone)]
pub struct Token {
    text: String,
    account: Uuid,
}

const RANDOM: usize = 32;
const BYTES: usize = RANDOM + 16;

impl Token {
    /// A token for a new session.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(account: Uuid) -> anyhow::Result<Self> {
        let mut bytes = [0; BYTES];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes[..RANDOM])?;
        let masked = account.as_u128() ^ mask(&bytes[..RANDOM]);
        bytes[RANDOM..].copy_from_slice(&masked.to_be_bytes());
        Ok(Self { text: URL_SAFE_NO_PAD.encode(bytes), account })
    }

    /// Reads a cookie's value; `None` when it was never one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != BYTES {
            return None;
        }
        let masked = u128::from_be_bytes(bytes[RANDOM..].try_into().ok()?);
        Some(Self { text: text.to_owned(), account: Uuid::from_u128(masked ^ mask(&bytes[..RANDOM])) })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn account(&self) -> Uuid {
        self.account
    }

    /// What Redis knows of the token: the SHA-256 of its text.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.text).into()
    }
}

fn mask(random: &[u8]) -> u128 {
    let digest = Sha256::digest(random);
    digest[..16].iter().fold(0, |mask, byte| mask << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_its_account_and_shows_no_pattern() {
        let account = Uuid::now_v7();
        let tokens: Vec<Token> = (0..200).map(|_| Token::new(account).unwrap()).collect();
        for token in &tokens {
            assert_eq!(Token::parse(token.as_str()).map(|token| token.account()), Some(account));
        }
        for position in 0..tokens[0].as_str().len() {
            let first = tokens[0].as_str().as_bytes()[position];
            assert!(
                tokens.iter().any(|t| t.as_str().as_bytes()[position] != first),
                "position {position} is fixed"
            );
        }
    }

    #[test]
    fn what_was_never_a_token_is_refused() {
        for bad in ["", "x", "====", &"A".repeat(63), &"A".repeat(65), &"!".repeat(64), &"A".repeat(9000)] {
            assert!(Token::parse(bad).is_none(), "{bad:?}");
        }
    }
}
