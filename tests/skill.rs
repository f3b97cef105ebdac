//! `examples/skill/SKILL.md`: every command in it is run as it stands, and what it costs to read is counted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support;
use crate::support::cli::{Ran, Running, spawn};
use crate::support::{AXON, Daemon, RawClient, pair, set_mode, wait_for};

/// Tokens of the whole file, and of its description alone, which an agent reads before it needs the rest: at
/// most. What costs less lowers its number here.
const TOKENS: usize = 840;
const DESCRIPTION_TOKENS: usize = 61;

fn skill() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/skill/SKILL.md")).unwrap()
}

/// The commands of its blocks, without what is said beside them.
fn commands(skill: &str) -> Vec<String> {
    let blocks = skill.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split("  #").next().unwrap().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// An agent at a shell on alice's machine; bob is her peer.
struct Shell {
    dir: tempfile::TempDir,
    alice: Daemon,
    bob: Daemon,
    /// Bob's agent.
    agent: RawClient,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        symlink(AXON, dir.path().join("bin/axon")).unwrap();
        let (alice, bob) = pair();
        let mut agent = bob.client();
        agent.ok(json!({"cmd":"advertise","capabilities":{"domains":["family"]}}));
        agent.subscribe(json!({"answer":["query","delegate","cancel"]}));
        Self { dir, alice, bob, agent }
    }

    fn begin(&self, line: &str) -> Running {
        let mut shell = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.args(["-c", &format!("exec {line}")]).current_dir(self.dir.path());
        shell.env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()));
        shell.env("AXON_ROOT", self.alice.root()).env("HOME", self.dir.path());
        shell.env_remove("AXON_SOCKET").env_remove("NO_COLOR");
        spawn(shell)
    }

    fn run(&self, line: &str) -> Ran {
        self.begin(line).wait()
    }

    /// It must have gone well; gives what it printed.
    fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.stdout
    }

    fn wait_answerer(&self, there: bool) {
        let answers = || {
            let status = self.alice.client().ok(json!({"cmd":"status"}));
            ((status["answerers"] == 1) == there).then_some(())
        };
        wait_for("the answerer", answers);
    }

    /// Bob asks for something, and alice's agent takes it by this command. Gives its id.
    fn taken(&self, line: &str, asker: &mut RawClient, kind: &str, payload: Value) -> (String, String) {
        let taking = self.begin(line);
        self.wait_answerer(true);
        let asked = asker.begin(json!({"cmd":"send","to":"alice","kind":kind,"payload":payload}));
        let ran = taking.wait();
        assert_eq!(ran.code, 0, "{ran:?}");
        let mut words = ran.stdout.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
        let id = words.find(|word| word.len() == 36).unwrap_or_else(|| panic!("no id: {ran:?}"));
        (id.to_owned(), asked)
    }
}

const TAKE: &str = "axon --plain listen --answer --count 1 --for 300";

