//! Which service belongs to a root, and what its file holds.
//!
//! The text is sealed: a checksum in it tells a file that somebody has edited from one that an older axon
//! wrote. The unit of the package is made from the same text.

use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::cli::output::CliError;
use crate::disk::Root;
use crate::disk::root::is_instance_name;

/// What stands before a seal.
const SEAL: &str = "seal: ";
/// Digits of a seal.
const SEAL_DIGITS: usize = 16;
/// Digits that tell two roots apart.
const ROOT_DIGITS: usize = 10;

/// The service of one root.
#[derive(Debug, Clone)]
pub struct Service {
    /// `axon`, `axon-NAME`, or `axon_DIGITS` for a directory elsewhere.
    pub name: String,
    /// The program.
    pub program: String,
    /// What stands between the program and `daemon`.
    pub words: Vec<String>,
}

impl Service {
    /// The service of this root, run by this program.
    pub fn of(root: &Root) -> Result<Self, CliError> {
        let home = Root::default_root().map_err(crate::cli::root_error)?;
        let (name, words) = name_and_words(root.dir(), &home)?;
        Ok(Self { name, program: program()?, words })
    }

    /// The one that a package installs, for a program that is to be here.
    pub fn packaged(program: &str) -> Self {
        Self { name: "axon".to_owned(), program: program.to_owned(), words: Vec::new() }
    }

    /// Whether it is that of the default root.
    pub fn is_default(&self) -> bool {
        self.words.is_empty()
    }
}

fn name_and_words(dir: &Path, home: &Root) -> Result<(String, Vec<String>), CliError> {
    if dir == home.dir() {
        return Ok(("axon".to_owned(), Vec::new()));
    }
    let text = dir.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        let shown = dir.display();
        CliError::usage(format!("{shown} cannot stand in a service's file: give a --root that is plain text"))
    })?;
    let beneath = dir.parent().is_some_and(|parent| parent == home.instances_dir());
    let instance = dir.file_name().and_then(|name| name.to_str()).filter(|name| is_instance_name(name));
    if let (true, Some(name)) = (beneath, instance) {
        return Ok((format!("axon-{name}"), vec!["--name".to_owned(), name.to_owned()]));
    }
    // No instance's name has a `_` in it.
    let name = format!("axon_{}", digits(text, ROOT_DIGITS));
    Ok((name, vec!["--root".to_owned(), text.to_owned()]))
}

/// This program, by the name under which it will still be found when a newer one has taken its place.
fn program() -> Result<String, CliError> {
    let missing = |why: String| {
        let text =
            format!("this program cannot tell where it is ({why}): install it, then call it by its path");
        CliError::local("io", text)
    };
    let exact = std::env::current_exe().map_err(|error| missing(error.to_string()))?;
    let real = exact.canonicalize().map_err(|error| missing(format!("{}: {error}", exact.display())))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("axon"));
    let same = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == real);
    let program = on_path.into_iter().find(same).unwrap_or(exact);
    match program.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => Ok(text.to_owned()),
        None => Err(missing(format!("{} is no plain text", program.display()))),
    }
}

// --- systemd ---

