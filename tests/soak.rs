//! Two daemons and ten clients for some seconds, of which some are ended now and then: `tests/soak/run` in
//! its shortest form. It says itself what is wrong.

use std::path::Path;
use std::process::Command;

use crate::support;
use crate::support::AXON;

/// What the soak has counted under this name.
fn count(said: &str, what: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn nothing_is_lost_and_nothing_stays_open_while_daemons_and_clients_come_and_go() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/run");
    let mut command = Command::new("python3");
    command.arg("-B").arg(program).args(["--seconds", "15", "--axon", AXON]);
    let Ok(ran) = command.output() else { return support::skip("soak", "python3 is not installed") };
    let (said, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && !said.contains("WRONG"), "{said}{stderr}");
    // It has done something.
    for (what, least) in [("notifications came", 100), ("queries answered", 50), ("results came", 10)] {
        assert!(count(&said, what) >= least, "{what}: {said}");
    }
    assert!(count(&said, "visits") > 5 && said.contains(" SIG"), "{said}");
}
