//! Pure: the id of an object that doesn't carry one. Called by `config`, and by who builds objects
//! without a file.

use uuid::Uuid;

/// A UUID; without one in the file it is UUIDv5 of kind, balancer and name.
pub type Id = Uuid;

/// Weir's own name space for UUIDv5 (RFC 9562 section 5.5). Changing it would change every id.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c6f_41d2_7b0a_4e58_8d13_52c7_e0a9_461b);

/// The id of an object without one in the file: UUIDv5 of kind, balancer and name, so the same
/// after every reload and on every node.
///
/// `kind` is the section's name (`loadbalancer`, `listener`, `pool`, `member`). `balancer` is empty
/// for kinds that belong to none. A member's `name` is its pool's name, a line break, its own.
#[must_use]
pub fn derive_id(kind: &str, balancer: &str, name: &str) -> Id {
    // Names have no control characters, so that the joined text has one reading only.
    Uuid::new_v5(&NAMESPACE, format!("{kind}\n{balancer}\n{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::derive_id;

    #[test]
    fn ids_are_the_same_for_ever() {
        let id = derive_id("listener", "default", "web");
        assert_eq!(id.to_string(), "0d1870c1-56dc-5912-871a-a55e83aa59cc");
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn each_part_counts() {
        let id = derive_id("listener", "default", "web");
        assert_ne!(id, derive_id("pool", "default", "web"));
        assert_ne!(id, derive_id("listener", "front", "web"));
        assert_ne!(id, derive_id("listener", "default", "web2"));
    }
}
