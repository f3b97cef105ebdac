//! Changes of JSON that know what it is: fields left out, added, of another type, too long, given twice, and
//! numbers in all their forms.

use axon_proto::sim::Rng;

use crate::dice::Dice;
use crate::json::Json;
use crate::schema::{self, Schemas};

/// Lengths at which something ends.
const LENGTHS: &[usize] =
    &[0, 1, 32, 33, 63, 64, 65, 126, 127, 128, 129, 256, 257, 512, 513, 1_024, 2_048, 2_049, 4_097, 16_385];
/// Numbers as they may be written, and at which something ends.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "-1",
    "-0",
    "0.0",
    "1.0",
    "1.5",
    "1e3",
    "1E+2",
    "1e-2",
    "1e400",
    "-1e400",
    "100",
    "101",
    "255",
    "256",
    "1000",
    "1001",
    "1024",
    "1025",
    "65535",
    "65536",
    "2592000",
    "2592001",
    "3600000",
    "3600001",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1795000000000",
    "0.1e1",
    "100.0",
    "100.1",
];
/// What may stand in a text.
const PIECES: &[&str] = &[
    "\\u0000",
    "\\n",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\\"",
    "\\/",
    "ü",
    "\u{10ffff}",
    " ",
    "\\u0041",
    ".",
    "..",
    "/",
    "@",
    "?",
    "\\t",
    "ED25519.",
    "A",
    "g",
    "-",
    "\\u200b",
];

/// A value of this schema, changed in so many places.
pub fn wrong(name: &str, changes: usize, dice: &mut dyn Dice) -> Json {
    let mut value = Schemas::get().make(name, dice);
    for _ in 0..changes {
        change(&mut value, name, dice);
    }
    value
}

/// Changes one thing.
pub fn change(value: &mut Json, schema: &str, dice: &mut dyn Dice) {
    let count = value.count();
    let Some(place) = value.nth(dice.below(count)) else { return };
    match dice.below(12) {
        0 => *place = other(schema, dice),
        1 => *place = Json::Plain("null".into()),
        2 => *place = Json::Plain(NUMBERS[dice.below(NUMBERS.len())].into()),
        3 => *place = Json::text(schema::WORDS[dice.below(schema::WORDS.len())]),
        4 => *place = Json::text(&"x".repeat(LENGTHS[dice.below(LENGTHS.len())])),
        5 => {
            for _ in 0..[1, 2, 98, 99, 100, 101][dice.below(6)] {
                *place = Json::List(vec![std::mem::replace(place, Json::Plain("0".into()))]);
            }
        }
        _ => inside(place, schema, dice),
    }
}

/// Changes what a value has in it.
fn inside(place: &mut Json, schema: &str, dice: &mut dyn Dice) {
    match place {
        Json::Object(fields) if !fields.is_empty() => {
            let at = dice.below(fields.len());
            match dice.below(6) {
                0 => drop(fields.remove(at)),
                1 => fields.push(("more".into(), other(schema, dice))),
                // A field of the schema that is not there, or another value for one that is.
                2 => {
                    if let Json::Object(more) = Schemas::get().make(schema, dice)
                        && let Some((name, value)) = more.get(dice.below(more.len()))
                    {
                        match fields.iter_mut().find(|(of, _)| of == name) {
                            Some((_, place)) => *place = value.clone(),
                            None => fields.push((name.clone(), value.clone())),
                        }
                    }
                }
                3 => {
                    let twice = (fields[at].0.clone(), other(schema, dice));
                    fields.insert(dice.below(fields.len() + 1), twice);
                }
                4 => fields[at].0 = schema::WORDS[dice.below(schema::WORDS.len() - 3)].into(),
                _ => {
                    let to = dice.below(fields.len());
                    fields.swap(at, to);
                }
            }
        }
        Json::Object(fields) => fields.push(("more".into(), other(schema, dice))),
        Json::List(all) => match all.is_empty() || dice.below(2) == 0 {
            true => {
                let one = all.first().cloned().unwrap_or_else(|| other(schema, dice));
                let times = LENGTHS[dice.below(11)];
                all.extend(std::iter::repeat_n(one, times));
            }
            false => drop(all.remove(dice.below(all.len()))),
        },
        Json::Text(text) => {
            let chars: Vec<(usize, char)> = text.char_indices().collect();
            let at = chars.get(dice.below(chars.len() + 1)).map_or(text.len(), |(at, _)| *at);
            match dice.below(4) {
                0 => text.insert_str(at, PIECES[dice.below(PIECES.len())]),
                1 => text.truncate(at),
                2 => *text = "x".repeat(LENGTHS[dice.below(LENGTHS.len())]),
                _ => *text = text.to_uppercase(),
            }
        }
        Json::Plain(text) => match dice.below(3) {
            0 if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = text.parse::<u64>().unwrap_or_default();
                *text = if dice.below(2) == 0 { number.wrapping_add(1) } else { number.wrapping_sub(1) }
                    .to_string();
            }
            1 => text.push_str([".0", "e0", "0", "e1"][dice.below(4)]),
            _ => *text = NUMBERS[dice.below(NUMBERS.len())].into(),
        },
    }
}

/// A value of any sort.
fn other(schema: &str, dice: &mut dyn Dice) -> Json {
    match dice.below(7) {
        0 => Json::Plain("true".into()),
        1 => Json::Plain(NUMBERS[dice.below(NUMBERS.len())].into()),
        2 => Json::text(&schema::agent(dice)),
        3 => Json::text(&schema::message(dice)),
        4 => Json::List(vec![Json::text("a")]),
        5 => Json::Object(Vec::new()),
        _ => {
            let mut of = Schemas::get().make(schema, dice);
            let count = of.count();
            of.nth(dice.below(count)).map_or(Json::Plain("null".into()), |value| value.clone())
        }
    }
}

/// For libFuzzer: bytes of JSON changed as JSON, or values made anew; none: change the bytes in its own way.
pub fn bytes(schema: &str, data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let dice = &mut Rng::new(u64::from(seed));
    let value = match (Json::read(data), Dice::below(dice, 16)) {
        (_, 0) | (None, 1..8) => {
            let changes = Dice::below(dice, 3);
            wrong(schema, changes, dice)
        }
        (Some(mut value), 1..11) => {
            for _ in 0..=Dice::below(dice, 3) {
                change(&mut value, schema, dice);
            }
            value
        }
        _ => return None,
    };
    Some(value.to_string().into_bytes())
}
