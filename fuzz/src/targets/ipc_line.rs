//! One line of a client: read, and checked by a node.

use axon_proto::contacts::ContactsFile;
use axon_proto::id::PublicKey;
use axon_proto::ipc::Command;
use axon_proto::limits::{CAPABILITIES_BYTES_MAX, LINE_BYTES_MAX};
use axon_proto::node::{Birth, ClientId, Effect, Input, Node, Now, Settings};
use axon_proto::sim::Rng;
use serde_json::Value;

use crate::agree::{self, Difference};
use crate::json::Json;
use crate::{mutate, schema};

/// What is said of commands beyond the schema.
const DIFFERENCES: &[Difference] = &[
    Difference {
        about: "links and addresses have a grammar of their own, of which a schema shows the begin",
        code_refuses: true,
        applies: |case| case.json.get("link").is_some() || case.json.get("addrs").is_some(),
    },
    Difference {
        about: "a name must not look like the begin of an agent id, nor be another peer's",
        code_refuses: true,
        applies: |case| case.value["name"].is_string(),
    },
    Difference {
        about: "`capabilities` is at most 16,384 bytes long",
        code_refuses: true,
        applies: |case| {
            let bytes = case.json.get("capabilities").map_or(0, |json| json.to_string().len());
            bytes > CAPABILITIES_BYTES_MAX
        },
    },
    Difference {
        about: "who may use the socket by its user need not show a token, and none is looked at",
        code_refuses: false,
        applies: |case| case.value["cmd"] == "auth",
    },
    Difference {
        about: "null counts as absent; conditions of the schema ask whether a field is there",
        code_refuses: false,
        applies: |case| case.value.as_object().is_some_and(|fields| fields.values().any(Value::is_null)),
    },
    Difference {
        about: "rights may be named again and again",
        code_refuses: false,
        applies: |case| case.value["allow"].as_array().is_some_and(|all| all.len() > 64),
    },
];

const NOW: Now = Now { mono_ms: 1_000, wall_ms: 1_795_000_000_000 };
const CLIENT: ClientId = ClientId(1);

/// A line gets one reply at most, at once; it is `invalid_command` if and only if the schema refuses it.
pub fn run(data: &[u8]) {
    if data.contains(&b'\n') || data.len() > LINE_BYTES_MAX {
        return;
    }
    let mut node = node();
    let mut feed = |input: Input| {
        let mut effects = Vec::new();
        node.handle(NOW, input, &mut effects);
        effects
    };
    feed(Input::ClientUp { client: CLIENT, trusted: true, socket: None });
    feed(Input::Line { client: CLIENT, line: br#"{"cmd":"hello","req_id":"h","version":2}"#.to_vec() });
    let effects = feed(Input::Line { client: CLIENT, line: data.to_vec() });
    let mut replies = effects.iter().filter_map(|effect| match effect {
        Effect::Line { line, .. } => {
            assert!(Json::read(line.as_bytes()).is_some() && !line.contains('\n'), "a line is JSON: {line}");
            // What the client chose as an id is echoed as it came, also where few can read it.
            Some(serde_json::from_str::<Value>(line).unwrap_or(Value::Null))
        }
        _ => None,
    });
    let reply = replies.next();
    assert!(replies.next().is_none(), "a line has one reply");
    let reply = reply.filter(|reply| !reply.is_null());
    let text = std::str::from_utf8(data).ok();
    let value = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let has_id = Command::parse(data).is_ok_and(|command| !command.req_id().is_empty());
    let outcome = match &reply {
        Some(reply) if reply["ok"] == false => Err(reply.to_string()),
        _ => Ok(()),
    };
    if let Some(reply) = &reply {
        assert!(schema::Schemas::get().takes("ipc-reply", reply), "{reply}");
        if let (true, Some(value)) = (has_id && !agree::twice_in(data), &value) {
            assert_eq!(reply["req_id"], value["req_id"], "the id is echoed");
        }
    }
    let invalid = reply.as_ref().is_some_and(|reply| reply["error"] == "invalid_command");
    if let (Some(text), true) = (text, has_id) {
        let is_ok = outcome.is_ok();
        // What fails for another reason was looked at as far as that reason only.
        if is_ok || invalid {
            agree::check("ipc-command", text, outcome, DIFFERENCES);
        }
    }
}

/// A daemon that knows alice, who is not connected.
fn node() -> Node {
    let key: PublicKey = schema::KEYS[1].parse().expect("a key");
    let alice: PublicKey = schema::KEYS[0].parse().expect("a key");
    let mut settings = Settings::default();
    settings.peers.push(axon_proto::node::StaticPeer {
        agent_id: alice.agent_id(),
        pubkey: alice,
        addr: "192.0.2.1:7100".into(),
        name: Some("alice".into()),
    });
    let birth = Birth {
        key,
        version: "0",
        pid: 1,
        listen: Vec::new(),
        root: None,
        contacts: ContactsFile::default(),
        addrs: vec!["192.0.2.2:7100".into()],
        scopes: Vec::new(),
        old_keys: Vec::new(),
        sign: Box::new(|_| [0; 64]),
        verify: |_, _, _| true,
        known_peers: Vec::new(),
        seen: Vec::new(),
        next_seq: 1,
        clean: true,
        entropy: Box::new(Rng::new(7)),
    };
    let mut node = Node::new(birth, settings, NOW);
    node.first_commit();
    node.take_effects();
    node
}

/// Changes a line as JSON.
pub fn mutate(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    mutate::bytes("ipc-command", data, seed)
}
