//! `axon examples`: what is said on the socket, line by line, for who writes a client of his own.

use super::output::{CliResult, Out};

/// Show what is said on the socket, with a word on each line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  axon examples | less")]
pub struct Args {}

pub(super) fn run(out: &Out, _: &Args) -> CliResult {
    out.raw(TEXT)?;
    Ok(super::output::EXIT_DONE)
}

/// `>` is what a client writes, `<` what the daemon writes; each is one line of JSON on <root>/axon.sock.
const TEXT: &str = r##"# What is said on the socket <root>/axon.sock. Each message is one line of JSON.
# > is what you write, < is what the daemon writes. Shell: every step has a verb of `axon` that does the same.

# 1. Hello. Always first. `consumer` names the cursor in the inbox that you read and move.
> {"cmd":"hello","req_id":"1","version":2,"consumer":"default"}
< {"ok":true,"req_id":"1","version":2,"daemon_max_version":2,"agent_id":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","features":["buffer","subscribe","auth","answer","advertise"],"daemon_version":"0.1.0"}

# 2. Ask. `to` is an agent id, a prefix of one, or a name. The reply brings the other agent's own answer.
#    axon send --domain family.calendar bob "When is dinner?"
> {"cmd":"send","req_id":"2","to":"bob","kind":"query","payload":{"question":"When is dinner?","domain":"family.calendar"}}
< {"ok":true,"req_id":"2","msg_id":"5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d","response":{"v":1,"id":"9b7e4a10-3c5d-4e6f-8a9b-0c1d2e3f4a5b","from":"ed25519.7b1e3d5f9a0c2e4d6f8b1a3c5e7d9f0b","to":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","ts":1795111200000,"kind":"response","ref":"5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d","payload":{"data":{"time":"19:00"},"summary":"Dinner is at 7."}}}

# 3. What goes wrong here is `ok:false`. What the peer refuses is a response of kind `error`.
> {"cmd":"send","req_id":"3","to":"nobody","kind":"query","payload":{"question":"Hello?"}}
< {"ok":false,"req_id":"3","error":"peer_not_found","message":"no peer is called nobody: see `axon peers`"}

# 4. Hand work over. The ack comes at once, the result later; subscribe to it, or read it in the inbox.
#    axon delegate --wait bob "Write the minutes"
> {"cmd":"subscribe","req_id":"4","kinds":["result","progress"],"replay":false}
< {"ok":true,"req_id":"4","subscribed":true,"replayed":0,"replay_to_seq":0}
> {"cmd":"send","req_id":"5","to":"bob","kind":"delegate","payload":{"task":"Write the minutes","priority":"normal"}}
< {"ok":true,"req_id":"5","msg_id":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","response":{"v":1,"id":"2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e","from":"ed25519.7b1e3d5f9a0c2e4d6f8b1a3c5e7d9f0b","to":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","ts":1795111200000,"kind":"ack","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","payload":{"accepted":true}}}
< {"event":"inbound","replay":false,"seq":12,"buffered_at_ms":1795111260000,"trust":"known","from_name":"bob","envelope":{"v":1,"id":"3c4d5e6f-7a8b-4c9d-8e0f-2a3b4c5d6e7f","from":"ed25519.7b1e3d5f9a0c2e4d6f8b1a3c5e7d9f0b","to":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","ts":1795111260000,"kind":"result","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","payload":{"status":"completed","outcome":"The minutes are written."}}}

# 5. Tell. Nobody answers.
#    axon notify bob door.front '{"open":true}'
> {"cmd":"send","req_id":"6","to":"bob","kind":"notify","payload":{"topic":"door.front","data":{"open":true},"importance":"medium"}}
< {"ok":true,"req_id":"6","msg_id":"4d5e6f7a-8b9c-4d0e-9f1a-3b4c5d6e7f8a","state":"sent"}

# 6. Read what was kept, and say how far you are with it.
#    axon inbox --limit 1; axon ack 12
> {"cmd":"inbox","req_id":"7","limit":1}
< {"ok":true,"req_id":"7","messages":[{"seq":12,"buffered_at_ms":1795111260000,"trust":"known","from_name":"bob","envelope":{"v":1,"id":"3c4d5e6f-7a8b-4c9d-8e0f-2a3b4c5d6e7f","from":"ed25519.7b1e3d5f9a0c2e4d6f8b1a3c5e7d9f0b","to":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","ts":1795111260000,"kind":"result","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","payload":{"status":"completed","outcome":"The minutes are written."}}}],"next_seq":12,"has_more":false}
> {"cmd":"ack","req_id":"8","up_to_seq":12}
< {"ok":true,"req_id":"8","acked_seq":12}

# 7. Be the agent that answers. Requests come as events with "answer":true; reply with their id.
#    axon answer --domain family -- ./my-agent
> {"cmd":"advertise","req_id":"9","capabilities":{"domains":["family"],"max_concurrent_tasks":4}}
< {"ok":true,"req_id":"9","advertised":true}
> {"cmd":"subscribe","req_id":"10","answer":["query","delegate","cancel"],"domains":["family"],"capacity":4}
< {"ok":true,"req_id":"10","subscribed":true,"replayed":0,"replay_to_seq":0}
< {"event":"inbound","replay":false,"seq":3,"buffered_at_ms":1795111200000,"trust":"known","from_name":"alice","answer":true,"deadline_ms":30000,"envelope":{"v":1,"id":"5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d","from":"ed25519.0f3c5a7e9b1d2f4a6c8e0b2d4f6a8c0e","to":"ed25519.7b1e3d5f9a0c2e4d6f8b1a3c5e7d9f0b","ts":1795111200000,"kind":"query","payload":{"question":"When is dinner?","domain":"family.calendar"}}}
> {"cmd":"reply","req_id":"11","ref":"5f2c1e9a-6d0b-4f0e-9a53-0c3a8f1f2b7d","kind":"response","payload":{"data":{"time":"19:00"},"summary":"Dinner is at 7."}}
< {"ok":true,"req_id":"11","msg_id":"9b7e4a10-3c5d-4e6f-8a9b-0c1d2e3f4a5b"}

# 8. A delegation is acked, told of as often as you like, and ended by its result.
> {"cmd":"reply","req_id":"12","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","kind":"ack","payload":{"accepted":true,"estimated_ms":60000}}
< {"ok":true,"req_id":"12","msg_id":"2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e"}
> {"cmd":"reply","req_id":"13","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","kind":"progress","payload":{"state":"running","percent":50,"note":"half way"}}
< {"ok":true,"req_id":"13","msg_id":"5e6f7a8b-9c0d-4e1f-8a2b-4c5d6e7f8a9b"}
> {"cmd":"reply","req_id":"14","ref":"1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d","kind":"result","payload":{"status":"completed","outcome":"The minutes are written."}}
< {"ok":true,"req_id":"14","msg_id":"3c4d5e6f-7a8b-4c9d-8e0f-2a3b4c5d6e7f"}

# 9. A request that needs no answer any more is withdrawn; one that is refused says why.
< {"event":"withdrawn","ref":"6f7a8b9c-0d1e-4f2a-9b3c-5d6e7f8a9b0c","reason":"timeout"}
> {"cmd":"reply","req_id":"15","ref":"7a8b9c0d-1e2f-4a3b-8c4d-6e7f8a9b0c1d","kind":"error","payload":{"code":"overloaded","message":"Ask again after noon.","retryable":true}}
< {"ok":true,"req_id":"15","msg_id":"8b9c0d1e-2f3a-4b4c-9d5e-7f8a9b0c1d2e"}

# 10. Fall behind, and you are told where to read on in the inbox.
< {"event":"slow_consumer","resume_from_seq":40}

# The rest is for the owner: a scoped socket (`axon socket`) does not take it.
# 11. Pair. A link is made here, for one use within the hour, and given to `connect` on the other machine.
#     axon invite; axon connect --as bob -
> {"cmd":"invite","req_id":"16","label":"laptop"}
< {"ok":true,"req_id":"16","link":"axon://11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo@192.0.2.5:7100?k=AAECAwQFBgcICQoLDA0ODw","agent_id":"ed25519.21fe31dfa154a261626bf854046fd227","invite":"66587864c2f61605","expires_ms":1795114800000,"uses":1,"trust":"known"}
> {"cmd":"connect","req_id":"17","link":"axon://PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw@192.0.2.7:7100?k=EBESExQVFhcYGRobHB0eHw","name":"bob"}
< {"ok":true,"req_id":"17","agent_id":"ed25519.39f713d0a644253f04529421b9f51b9b","state":"paired","trust":"known","level":"known","message":"both sides are paired"}

# 12. A stranger wants in, and you decide. What it says of itself is only what it claims.
#     axon knocks; axon approve dac073e0123bdea5
< {"event":"knock","id":"dac073e0123bdea5","agent_id":"ed25519.dac073e0123bdea59dd9b3bda9cf6037","name":"carol","claimed":true,"intent":{"category":"family","action":"calendar"},"at_ms":1795111200000}
> {"cmd":"approve","req_id":"18","id":"dac073e0123bdea5","trust":"known","name":"carol"}
< {"ok":true,"req_id":"18","agent_id":"ed25519.dac073e0123bdea59dd9b3bda9cf6037","trust":"known"}

# 13. Shut somebody out. Once the reply is there, nothing of that peer is delivered.
#     axon trust carol blocked
> {"cmd":"trust","req_id":"19","peer":"carol","trust":"blocked","why":"sends too much"}
< {"ok":true,"req_id":"19","agent_id":"ed25519.dac073e0123bdea59dd9b3bda9cf6037","trust":"blocked","was":"known"}
"##;

#[cfg(test)]
mod tests {
    use axon_client::{Hello, Message, Subscription};
    use axon_proto::error::IpcCode;
    use axon_proto::id::MsgId;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_line_is_a_comment_or_json_of_the_real_shape() {
        let mut asked = Vec::new();
        for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let json: Value =
                serde_json::from_str(&line[2..]).unwrap_or_else(|error| panic!("{line}: {error}"));
            let req_id = json["req_id"].as_str().map(str::to_owned);
            match &line[..2] {
                "> " => {
                    assert!(json["cmd"].is_string(), "{line}");
                    asked.push(req_id.unwrap());
                }
                "< " if json["event"].is_string() => {}
                "< " => {
                    assert_eq!(req_id.as_ref(), asked.last(), "{line}");
                    if json["ok"] == false {
                        assert!(IpcCode::parse(json["error"].as_str().unwrap()).is_some(), "{line}");
                    }
                }
                other => panic!("{other}"),
            }
            for envelope in [&json["response"], &json["envelope"], &json["messages"][0]["envelope"]] {
                if envelope.is_object() {
                    let message: Message = serde_json::from_value(envelope.clone()).unwrap();
                    assert!(message.from.parse::<axon_proto::id::AgentId>().is_ok(), "{line}");
                }
            }
            for id in [&json["msg_id"], &json["ref"], &json["response"]["id"], &json["envelope"]["id"]] {
                assert!(id.as_str().is_none_or(|id| id.parse::<MsgId>().is_ok()), "{id}");
            }
        }
        assert_eq!(asked.len(), 19);
        // The first two lines of a client are those that the client library writes.
        assert!(TEXT.contains(&format!(r#""consumer":"{}""#, Hello::default().consumer)));
        let answers = Subscription {
            answer: ["query", "delegate", "cancel"].map(str::to_owned).to_vec(),
            domains: vec!["family".to_owned()],
            capacity: Some(4),
            ..Subscription::default()
        };
        assert!(TEXT.contains(serde_json::to_string(&answers).unwrap().trim_start_matches('{')));
    }
}
