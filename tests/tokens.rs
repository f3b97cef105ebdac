//! What an exchange costs: the tokens that an agent writes and reads for it, through the command line, the
//! socket and MCP, beside the same exchange in A2A's JSON-RPC; and the bytes that daemons send each
//! other.
//!
//! Real daemons, recorded lines, a real tokenizer. What is random (ids, times) is made the same in each run
//! before it is counted, so that a count is a number and not a range. `-- --nocapture` prints the table.

mod count;

use std::process::Command;

use count::{Cost, Steady, a2a, tokens};
use serde_json::{Value, json};

use crate::peer::{RawPeer, Request};
use crate::support::cli::{self, Ran};
use crate::support::mcp::Mcp;
use crate::support::{AXON, Daemon, PATIENCE, RawClient, pair, wait_for};

const QUESTION: &str = "When is the next dentist appointment?";
const ANSWER: &str = "Thursday, 3 December, at half past nine.";
const TASK: &str = "Summarise today's notes.";
const RESULT: &str = "Three notes, one open question.";
/// What ten messages tell: topic and text.
const NOTES: [(&str, &str); 10] = [
    ("home.door", "The front door is open."),
    ("home.heating", "The boiler asks for water."),
    ("mail.post", "A parcel is at the neighbours'."),
    ("family.school", "The trip was moved to Friday."),
    ("garden.pump", "The pump ran dry at noon."),
    ("build.main", "All 512 tests pass again."),
    ("car.service", "The brakes were replaced."),
    ("family.calendar", "Dinner is at seven, not at six."),
    ("home.alarm", "The battery of sensor 4 is low."),
    ("shop.order", "Two of three items have shipped."),
];

/// The most that each exchange may cost: what it costs now. One that costs less lowers its number here.
///
/// Through the command line as it prints into a pipe, with `--plain`, through the socket, and through MCP:
/// what is written and what is read.
const CEILINGS: &[(&str, [Option<Cost>; 4])] = &[
    ("connect", [None, None, cost(14, 82), None]),
    ("ask", [cost(11, 80), cost(13, 11), cost(30, 175), cost(21, 24)]),
    ("answer", [cost(46, 130), cost(49, 50), cost(70, 212), cost(31, 40)]),
    ("delegate", [cost(12, 151), cost(14, 15), cost(45, 375), cost(24, 26)]),
    ("notify", [cost(13, 38), cost(15, 3), cost(35, 40), cost(26, 2)]),
    ("read ten", [cost(2, 973), cost(4, 195), cost(11, 1359), cost(10, 274)]),
    ("ack ten", [cost(4, 10), cost(6, 6), cost(16, 15), cost(12, 2)]),
];
/// The same for A2A 0.3 and 1.0. These say that the measure itself has not changed.
const BESIDE: &[(&str, [Option<Cost>; 2])] = &[
    ("ask", [cost(78, 98), cost(71, 94)]),
    ("answer", [cost(98, 78), cost(94, 71)]),
    ("delegate", [cost(129, 205), cost(123, 201)]),
    ("delegate, one reply", [cost(83, 127), cost(70, 124)]),
    ("read ten", [cost(455, 1350), cost(29, 1173)]),
];
/// Bytes of envelopes between two daemons.
const BYTES: &[(&str, usize)] =
    &[("query", 246), ("its response", 308), ("notify", 249), ("its receipt", 254)];

const WAYS: [&str; 4] = ["command line", "command line, `--plain`", "socket", "MCP"];
const VERSIONS: [&str; 2] = ["0.3", "1.0"];
/// Exchanges in the order of the table.
const EXCHANGES: [&str; 8] =
    ["connect", "ask", "answer", "delegate", "delegate, one reply", "notify", "read ten", "ack ten"];

type Costs = Vec<(&'static str, Cost)>;

const fn cost(writes: usize, reads: usize) -> Option<Cost> {
    Some(Cost::new(writes, reads))
}

// ---- Through the command line -----------------------------------------------------------------------------

/// An agent at a shell: the commands that it writes, and what they print.
struct Shell<'a> {
    daemon: &'a Daemon,
    plain: bool,
    steady: Steady,
}

