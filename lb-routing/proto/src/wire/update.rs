//! Reads an UPDATE and settles what becomes of its routes (RFC 4271 §4.3 and §6.3, RFC 7606).
//!
//! ```text
//! body -> Parts (what is particular to this UPDATE)     -+
//!          `-> block -> Block (shared by many UPDATEs)  -+-> Parts::judge -> announce, or withdraw
//! ```
//!
//! The block of attributes is read apart from the prefixes, so that who has seen the same octets
//! before need not read them again.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use super::attributes::{self, List, Multi};
use super::nlri::{self, Field, Version};
use super::{
    Announced, Attributes, Context, Disposition, Family, Fault, Notification, PathIds, Update,
    error,
};

/// What is particular to one UPDATE.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// The withdrawn routes field.
    pub(crate) withdrawn: Field<'a>,
    /// The NLRI field.
    pub(crate) nlri: Field<'a>,
    /// The path attributes but those of RFC 4760, as they stand.
    pub(crate) block: Cow<'a, [u8]>,
    /// This UPDATE marks the end of the initial routes of a family (RFC 4724 §2).
    pub(crate) end_of_rib: Option<Family>,
    multi: Multi<'a>,
}

/// What a block of attributes says; the same octets in the same context say the same.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attributes: Attributes,
    pub(crate) verdict: Verdict,
}

/// What RFC 7606 makes of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// NEXT_HOP, for the NLRI field.
    pub(crate) next_hop: Option<Ipv4Addr>,
    faults: Faults,
    lacks_origin: bool,
    lacks_as_path: bool,
    lacks_local_pref: bool,
}

/// What was malformed, in one word: nearly no block has any, and there is a verdict for each attribute set of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "a vector takes three words")]
struct Faults(Option<Box<Vec<Fault>>>);

impl Verdict {
    /// What was malformed in it.
    pub(crate) fn faults(&self) -> &[Fault] {
        self.faults.0.as_ref().map_or(&[], |faults| faults)
    }
}

/// What becomes of the routes that an UPDATE announces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// They are withdrawn instead.
    pub(crate) withdraw: bool,
    /// Everything that was malformed.
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Parts<'a> {
    /// Takes an UPDATE's body apart.
    pub(crate) fn new(body: &'a [u8], ids: PathIds) -> Result<Self, Notification> {
        let too_long = || Notification::new(error::MALFORMED_ATTRIBUTE_LIST);
        let (withdrawn_field, rest) = counted(body).ok_or_else(too_long)?;
        let (attributes_field, nlri_field) = counted(rest).ok_or_else(too_long)?;
        let withdrawn = ipv4(withdrawn_field, ids)?;
        let List { block, multi } = attributes::partition(attributes_field, ids)?;
        let nlri = ipv4(nlri_field, ids)?;
        // RFC 4724 §2: nothing at all, or an MP_UNREACH_NLRI without prefixes and nothing else.
        let nothing_else = block.is_empty() && withdrawn.is_empty() && nlri.is_empty();
        let end_of_rib = if body == [0; 4] {
            Some(Family::IPV4_UNICAST)
        } else {
            multi.empty_unreach.filter(|_| nothing_else && !multi.has_reach)
        };
        Ok(Self { withdrawn, nlri, block, end_of_rib, multi })
    }

    /// The prefixes of MP_REACH_NLRI and their next hop.
    pub(crate) const fn reach(&self) -> Option<(IpAddr, Field<'a>)> {
        self.multi.reach
    }

    /// All of MP_REACH_NLRI, for the data of a NOTIFICATION.
    pub(crate) const fn reach_octets(&self) -> &'a [u8] {
        self.multi.reach_octets
    }

    /// A fault of this UPDATE for people, with the octets that it is about.
    pub(crate) fn shown(&self, fault: &Fault) -> String {
        let octets = match fault.code {
            attributes::MP_REACH_NLRI => Some(self.multi.reach_octets),
            attributes::MP_UNREACH_NLRI => Some(self.multi.unreach_octets),
            code => {
                let others = usize::from(fault.what == attributes::TWICE);
                attributes::whole(&self.block, code, others)
            }
        };
        attributes::shown(fault, octets.filter(|octets| !octets.is_empty()))
    }

    /// The prefixes of MP_UNREACH_NLRI.
    pub(crate) const fn unreach(&self) -> Option<Field<'a>> {
        self.multi.unreach
    }

    /// What only the whole UPDATE shows: attributes that are missing, routes that may be.
    pub(crate) fn judge(
        &self,
        block: &Verdict,
        context: Context,
    ) -> Result<Judgement, Notification> {
        let mut faults = block.faults().to_vec();
        faults.extend_from_slice(&self.multi.faults);
        let ipv4 = !self.nlri.is_empty();
        if ipv4 || self.multi.has_reach {
            // RFC 7606 §3 d; NEXT_HOP only where there is an NLRI field (RFC 4760 §3), LOCAL_PREF
            // only from internal neighbours (RFC 4271 §5.1.5).
            let carried = ipv4 || self.multi.reach.is_some();
            for (code, missing) in [
                (attributes::ORIGIN, carried && block.lacks_origin),
                (attributes::AS_PATH, carried && block.lacks_as_path),
                (attributes::NEXT_HOP, ipv4 && block.next_hop.is_none()),
                (attributes::LOCAL_PREF, carried && !context.external && block.lacks_local_pref),
            ] {
                if missing && faults.iter().all(|fault| fault.code != code) {
                    let disposition = Disposition::TreatAsWithdraw;
                    faults.push(Fault { code, disposition, what: "attribute is missing" });
                }
            }
        } else if !self.block.is_empty() && withdraws(&faults) {
            // RFC 7606 §5.2: the routes that should be withdrawn may be in what could not be read.
            return Err(Notification::new(error::MALFORMED_ATTRIBUTE_LIST));
        }
        Ok(Judgement { withdraw: withdraws(&faults), faults })
    }
}

