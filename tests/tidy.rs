//! The house is kept: who imports whom, what the core may touch, how long lines and files are, and that the
//! tables of the specification say what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use axon::disk::settings::{Kind as Bounds, Preset, SETTINGS};
use axon_proto::error::{IpcCode, PeerCode};
use axon_proto::family::{Kind, Pattern};
use axon_proto::limits::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory whose names end so, by their paths from the root, in order.
fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} in {dir}");
    found.sort();
    found
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

// ---- Imports ----------------------------------------------------------------------------------------------

/// The code without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a file takes from its own crate: module paths as written after `crate::`, with `super` resolved.
fn imports(file: &str, src: &str, text: &str) -> BTreeSet<String> {
    let inside = file.strip_prefix(src).unwrap().trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<&str> = inside.split('/').filter(|part| !part.is_empty() && *part != "lib").collect();
    let code = code(text);
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `axon_crate::` are other things.
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            found.extend(heads(&code[at + "crate::".len()..], &[]));
        }
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let mut rest = &code[at..];
        let mut base = module.clone();
        while let Some(next) = rest.strip_prefix("super::") {
            base.pop();
            rest = next;
        }
        found.extend(heads(rest, &base));
    }
    found
}

/// The paths that begin here: one, or those in braces, to two parts.
fn heads(text: &str, base: &[&str]) -> Vec<String> {
    let join = |path: &str| {
        let path =
            path.trim().split([' ', ';', ',', '(', ')', '<', '>', '.', '\n', '{', '}', '&', '=', '?']).next();
        let parts =
            base.iter().copied().chain(path.unwrap_or_default().split("::").filter(|part| !part.is_empty()));
        parts.take(2).collect::<Vec<_>>().join("::")
    };
    let Some(list) = text.strip_prefix('{') else { return vec![join(text)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(join(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(join(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

#[test]
fn imports_are_read_as_they_are_meant() {
    let text = "use crate::{a::b, c};\nuse super::{d, e::f};\n// use crate::no;\nfn x() { crate::g::h(1) }\n";
    let found = imports("src/m/n.rs", "src/", text);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a::b", "c", "g::h", "m::d", "m::e"]);
}

#[test]
fn kinds_know_neither_the_node_nor_one_another() {
    // Plain types without behaviour, which are used everywhere.
    let plain = ["node::ClientId", "node::ConnId", "node::Now", "node::StreamId"];
    let mut faults = Vec::new();
    for (file, text) in files("axon/proto/src/kinds", ".rs") {
        let family = file.trim_start_matches("axon/proto/src/kinds/").split('/').next().unwrap().to_owned();
        if family == "mod.rs" {
            continue;
        }
        for path in imports(&file, "axon/proto/src/", &text) {
            let other = path.starts_with("kinds::") && path != format!("kinds::{family}");
            let above = ["node", "session"].contains(&path.split("::").next().unwrap());
            if other || (above && !plain.contains(&path.as_str())) {
                faults.push(format!("{file} uses {path}"));
            }
        }
    }
    none("a family knows `family` and what is below it", &faults);
}

#[test]
fn below_never_imports_above() {
    let lowest = ["limits", "id", "error", "wire"];
    let mut faults = Vec::new();
    for (file, text) in files("axon/proto/src", ".rs") {
        let module = file.trim_start_matches("axon/proto/src/").trim_end_matches(".rs").to_owned();
        for path in imports(&file, "axon/proto/src/", &text) {
            let target = path.split("::").next().unwrap();
            let from_low = lowest.contains(&module.as_str()) && !lowest.contains(&target);
            // Only the node knows that there are families.
            // The simulation is above all of it.
            let above = ["kinds", "node", "sim"].iter().any(|above| module.starts_with(above));
            let of_kinds = target == "kinds" && !above;
            if from_low || of_kinds {
                faults.push(format!("{file} uses {path}"));
            }
        }
    }
    none("see axon/ARCHITECTURE.md", &faults);
}

#[test]
fn the_rooms_of_the_daemon_do_not_know_each_other() {
    let rooms = ["net", "ipc", "disk", "discover"];
    let mut faults = Vec::new();
    for room in rooms {
        for (file, text) in files(&format!("axon/src/{room}"), ".rs") {
            for path in imports(&file, "axon/src/", &text) {
                let target = path.split("::").next().unwrap();
                let other = rooms.contains(&target) && target != room;
                if other || ["cli", "driver"].contains(&target) || text.contains("axon_client") {
                    faults.push(format!("{file} uses {path}"));
                }
            }
        }
    }
    for (file, text) in files("axon/src/cli", ".rs") {
        for path in imports(&file, "axon/src/", &text) {
            let target = path.split("::").next().unwrap();
            let daemon = file == "axon/src/cli/daemon.rs" && target == "driver";
            if ["net", "ipc", "discover", "driver", "notify"].contains(&target) && !daemon {
                faults.push(format!("{file} uses {path}"));
            }
        }
    }
    none("see axon/ARCHITECTURE.md", &faults);
}

#[test]
fn nothing_of_the_network_is_drawn_at_random_by_tokio() {
    // A `select!` that is not biased draws its order: the same seed would not give the same datagrams.
    let mut faults = Vec::new();
    for (file, text) in files("axon/src/net", ".rs").into_iter().filter(|(file, _)| !file.contains("tests")) {
        let code = code(&text);
        let drawn =
            |(at, whole): &(usize, &str)| !code[at + whole.len()..].trim_start().starts_with("biased;");
        faults.extend(code.match_indices("select! {").filter(drawn).map(|_| file.clone()));
    }
    none("a select! of the network must be biased", &faults);
}

#[test]
fn the_core_has_no_clock_no_sockets_no_files_and_no_tasks() {
    let words = [
        "tokio",
        "std::fs",
        "std::env",
        "std::thread",
        "std::process",
        "std::io",
        "Instant",
        "SystemTime",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "UnixListener",
        "getrandom",
        "println",
    ];
    let mut faults = Vec::new();
    for (file, text) in files("axon/proto/src", ".rs") {
        let code = code(&text);
        faults
            .extend(words.iter().filter(|word| code.contains(**word)).map(|word| format!("{file}: {word}")));
    }
    none("time, randomness and addresses are arguments of the core", &faults);
}

/// The crates that this one is built with, itself included.
fn tree(package: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-p", package]);
    let output = cargo.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_core_and_the_client_stay_light() {
    for (package, without) in [
        ("axon-proto", &["tokio", "mio", "socket2", "rustix", "getrandom", "quinn", "rustls", "ring"][..]),
        ("axon-client", &["quinn", "quinn-proto", "rustls", "ring", "rcgen", "mdns-sd", "clap", "toml_edit"]),
    ] {
        let tree = tree(package);
        assert!(tree.contains(package), "{tree:?}");
        for name in without {
            assert!(!tree.contains(*name), "{package} is built with {name}: {tree:?}");
        }
    }
}

/// What makes calls fail is for tests, and the daemon is built without it.
#[test]
fn the_daemon_has_no_fault_points() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "-e", "normal,build", "--prefix", "none", "-p", "axon"]);
    let output = cargo.args(["-f", "{p} features={f}"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let core: Vec<&str> = text.lines().filter(|line| line.starts_with("axon-proto ")).collect();
    assert!(!core.is_empty(), "{text}");
    assert!(core.iter().all(|line| !line.split("features=").nth(1).unwrap().contains("sim")), "{core:?}");
    for (file, only) in [
        ("axon/proto/src/fault.rs", "#[cfg(feature = \"sim\")]\nmod points {"),
        ("axon/src/disk/fault.rs", "#[cfg(test)]\nmod points {"),
        ("axon/src/disk/store.rs", "#[cfg(test)]\nmod sweep;"),
    ] {
        assert!(fs::read_to_string(root().join(file)).unwrap().contains(only), "{file}: {only}");
    }
}

// ---- Files and lines --------------------------------------------------------------------------------------

fn sources() -> Vec<(String, String)> {
    let mut all = files("axon", ".rs");
    for (dir, ending) in [
        ("tests", ".rs"),
        ("fuzz", ".rs"),
        ("tests/pypeer", ".py"),
        ("examples", ".rs"),
        ("examples", ".py"),
        ("examples", ".sh"),
        ("axon/client/python", ".py"),
    ] {
        all.extend(files(dir, ending));
    }
    // The folders by name: what npm installs and the compiler writes beside them is nobody's to read.
    for (dir, ending) in [("src", ".ts"), ("test", ".mjs")] {
        all.extend(files(&format!("axon/client/typescript/{dir}"), ending));
    }
    all
}

#[test]
fn no_line_is_longer_than_110_columns() {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            // A sentence is not broken, nor does rustfmt do it.
            let sentence = !line.trim_start().starts_with("//") && line.contains('"');
            let columns = line.chars().count();
            if columns > 110 && !sentence {
                faults.push(format!("{file}:{number}: {columns} columns"));
            }
        }
    }
    none("break these lines", &faults);
}

#[test]
fn no_file_is_longer_than_700_lines() {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        // Tests at a file's end are read apart from it.
        let own = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..own].lines().count();
        if lines > 700 {
            faults.push(format!("{file}: {lines} lines"));
        }
    }
    none("split these files", &faults);
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // In two halves, so that this file does not find itself.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("unimple", "mented!")];
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| line.contains(word)) {
                faults.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    none("do it now, or leave it out", &faults);
}

// ---- Specification and code -------------------------------------------------------------------------------

/// The cells of the table rows below this heading, down to the next heading of the same rank or higher.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let rank = heading.chars().take_while(|c| *c == '#').count();
    let start = page.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no {heading}")) + 1;
    let ends = |line: &&str| {
        let hashes = line.chars().take_while(|c| *c == '#').count();
        hashes > 0 && hashes <= rank
    };
    let lines = page[start..].lines().skip(1).take_while(|line| !ends(line));
    let row =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines.filter(|line| line.starts_with('|') && !line.starts_with("|-")).map(row).collect()
}

/// The words of a cell that stand in backquotes.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn error_codes_are_those_of_the_specification() {
    let rows = table(&page("spec/WIRE_FORMAT.md"), "## 7. Errors");
    let told: Vec<(String, bool)> =
        rows.iter().skip(1).map(|row| (words(&row[0])[0].to_owned(), row[2] == "yes")).collect();
    let ours: Vec<_> =
        PeerCode::ALL.iter().map(|code| (code.as_str().to_owned(), code.retryable())).collect();
    // shows: WF-ERR-5
    assert_eq!(told, ours);

    let rows = table(&page("spec/IPC.md"), "## 8. Errors");
    let told: Vec<(String, u8)> =
        rows.iter().skip(1).map(|row| (words(&row[0])[0].to_owned(), row[3].parse().unwrap())).collect();
    let ours: Vec<_> = IpcCode::ALL.iter().map(|code| (code.as_str().to_owned(), code.exit_code())).collect();
    assert_eq!(told, ours);
}

/// The whole numbers in a text, `65,536` being one.
fn numbers(text: &str) -> Vec<u64> {
    let text: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut digits = String::new();
    for (at, c) in text.iter().enumerate() {
        let thousands = *c == ',' && text.get(at + 1).is_some_and(char::is_ascii_digit) && !digits.is_empty();
        if c.is_ascii_digit() {
            digits.push(*c);
        } else if !thousands && !digits.is_empty() {
            found.push(digits.parse().unwrap());
            digits.clear();
        }
    }
    found.extend(digits.parse::<u64>());
    found
}

/// Every row of a table of limits has these numbers, and no row is missing here.
fn limits_are(page_path: &str, heading: &str, expected: &[(&str, &[u64])]) {
    let rows = table(&page(page_path), heading);
    let mut faults = Vec::new();
    for row in rows.iter().skip(1) {
        match expected.iter().find(|(name, _)| *name == row[0]) {
            Some((_, wanted)) if numbers(&row[1]) == *wanted => {}
            Some((_, wanted)) => {
                faults.push(format!("{}: page {:?}, code {wanted:?}", row[0], numbers(&row[1])))
            }
            None => faults.push(format!("{}: not compared with the code", row[0])),
        }
    }
    for (name, _) in expected {
        if !rows.iter().any(|row| row[0] == *name) {
            faults.push(format!("{name}: not on the page"));
        }
    }
    none(page_path, &faults);
}

#[test]
fn limits_of_the_wire_are_those_of_the_specification() {
    let preset = axon::disk::Config::default();
    let n = |bound: usize| u64::try_from(bound).unwrap();
    limits_are(
        "spec/WIRE_FORMAT.md",
        "## 8. Limits",
        &[
            ("message (encoded envelope)", &[n(MESSAGE_BYTES_MAX)]),
            ("`kind`", &[n(KIND_BYTES_MAX)]),
            ("agent name in hello", &[n(NAME_BYTES_MAX)]),
            ("`boot`", &[n(BOOT_BYTES_MAX)]),
            ("features of one hello", &[n(FEATURES_MAX), n(FEATURE_BYTES_MAX)]),
            ("domain of a query", &[n(DOMAIN_BYTES_MAX)]),
            ("answer awaited, no deadline given", &[REQUEST_TIMEOUT_MS]),
            ("requester's extra wait (grace)", &[REPLY_GRACE_MS]),
            ("connections, all peers", &[n(preset.max_connections)]),
            ("connections of found peers", &[n(FOUND_CONNECTIONS_MAX)]),
            ("connections of one peer", &[n(CONNECTIONS_PER_PEER_MAX)]),
            ("handshakes before Retry / refusal", &[n(HANDSHAKES_FREE_MAX), n(HANDSHAKES_MAX)]),
            (
                "connections of strangers, together / from one address",
                &[n(STRANGERS_MAX), n(STRANGERS_PER_ADDR_MAX)],
            ),
            ("a stranger's connection", &[STRANGER_MS / 1000]),
            ("a stranger's message", &[n(STRANGER_MESSAGE_BYTES_MAX)]),
            ("a stranger's streams of each direction", &[u64::from(STRANGER_STREAMS_MAX)]),
            ("time to hello", &[preset.handshake_timeout_secs]),
            ("streams of each direction on a connection", &[u64::from(STREAMS_MAX)]),
            ("time without a byte on an unfinished message", &[preset.inbound_read_timeout_secs]),
            ("message on a pipe, but for answers", &[n(PIPE_MESSAGE_BYTES_MAX)]),
            ("asks on a pipe without an end", &[n(PIPE_REQUESTS_MAX)]),
            ("tells on a pipe that are not heard", &[n(PIPE_ONE_WAY_MAX)]),
            ("bytes that wait for a pipe", &[n(PIPE_WAITING_BYTES_MAX)]),
            ("silence before a connection is doubted", &[SILENCE_MS, DOUBT_DIAL_MS][..1]),
            ("lower id's head start", &[INITIATOR_WAIT_MS]),
            ("superseded connection without streams", &[DRAIN_MS]),
            ("backoff", &[BACKOFF_FIRST_MS / 1000, preset.reconnect_max_backoff_secs]),
            ("open requests of peers, together", &[n(OPEN_REQUESTS_MAX)]),
            ("open requests of one peer", &[n(OPEN_PER_PEER_MAX)]),
            ("queries and delegations under way to one peer", &[n(WORK_TO_PEER_MAX)]),
            ("requests and delegations waiting for an agent", &[n(QUEUED_REQUESTS_MAX)]),
            ("those of one peer among them", &[n(QUEUED_PER_PEER_MAX)]),
            ("objects and lists inside one another", &[n(DEPTH_MAX)]),
            ("delegations remembered, each direction", &[n(DELEGATIONS_MAX)]),
            ("remembered ids", &[REPLAY_TTL_MS / 1000, n(REPLAY_IDS_MAX)]),
            ("`resend_until`", &[RESEND_MS_MAX / 1000]),
            ("ids remembered for `resend_until`", &[n(LONG_IDS_PER_PEER_MAX), n(LONG_IDS_RESTORED_MAX)]),
            ("messages whose senders wait to hear that they were read", &[n(READ_WAITING_MAX)]),
            ("`receipt` held for its peer", &[READ_RECEIPT_HOLD_MS / 1000]),
            // One behind the other: the order is the promise, and no bound that could be another.
            ("held messages under way to one peer", &[1]),
            ("a held message refused for now", &[OUTBOX_RETRY_FIRST_MS / 1000, OUTBOX_RETRY_MAX_MS / 1000]),
            ("changes waiting for the disk", &[n(COMMITS_MAX), n(COMMITS_BYTES_MAX)]),
            ("payload of a `knock`", &[n(KNOCK_BYTES_MAX)]),
            ("`name`, `category`, `action`, `session` of a `knock`", &[n(NAME_BYTES_MAX)]),
            ("`message` of a `knock`, `reason` of an `admission`", &[n(KNOCK_TEXT_BYTES_MAX)]),
            ("addresses of a `knock` or a link", &[n(ADDRS_PER_PEER_MAX)]),
            ("a link", &[n(LINK_BYTES_MAX)]),
            ("knocks waiting for their owner", &[n(KNOCKS_MAX), n(KNOCKS_PER_SITE_MAX), KNOCK_TTL_MS / 1000]),
            // The newer takes the older's place.
            ("new keys of one peer waiting for their owner", &[1]),
            ("knocks of peers below `known`", &[preset.knock.per_minute]),
            ("wait after a wrong proof", &[GUESS_WAIT_FIRST_MS / 1000, GUESS_WAIT_MAX_MS / 1000]),
            ("keys / addresses remembered for it", &[n(GUESSERS_MAX), n(GUESSERS_MAX)]),
            ("a key that was denied", &[DENIED_MS / 1000]),
            ("one-way messages set aside while paused", &[n(PAUSED_MAX), n(PAUSED_BYTES_MAX)]),
            ("unread rows of peers of level `unknown`", &[n(UNKNOWN_ROWS_MAX)]),
            ("an old key, after a `rekey`", &[OLD_KEY_MS / 1000, n(OLD_KEYS_MAX)]),
            ("static peers", &[n(STATIC_PEERS_MAX)]),
            ("contacts", &[n(CONTACTS_MAX)]),
            ("found peers / addresses of each", &[n(FOUND_PEERS_MAX), n(ADDRS_PER_PEER_MAX)]),
            ("found peer without news", &[STALE_MS / 1000, SWEEP_INTERVAL_MS / 1000]),
            ("stop", &[SHUTDOWN_MS / 1000]),
        ],
    );
}

#[test]
fn limits_of_the_socket_are_those_of_the_specification() {
    let preset = axon::disk::Config::default();
    let n = |bound: usize| u64::try_from(bound).unwrap();
    limits_are(
        "spec/IPC.md",
        "## 9. Limits",
        &[
            ("clients", &[n(preset.max_ipc_clients)]),
            ("places that clients without a complete line never hold", &[n(PLACES_KEPT)]),
            ("a line that was begun", &[LINE_MS]),
            ("a client's line", &[n(LINE_BYTES_MAX)]),
            ("a daemon's line with one envelope", &[n(LINE_OVERHEAD_BYTES_MAX)]),
            ("rows that `peers` looks at to count unread ones", &[n(UNREAD_ROWS_MAX), n(UNREAD_BYTES_MAX)]),
            ("`inbox` reply", &[n(INBOX_REPLY_BYTES_MAX), 1, INBOX_LIMIT_MAX, INBOX_LIMIT_DEFAULT]),
            ("`outbox` reply", &[n(INBOX_REPLY_BYTES_MAX), 1, INBOX_LIMIT_MAX, OUTBOX_LIMIT_DEFAULT]),
            (
                "`delegations` reply",
                &[n(INBOX_REPLY_BYTES_MAX), 1, INBOX_LIMIT_MAX, DELEGATIONS_LIMIT_DEFAULT],
            ),
            // A result as long as a message may be, the progress before it, and as much again for the rest.
            ("`delegation` event", &[n(MESSAGE_BYTES_MAX + 2 * PROGRESS_BYTES_MAX)]),
            ("`req_id`", &[n(REQ_ID_BYTES_MAX)]),
            ("consumer", &[n(CONSUMER_BYTES_MAX), n(CONSUMERS_MAX)]),
            ("commands waiting for peers", &[n(CLIENT_PENDING_MAX), n(PENDING_MAX / 4), n(PENDING_MAX)]),
            ("events waiting for one client", &[n(preset.max_client_queue), n(CLIENT_QUEUE_BYTES_MAX)]),
            ("names in `kinds`, `domains`, `answer`", &[n(SUBSCRIPTION_NAMES_MAX)]),
            ("capacity of an answerer", &[u64::from(CAPACITY_DEFAULT), u64::from(CAPACITY_MAX)]),
            ("requests open / waiting for an agent", &[n(OPEN_REQUESTS_MAX), n(QUEUED_REQUESTS_MAX)]),
            ("those of one peer", &[n(OPEN_PER_PEER_MAX), n(QUEUED_PER_PEER_MAX)]),
            ("lines that a client leaves unread", &[n(CLIENT_UNREAD_BYTES_MAX)]),
            ("objects and lists inside one another", &[n(DEPTH_MAX) - 1]),
            ("ends of requests remembered", &[n(CLOSED_REQUESTS_MAX)]),
            ("`capabilities` of one client", &[n(CAPABILITIES_BYTES_MAX)]),
            ("persisted `capabilities`", &[n(PERSISTED_ADVERTS_MAX)]),
            ("held messages", &[n(preset.outbox.messages_max), n(preset.outbox.bytes_max)]),
            ("held messages to one peer", &[n(preset.outbox.per_peer_messages_max)]),
            ("held messages of one scoped socket", &[]),
            ("results held where `outbox.messages_max` is lower", &[n(OUTBOX_RESULTS_MAX)]),
            ("a hold", &[1, preset.outbox.hold_secs_max]),
            ("a held message refused for now", &[OUTBOX_RETRY_FIRST_MS / 1000, OUTBOX_RETRY_MAX_MS / 1000]),
            ("row of the outbox after its last change", &[OUTBOX_ROW_TTL_MS / 1000, RESEND_MS_MAX / 1000]),
            ("delegations remembered, each direction", &[n(DELEGATIONS_MAX), n(LEDGER_BYTES_MAX)]),
            ("`progress` of a delegation that is kept", &[n(PROGRESS_BYTES_MAX)]),
            ("rows of the outbox", &[n(OUTBOX_DONE_MAX)]),
            ("`reason` of a row", &[n(REASON_BYTES_MAX)]),
            (
                "commands behind one that reads the disk",
                &[n(CLIENT_BACKLOG_MAX), n(CLIENT_BACKLOG_BYTES_MAX)],
            ),
            ("changes waiting for the disk", &[n(COMMITS_MAX), n(COMMITS_BYTES_MAX)]),
            ("contacts", &[n(CONTACTS_MAX)]),
            ("`why`, and `message` of `connect`", &[n(WHY_BYTES_MAX)]),
            ("a link", &[n(LINK_BYTES_MAX)]),
            ("addresses of a link, an invite or a contact", &[n(ADDRS_PER_PEER_MAX)]),
            ("open invites", &[n(INVITES_MAX)]),
            ("`label` of an invite", &[n(NAME_BYTES_MAX)]),
            ("life of an invite", &[60, INVITE_SECS_MAX, 3600]),
            ("uses of an invite", &[1, INVITE_USES_MAX, 1]),
            ("life of a contact that ends", &[1, 100 * INVITE_SECS_MAX]),
            ("contacts and invites whose time is over", &[SWEEP_INTERVAL_MS / 1000]),
            ("knocks waiting for the owner", &[n(KNOCKS_MAX), n(KNOCKS_PER_SITE_MAX), KNOCK_TTL_MS / 1000]),
            ("new keys of one peer waiting for the owner", &[1]),
            ("`connect`", &[15_000, 4 * REQUEST_TIMEOUT_MS]),
            ("words of a blocked peer in a client's queue", &[PURGE_MS]),
            ("scoped sockets", &[n(SOCKETS_MAX), 1, 32]),
            ("clients of scoped sockets", &[n(PLACES_KEPT)]),
            ("names in `to`, `kinds`, `domains` of a scope or a policy", &[n(RULE_NAMES_MAX)]),
            ("rows given to a scoped socket and not acked that are remembered", &[n(SCOPE_UNACKED_MAX)]),
            ("subscriptions to topics", &[n(TOPIC_SUBS_PER_OWNER_MAX), n(TOPIC_SUBS_MAX)]),
            (
                "messages that are published and wait",
                &[n(TOPIC_PUBLISH_WAITING_MAX), n(TOPIC_PUBLISH_WAITING_MAX / 4)],
            ),
            ("topics in `seen`", &[n(TOPIC_LISTED_MAX)]),
            (
                "history that `topic_keep` is told",
                &[1, TOPIC_KEEP_LAST_MAX, TOPIC_KEEP_LAST_DEFAULT, 1, TOPIC_KEEP_HOURS_MAX],
            ),
            ("history that is kept", &[n(TOPIC_KEEPS_MAX), n(TOPIC_KEPT_BATCHES_MAX), TOPIC_KEPT_BYTES_MAX]),
            ("history that a subscription is told", &[n(TOPIC_REPLAY_BATCHES_MAX)]),
            ("histories that are told at once", &[n(TOPIC_REPLAYS_MAX), n(TOPIC_REPLAYS_MAX / 4)]),
            ("audit log", &[4_194_304, n(AUDIT_KEYS_MAX), AUDIT_WINDOW_MS]),
            ("a request's deadline", &[REQUEST_TIMEOUT_MS, DEADLINE_MS_MAX]),
            ("grace of the requester", &[REPLY_GRACE_MS]),
            ("stop", &[SHUTDOWN_MS / 1000]),
        ],
    );
}

#[test]
fn settings_are_those_of_the_specification() {
    let told: BTreeSet<String> = table(&page("spec/SPEC.md"), "## Settings")
        .iter()
        .flat_map(|row| words(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .filter(|key| !["[[peers]]", "[[topics.rules]]", "agent.*"].contains(&key.as_str()))
        .collect();
    let settings = SETTINGS.iter().map(|row| row.key);
    let of_tables = [axon::disk::settings::PEER_KEYS, axon::disk::settings::TOPIC_RULE_KEYS].concat();
    let ours = settings.chain(of_tables).map(str::to_owned).collect();
    assert_eq!(told, ours);
}

#[test]
fn keys_of_topic_rules_are_those_of_the_specification() {
    let told: Vec<String> = table(&page("spec/SPEC.md"), "### Rules of topics")
        .iter()
        .skip(1)
        .flat_map(|row| words(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(told, axon::disk::settings::TOPIC_RULE_KEYS);
}

#[test]
fn ranges_and_presets_of_settings_are_those_of_the_specification() {
    let rows = table(&page("spec/SPEC.md"), "## Settings");
    let mut faults = Vec::new();
    for setting in SETTINGS {
        let row = rows.iter().find(|row| words(&row[0]).contains(&setting.key)).unwrap();
        let range = match setting.kind {
            Bounds::Int { min, max } => vec![min, max],
            Bounds::Text { bytes_max } => vec![1, u64::try_from(bytes_max).unwrap()],
            _ => Vec::new(),
        };
        let preset = match setting.preset {
            Preset::None => None,
            Preset::Int(number) => Some(number.to_string()),
            Preset::Bool(flag) => Some(flag.to_string()),
            Preset::Word(word) => Some(word.to_owned()),
            Preset::Names(names) => Some(names.iter().map(|name| format!("`{name}`")).collect::<String>()),
        };
        let told = (numbers(&row[1]), row[2].replace(',', ""), row[4] == "yes");
        if told.0 != range || preset.is_some_and(|preset| told.1 != preset) || told.2 != setting.restart {
            faults.push(format!("{}: page {told:?}, code {setting:?}", setting.key));
        }
    }
    none("spec/SPEC.md", &faults);
}

#[test]
fn kinds_are_those_of_the_specification() {
    let rows = table(&page("spec/MESSAGE_TYPES.md"), "## All kinds");
    let families = axon_proto::kinds::all();
    let kinds: Vec<&Kind> = families.iter().flat_map(|family| family.vocabulary().kinds).collect();
    let mut told = BTreeSet::new();
    for row in rows.iter().skip(1) {
        for name in words(&row[0]) {
            told.insert(name.to_owned());
            let kind =
                kinds.iter().find(|kind| kind.name == name).unwrap_or_else(|| panic!("no kind {name}"));
            if row[1].starts_with("the request's own") {
                let alone = kind.name == "error" || kind.pattern == Pattern::Reply;
                assert!(
                    alone && kind.feature == row[4].contains(&format!("`{name}`")).then_some(name),
                    "{name}"
                );
                continue;
            }
            let (replies, later) = match kind.pattern {
                Pattern::Request { replies, later } => (replies, later),
                _ => (&[][..], &[][..]),
            };
            assert_eq!(row[1].starts_with("bidirectional"), kind.is_request(), "{name}");
            assert_eq!((words(&row[2]), words(&row[3])), (replies.to_vec(), later.to_vec()), "{name}");
            assert_eq!(words(&row[4]).first().copied(), kind.feature, "{name}");
            assert_eq!(row[6] == "yes", kind.kept, "{name}");
            // hello and answers are not judged.
            let judged = name != "hello" && kind.pattern != Pattern::Reply;
            assert_eq!(words(&row[7]).first().copied(), judged.then(|| kind.needs.as_str()), "{name}");
            assert!(root().join("spec/kinds").join(format!("{}.md", family_of(name))).exists(), "{name}");
        }
    }
    assert_eq!(told, kinds.iter().map(|kind| kind.name.to_owned()).collect());
}

fn family_of(kind: &str) -> &'static str {
    let families = axon_proto::kinds::all();
    let has = |kinds: &[Kind]| kinds.iter().any(|own| own.name == kind);
    families.iter().map(|family| family.vocabulary()).find(|words| has(words.kinds)).unwrap().family
}

#[test]
fn requirements_that_tests_name_are_in_the_specification() {
    let spec: String = files("spec", ".md").into_iter().map(|(_, text)| text).collect();
    let mut faults = Vec::new();
    for (file, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            let Some((_, named)) = line.split_once("shows: ") else { continue };
            let ids = named.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            // An id is capitals, dashes and a number at its end.
            let ids = ids.filter(|id| id.contains('-') && id.ends_with(|c: char| c.is_ascii_digit()));
            for id in ids.filter(|id| !spec.contains(&format!("[{id}]"))) {
                faults.push(format!("{file}:{number}: {id}"));
            }
        }
    }
    none("no such requirement", &faults);
}
