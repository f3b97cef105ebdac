//! The clients, as data: where each has its servers, and how it writes one.
//!
//! Each row names where that is told. Another client is another row.

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::Value;

use super::edit::{Dialect, Field, Format};

/// A program that starts MCP servers.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// What it is called on the command line, and in its socket's name.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Where its folder is: the first that there is a base for.
    dirs: &'static [(Base, &'static str)],
    /// Its file there. Of several, the first that is there; where none is, the last.
    pub files: &'static [&'static str],
    /// How that is written.
    pub format: Format,
    /// What in it holds the servers.
    pub table: &'static str,
    shape: Shape,
    /// What `axon mcp` is told for this client alone.
    args: &'static [&'static str],
    /// What the client does not take as it is in a text, but puts something else for.
    pub expands: &'static [&'static str],
    /// What is to be done afterwards; `{name}` is the entry's name.
    then: &'static str,
}

/// What a folder begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// What a variable names, where it is set.
    Var(&'static str),
    /// The home directory.
    Home,
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    Config,
    /// Where the system has the settings of applications: as `Config`, but on macOS.
    Apps,
}

/// What an entry looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `command` and `args`.
    Plain,
    /// The same with this `type`.
    Typed(&'static str),
    /// This `type`, and `command` as one list.
    List(&'static str),
}

/// Zed has the same folder on macOS as elsewhere, and looks at `$XDG_CONFIG_HOME` on Linux alone.
const ZED: (Base, &str) =
    if cfg!(target_os = "macos") { (Base::Home, ".config/zed") } else { (Base::Config, "zed") };

/// Plain JSON: anything else is an error to the client, which may then begin a new file.
const STRICT: Format = Format::Json(Dialect { comments: false, commas: false });
/// JSON as editors take it.
const EDITORS: Format = Format::Json(Dialect { comments: true, commas: true });

/// All of them.
pub const CLIENTS: &[Client] = &[
    // code.claude.com/docs/en/mcp: servers of the user's scope are in `mcpServers` of ~/.claude.json;
    // code.claude.com/docs/en/settings: CLAUDE_CONFIG_DIR; code.claude.com/docs/en/channels-reference: the
    // flag. It takes a file with a comment or a comma too many for damaged, and begins a new one.
    Client {
        name: "claude",
        title: "Claude Code",
        dirs: &[(Base::Var("CLAUDE_CONFIG_DIR"), ""), (Base::Home, "")],
        files: &[".claude.json"],
        format: STRICT,
        table: "mcpServers",
        shape: Shape::Typed("stdio"),
        // Messages can wake a session, so that it may answer also when nobody sits before it.
        args: &["--answer", "always"],
        expands: &["${"],
        then: "Start Claude Code again. So that messages wake it, start it as\n  \
               claude --dangerously-load-development-channels server:{name}",
    },
    // modelcontextprotocol.io/docs/develop/connect-local-servers; on Linux the builds for it use
    // ~/.config/Claude (github.com/aaddrick/claude-desktop-debian, docs/CONFIGURATION.md).
    Client {
        name: "claude-desktop",
        title: "Claude Desktop",
        dirs: &[(Base::Apps, "Claude")],
        files: &["claude_desktop_config.json"],
        format: STRICT,
        table: "mcpServers",
        shape: Shape::Plain,
        args: &[],
        expands: &[],
        then: "Quit Claude Desktop, and start it again.",
    },
    // developers.openai.com/codex/mcp and /codex/config-reference.
    Client {
        name: "codex",
        title: "Codex",
        dirs: &[(Base::Var("CODEX_HOME"), ""), (Base::Home, ".codex")],
        files: &["config.toml"],
        format: Format::Toml,
        table: "mcp_servers",
        shape: Shape::Plain,
        args: &[],
        expands: &[],
        then: "Start Codex again; `/mcp` there shows it.",
    },
    // cursor.com/docs/mcp.
    Client {
        name: "cursor",
        title: "Cursor",
        dirs: &[(Base::Home, ".cursor")],
        files: &["mcp.json"],
        format: EDITORS,
        table: "mcpServers",
        shape: Shape::Plain,
        args: &[],
        expands: &["${"],
        then: "Start Cursor again, and look whether it is switched on among its MCP servers.",
    },
    // code.visualstudio.com/docs/copilot/reference/mcp-configuration: the user profile's mcp.json.
    Client {
        name: "vscode",
        title: "VS Code",
        dirs: &[(Base::Apps, "Code/User")],
        files: &["mcp.json"],
        format: EDITORS,
        table: "servers",
        shape: Shape::Typed("stdio"),
        args: &[],
        expands: &["${"],
        then: "In VS Code, run \"MCP: List Servers\" and start it; it asks whether you trust it.",
    },
    // geminicli.com/docs/reference/configuration and /docs/tools/mcp-server. It takes comments, and no comma
    // behind the last.
    Client {
        name: "gemini",
        title: "Gemini CLI",
        dirs: &[(Base::Var("GEMINI_CLI_HOME"), ".gemini"), (Base::Home, ".gemini")],
        files: &["settings.json"],
        format: Format::Json(Dialect { comments: true, commas: false }),
        table: "mcpServers",
        shape: Shape::Plain,
        args: &[],
        expands: &["$"],
        then: "Start Gemini CLI again; `/mcp` there shows it.",
    },
    // opencode.ai/docs/config and /docs/mcp-servers; of two files it lets the one with comments win.
    Client {
        name: "opencode",
        title: "opencode",
        dirs: &[(Base::Config, "opencode")],
        files: &["opencode.jsonc", "opencode.json"],
        format: EDITORS,
        table: "mcp",
        shape: Shape::List("local"),
        args: &[],
        expands: &["{env:", "{file:"],
        then: "Start opencode again; `opencode mcp list` shows it.",
    },
    // zed.dev/docs/ai/mcp; github.com/zed-industries/zed, crates/paths/src/paths.rs.
    Client {
        name: "zed",
        title: "Zed",
        dirs: &[ZED],
        files: &["settings.json"],
        format: EDITORS,
        table: "context_servers",
        shape: Shape::Plain,
        args: &[],
        expands: &[],
        then: "Zed starts it by itself; its Agent Panel's settings show a green dot.",
    },
];

impl Client {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CLIENTS.iter().find(|client| client.name == name)
    }

    /// Its scoped socket's name.
    pub fn socket(&self) -> String {
        format!("mcp-{}", self.name)
    }

    /// Its folder; none where there is not even a home directory.
    pub fn dir(&self, var: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let (base, below) = self.dirs.iter().find_map(|(base, below)| Some((base.dir(var)?, below)))?;
        let dir = if below.is_empty() { base } else { base.join(below) };
        Some(std::path::absolute(&dir).unwrap_or(dir))
    }

    /// The arguments of `axon` for this client.
    pub fn args(&self, socket: &str) -> Vec<String> {
        let args = ["--socket", socket, "mcp"].into_iter().chain(self.args.iter().copied());
        args.map(str::to_owned).collect()
    }

    /// The entry that runs this, in the client's own words.
    pub fn fields(&self, program: &str, args: &[String]) -> Vec<Field> {
        let all = || std::iter::once(program).chain(args.iter().map(String::as_str));
        let list = |texts: &mut dyn Iterator<Item = &str>| texts.map(Value::from).collect::<Vec<_>>().into();
        match self.shape {
            Shape::Plain => {
                vec![("command", program.into()), ("args", list(&mut all().skip(1)))]
            }
            Shape::Typed(kind) => {
                let args = list(&mut all().skip(1));
                vec![("type", kind.into()), ("command", program.into()), ("args", args)]
            }
            Shape::List(kind) => vec![("type", kind.into()), ("command", list(&mut all()))],
        }
    }

    /// What is to be done when the entry is there.
    pub fn then(&self, name: &str) -> String {
        self.then.replace("{name}", name)
    }
}

impl Base {
    fn dir(self, var: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let set = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match self {
            Self::Var(name) => set(name),
            Self::Home => set("HOME"),
            Self::Apps if cfg!(target_os = "macos") => Some(set("HOME")?.join("Library/Application Support")),
            // One that is not absolute is to be ignored, as its specification says.
            Self::Config | Self::Apps => match set("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()) {
                Some(dir) => Some(dir),
                None => Some(set("HOME")?.join(".config")),
            },
        }
    }
}
