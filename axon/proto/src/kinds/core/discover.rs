//! discover: what the attached agents advertise, merged, over what the settings say.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{IpcCode, IpcError};
use crate::family::Cx;
use crate::fault::has_room;
use crate::limits::{MESSAGE_BYTES_MAX, PERSISTED_ADVERTS_MAX};
use crate::node::ClientId;
use crate::store::Write;
use crate::wire::to_raw;

/// The merged capabilities leave room for the envelope around them.
const MERGED_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4_096;

/// How the keys of adverts that outlive their connections begin.
const PREFIX: &str = "core/advert/";

/// What each client advertises, and what consumers have advertised to last.
#[derive(Debug, Default)]
pub struct Adverts {
    by_client: BTreeMap<ClientId, Map<String, Value>>,
    lasting: BTreeMap<String, Map<String, Value>>,
}

impl Adverts {
    /// Replaces what one client advertises; none when it has gone.
    pub fn set(&mut self, client: ClientId, capabilities: Option<&RawValue>) {
        match capabilities.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
            Some(map) => drop(self.by_client.insert(client, map)),
            None => drop(self.by_client.remove(&client)),
        }
    }

    /// What is to be stored when a consumer advertises for good; an empty object takes it back.
    pub fn lasting(&self, consumer: &str, capabilities: &RawValue) -> Result<Write, IpcError> {
        let key = format!("{PREFIX}{consumer}");
        if parse(capabilities).is_empty() {
            return Ok(Write::delete(key));
        }
        let is_new = !self.lasting.contains_key(consumer);
        if is_new && !has_room("lasting adverts", self.lasting.len() < PERSISTED_ADVERTS_MAX) {
            let message = format!(
                "{PERSISTED_ADVERTS_MAX} consumers have lasting adverts already: take one back with an empty object"
            );
            return Err(IpcError::new(IpcCode::Overloaded, message));
        }
        Ok(Write::put(key, capabilities.get()))
    }

    /// Replaces what a consumer advertises for good.
    #[inline(never)]
    pub fn set_lasting(&mut self, consumer: &str, capabilities: &RawValue) {
        match parse(capabilities) {
            none if none.is_empty() => drop(self.lasting.remove(consumer)),
            map => drop(self.lasting.insert(consumer.to_owned(), map)),
        }
    }

    /// Takes over an item of the store; false if it is no advert.
    pub fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(consumer) = key.strip_prefix(PREFIX) else { return false };
        if let Ok(map) = serde_json::from_slice(value) {
            self.lasting.insert(consumer.to_owned(), map);
        }
        true
    }

    /// All of it as one `capabilities` payload.
    ///
    /// Lists are united, `max_concurrent_tasks` is added up, of other fields the client that came first wins;
    /// the settings fill in what no client says.
    pub fn merged(&self, cx: &Cx<'_>) -> Box<RawValue> {
        let configured =
            cx.view.configured_capabilities().and_then(|raw| serde_json::from_str(raw.get()).ok());
        let configured: Map<String, Value> = configured.unwrap_or_default();
        let complete = |mut all: Map<String, Value>| {
            for (key, value) in &configured {
                all.entry(key).or_insert_with(|| value.clone());
            }
            if let Some(name) = cx.view.name() {
                all.entry("agent_name").or_insert_with(|| name.into());
            }
            to_raw(&all)
        };
        let mut all = Map::new();
        for one in self.by_client.values().chain(self.lasting.values()) {
            let mut wider = all.clone();
            one.iter().for_each(|(key, value)| merge(&mut wider, key, value));
            // One that does not fit is left out; a smaller one after it may fit.
            if complete(wider.clone()).get().len() <= MERGED_BYTES_MAX {
                all = wider;
            }
        }
        complete(all)
    }
}

fn parse(capabilities: &RawValue) -> Map<String, Value> {
    serde_json::from_str(capabilities.get()).unwrap_or_default()
}

fn merge(all: &mut Map<String, Value>, key: &str, value: &Value) {
    match (all.get_mut(key), value) {
        (None, value) => drop(all.insert(key.to_owned(), value.clone())),
        (Some(Value::Array(have)), Value::Array(more)) => {
            for item in more {
                if !have.contains(item) {
                    have.push(item.clone());
                }
            }
        }
        (Some(have @ Value::Number(_)), Value::Number(_)) if key == "max_concurrent_tasks" => {
            let sum = have.as_u64().unwrap_or(0).saturating_add(value.as_u64().unwrap_or(0));
            *have = sum.into();
        }
        _ => {}
    }
}
