//! The files of `spec/vectors`: read, and held against this implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use axon_proto::id::{AgentId, IdError, MsgId, PublicKey};
use axon_proto::invite::{InviteKey, Link, Secret, hex, hexed};
use axon_proto::kinds::topics::name::{Filter, Topic};
use axon_proto::kinds::topics::tree::Given;
use axon_proto::limits::MESSAGE_BYTES_MAX;
use axon_proto::session::Hello;
use axon_proto::{kinds, wire};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Held;
use super::play::{self, Before, Play, Step};

/// Bytes that an input has at most: parts that repeat may make many of few.
const BYTES_MAX: usize = 1_048_576;

/// A file of vectors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What the cases are about.
    pub about: String,
    /// How the cases are checked.
    pub check: Check,
    /// Which mistake each flag names.
    pub flags: BTreeMap<String, String>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// How the cases of a file are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The text of an agent id.
    AgentId,
    /// The agent id of a public key.
    KeyId,
    /// The text of a message id.
    MessageId,
    /// One message, before anything is known of its connection.
    Envelope,
    /// The payload of a kind.
    Payload,
    /// A link.
    Link,
    /// The proof of an invite's secret.
    Proof,
    /// The name of a topic.
    Topic,
    /// A filter, and which topics it matches.
    Filter,
    /// A batch of a topic, with its signature.
    Batch,
    /// A running daemon, and what it was told before.
    Session,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, in all files only here.
    pub id: String,
    /// What is asked, in a few words.
    pub about: String,
    /// The requirement of the specification.
    pub requirement: String,
    /// Which mistakes it catches.
    pub flags: Vec<String>,
    /// The kind of the payload, where payloads are checked.
    #[serde(default)]
    pub kind: Option<String>,
    /// Where the input comes, for a running daemon.
    #[serde(default)]
    pub on: Option<String>,
    /// From whom.
    #[serde(default, rename = "as")]
    pub who: Option<String>,
    /// What holds before.
    #[serde(default)]
    pub before: Option<Value>,
    /// The bytes.
    pub input: Bytes,
    /// Whether it is to be taken.
    pub verdict: Verdict,
    /// By which code it is refused, where it is.
    #[serde(default)]
    pub error: Option<String>,
    /// What more is to be seen.
    #[serde(default)]
    pub expect: Option<Value>,
}

/// Whether an input is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Valid,
    /// It is to be refused.
    Invalid,
}

/// Bytes, written in one of four ways.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bytes {
    text: Option<String>,
    base64: Option<String>,
    hex: Option<String>,
    parts: Option<Vec<Part>>,
}

/// A part of long bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeat { repeat: String, times: usize },
}

impl Bytes {
    /// The bytes.
    ///
    /// # Errors
    /// When they are not written in exactly one way, or there are too many.
    pub fn get(&self) -> Result<Vec<u8>, String> {
        match (&self.text, &self.base64, &self.hex, &self.parts) {
            (Some(text), None, None, None) => Ok(text.clone().into_bytes()),
            (None, Some(text), None, None) => STANDARD.decode(text).map_err(|error| error.to_string()),
            (None, None, Some(text), None) => unhex(text),
            (None, None, None, Some(parts)) => {
                let mut all = String::new();
                for part in parts {
                    let (text, times) = match part {
                        Part::Text(text) => (text, 1),
                        Part::Repeat { repeat, times } => (repeat, *times),
                    };
                    if all.len().saturating_add(text.len().saturating_mul(times)) > BYTES_MAX {
                        return Err(format!("an input has at most {BYTES_MAX} bytes"));
                    }
                    all.push_str(&text.repeat(times));
                }
                Ok(all.into_bytes())
            }
            _ => Err("an input has one of text, base64, hex, parts".into()),
        }
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.get()?).map_err(|_| "this input must be UTF-8".into())
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("hex is pairs of hexadecimal digits".into());
    }
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(|at| pair(at).ok_or_else(|| "hex is digits".to_owned())).collect()
}

/// All files of a directory, by their names, in order.
///
/// # Errors
/// When one cannot be read or has another form, or there are none.
pub fn load(dir: &Path) -> Result<BTreeMap<String, File>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| told(&error))? {
        let path = entry.map_err(|error| told(&error))?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| told(&error))?;
        let file = serde_json::from_str(&text).map_err(|error| told(&error))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, file);
    }
    if files.is_empty() {
        return Err(format!("{}: there are no vectors (*.json) here", dir.display()));
    }
    Ok(files)
}