/// A systemd user unit.
///
/// Of the options that shut a service in, those stand here that work in a user's manager. The ones that need
/// a mount namespace (`ProtectHome`, `ProtectSystem`, `PrivateTmp`, `ReadWritePaths` and others) do nothing
/// there, or bring a user namespace along, in which the daemon would see every other user as nobody and could
/// not serve the socket of another one (`axon socket add --uid`). `CapabilityBoundingSet` and what implies it
/// keep a service without privileges from starting. See `spec/decisions/0014-a-service-of-the-user.md`.
pub fn systemd(service: &Service) -> String {
    let words: String = service.words.iter().map(|word| format!(" {}", systemd_word(word, true))).collect();
    let axon = format!("{}{words}", systemd_word(&service.program, false));
    let about = match service.words.get(1) {
        Some(which) => format!(" ({})", which.replace('%', "%%")),
        None => String::new(),
    };
    let text = format!(
        "\
# As `axon service install` writes it. What is changed here stands in the way of the next one: put changes
# into `systemctl --user edit {name}`, where they last.
# {SEAL}{zeros}

[Unit]
Description=axon: agents on different machines ask each other things{about}
Documentation=man:axon(1)
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={axon} --plain daemon
ExecReload={axon} --plain reload
# Which agent is meant is said above.
UnsetEnvironment=AXON_ROOT AXON_SOCKET
# A wrong setting fails again at once; five failures in five minutes are enough.
Restart=on-failure
RestartSec=2
TimeoutStartSec=60
# It takes five seconds at most to finish what is in flight.
TimeoutStopSec=20
# Fed by the daemon's loop. One that stands is ended without a dump of its memory, and started again.
WatchdogSec=60
LimitCORE=0
# The agent's directory holds its key and its socket: the daemon makes it for this user alone.
UMask=0077

NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# The socket of another user is given to that user.
SystemCallFilter=@chown
TasksMax=64

[Install]
WantedBy=default.target
",
        name = service.name,
        zeros = zeros(),
    );
    seal(&text)
}

/// A word as a unit's command line has it. In the program's own name no variables are replaced.
fn systemd_word(word: &str, variables: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            '$' if variables => text.push_str("$$"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

// --- launchd ---

/// Most of a log that launchd writes to a file, in bytes; then it begins anew.
pub const LOG_BYTES_MAX: u64 = 8_388_608;

/// A launchd agent.
pub fn launchd(service: &Service, label: &str, log: &str) -> String {
    let string = |text: &str| format!("\t\t<string>{}</string>\n", xml(text));
    let args: String =
        std::iter::once(&service.program).chain(&service.words).map(|arg| string(arg)).collect();
    let text = format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- Written by `axon service install`, which does not overwrite what you change here.
     {SEAL}{zeros} -->
<plist version=\"1.0\">
<dict>
\t<key>Label</key>
\t<string>{label}</string>
\t<key>ProgramArguments</key>
\t<array>
{args}\t\t<string>--plain</string>
\t\t<string>daemon</string>
\t</array>
\t<key>EnvironmentVariables</key>
\t<dict>
\t\t<key>AXON_LOG_BYTES_MAX</key>
\t\t<string>{LOG_BYTES_MAX}</string>
\t</dict>
\t<key>RunAtLoad</key>
\t<true/>
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
\t<key>ThrottleInterval</key>
\t<integer>10</integer>
\t<key>ExitTimeOut</key>
\t<integer>20</integer>
\t<key>Umask</key>
\t<integer>63</integer>
\t<key>HardResourceLimits</key>
\t<dict>
\t\t<key>Core</key>
\t\t<integer>0</integer>
\t</dict>
\t<key>StandardOutPath</key>
\t<string>{log}</string>
\t<key>StandardErrorPath</key>
\t<string>{log}</string>
</dict>
</plist>
",
        label = xml(label),
        log = xml(log),
        zeros = zeros(),
    );
    seal(&text)
}

fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    escaped
}

// --- seals ---

/// What stands where a service's file belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// This very text.
    Same,
    /// Another one that axon wrote and nobody has touched.
    Older,
    /// Somebody's own.
    Edited,
}

impl Found {
    /// Looks there.
    pub fn at(path: &Path, text: &str) -> Result<Self, CliError> {
        match std::fs::read(path) {
            Ok(bytes) if bytes == text.as_bytes() => Ok(Self::Same),
            Ok(bytes) => Ok(match std::str::from_utf8(&bytes) {
                Ok(text) if is_sealed(text) => Self::Older,
                _ => Self::Edited,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nothing),
            Err(error) => Err(CliError::local("io", format!("cannot read {}: {error}", path.display()))),
        }
    }
}

/// Where an edited file is kept.
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".edited");
    path.with_file_name(name)
}

fn zeros() -> String {
    "0".repeat(SEAL_DIGITS)
}

