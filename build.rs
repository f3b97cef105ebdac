//! Link options that Cargo's profile has no word for. Why: `spec/decisions/0007-a-small-daemon.md`.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Functions that a daemon runs, listed by `benches/order`: linked side by side, so that a daemon maps these
/// pages and not those of the command line in between. Names that a build does not have are passed over.
const ORDER: &str = "axon/link/daemon.order";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ORDER}");
    println!("cargo:rustc-env=AXON_BUILD={:016x}", build());
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !release || target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let order = format!("-Wl,--symbol-ordering-file={}", root.join(ORDER).display());
    for args in [
        // Relative relocations in 3 instead of 150 KB.
        &["-Wl,-z,pack-relative-relocs"][..],
        // Only lld knows this one.
        &[order.as_str(), "-Wl,--no-warn-symbol-ordering"],
    ] {
        if links_with(args) {
            args.iter().for_each(|arg| println!("cargo:rustc-link-arg-bins={arg}"));
        }
    }
}

/// Which build this is: what all sources hash to. Two programs of one build have the same.
fn build() -> u64 {
    let mut hasher = DefaultHasher::new();
    env::var("PROFILE").unwrap_or_default().hash(&mut hasher);
    for place in ["axon/src", "axon/proto/src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={place}");
        hash(Path::new(place), &mut hasher);
    }
    hasher.finish()
}

fn hash(path: &Path, hasher: &mut DefaultHasher) {
    if let Ok(dir) = std::fs::read_dir(path) {
        let mut inside: Vec<PathBuf> = dir.filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.sort();
        inside.iter().for_each(|path| hash(path, hasher));
    } else if let Ok(bytes) = std::fs::read(path) {
        path.hash(hasher);
        bytes.hash(hasher);
    }
}

/// Whether the linker that will be used takes these options: tried on an empty program.
fn links_with(args: &[&str]) -> bool {
    let var = |name: &str| env::var_os(name).unwrap_or_default();
    let out = PathBuf::from(var("OUT_DIR"));
    let probe = out.join("probe.rs");
    if std::fs::write(&probe, "fn main() {}").is_err() {
        return false;
    }
    let mut rustc = Command::new(var("RUSTC"));
    rustc.arg("--target").arg(var("TARGET")).arg("--edition=2024").arg(&probe);
    rustc.arg("-o").arg(Path::new(&out).join("probe"));
    let linker = var("RUSTC_LINKER");
    if !linker.is_empty() {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    rustc.args(
        env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().split('\x1f').filter(|f| !f.is_empty()),
    );
    rustc.args(args.iter().map(|arg| format!("-Clink-arg={arg}")));
    rustc.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