/// What is wrong with the files themselves: ids that stand twice, flags that nobody has or nobody explains.
pub fn faults(files: &BTreeMap<String, File>) -> Vec<String> {
    let (mut faults, mut ids) = (Vec::new(), BTreeSet::new());
    for (name, file) in files {
        let mut used = BTreeSet::new();
        for case in &file.cases {
            if !ids.insert(case.id.as_str()) {
                faults.push(format!("{name}: the id {} stands twice", case.id));
            }
            if case.flags.is_empty() {
                faults.push(format!("{name}: {} has no flag", case.id));
            }
            if (case.verdict == Verdict::Invalid) != case.error.is_some() {
                faults.push(format!("{name}: {} has an error if and only if it is invalid", case.id));
            }
            for flag in &case.flags {
                used.insert(flag.as_str());
                if !file.flags.contains_key(flag) {
                    faults.push(format!("{name}: {} has the flag {flag}, which is not explained", case.id));
                }
            }
        }
        let unused = file.flags.keys().filter(|flag| !used.contains(flag.as_str()));
        faults.extend(unused.map(|flag| format!("{name}: no case has the flag {flag}")));
    }
    faults
}

/// Holds this implementation against one case.
pub fn run(check: Check, case: &Case) -> Held {
    let Case { id, about, requirement, .. } = case.clone();
    let seen = hold(check, case).err();
    Held { id, about, requirements: vec![requirement], seen }
}

/// What an input came to: what was read of it, or the code that refuses it.
type Outcome = Result<Value, String>;

fn hold(check: Check, case: &Case) -> Result<(), String> {
    if check == Check::Session {
        return session(case);
    }
    let outcome: Outcome = match check {
        Check::AgentId => agent_id(&case.input.text()?),
        Check::KeyId => key_id(&case.input.get()?),
        Check::MessageId => message_id(&case.input.text()?),
        Check::Envelope => envelope(case.input.get()?),
        Check::Payload => payload(case.kind.as_deref().unwrap_or_default(), &case.input.text()?),
        Check::Link => link(&case.input.text()?),
        Check::Proof => proof(case)?,
        Check::Topic => topic(&case.input.text()?),
        Check::Filter => filter(case)?,
        Check::Batch => batch(&case.input.text()?),
        Check::Session => Ok(Value::Null),
    };
    match (outcome, case.verdict, &case.error) {
        (Ok(read), Verdict::Valid, _) => within(case.expect.as_ref(), &read),
        (Ok(read), Verdict::Invalid, _) => Err(format!("was taken: {read}")),
        (Err(code), Verdict::Valid, _) => Err(format!("was refused: {code}")),
        (Err(code), Verdict::Invalid, Some(expected)) if code == *expected => Ok(()),
        (Err(code), ..) => Err(format!("was refused by {code}")),
    }
}

/// Whether all that is expected is there; objects may have more, and what is expected null may be absent.
fn within(expected: Option<&Value>, seen: &Value) -> Result<(), String> {
    fn fits(expected: &Value, seen: &Value) -> bool {
        match (expected, seen) {
            (Value::Object(expected), Value::Object(seen)) => {
                expected.iter().all(|(name, value)| fits(value, seen.get(name).unwrap_or(&Value::Null)))
            }
            (Value::Array(expected), Value::Array(seen)) => {
                expected.len() == seen.len() && expected.iter().zip(seen).all(|(a, b)| fits(a, b))
            }
            _ => expected == seen,
        }
    }
    match expected {
        Some(expected) if !fits(expected, seen) => Err(format!("gave {seen}")),
        _ => Ok(()),
    }
}

fn agent_id(text: &str) -> Outcome {
    match text.parse::<AgentId>() {
        Ok(id) => Ok(json!({"agent_id":id.to_string()})),
        Err(IdError::OtherType) => Err("incompatible_version".into()),
        Err(_) => Err("invalid_envelope".into()),
    }
}

fn key_id(bytes: &[u8]) -> Outcome {
    let key = bytes.try_into().map(PublicKey).map_err(|_| "invalid_envelope".to_owned())?;
    Ok(json!({"agent_id":key.agent_id(),"base64":key.to_string(),"base64url":key.to_base64url()}))
}

fn message_id(text: &str) -> Outcome {
    let id = text.parse::<MsgId>().map_err(|_| "malformed".to_owned())?;
    Ok(json!({"id":id.to_string()}))
}

fn envelope(bytes: Vec<u8>) -> Outcome {
    // A longer one is stopped where it is read, before anybody decodes it.
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err("over_limit".into());
    }
    let read = wire::decode(bytes).map_err(|error| match error.id {
        Some(_) => error.refusal.code.as_str().to_owned(),
        None => "malformed".to_owned(),
    })?;
    let payload: Value = serde_json::from_str(read.payload()).map_err(|error| error.to_string())?;
    Ok(json!({
        "v":read.v,"id":read.id,"from":read.from,"to":read.to,"ts":read.ts,"kind":read.kind(),
        "ref":read.reference,"resend_until":read.resend_until,"read_receipt":read.read_receipt,
        "payload":payload,
    }))
}