#[test]
fn every_command_of_the_skill_does_what_it_says() {
    let mut shell = Shell::new();
    let mut asker = shell.bob.client();
    let (mut given, mut work, mut seq) = (String::new(), Value::Null, String::new());
    let (mut id, mut asked) = (String::new(), String::new());
    let mut run = Vec::new();
    for line in commands(&skill()) {
        run.push(line.clone());
        match line.as_str() {
            "axon --plain peers" => {
                let said = shell.ok(&line);
                assert!(
                    said.contains("bob ") && said.contains("known") && said.contains("connected"),
                    "{said}"
                );
            }
            "axon --plain discover bob" => assert_eq!(shell.ok(&line), "domains: family\n"),
            "axon --plain send bob \"When is dinner?\"" => {
                let asking = shell.begin(&line);
                let request = shell.agent.request();
                assert_eq!(request["payload"]["question"], "When is dinner?");
                shell.agent.respond(&request, "At seven.");
                assert_eq!(asking.wait().stdout, "At seven.\n");
            }
            "axon --plain notify --hold 1h bob home.door \"It is open.\"" => {
                shell.ok(&line);
                let row = shell.bob.client().ok(json!({"cmd":"inbox"}))["messages"].clone();
                let told = row.as_array().unwrap().last().unwrap()["envelope"]["payload"].clone();
                assert_eq!(told, json!({"topic":"home.door","data":"It is open."}));
            }
            "axon --plain delegate --hold 1d bob \"Write the minutes.\"" => {
                let giving = shell.begin(&line);
                work = shell.agent.request();
                shell.agent.reply(&work, "ack", json!({"accepted":true}));
                given = giving.wait().stdout.split_whitespace().last().unwrap().to_owned();
                assert_eq!(given, work["id"].as_str().unwrap()[..8]);
            }
            "axon --plain wait ID --timeout 10m" => {
                let waiting = shell.begin(&line.replace("ID", &given));
                let result = json!({"status":"completed","outcome":"They are written."});
                shell.agent.reply(&work, "result", result);
                let said = waiting.wait();
                assert!(said.code == 0 && said.stdout.contains("They are written."), "{said:?}");
            }
            "axon --plain cancel ID" => {
                let giving = shell.begin("axon --plain delegate bob \"Write more.\"");
                let more = shell.agent.request();
                shell.agent.reply(&more, "ack", json!({"accepted":true}));
                let given = giving.wait().stdout.split_whitespace().last().unwrap().to_owned();
                let cancelling = shell.begin(&line.replace("ID", &given));
                let cancel = shell.agent.request();
                assert_eq!(cancel["ref"], more["id"]);
                shell.agent.reply(&cancel, "ack", json!({"accepted":true}));
                assert_eq!(cancelling.wait().code, 0);
                // What was delegated has come by now; it is read before the next waits.
                let inbox = shell.alice.client().ok(json!({"cmd":"inbox"}));
                shell.alice.client().ok(json!({"cmd":"ack","up_to_seq":inbox["next_seq"]}));
            }
            "axon --plain listen --no-ack --count 1 --for 300" => {
                let waiting = shell.begin(&line);
                let payload = json!({"topic":"home.door","data":"It is shut."});
                asker.ok(json!({"cmd":"send","to":"alice","kind":"notify","payload":payload}));
                let said = waiting.wait();
                assert!(said.code == 0 && said.stdout.contains("home.door: It is shut."), "{said:?}");
                // Another time it would have waited in vain.
                let none = shell.run(&line.replace("--count 1 --for 300", "--count 2 --for 0.05"));
                assert_eq!(none.code, 3, "{none:?}");
            }
            "axon --plain inbox --trust known" => {
                let said = shell.ok(&line);
                assert!(said.contains("from bob (known)") && said.contains("It is shut."), "{said}");
                seq = said.split("ack ").nth(1).unwrap().split('`').next().unwrap().to_owned();
            }
            "axon --plain ack SEQ" => {
                shell.ok(&line.replace("SEQ", &seq));
                assert_eq!(shell.ok("axon --plain inbox"), "nothing new\n");
            }
            "axon --plain topic sub 'build.>' --kept --count 1 --for 300" => {
                let waiting = shell.begin(&line);
                let topics = || shell.alice.client().ok(json!({"cmd":"topics"}))["subscriptions"].clone();
                wait_for("the subscription", || (topics()[0]["topic"] == "build.>").then_some(()));
                asker.ok(json!({"cmd":"publish","topic":"build.main","payload":{"text":"It is red."}}));
                let said = waiting.wait();
                assert!(
                    said.code == 0 && said.stdout.ends_with("build.main bob (known): It is red.\n"),
                    "{said:?}"
                );
            }
            "axon --plain topic pub build.main \"It is green.\"" => {
                asker.ok(json!({"cmd":"subscribe_topic","topic":"build.main"}));
                wait_for("the subscription", || {
                    let own = shell.alice.client().ok(json!({"cmd":"topic_peers","topic":"build.main"}));
                    (!own["peers"].as_array().unwrap().is_empty()).then_some(())
                });
                shell.ok(&line);
                let payload = asker.event()["envelope"]["payload"].clone();
                assert_eq!(payload["message"], json!({"text":"It is green."}));
            }
            TAKE => {
                let question = json!({"question":"And lunch?"});
                (id, asked) = shell.taken(&line, &mut asker, "query", question);
            }
            "axon --plain reply ID \"At seven.\"" => {
                shell.ok(&line.replace("ID", &id));
                assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], "At seven.");
            }
            "axon --plain reply ID --ack" => {
                let task = json!({"task":"Write the minutes."});
                (id, asked) = shell.taken(TAKE, &mut asker, "delegate", task);
                shell.ok(&line.replace("ID", &id));
                assert_eq!(asker.finish(&asked)["response"]["payload"]["accepted"], true);
            }
            "axon --plain result ID \"The minutes are written.\"" => {
                asker.subscribe(json!({"kinds":["result"],"replay":false}));
                shell.ok(&line.replace("ID", &id));
                let result = asker.event()["envelope"]["payload"].clone();
                assert_eq!(
                    (&result["status"], &result["outcome"]),
                    (&json!("completed"), &json!("The minutes are written."))
                );
            }
            "axon --plain reply ID --decline \"No time today.\"" => {
                let task = json!({"task":"Write more."});
                (id, asked) = shell.taken(TAKE, &mut asker, "delegate", task);
                shell.ok(&line.replace("ID", &id));
                let answer = asker.finish(&asked)["response"]["payload"].clone();
                assert_eq!(
                    (&answer["accepted"], &answer["reason"]),
                    (&json!(false), &json!("No time today."))
                );
            }
            "axon answer --text -- ./my-agent" => {
                let program: PathBuf = shell.dir.path().join("my-agent");
                fs::write(&program, "#!/bin/sh\nread -r question\necho \"You asked: $question\"\n").unwrap();
                set_mode(&program, 0o755);
                let _answering = shell.begin(&line);
                shell.wait_answerer(true);
                let asked = asker.ask("alice", "Why?", json!({}));
                assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], "You asked: Why?");
            }
            other => panic!("no test runs this: {other}"),
        }
    }
    assert_eq!(run.len(), 18, "{run:?}");
}

