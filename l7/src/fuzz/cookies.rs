//! Target: a Cookie field, and the value of the balancer's own cookie in it.

use weir_core::model::Id;
use weir_core::pool::sticky::{Secret, token};

use super::{Outcome, promise};
use crate::message::{cookie_values, set_cookie_value};

const NAME: &[u8] = b"LBSTICKY";

/// A Cookie field; accepted when it binds to a member.
///
/// # Errors
/// The values must be those that a plain reader finds, and nothing but the one value that was made
/// with the key may be believed.
pub fn cookies(data: &[u8]) -> Outcome {
    let found: Vec<&[u8]> = cookie_values(data, NAME).collect();
    promise(found == plain(data), "the plain reader reads something else", data)?;
    let set = set_cookie_value(data, NAME);
    let first = data.split(|&b| b == b';').next().unwrap_or_default();
    promise(set == plain(first).first().copied(), "Set-Cookie sets something else", data)?;
    let key = Secret::new(*b"for fuzzing only").key(Id::nil());
    let made = token::mint(&key, 7, u64::MAX);
    for value in &found {
        let believed = token::verify(&key, value, 0);
        let own = *value == made.as_bytes();
        promise(believed.is_ok() == own, "believed what nobody made", value)?;
    }
    Ok(found.iter().any(|value| *value == made.as_bytes()))
}

/// Pairs at each semicolon, the name up to the first equals sign, no space around either.
fn plain(field: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    for pair in field.split(|&b| b == b';') {
        if let Some(at) = pair.iter().position(|&b| b == b'=')
            && pair[..at].trim_ascii() == NAME
        {
            values.push(pair[at + 1..].trim_ascii());
        }
    }
    values
}
