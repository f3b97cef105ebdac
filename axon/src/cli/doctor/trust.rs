//! What the owner has said of others, and what was decided: `contacts.toml`, `sockets.toml` with its
//! directories, `audit.jsonl` and `old_keys`.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use axon_proto::contacts::ContactsFile;

use super::{Report, Status, file_fault, mend_mode};
use crate::cli::show::plural;
use crate::disk::files::{self, MODE_BITS, OTHERS_BITS};
use crate::disk::root::ROOT_MODE;
use crate::disk::{Identity, Root, audit, contacts, sockets};

pub(super) fn check(report: &mut Report, root: &Root, identity: Option<&Identity>) {
    check_contacts(report, root, identity);
    check_sockets(report, root);
    for path in [root.audit(), root.audit_before()] {
        check_audit(report, &path);
    }
    check_old_keys(report, root);
}

fn check_contacts(report: &mut Report, root: &Root, identity: Option<&Identity>) {
    let path = root.contacts();
    if fs::symlink_metadata(&path).is_err() || !mend_mode(report, "contacts", &path) {
        return;
    }
    // Without an identity nothing can say whether the agent stands among its own contacts.
    let Some(identity) = identity else { return };
    match contacts::load(&path, identity.id) {
        Ok(ContactsFile { paused, contacts }) => {
            let (count, some) = (contacts.len(), plural(contacts.len() as u64));
            let text = format!("{} is well, {count} contact{some}", path.display());
            if paused {
                let text = format!("{text}; all inbound work is paused: `axon{} resume`", root.flags());
                report.add("contacts", Status::Warn, text);
            } else {
                report.add("contacts", Status::Ok, text);
            }
        }
        Err(error) => file_fault(report, "contacts", &error),
    }
}

fn check_sockets(report: &mut Report, root: &Root) {
    let path = root.scopes();
    if fs::symlink_metadata(&path).is_err() || !mend_mode(report, "sockets", &path) {
        return;
    }
    let scopes = match sockets::load(&path) {
        Ok(scopes) => scopes,
        Err(error) => return file_fault(report, "sockets", &error),
    };
    let mut faults = Vec::new();
    for scope in &scopes {
        let path = root.scope_socket(&scope.name);
        match fs::symlink_metadata(&path) {
            Ok(about) if !about.file_type().is_socket() => {
                faults.push(format!("{} is no socket: move it away", path.display()));
            }
            // Without a daemon there need be none.
            _ => {}
        }
    }
    if faults.is_empty() {
        let (count, some) = (scopes.len(), plural(scopes.len() as u64));
        report.add("sockets", Status::Ok, format!("{} is well, {count} socket{some}", path.display()));
    }
    for fault in faults {
        report.add("sockets", Status::Fail, fault);
    }
}

fn check_audit(report: &mut Report, path: &Path) {
    if fs::symlink_metadata(path).is_err() || !mend_mode(report, "audit", path) {
        return;
    }
    let shown = path.display();
    match audit::scan(path) {
        Ok(None) => {}
        Ok(Some(audit::Scan { rows, wrong: None })) => {
            let some = plural(rows as u64);
            report.add("audit", Status::Ok, format!("{shown}, {rows} row{some}"));
        }
        Ok(Some(audit::Scan { wrong: Some((count, first)), .. })) => {
            let some = plural(count as u64);
            let text = format!(
                "{count} line{some} of {shown} cannot be read, the first is line {first}; they are left out"
            );
            report.add("audit", Status::Warn, text);
        }
        Err(error) => {
            report.add("audit", Status::Fail, format!("cannot read {shown} ({error}): move it away"));
        }
    }
}

/// The keys that this agent had before are as secret as the one it has.
fn check_old_keys(report: &mut Report, root: &Root) {
    let dir = root.old_keys();
    let Ok(about) = fs::symlink_metadata(&dir) else { return };
    let shown = dir.display();
    if !about.is_dir() {
        report.add("old_keys", Status::Fail, format!("{shown} is no directory: move it away"));
        return;
    }
    let mode = about.mode() & MODE_BITS;
    if mode & OTHERS_BITS != 0 {
        let text = format!("{shown} is open to others (mode {mode:04o})");
        report.fault("old_keys", Status::Fail, text, || {
            files::set_mode(&dir, ROOT_MODE).map(|()| (Status::Ok, "set it to 0700".to_owned()))
        });
    }
    match fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries.filter_map(Result::ok) {
                mend_mode(report, "old_keys", &entry.path());
            }
        }
        Err(error) => report.add("old_keys", Status::Fail, format!("cannot read {shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(root: &Root, fix: bool) -> Vec<(&'static str, Status, String)> {
        let (identity, _) = Identity::load_or_create(root).unwrap();
        let mut report = Report { fix, checks: Vec::new() };
        check(&mut report, root, Some(&identity));
        report.checks.into_iter().map(|check| (check.name, check.status, check.message)).collect()
    }

    fn private(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        files::set_mode(path, 0o600).unwrap();
    }

    #[test]
    fn files_of_trust_are_read_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(checked(&root, false), []);
        private(&root.contacts(), "paused = true\n");
        private(&root.scopes(), "[[sockets]]\nname = \"box\"\nallow = [\"send\"]\n");
        private(&root.audit(), "{\"at_ms\":1,\"event\":\"pause\",\"rule\":\"all\",\"count\":1}\n");
        private(&root.audit_before(), "half\n");
        let told = checked(&root, false);
        let statuses: Vec<_> = told.iter().map(|(name, status, _)| (*name, *status)).collect();
        let wanted = [
            ("contacts", Status::Warn),
            ("sockets", Status::Ok),
            ("audit", Status::Ok),
            ("audit", Status::Warn),
        ];
        assert_eq!(statuses, wanted, "{told:?}");
        assert!(told[0].2.contains("resume") && told[3].2.contains("line 1"), "{told:?}");

        private(&root.contacts(), "[[contacts]]\nlevel = \"friend\"\n");
        fs::create_dir(root.old_keys()).unwrap();
        private(&root.old_keys().join("x.key"), "");
        for (path, mode) in
            [(root.scopes(), 0o644), (root.old_keys(), 0o755), (root.old_keys().join("x.key"), 0o640)]
        {
            files::set_mode(&path, mode).unwrap();
        }
        let failed = |told: &[(&'static str, Status, String)]| {
            let failed = told.iter().filter(|(_, status, _)| *status == Status::Fail);
            failed.map(|(name, ..)| *name).collect::<Vec<_>>()
        };
        assert_eq!(failed(&checked(&root, false)), ["contacts", "sockets", "old_keys", "old_keys"]);
        assert_eq!(failed(&checked(&root, true)), ["contacts"], "a person's words are not mended");
        assert_eq!(failed(&checked(&root, false)), ["contacts"]);
    }
}
