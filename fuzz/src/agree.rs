//! Whether a schema and the code take the same values.
//!
//! What the schema of `spec/schema` takes the code takes, and the other way round, but for [`DIFFERENCES`]:
//! what schemas cannot say, each with the page that says it.

use serde_json::Value;

use crate::json::Json;
use crate::schema::Schemas;

/// A reason for which the two need not agree on a text.
pub struct Difference {
    /// What, and where the specification says it.
    pub about: &'static str,
    /// Whether it is of texts that the code refuses although the schema takes them; otherwise of those that
    /// the code takes although the schema refuses them.
    pub code_refuses: bool,
    /// Whether it is there.
    pub applies: fn(&Case<'_>) -> bool,
}

/// A text that was judged.
pub struct Case<'a> {
    /// By which schema.
    pub schema: &'a str,
    /// As it is written.
    pub text: &'a str,
    /// What it says.
    pub json: &'a Json,
    /// What it says, as the schema sees it.
    pub value: &'a Value,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        about: "a field that is given twice is refused; a schema sees the last one (WF-ENV, IPC.md)",
        code_refuses: true,
        applies: |case| twice(case.json),
    },
    Difference {
        about: "an integer is written without fraction and exponent, and fits 64 bits",
        code_refuses: true,
        applies: |case| case.json.any(&mut |value| matches!(value, Json::Plain(text) if odd_number(text))),
    },
    Difference {
        about: "bounds of texts are of bytes; a schema counts characters. What people are shown has no control \
                characters",
        code_refuses: true,
        applies: |case| {
            !case.text.is_ascii() || case.text.contains('\\') || case.text.contains(char::is_control)
        },
    },
    Difference {
        about: "objects and lists are at most 100 deep inside one another",
        code_refuses: true,
        applies: |case| depth(case.json) >= 99,
    },
    Difference {
        about: "what is published nests at most 94 deep, because a batch goes around it (IPC.md)",
        code_refuses: true,
        applies: |case| case.text.contains("publish") && depth(case.json) >= 95,
    },
    Difference {
        about: "a field that is given twice: the schema sees the last one, the code may look at neither",
        code_refuses: false,
        applies: |case| twice(case.json),
    },
];

fn odd_number(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && !(digits && text.parse::<u64>().is_ok())
}

/// Whether some object has a name twice.
pub fn twice(json: &Json) -> bool {
    json.any(&mut |value| {
        let Json::Object(fields) = value else { return false };
        let mut names: Vec<String> = fields.iter().map(|(name, _)| plain(name)).collect();
        names.sort_unstable();
        names.windows(2).any(|two| two[0] == two[1])
    })
}

/// A name without its escapes.
fn plain(name: &str) -> String {
    serde_json::from_str(&format!("\"{name}\"")).unwrap_or_default()
}

fn depth(json: &Json) -> usize {
    match json {
        Json::List(all) => 1 + all.iter().map(depth).max().unwrap_or_default(),
        Json::Object(all) => 1 + all.iter().map(|(_, value)| depth(value)).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Holds the judgement of the code against that of the schema; `more` are differences of this target only.
pub fn check(schema: &str, text: &str, code: Result<(), String>, more: &[Difference]) {
    // What is not JSON for one who reads all of it is not the schemas' affair.
    let (Ok(value), Some(json)) = (serde_json::from_str::<Value>(text), Json::read(text.as_bytes())) else {
        return;
    };
    let takes = Schemas::get().takes(schema, &value);
    let case = Case { schema, text, json: &json, value: &value };
    let told = |code_refuses: bool| {
        let mut all = DIFFERENCES.iter().chain(more);
        all.any(|difference| difference.code_refuses == code_refuses && (difference.applies)(&case))
    };
    match (takes, code) {
        (true, Err(error)) if !told(true) => {
            panic!("{schema}.json takes what the code refuses ({error}):\n{text}")
        }
        (false, Ok(())) if !told(false) => {
            let fault = Schemas::get().fault(schema, &value).unwrap_or_default();
            panic!("the code takes what {schema}.json refuses ({fault}):\n{text}")
        }
        _ => {}
    }
}

/// Whether some object of a text has a name twice.
pub fn twice_in(text: &[u8]) -> bool {
    Json::read(text).is_some_and(|json| twice(&json))
}