impl Shell<'_> {
    /// `axon` with these arguments, and the agent said by its environment: so it writes no path each time.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(AXON);
        command.args(self.args(args)).env("AXON_ROOT", self.daemon.root());
        command.env("HOME", self.daemon.root()).env_remove("AXON_SOCKET").env_remove("NO_COLOR");
        command
    }

    /// The arguments as they are run.
    fn args<'b>(&self, args: &[&'b str]) -> Vec<&'b str> {
        if self.plain { [&["--plain"], args].concat() } else { args.to_vec() }
    }

    /// What this command cost; both outputs are read.
    fn cost(&mut self, args: &[&str], ran: &Ran) -> Cost {
        assert_eq!(ran.code, 0, "{ran:?}");
        let words = self.args(args);
        let words = words.iter().map(|word| match word.contains([' ', '\'']) {
            true => format!("\"{word}\""),
            false => (*word).to_owned(),
        });
        let line = format!("axon {}", words.collect::<Vec<_>>().join(" "));
        let (writes, reads) = (self.steady.text(&line), format!("{}{}", ran.stdout, ran.stderr));
        Cost::new(tokens(&writes), tokens(&self.steady.text(&reads)))
    }

    fn run(&mut self, args: &[&str]) -> (Ran, Cost) {
        let ran = cli::run(self.command(args));
        let cost = self.cost(args, &ran);
        (ran, cost)
    }
}

fn command_line(plain: bool) -> Costs {
    let (alice, bob) = pair();
    let mut shell = Shell { daemon: &alice, plain, steady: Steady::of(alice.id()) };
    let mut costs = Vec::new();

    tell_ten(&bob);
    let (ran, cost) = shell.run(&["inbox"]);
    assert!(NOTES.iter().all(|(_, note)| ran.stdout.contains(note)), "{ran:?}");
    costs.push(("read ten", cost));
    costs.push(("ack ten", shell.run(&["ack", "10"]).1));

    let mut agent = bob.answerer(json!({"answer":["query","delegate"]}));
    let args = ["send", "bob", QUESTION];
    let asking = cli::spawn(shell.command(&args));
    agent.answer_one(ANSWER);
    let ran = asking.wait();
    assert!(ran.stdout.contains(ANSWER), "{ran:?}");
    // Whoever wants the answer and nothing else gets just that.
    assert!(!plain || ran.stdout == format!("{ANSWER}\n"), "{ran:?}");
    costs.push(("ask", shell.cost(&args, &ran)));

    let args = ["delegate", "--wait", "bob", TASK];
    let mut asking = cli::spawn(shell.command(&args));
    let work = agent.request();
    // What is printed of its id is known by the whole of it.
    shell.steady.text(work["id"].as_str().unwrap());
    agent.reply(&work, "ack", json!({"accepted":true}));
    let ack = asking.text();
    assert!(ack.contains(&work["id"].as_str().unwrap()[..8]), "{ack}");
    agent.reply(&work, "result", result());
    let ran = asking.wait();
    assert!(ran.stdout.contains(RESULT), "{ran:?}");
    costs.push(("delegate", shell.cost(&args, &ran)));

    let (topic, note) = NOTES[0];
    costs.push(("notify", shell.run(&["notify", "bob", topic, note]).1));

    // The other side: it is asked, and answers.
    let args = ["listen", "--answer", "--count", "1"];
    let taking = cli::spawn(shell.command(&args));
    let mut looker = alice.client();
    wait_for("the answerer", || (looker.ok(json!({"cmd":"status"}))["answerers"] == 1).then_some(()));
    let mut asker = bob.client();
    let asked = asker.ask("alice", QUESTION, json!({}));
    let ran = taking.wait();
    assert!(ran.stdout.contains(QUESTION), "{ran:?}");
    let mut cost = shell.cost(&args, &ran);
    let mut words = ran.stdout.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let id = words.find(|word| word.len() == 36).expect("the query's id").to_owned();
    cost += shell.run(&["reply", &id, ANSWER]).1;
    assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], ANSWER);
    costs.push(("answer", cost));
    costs
}

// ---- Through the socket -----------------------------------------------------------------------------------

/// An agent at the socket: lines as it writes them, and those that it reads.
struct Talk {
    client: RawClient,
    steady: Steady,
    cost: Cost,
}

