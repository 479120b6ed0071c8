//! What a transaction has seen of others, without its own writes.

use std::collections::BTreeMap;

use crate::histories::check::Name;
use crate::histories::history::{Element, Step, Transaction};

#[derive(Clone, Debug, Default)]
pub struct External {
    pub lists: BTreeMap<u8, Vec<Element>>,
    /// `None` where the group was not read; the inner one where it was absent.
    pub group: Option<Option<Element>>,
}

impl External {
    /// # Errors
    /// Where the reads of the transaction contradict each other, or its writes.
    pub fn of(transaction: &Transaction) -> Result<Self, (Name, String)> {
        let mut external = Self::default();
        let mut own: BTreeMap<u8, Vec<Element>> = BTreeMap::new();
        let mut own_group = None;
        for step in &transaction.steps {
            match step {
                Step::Append { key, element } => own.entry(*key).or_default().push(*element),
                Step::WriteGroup(element) => own_group = Some(*element),
                Step::Read { key, list } => {
                    let own = own.get(key).map_or(&[][..], Vec::as_slice);
                    external.note_list(*key, list, own)?;
                }
                Step::ReadGroup(values) => external.note_group(values, own_group)?,
            }
        }
        Ok(external)
    }

    fn note_list(
        &mut self,
        key: u8,
        list: &[Element],
        own: &[Element],
    ) -> Result<(), (Name, String)> {
        let wrong = |what| Err((Name::Internal, format!("k{key} is {list:?}, {what}")));
        let Some(others) = list.strip_suffix(own) else {
            return wrong(format!("without its own {own:?}"));
        };
        match self.lists.insert(key, others.to_vec()) {
            Some(before) if before != others => wrong(format!("and was {before:?}")),
            _ => Ok(()),
        }
    }

    fn note_group(
        &mut self,
        values: &[Option<Element>],
        own: Option<Element>,
    ) -> Result<(), (Name, String)> {
        let Some(first) = values.first().copied() else { return Ok(()) };
        if values.iter().any(|value| *value != first) {
            return Err((Name::Fractured, format!("the group is {values:?}")));
        }
        if own.is_some() {
            let detail = format!("the group is {first:?}, without its own {own:?}");
            return if first == own { Ok(()) } else { Err((Name::Internal, detail)) };
        }
        match self.group.replace(first) {
            Some(before) if before != first => {
                let registers = format!("the group is {first:?}, and was {before:?}");
                Err((Name::Fractured, registers))
            }
            _ => Ok(()),
        }
    }
}
