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
    let mut taken = Vec::new();
    for args in [
        // Relative relocations in 3 instead of 150 KB.
        vec!["-Wl,-z,pack-relative-relocs".to_owned()],
        // Only lld knows this one.
        vec![order, "-Wl,--no-warn-symbol-ordering".to_owned()],
    ] {
        if links_with(&args, false) {
            args.iter().for_each(|arg| println!("cargo:rustc-link-arg-bins={arg}"));
            taken.extend(args);
        }
    }
    let Some(whole) = with_its_libraries() else { return };
    taken.extend(whole.clone());
    // With the others: what is packed must also be unpacked.
    if links_with(&taken, true) {
        whole.iter().for_each(|arg| println!("cargo:rustc-link-arg-bin=axond={arg}"));
    } else {
        println!(
            "cargo:warning=axond is linked with the system's shared libc, and 1 MB larger in memory: a libc.a"
        );
        println!(
            "cargo:warning=(glibc's package for development has it) and a linker that takes -static-pie mend that"
        );
    }
    // Built anew where the library is.
    let libc = Command::new("cc").arg("-print-file-name=libc.a").output().ok();
    let libc = libc.and_then(|said| String::from_utf8(said.stdout).ok());
    if let Some(path) = libc.as_deref().map(str::trim).filter(|path| path.starts_with('/')) {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// What makes a program that has what it uses of the system's libraries in itself, at any place in memory. Why:
/// `spec/decisions/0020-a-daemon-without-libraries.md`.
///
/// rustc has `crt-static` for that, but for whole builds with `--target` alone. It names the libraries after
/// `-Bdynamic`; so files of these names send the linker on to the others, which it would find behind them.
fn with_its_libraries() -> Option<[String; 2]> {
    let dir = PathBuf::from(env::var_os("OUT_DIR")?).join("static");
    std::fs::create_dir_all(&dir).ok()?;
    for (name, instead) in [
        ("gcc_s", "libgcc_eh.a libgcc.a"),
        ("c", "libc.a"),
        ("m", "libm.a"),
        ("rt", "librt.a"),
        ("pthread", "libpthread.a"),
        ("util", "libutil.a"),
        ("dl", "libdl.a"),
    ] {
        std::fs::write(dir.join(format!("lib{name}.so")), format!("INPUT({instead})\n")).ok()?;
    }
    Some(["-static-pie".to_owned(), format!("-L{}", dir.display())])
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

/// Whether the linker that will be used takes these options: tried on a small program, which is run too where it
/// matters.
fn links_with(args: &[String], run: bool) -> bool {
    let var = |name: &str| env::var_os(name).unwrap_or_default();
    let out = PathBuf::from(var("OUT_DIR"));
    let (probe, program) = (out.join("probe.rs"), out.join("probe"));
    if run && var("HOST") != var("TARGET")
        || std::fs::write(&probe, "fn main() { std::thread::spawn(|| ()).join().unwrap() }").is_err()
    {
        return false;
    }
    let mut rustc = Command::new(var("RUSTC"));
    rustc.arg("--target").arg(var("TARGET")).arg("--edition=2024").arg(&probe).arg("-o").arg(&program);
    let linker = var("RUSTC_LINKER");
    if !linker.is_empty() {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    rustc.args(
        env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().split('\x1f').filter(|f| !f.is_empty()),
    );
    rustc.args(args.iter().map(|arg| format!("-Clink-arg={arg}")));
    let works = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    works(&mut rustc) && (!run || works(&mut Command::new(&program)))
}
