//! Pure: a configuration of Weir in which one member gets nothing any more. Everything else of the
//! file stays as it is, byte for byte. Called by `cli`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// `text` with weight 0 for each member that is called `wanted`, or is at `wanted` (ADDRESS:PORT).
///
/// # Errors
/// The text is no TOML, nobody is called so, or has another weight than 0; with the cure.
pub(crate) fn drained(text: &str, wanted: &str) -> Result<String, String> {
    let document = DeTable::parse(text).map_err(|error| error.message().to_string())?;
    let (mut edits, mut known, mut found) = (Vec::new(), Vec::new(), false);
    for member in members(document.get_ref()) {
        let names = names(member.get_ref());
        if names.iter().any(|name| name == wanted) {
            found = true;
            edits.extend(edit(text, member));
        }
        known.extend(names.into_iter().next());
    }
    if !found {
        let known = known.join(", ");
        return Err(format!("no member is called or stands at `{wanted}`; there are: {known}"));
    }
    if edits.is_empty() {
        return Err(format!("the member `{wanted}` has weight 0 already"));
    }
    let mut out = text.to_string();
    edits.sort_by_key(|edit: &Edit| edit.0.start);
    for (place, new) in edits.into_iter().rev() {
        out.replace_range(place, &new);
    }
    Ok(out)
}

/// What takes the place of these bytes.
type Edit = (std::ops::Range<usize>, String);

/// The members of all pools.
fn members<'d, 't>(document: &'d DeTable<'t>) -> Vec<&'d Spanned<DeValue<'t>>> {
    let pools = document.get("pool").and_then(|pools| pools.get_ref().as_array());
    let tables = pools.into_iter().flat_map(|pools| pools.iter());
    let lists = tables.filter_map(|pool| pool.get_ref().as_table()?.get("members"));
    let lists = lists.filter_map(|members| members.get_ref().as_array());
    lists.flat_map(|members| members.iter()).collect()
}

/// What a member can be called: by its name first.
fn names(member: &DeValue<'_>) -> Vec<String> {
    let get = |key: &str| member.as_table().and_then(|table| table.get(key)).map(Spanned::get_ref);
    let name = get("name").and_then(DeValue::as_str).map(str::to_string);
    let port = get("protocol_port").and_then(DeValue::as_integer).map(|port| port.as_str());
    let place = get("address").and_then(DeValue::as_str).zip(port).map(|(address, port)| {
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    });
    name.into_iter().chain(place).collect()
}

/// Gives the member weight 0; `None` when it has.
fn edit(text: &str, member: &Spanned<DeValue<'_>>) -> Option<Edit> {
    let table = member.get_ref().as_table()?;
    if let Some(weight) = table.get("weight") {
        let span = weight.span();
        return (text.get(span.clone())? != "0").then(|| (span, "0".to_string()));
    }
    // Behind a value that every member has; in a table with a head each key has its own line.
    let after = table.get("address")?.span().end;
    let inline = text.get(member.span()).is_some_and(|text| text.starts_with('{'));
    let parted = if inline { ", " } else { "\n" };
    Some((after..after, format!("{parted}weight = 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: &str = "version = 1 # kept\n[[pool]]\nname = 'p'\nmembers = [\n  \
        { name = 'a', address = '10.0.0.1', protocol_port = 80, weight = 3 }, # a\n  \
        { name = 'b', address = '::1', protocol_port = 81 },\n]\n\
        [[pool]]\nname = 'q'\nmembers = [{ weight = 2, name = 'a', address = 'x', \
        protocol_port = 1 }]\n";

    #[test]
    fn one_member_is_drained_and_nothing_else_changes() {
        let of_a = INLINE.replace("weight = 3", "weight = 0").replace("weight = 2", "weight = 0");
        assert_eq!(drained(INLINE, "a"), Ok(of_a.clone()));
        let by_place = INLINE.replace("weight = 3", "weight = 0");
        assert_eq!(drained(INLINE, "10.0.0.1:80"), Ok(by_place));
        let of_b = INLINE.replace("'::1',", "'::1', weight = 0,");
        assert_eq!(drained(INLINE, "b"), Ok(of_b.clone()));
        assert_eq!(drained(INLINE, "[::1]:81"), Ok(of_b));
        assert!(drained(&of_a, "a").unwrap_err().contains("weight 0 already"));
        let tables = "[[pool]]\n[[pool.members]]\naddress = '1.1.1.1' # x\nprotocol_port = 9\n";
        let drained_table = drained(tables, "1.1.1.1:9").unwrap();
        assert_eq!(drained_table, tables.replace("' #", "'\nweight = 0 #"));
    }

    #[test]
    fn what_can_not_be_drained_is_told() {
        let why = drained(INLINE, "c").unwrap_err();
        assert!(why.contains("`c`") && why.ends_with("a, b, a"), "{why}");
        assert!(drained("[[pool]", "c").is_err());
        assert!(drained("pool = 1", "c").is_err());
        assert!(drained("[[pool]]\nmembers = 'x'", "c").is_err());
    }
}