fn payload(kind: &str, text: &str) -> Outcome {
    let refused = |_| "invalid_envelope".to_owned();
    if kind == "hello" {
        let hello = Hello::parse(text).map_err(|refusal| refusal.code.as_str().to_owned())?;
        return serde_json::to_value(&hello).map_err(|error| error.to_string());
    }
    let families = kinds::all();
    let mut all = families.iter().flat_map(|family| family.vocabulary().kinds);
    let known = all.find(|known| known.name == kind).ok_or_else(|| "unknown_kind".to_owned())?;
    (known.check)(text).map_err(refused)?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn link(text: &str) -> Outcome {
    let link: Link = text.parse().map_err(|_| "invalid_command".to_owned())?;
    Ok(json!({
        "agent_id":link.key.agent_id(),"public_key":link.key.to_string(),"addrs":link.addrs,
        "secret":link.secret.map(|secret| hexed(&secret.0)),
    }))
}

/// What a proof is of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proven {
    secret: String,
    knocker: String,
    receiver: String,
    binding: String,
}

fn proof(case: &Case) -> Result<Outcome, String> {
    let of: Proven =
        serde_json::from_value(case.before.clone().unwrap_or_default()).map_err(|error| error.to_string())?;
    let secret = hex(&of.secret).map(Secret).ok_or("a secret is 32 hexadecimal digits")?;
    let binding: [u8; 32] = hex(&of.binding).ok_or("a binding is 64 hexadecimal digits")?;
    let (knocker, receiver) = (play::key(&of.knocker)?, play::key(&of.receiver)?);
    let (id, key): (_, InviteKey) = secret.key();
    let right = key.proves(&case.input.text()?, &knocker, &receiver, &binding);
    let told = json!({
        "invite":id.to_string(),"invite_key":hexed(&key.0),"proof":key.proof(&knocker, &receiver, &binding),
    });
    Ok(if right { Ok(told) } else { Err("reject".into()) })
}

fn topic(text: &str) -> Outcome {
    let topic = Topic::parse(text).map_err(|_| "invalid_command".to_owned())?;
    Ok(json!({"topic":topic.as_str()}))
}

fn filter(case: &Case) -> Result<Outcome, String> {
    let of = case.before.as_ref().and_then(|before| before.get("topics")).and_then(Value::as_array);
    let names = of.into_iter().flatten().map(|name| Topic::parse(name.as_str().unwrap_or_default()));
    let topics: Vec<Topic> = names.collect::<Result<_, _>>()?;
    let Ok(filter) = Filter::parse(&case.input.text()?) else { return Ok(Err("invalid_command".into())) };
    let matches = topics.iter().filter(|topic| filter.matches(topic)).map(Topic::as_str);
    Ok(Ok(json!({"filter":filter.as_str(),"matches":matches.collect::<Vec<_>>()})))
}

fn batch(text: &str) -> Outcome {
    let Given { batch, hops, age_ms } = Given::parse(text).map_err(|_| "malformed".to_owned())?;
    UnparsedPublicKey::new(&ED25519, batch.key.0)
        .verify(&batch.signed_bytes(), &batch.sig)
        .map_err(|_| "forged".to_owned())?;
    Ok(json!({
        "from":batch.from,"topic":batch.topic.as_str(),"seq":batch.seq,"ts":batch.ts_ms,"hops":hops,
        "age_ms":age_ms,"mark":format!("{:016x}", batch.mark()),"messages":batch.messages(),
    }))
}

fn session(case: &Case) -> Result<(), String> {
    let before: Before = serde_json::from_value(case.before.clone().unwrap_or_else(|| json!({})))
        .map_err(|error| format!("before: {error}"))?;
    let mut play = Play::new(&before).map_err(|error| format!("before: {error}"))?;
    let on = case.on.clone().unwrap_or_default();
    let step = Step { on: on.clone(), who: case.who.clone(), ms: 0, input: case.input.clone() };
    let mut seen = play.step(&step)?;
    let closes = case.expect.as_ref().is_some_and(|expect| expect.get("close").is_some());
    if closes && seen.close.is_none() {
        seen.close = play.closes()?;
    }
    let answer = seen.answer.clone().unwrap_or_default();
    let refused = if on == "ipc" {
        answer["error"].as_str().map(str::to_owned)
    } else if answer["kind"] == "error" {
        answer["payload"]["code"].as_str().map(str::to_owned)
    } else if answer["kind"] == "admission" && answer["payload"]["decision"] == "reject" {
        Some("reject".to_owned())
    } else if seen.answer.is_none() {
        seen.counted.first().cloned()
    } else {
        None
    };
    let told = json!({
        "answer":seen.answer,"reset":seen.reset,"counted":seen.counted,"close":seen.close,"closed":seen.closed,
    });
    match (case.verdict, &refused) {
        (Verdict::Valid, Some(code)) => return Err(format!("was refused by {code}: {told}")),
        (Verdict::Invalid, code) if *code != case.error => {
            return Err(format!("was not refused so, but by {code:?}: {told}"));
        }
        _ => {}
    }
    within(case.expect.as_ref(), &told)
}
