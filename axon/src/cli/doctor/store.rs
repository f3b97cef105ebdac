//! The folder of what is kept: closed to others, and without parts that the daemon had to set aside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Report, Status};
use crate::disk::Root;
use crate::disk::files::{self, MODE_BITS, OTHERS_BITS};
use crate::disk::root::ROOT_MODE;

/// Damaged parts that are named one by one; of more, only their number.
const NAMED_MAX: usize = 8;

pub(super) fn check(report: &mut Report, root: &Root) {
    let path = root.store();
    let shown = path.display().to_string();
    let Ok(about) = fs::symlink_metadata(&path) else {
        report.add("store", Status::Ok, "there is none yet; the daemon makes it");
        return;
    };
    if !about.is_dir() || !files::is_ours(about.uid()) {
        let what = if about.is_dir() { "belongs to another user" } else { "is no directory" };
        report.add(
            "store",
            Status::Fail,
            format!("{shown} {what}: move it away, and the daemon makes a new one"),
        );
        return;
    }
    let mode = about.mode() & MODE_BITS;
    if mode & OTHERS_BITS != 0 {
        let text = format!("{shown} is open to others (mode {mode:04o})");
        report.fault("store", Status::Fail, text, || {
            files::set_mode(&path, ROOT_MODE).map(|()| (Status::Ok, "set it to 0700".to_owned()))
        });
    }
    let names = match fs::read_dir(&path) {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()),
        Err(error) => {
            report.add("store", Status::Fail, format!("cannot read {shown}: {error}"));
            return;
        }
    };
    let mut damaged: Vec<String> = names.filter(|name| name.contains(".damaged-")).collect();
    damaged.sort();
    for name in damaged.iter().take(NAMED_MAX) {
        let text = format!(
            "{shown}/{name} is a damaged part of what was kept, set aside by the daemon, whose log says what \
             is lost; remove it when you need it no more"
        );
        report.add("store", Status::Warn, text);
    }
    if damaged.len() > NAMED_MAX {
        let more = damaged.len() - NAMED_MAX;
        report.add("store", Status::Warn, format!("{shown} has {more} damaged parts more"));
    }
    if damaged.is_empty() && mode & OTHERS_BITS == 0 {
        report.add("store", Status::Ok, shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(root: &Root, fix: bool) -> Vec<(Status, String)> {
        let mut report = Report { fix, checks: Vec::new() };
        check(&mut report, root);
        report.checks.into_iter().map(|check| (check.status, check.message)).collect()
    }

    #[test]
    fn the_store_is_private_and_what_was_set_aside_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert!(matches!(&checked(&root, false)[..], [(Status::Ok, text)] if text.contains("none yet")));
        fs::create_dir(root.store()).unwrap();
        files::set_mode(&root.store(), 0o755).unwrap();
        assert!(matches!(&checked(&root, false)[..], [(Status::Fail, text)] if text.contains("0755")));
        assert!(matches!(&checked(&root, true)[..], [(Status::Ok, _)]));
        assert_eq!(fs::metadata(root.store()).unwrap().mode() & MODE_BITS, 0o700);
        assert!(matches!(&checked(&root, false)[..], [(Status::Ok, _)]));
        for n in 0..NAMED_MAX + 2 {
            fs::write(root.store().join(format!("seg.{n}.damaged-1")), "").unwrap();
        }
        fs::write(root.store().join("seg.1"), "").unwrap();
        let told = checked(&root, true);
        assert!(told.iter().all(|(status, _)| *status == Status::Warn), "{told:?}");
        assert!(told[0].1.contains("seg.0.damaged-1") && told[NAMED_MAX].1.contains("2 damaged"), "{told:?}");
        assert_eq!(told.len(), NAMED_MAX + 1);
    }

    #[test]
    fn something_else_in_its_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        fs::write(root.store(), "").unwrap();
        assert!(matches!(&checked(&root, true)[..], [(Status::Fail, text)] if text.contains("no directory")));
    }
}