impl Talk {
    fn write(&mut self, line: &Value) {
        let line = format!("{line}\n");
        self.client.raw(line.as_bytes());
        self.cost += Cost::new(tokens(&self.steady.text(&line)), 0);
    }

    fn read(&mut self) -> Value {
        let line = self.client.raw_line();
        self.cost += Cost::new(0, tokens(&self.steady.text(&line)));
        serde_json::from_str(&line).unwrap()
    }

    /// A command and its reply.
    fn say(&mut self, line: Value) -> Value {
        self.write(&line);
        let reply = self.read();
        assert_eq!((&reply["ok"], &reply["req_id"]), (&json!(true), &line["req_id"]), "{line}\n-> {reply}");
        reply
    }

    /// What was spent since the last time.
    fn spent(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }
}

fn socket() -> Costs {
    let (alice, bob) = pair();
    let steady = Steady::of(alice.id());
    let mut talk = Talk { client: alice.connect(), steady, cost: Cost::default() };
    let mut costs = Vec::new();
    talk.say(json!({"cmd":"hello","req_id":1,"version":2}));
    costs.push(("connect", talk.spent()));

    tell_ten(&bob);
    let rows = talk.say(json!({"cmd":"inbox","req_id":2}));
    assert_eq!(rows["messages"].as_array().unwrap().len(), NOTES.len(), "{rows}");
    costs.push(("read ten", talk.spent()));
    talk.say(json!({"cmd":"ack","req_id":3,"up_to_seq":10}));
    costs.push(("ack ten", talk.spent()));

    let mut agent = bob.answerer(json!({"answer":["query","delegate"]}));
    talk.write(&json!({"cmd":"send","req_id":4,"to":"bob","kind":"query","payload":{"question":QUESTION}}));
    agent.answer_one(ANSWER);
    let reply = talk.read();
    assert_eq!(reply["response"]["payload"]["summary"], ANSWER, "{reply}");
    costs.push(("ask", talk.spent()));

    talk.say(json!({"cmd":"subscribe","req_id":5,"kinds":["result"]}));
    talk.write(&json!({"cmd":"send","req_id":6,"to":"bob","kind":"delegate","payload":{"task":TASK}}));
    let work = agent.request();
    agent.reply(&work, "ack", json!({"accepted":true}));
    let reply = talk.read();
    assert_eq!(reply["response"]["kind"], "ack", "{reply}");
    agent.reply(&work, "result", result());
    let event = talk.read();
    assert_eq!(event["envelope"]["payload"]["outcome"], RESULT, "{event}");
    costs.push(("delegate", talk.spent()));

    let payload = json!({"topic":NOTES[0].0,"data":NOTES[0].1});
    talk.say(json!({"cmd":"send","req_id":7,"to":"bob","kind":"notify","payload":payload}));
    costs.push(("notify", talk.spent()));

    talk.say(json!({"cmd":"subscribe","req_id":8,"answer":["query"]}));
    let mut asker = bob.client();
    let asked = asker.ask("alice", QUESTION, json!({}));
    let event = talk.read();
    assert_eq!(event["answer"], true, "{event}");
    let payload = json!({"summary":ANSWER});
    let id = &event["envelope"]["id"];
    talk.say(json!({"cmd":"reply","req_id":9,"ref":id,"kind":"response","payload":payload}));
    assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], ANSWER);
    costs.push(("answer", talk.spent()));
    costs
}

// ---- Through MCP ------------------------------------------------------------------------------------------

/// An agent with the tools: the names and arguments that it writes, and the texts that it reads. The tools
/// themselves, read once, are counted in `tests/mcp.rs`; structured output says the same for programs.
struct Tools {
    mcp: Mcp,
    steady: Steady,
}

impl Tools {
    fn begin(&mut self, tool: &str, arguments: &Value) -> u64 {
        self.mcp.begin("tools/call", json!({"name":tool,"arguments":arguments}))
    }

    /// What a call cost, once it has ended, and what was read.
    fn finish(&mut self, id: u64, tool: &str, arguments: &Value) -> (String, Cost) {
        let result = self.mcp.finish(id)["result"].clone();
        assert_ne!(result["isError"], true, "{result}");
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        let writes = json!({"name":tool,"arguments":arguments}).to_string();
        let cost = Cost::new(tokens(&self.steady.text(&writes)), tokens(&self.steady.text(&text)));
        (text, cost)
    }

