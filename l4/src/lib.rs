//! TCP and UDP forwarding. Owns nothing yet: the sessions and the flow table come with the L4
//! issue.
#![forbid(unsafe_code)]
