//! A forwarding policy: which requests of a listener go elsewhere.

use super::Id;

/// A forwarding policy of an HTTP or HTTPS listener (R10.4-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Index into [`Config::listeners`](super::Config::listeners).
    pub listener: usize,
    /// 1–10000, lower first, unique in its listener; those without one come after.
    pub priority: Option<u16>,
    /// All must match; at most 10. Without any, every request matches.
    pub rules: Vec<Rule>,
    /// What a match does.
    pub action: Action,
}

/// One condition of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// What is looked at.
    pub kind: RuleKind,
    /// How it is compared.
    pub compare: Compare,
    /// Any of them; 1–10, ascending, none twice. Host names are in lower case, networks without
    /// bits beyond their length.
    pub values: Vec<String>,
    /// The condition holds when none matches.
    pub invert: bool,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKind {
    /// The host, without port; `*.` at its beginning stands for any labels.
    HostName,
    /// The path, without query.
    Path,
    /// The method.
    Method,
    /// A header field of this name, in lower case.
    Header(String),
    /// An argument of the query of this name.
    QueryString(String),
    /// A cookie of this name.
    Cookie(String),
    /// The client's address; the values are networks.
    SourceIp,
}

impl RuleKind {
    /// The word in a file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            RuleKind::HostName => "HOST_NAME",
            RuleKind::Path => "PATH",
            RuleKind::Method => "METHOD",
            RuleKind::Header(_) => "HEADER",
            RuleKind::QueryString(_) => "QUERY_STRING",
            RuleKind::Cookie(_) => "COOKIE",
            RuleKind::SourceIp => "SOURCE_IP",
        }
    }
}

/// How a rule compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compare {
    /// The whole value.
    #[default]
    EqualTo,
    /// Its beginning.
    StartsWith,
    /// A regular expression.
    Regex,
}

/// What a policy does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Indices into [`Config::pools`](super::Config::pools) with weights 0–100; 1–5, none twice.
    Pools(Vec<(usize, u8)>),
    /// 301 to the HTTPS listener of that index (R5.5-2).
    Listener(usize),
    /// A redirect to a URL made from the request's.
    Url(RedirectUrl),
    /// An answer of Weir's own.
    Fixed(FixedResponse),
}

/// `redirect_url_config`; `${…}` stands for that part of the request's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUrl {
    /// `http`, `https` or `${protocol}`.
    pub protocol: String,
    /// Host, may hold `${host}`.
    pub host: String,
    /// 1–65535 or `${port}`.
    pub port: String,
    /// Absolute, may hold `${path}`.
    pub path: String,
    /// May hold `${query}`.
    pub query: String,
    /// 301, 302, 303, 307 or 308.
    pub status_code: u16,
}

impl Default for RedirectUrl {
    /// The request's own URL, permanently.
    fn default() -> Self {
        RedirectUrl {
            protocol: "${protocol}".to_owned(),
            host: "${host}".to_owned(),
            port: "${port}".to_owned(),
            path: "${path}".to_owned(),
            query: "${query}".to_owned(),
            status_code: 301,
        }
    }
}

/// `fixed_response_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200–299, 400–599.
    pub status_code: u16,
    /// Media type of the body.
    pub content_type: String,
    /// At most 1024 characters.
    pub message_body: String,
}

impl Default for FixedResponse {
    fn default() -> Self {
        FixedResponse {
            status_code: 200,
            content_type: "text/plain".to_owned(),
            message_body: String::new(),
        }
    }
}