#[test]
fn the_skill_is_short_and_has_what_agents_look_for() {
    let skill = skill();
    let mut parts = skill.splitn(3, "---\n");
    assert_eq!(parts.next(), Some(""));
    let head: Vec<&str> = parts.next().unwrap().lines().collect();
    let description = head[1].strip_prefix("description: ").unwrap();
    assert_eq!((head[0], head.len()), ("name: axon", 2));
    assert!(description.len() <= 1024 && !description.contains(": "), "{description}");
    let tokens = |text: &str| tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len();
    let counts = (tokens(&skill), tokens(description));
    println!("tokens of the skill and of its description: {counts:?}");
    assert!(counts.0 <= TOKENS && counts.1 <= DESCRIPTION_TOKENS, "{counts:?}");
    // What must never be done on a peer's word is named, and so are the exit codes.
    let rules = skill.split("## Rules").nth(1).unwrap();
    let help = support::cli::Home::default().run(&["--help"]).stdout;
    for verb in ["invite", "connect", "approve", "trust", "forget", "socket", "policy", "config", "rekey"] {
        assert!(rules.contains(&format!("`{verb}`")) && help.contains(&format!("  {verb}")), "{verb}");
    }
    let codes = ["0 done", "1 this machine", "2 wrong usage", "3 timeout", "4 the peer refused", "5 unknown"];
    for (code, said) in (0..).zip(codes) {
        assert!(said.starts_with(&format!("{code} ")) && skill.contains(said), "{said}");
    }
}
