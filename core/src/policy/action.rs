//! What a policy does with a request that meets it, ready for use.

use super::redirect::Redirect;
use crate::model::FixedResponse;

/// What a match does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To this pool: a place in [`Router::pools`](super::Router::pools).
    Pool(u32),
    /// To one of several pools in turn: a place in [`Router::shares`](super::Router::shares).
    Share(u32),
    /// The client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// Weir answers itself.
    Fixed(Box<Fixed>),
}

/// An answer of Weir's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// 200–299, 400–599.
    pub status: u16,
    /// Value of Content-Type.
    pub content_type: Box<str>,
    /// The body; empty for 204 and 205, which have none.
    pub body: Box<[u8]>,
}

impl Fixed {
    pub(super) fn new(model: &FixedResponse) -> Fixed {
        let bodiless = matches!(model.status_code, 204 | 205);
        let body = if bodiless { "" } else { model.message_body.as_str() };
        let mut content_type = model.content_type.clone();
        if !body.is_ascii() && !content_type.contains(';') {
            content_type.push_str("; charset=utf-8");
        }
        Fixed {
            status: model.status_code,
            content_type: content_type.into(),
            body: body.as_bytes().into(),
        }
    }
}