fn digits(text: &str, count: usize) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let mut digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(count);
    digits
}

/// The text with its checksum in the place of zeros.
fn seal(text: &str) -> String {
    let sum = digits(text, SEAL_DIGITS);
    text.replacen(&format!("{SEAL}{}", zeros()), &format!("{SEAL}{sum}"), 1)
}

fn is_sealed(text: &str) -> bool {
    let sum = text.split_once(SEAL).and_then(|(_, rest)| rest.get(..SEAL_DIGITS));
    sum.is_some_and(|sum| {
        let open = text.replacen(&format!("{SEAL}{sum}"), &format!("{SEAL}{}", zeros()), 1);
        digits(&open, SEAL_DIGITS) == sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(program: &str, words: &[&str]) -> Service {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Service { name: "axon".to_owned(), program: program.to_owned(), words }
    }

    #[test]
    fn each_root_has_a_service_of_its_own() {
        let home = Root::at("/home/ann/.axon");
        let of = |dir: &str| name_and_words(Path::new(dir), &home).unwrap();
        assert_eq!(of("/home/ann/.axon"), ("axon".to_owned(), vec![]));
        let bob = ("axon-bob".to_owned(), vec!["--name".to_owned(), "bob".to_owned()]);
        assert_eq!(of("/home/ann/.axon/instances/bob"), bob, "by whichever flag it was meant");
        let (one, two) = (of("/srv/one"), of("/srv/two"));
        assert_eq!(one.1, ["--root", "/srv/one"]);
        assert!(one.0.starts_with("axon_") && one.0.len() == "axon_".len() + ROOT_DIGITS && one.0 != two.0);
        assert_eq!(of("/srv/one").0, one.0);
        assert!(of("/home/ann/.axon/instances/Bob").0.starts_with("axon_"), "no instance has such a name");
        let error = name_and_words(Path::new("/srv/a\nb"), &home).unwrap_err();
        assert!(error.message.contains("--root"), "{error}");
    }

    #[test]
    fn strange_paths_mean_themselves_in_a_unit() {
        assert_eq!(systemd_word("/srv/a-b_c.d", true), "/srv/a-b_c.d");
        assert_eq!(systemd_word(r#"/a b/$x/100%/"q"\"#, true), r#""/a b/$$x/100%%/\"q\"\\""#);
        assert_eq!(systemd_word("/a$b", false), r#""/a$b""#);
        let text = systemd(&service("/opt/my axon", &["--root", "/srv/100%"]));
        assert!(
            text.contains("\nExecStart=\"/opt/my axon\" --root \"/srv/100%%\" --plain daemon\n"),
            "{text}"
        );
        assert!(text.contains("(/srv/100%%)\n"), "{text}");
        let text = launchd(&service("/a&b<c>", &[]), "axon.daemon", "/l");
        assert!(text.contains("<string>/a&amp;b&lt;c&gt;</string>"), "{text}");
    }

    #[test]
    fn what_was_edited_is_told_from_what_was_written_before() {
        for text in [systemd(&service("/bin/axon", &[])), launchd(&service("/bin/axon", &[]), "l", "/l")] {
            assert!(is_sealed(&text) && !text.contains(&zeros()), "{text}");
            assert!(!is_sealed(&text.replace("axon", "axom")));
            assert!(!is_sealed(&format!("{text}\n")));
            assert!(!is_sealed(&text.replacen(SEAL, "", 1)));
        }
        assert!(!is_sealed("") && !is_sealed(SEAL) && !is_sealed("seal: é"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("axon.service");
        let (old, new) = (systemd(&service("/old", &[])), systemd(&service("/new", &[])));
        assert_eq!(Found::at(&path, &new).unwrap(), Found::Nothing);
        for (text, found) in [(&*new, Found::Same), (&*old, Found::Older), ("mine", Found::Edited)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Found::at(&path, &new).unwrap(), found);
        }
        assert_eq!(aside(&path), dir.path().join("axon.service.edited"));
    }
}
