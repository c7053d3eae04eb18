//! Reads an UPDATE and settles what becomes of its routes (RFC 4271 §4.3 and §6.3, RFC 7606).

use ipnetwork::IpNetwork;

use super::attributes::{self, Collected};
use super::nlri::{self, Version};
use super::{
    Announced, Attributes, Context, Disposition, Family, Fault, Notification, Update, error,
};

/// Reads the body.
pub(super) fn decode(body: &[u8], context: Context) -> Result<Update, Notification> {
    let too_long = || Notification::new(error::MALFORMED_ATTRIBUTE_LIST);
    let (withdrawn_field, rest) = counted(body).ok_or_else(too_long)?;
    let (attributes_field, nlri_field) = counted(rest).ok_or_else(too_long)?;
    let withdrawn = ipv4(withdrawn_field)?;
    let mut collected = attributes::decode(attributes_field, context)?;
    let announced = ipv4(nlri_field)?;
    let only_attributes = withdrawn_field.is_empty() && nlri_field.is_empty();
    let end_of_rib = end_of_rib(body, &collected).filter(|_| only_attributes);
    check(&mut collected, !announced.is_empty(), context)?;
    Ok(settle(withdrawn, announced, collected, end_of_rib))
}

/// A field behind its two-octet length, and what follows it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(length).into())
}

/// RFC 7606 §5.3: a field that cannot be read leaves no routes to withdraw, so the session ends.
fn ipv4(field: &[u8]) -> Result<Vec<IpNetwork>, Notification> {
    let mut prefixes = Vec::new();
    match nlri::decode(field, Version::V4, &mut prefixes) {
        Ok(()) => Ok(prefixes),
        Err(nlri::Malformed) => Err(Notification::new(error::INVALID_NETWORK_FIELD)),
    }
}

/// RFC 4724 §2: nothing at all, or an MP_UNREACH_NLRI without prefixes and nothing else.
fn end_of_rib(body: &[u8], collected: &Collected) -> Option<Family> {
    if body == [0; 4] {
        return Some(Family::IPV4_UNICAST);
    }
    collected.empty_unreach.filter(|_| !collected.has_others)
}

/// What only the whole UPDATE shows: attributes that are missing, routes that may be.
fn check(collected: &mut Collected, ipv4: bool, context: Context) -> Result<(), Notification> {
    let has_routes = ipv4 || collected.has_reach;
    if has_routes {
        // RFC 7606 §3 d; NEXT_HOP only where there is an NLRI field (RFC 4760 §3), LOCAL_PREF only
        // from internal neighbours (RFC 4271 §5.1.5).
        let carried = ipv4 || collected.reach.is_some();
        let required = [
            (attributes::ORIGIN, carried && collected.origin.is_none()),
            (attributes::AS_PATH, carried && collected.as_path.is_none()),
            (attributes::NEXT_HOP, ipv4 && collected.next_hop.is_none()),
            (
                attributes::LOCAL_PREF,
                carried && !context.external && collected.attributes.local_pref.is_none(),
            ),
        ];
        for (code, missing) in required {
            if missing && collected.faults.iter().all(|fault| fault.code != code) {
                let disposition = Disposition::TreatAsWithdraw;
                collected.faults.push(Fault { code, disposition, what: "attribute is missing" });
            }
        }
        return Ok(());
    }
    // RFC 7606 §5.2: the routes that should be withdrawn may be in what could not be read.
    if collected.has_others && withdraws(&collected.faults) {
        return Err(Notification::new(error::MALFORMED_ATTRIBUTE_LIST));
    }
    Ok(())
}

fn withdraws(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.disposition == Disposition::TreatAsWithdraw)
}

fn settle(
    withdrawn: Vec<IpNetwork>,
    ipv4: Vec<IpNetwork>,
    collected: Collected,
    end_of_rib: Option<Family>,
) -> Update {
    let Collected { origin, as_path, next_hop, attributes, reach, faults, .. } = collected;
    let mut update = Update { withdrawn, end_of_rib, ..Update::default() };
    update.withdrawn.extend(collected.withdrawn);
    match (origin, as_path) {
        (Some(origin), Some(as_path)) if !withdraws(&faults) => {
            update.announced = next_hop
                .map(|next_hop| Announced { next_hop: next_hop.into(), prefixes: ipv4 })
                .into_iter()
                .chain(reach)
                .filter(|announced| !announced.prefixes.is_empty())
                .collect();
            if !update.announced.is_empty() {
                update.attributes = Some(Attributes { origin, as_path, ..attributes });
            }
        }
        _ => {
            update.withdrawn.extend(ipv4);
            update.withdrawn.extend(reach.into_iter().flat_map(|reach| reach.prefixes));
        }
    }
    update.faults = faults;
    update
}

#[cfg(test)]
mod tests;