    fn call(&mut self, tool: &str, arguments: Value) -> (String, Cost) {
        let id = self.begin(tool, &arguments);
        self.finish(id, tool, &arguments)
    }
}

fn mcp() -> Costs {
    let (alice, bob) = pair();
    let mut tools =
        Tools { mcp: Mcp::start(&alice, &["--answer", "always"]), steady: Steady::of(alice.id()) };
    let mut costs = Vec::new();
    tools.call("inbox", json!({}));

    tell_ten(&bob);
    let (text, cost) = tools.call("inbox", json!({}));
    assert!(NOTES.iter().all(|(_, note)| text.contains(note)), "{text}");
    costs.push(("read ten", cost));
    costs.push(("ack ten", tools.call("inbox", json!({"ack":10})).1));

    let mut agent = bob.answerer(json!({"answer":["query","delegate"]}));
    let args = json!({"peer":"bob","question":QUESTION});
    let id = tools.begin("ask", &args);
    agent.answer_one(ANSWER);
    let (text, cost) = tools.finish(id, "ask", &args);
    assert!(text.contains(ANSWER), "{text}");
    costs.push(("ask", cost));

    let args = json!({"peer":"bob","task":TASK,"secs":60});
    let id = tools.begin("delegate", &args);
    let work = agent.request();
    tools.steady.text(work["id"].as_str().unwrap());
    agent.reply(&work, "ack", json!({"accepted":true}));
    agent.reply(&work, "result", result());
    let (text, cost) = tools.finish(id, "delegate", &args);
    assert!(text.contains(RESULT), "{text}");
    costs.push(("delegate", cost));

    let (topic, note) = NOTES[0];
    costs.push(("notify", tools.call("notify", json!({"peer":"bob","topic":topic,"data":note})).1));

    // It is woken, and answers. What wakes it stands in an element whose attributes are the message's meta.
    let mut asker = bob.client();
    let asked = asker.ask("alice", QUESTION, json!({}));
    let wake = loop {
        let wake = tools.mcp.woken();
        if wake["meta"]["kind"] == "query" {
            break wake;
        }
    };
    let meta = wake["meta"].as_object().unwrap().iter();
    let meta: String = meta.map(|(name, value)| format!(" {name}={value}")).collect();
    let content = wake["content"].as_str().unwrap();
    let args = json!({"id":wake["meta"]["id"],"text":ANSWER});
    let id = tools.begin("reply", &args);
    let (said, _) = tools.finish(id, "reply", &args);
    // The first digits of an id, which are others in each run.
    let digits = wake["meta"]["id"].as_str().unwrap();
    let steady = |text: String| tokens(&text.replace(digits, "5f2c8a31"));
    let writes = steady(json!({"name":"reply","arguments":args}).to_string());
    let woken = steady(format!("<channel source=\"axon\"{meta}>\n{content}\n</channel>"));
    let cost = Cost::new(writes, woken + tokens(&said));
    assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], ANSWER);
    costs.push(("answer", cost));
    costs
}

// ---- The figures ------------------------------------------------------------------------------------------

fn result() -> Value {
    json!({"status":"completed","outcome":RESULT})
}

/// Bob tells Alice ten things.
fn tell_ten(bob: &Daemon) {
    let mut client = bob.client();
    for (topic, data) in NOTES {
        let payload = json!({"topic":topic,"data":data});
        let sent = client.ok(json!({"cmd":"send","to":"alice","kind":"notify","payload":payload}));
        assert_eq!(sent["state"], "delivered", "{sent}");
    }
}

fn of(costs: &Costs, exchange: &str) -> Option<Cost> {
    costs.iter().find(|(name, _)| *name == exchange).map(|(_, cost)| *cost)
}