impl Block {
    /// Reads a block.
    pub(crate) fn new(block: &[u8], context: Context) -> Result<Self, Notification> {
        let collected = attributes::decode(block, context)?;
        let verdict = Verdict {
            next_hop: collected.next_hop,
            lacks_origin: collected.origin.is_none(),
            lacks_as_path: collected.as_path.is_none(),
            lacks_local_pref: collected.attributes.local_pref.is_none(),
            faults: Faults(Some(collected.faults).filter(|it| !it.is_empty()).map(Box::new)),
        };
        let attributes = Attributes {
            origin: collected.origin.unwrap_or_default(),
            as_path: collected.as_path.unwrap_or_default(),
            ..collected.attributes
        };
        Ok(Self { attributes, verdict })
    }
}

/// Reads the body.
pub(super) fn decode(body: &[u8], context: Context) -> Result<Update, Notification> {
    let parts = Parts::new(body, PathIds::NONE)?;
    let block = Block::new(&parts.block, context)?;
    let judgement = parts.judge(&block.verdict, context)?;
    let mut withdrawn: Vec<_> = parts.withdrawn.prefixes().collect();
    withdrawn.extend(parts.unreach().iter().flat_map(Field::prefixes));
    let classic = block.verdict.next_hop.map(|next_hop| (next_hop.into(), parts.nlri));
    let mut update = Update { withdrawn, end_of_rib: parts.end_of_rib, ..Update::default() };
    if judgement.withdraw {
        update.withdrawn.extend(parts.nlri.prefixes());
        update.withdrawn.extend(parts.reach().iter().flat_map(|(_, field)| field.prefixes()));
    } else {
        let announced = classic.into_iter().chain(parts.reach());
        update.announced = announced
            .filter(|(_, field)| !field.is_empty())
            .map(|(next_hop, field)| Announced { next_hop, prefixes: field.prefixes().collect() })
            .collect();
        update.attributes = (!update.announced.is_empty()).then_some(block.attributes);
    }
    update.faults = judgement.faults;
    Ok(update)
}

/// A field behind its two-octet length, and what follows it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(length).into())
}

/// RFC 7606 §5.3: a field that cannot be read leaves no routes to withdraw, so the session ends.
fn ipv4(field: &[u8], ids: PathIds) -> Result<Field<'_>, Notification> {
    Field::new(field, Version::V4, ids.ipv4)
        .map_err(|nlri::Malformed| Notification::new(error::INVALID_NETWORK_FIELD))
}

fn withdraws(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.disposition == Disposition::TreatAsWithdraw)
}

#[cfg(test)]
mod tests;