#[test]
fn no_exchange_costs_more_tokens_than_it_did() {
    let ours = [command_line(false), command_line(true), socket(), mcp()];
    let cell = |cost: Option<Cost>| cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string());
    let mut table = format!("\n| tokens: written + read | {} |", WAYS.join(" | "));
    table += &VERSIONS.map(|version| format!(" A2A {version} |")).concat();
    table += "\n|---|---|---|---|---|---|---|\n";
    let mut faults = Vec::new();
    for exchange in EXCHANGES {
        let counted = [0, 1, 2, 3].map(|way| of(&ours[way], exchange));
        // An answer is what is asked, seen from the other side.
        let beside = VERSIONS.map(|version| match exchange {
            "answer" => a2a(version, "ask").map(|cost| Cost::new(cost.reads, cost.writes)),
            _ => a2a(version, exchange),
        });
        let cells: Vec<String> = counted.iter().chain(&beside).map(|cost| cell(*cost)).collect();
        table += &format!("| {exchange} | {} |\n", cells.join(" | "));

        let ceilings = CEILINGS.iter().find(|(name, _)| *name == exchange).map(|(_, costs)| *costs);
        for (way, (now, most)) in counted.iter().zip(ceilings.unwrap_or_default()).enumerate() {
            match (now, most) {
                (Some(now), Some(most)) if now.fits(most) => {}
                (None, None) => {}
                _ => {
                    faults.push(format!("{exchange}, {}: {}, at most {}", WAYS[way], cell(*now), cell(most)))
                }
            }
        }
        let expected = BESIDE.iter().find(|(name, _)| *name == exchange).map(|(_, costs)| *costs);
        if beside != expected.unwrap_or_default() {
            faults.push(format!("{exchange}, A2A: {} and {}", cell(beside[0]), cell(beside[1])));
        }
    }
    println!("{table}");
    let hint =
        "leave out what does not earn its place, or say in the change why it costs more and raise the number";
    assert!(faults.is_empty(), "{table}\n{}\n{hint}", faults.join("\n"));
}

/// Envelopes as a daemon writes them to another; QUIC and TLS add theirs.
#[test]
fn no_envelope_is_larger_than_it_was() {
    let raw = RawPeer::new();
    let daemon = raw.daemon("");
    let (link, _) = raw.dial(&daemon).receipting();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = || {
        runtime.block_on(async {
            let next = async {
                let (send, mut recv) = link.connection.accept_bi().await.unwrap();
                (send, recv.read_to_end(100_000).await.unwrap())
            };
            tokio::time::timeout(PATIENCE, next).await.expect("a request")
        })
    };
    let mut client = daemon.client();
    let mut bytes = Vec::new();

    let asked = client.ask(&raw.id, QUESTION, json!({}));
    let (send, text) = request();
    bytes.push(("query", text.len()));
    let envelope: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(envelope["payload"], json!({"question":QUESTION}));
    link.answer(Request { envelope, send }, "response", json!({"data":null,"summary":ANSWER}));
    assert_eq!(client.finish(&asked)["response"]["payload"]["summary"], ANSWER);

    let mut agent = daemon.answerer(json!({"answer":["query"]}));
    let answering = std::thread::spawn(move || agent.answer_one(ANSWER));
    let query = link.envelope("query", json!({"question":QUESTION}));
    let text = link.ask_raw(query.to_string().as_bytes()).unwrap();
    answering.join().unwrap();
    bytes.push(("its response", text.len()));
    let envelope: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(envelope["payload"]["summary"], ANSWER);

    let payload = json!({"topic":NOTES[0].0,"data":NOTES[0].1});
    let told = client.begin(json!({"cmd":"send","to":raw.id,"kind":"notify","payload":payload}));
    let (send, text) = request();
    bytes.push(("notify", text.len()));
    let envelope = serde_json::from_slice(&text).unwrap();
    link.answer(Request { envelope, send }, "ack", json!({"accepted":true}));
    assert_eq!(client.finish(&told)["state"], "delivered");
    let note = link.envelope("notify", payload);
    let text = link.ask_raw(note.to_string().as_bytes()).unwrap();
    bytes.push(("its receipt", text.len()));

    println!("\n| bytes between daemons | |\n|---|---|");
    for (what, now) in &bytes {
        println!("| {what} | {now} |");
    }
    assert_eq!(bytes.len(), BYTES.len());
    for ((what, now), (name, most)) in bytes.iter().zip(BYTES) {
        assert!(what == name && now <= most, "{what}: {now} bytes, at most {most}");
    }
}
