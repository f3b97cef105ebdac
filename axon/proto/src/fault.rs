//! Fault points: places where the nth call of a run can be made to fail.
//!
//! Every bound on what grows is asked through `has_room`. With the feature `sim`, which the daemon is built
//! without, such a question can be answered with no although there is room, and the simulated disk and
//! network ask [`hit`] before they do anything. A run counts the calls of each sort, so that a fault can be
//! put at every one of them in turn. The counts belong to the thread that runs it.

#[cfg(feature = "sim")]
pub use points::{Armed, Fault, Point, Sort, arm, has_refused, heal, hit, is_armed, unwatched};

/// Whether one more thing may be kept at `place`: `has`, unless a fault says otherwise.
#[cfg(feature = "sim")]
pub(crate) fn has_room(place: &'static str, has: bool) -> bool {
    has && !points::refuses(place)
}

/// Whether one more thing may be kept at `place`.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) fn has_room(_place: &'static str, has: bool) -> bool {
    has
}

#[cfg(feature = "sim")]
mod points {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fmt;
    use std::str::FromStr;

    /// What is counted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Point {
        /// Bytes are written to a file.
        Write,
        /// What was written to a file is to last.
        Sync,
        /// A file is cut or extended.
        Length,
        /// A file is made.
        Make,
        /// A file gets another name.
        Rename,
        /// A file is removed.
        Remove,
        /// Names are to last.
        Names,
        /// Any of these.
        Change,
        /// Bytes are read from a file.
        Read,
        /// A file that is there is opened.
        Open,
        /// One of the shell's own files is written whole, such as `contacts.toml`.
        Whole,
        /// A message is handed to the network.
        Send,
        /// An answer is handed to the network.
        Answer,
        /// A bound is asked whether one more thing may be kept.
        Room,
    }

    /// What goes wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Sort {
        /// A write finds no space; nothing of it is written.
        Write,
        /// A write finds space for the first half only.
        Short,
        /// A sync fails; what was written is still there, and the next sync takes it.
        Sync,
        /// A sync fails, and what it should have made last is gone at once.
        SyncGone,
        /// A sync fails; what was written can be read, but no sync makes it last any more.
        SyncStale,
        /// A file cannot be cut or extended.
        Length,
        /// A file cannot be made.
        Make,
        /// A file cannot be renamed.
        Rename,
        /// A file cannot be removed.
        Remove,
        /// Names cannot be made to last.
        Names,
        /// The power goes at a change.
        Power,
        /// A file cannot be read.
        Read,
        /// A file cannot be opened.
        Open,
        /// One of the shell's own files cannot be written.
        Whole,
        /// The connection is lost as a message is sent.
        Send,
        /// A message is never delivered; its stream is reset.
        Drop,
        /// The connection is lost as an answer is sent.
        Answer,
        /// An answer is never delivered; its stream is reset.
        AnswerDrop,
        /// There is no room for one more thing.
        Room,
    }

    impl Sort {
        /// All of them, with the names by which they are asked for.
        pub const ALL: [(Self, &'static str); 19] = [
            (Self::Write, "write"),
            (Self::Short, "short"),
            (Self::Sync, "sync"),
            (Self::SyncGone, "sync-gone"),
            (Self::SyncStale, "sync-stale"),
            (Self::Length, "length"),
            (Self::Make, "make"),
            (Self::Rename, "rename"),
            (Self::Remove, "remove"),
            (Self::Names, "names"),
            (Self::Power, "power"),
            (Self::Read, "read"),
            (Self::Open, "open"),
            (Self::Whole, "whole"),
            (Self::Send, "send"),
            (Self::Drop, "drop"),
            (Self::Answer, "answer"),
            (Self::AnswerDrop, "answer-drop"),
            (Self::Room, "room"),
        ];

        /// What is counted to find its place.
        pub fn point(self) -> Point {
            match self {
                Self::Write | Self::Short => Point::Write,
                Self::Sync | Self::SyncGone | Self::SyncStale => Point::Sync,
                Self::Length => Point::Length,
                Self::Make => Point::Make,
                Self::Rename => Point::Rename,
                Self::Remove => Point::Remove,
                Self::Names => Point::Names,
                Self::Power => Point::Change,
                Self::Read => Point::Read,
                Self::Open => Point::Open,
                Self::Whole => Point::Whole,
                Self::Send | Self::Drop => Point::Send,
                Self::Answer | Self::AnswerDrop => Point::Answer,
                Self::Room => Point::Room,
            }
        }
    }

    /// One fault: the nth call of its sort, and every later one where it lasts.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Fault {
        /// What goes wrong.
        pub sort: Sort,
        /// At which call, from 1.
        pub nth: u64,
        /// Whether it goes on until [`heal`].
        pub lasts: bool,
    }

    impl fmt::Display for Fault {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let name = Sort::ALL.iter().find(|(sort, _)| *sort == self.sort).map_or("", |(_, name)| name);
            write!(f, "{name}:{}{}", self.nth, if self.lasts { "+" } else { "" })
        }
    }

    impl FromStr for Fault {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let (name, nth) = text.split_once(':').ok_or(())?;
            let (sort, _) = Sort::ALL.iter().find(|(_, known)| *known == name).ok_or(())?;
            let digits = nth.strip_suffix('+').unwrap_or(nth);
            Ok(Self { sort: *sort, nth: digits.parse().map_err(drop)?, lasts: digits != nth })
        }
    }

    /// What a run has counted.
    #[derive(Debug, Default)]
    struct Points {
        counts: BTreeMap<Point, u64>,
        asked: Vec<&'static str>,
        fault: Option<Fault>,
        refused: Vec<&'static str>,
        failed: u64,
    }

    impl Points {
        /// Counts a call; whether it is the one that fails.
        fn count(&mut self, point: Point) -> Option<Sort> {
            let count = self.counts.entry(point).or_default();
            *count += 1;
            let fault = self.fault.filter(|fault| {
                fault.sort.point() == point && (*count == fault.nth || fault.lasts && *count > fault.nth)
            })?;
            self.failed += 1;
            Some(fault.sort)
        }
    }

    thread_local! {
        static POINTS: RefCell<Option<Points>> = const { RefCell::new(None) };
    }

    /// Counts as long as it lives.
    #[derive(Debug)]
    pub struct Armed(());

    /// Begins to count on this thread, and makes this fault.
    pub fn arm(fault: Option<Fault>) -> Armed {
        POINTS.set(Some(Points { fault, ..Points::default() }));
        Armed(())
    }

    impl Armed {
        /// How many calls there were at each point.
        pub fn counts(&self) -> BTreeMap<Point, u64> {
            POINTS
                .with_borrow(|points| points.as_ref().map(|points| points.counts.clone()))
                .unwrap_or_default()
        }

        /// The bounds that were asked, in order.
        pub fn asked(&self) -> Vec<&'static str> {
            POINTS
                .with_borrow(|points| points.as_ref().map(|points| points.asked.clone()))
                .unwrap_or_default()
        }

        /// Calls that failed.
        pub fn failed(&self) -> u64 {
            POINTS.with_borrow(|points| points.as_ref().map_or(0, |points| points.failed))
        }

        /// The bounds that said no although there was room, in order.
        pub fn refused(&self) -> Vec<&'static str> {
            POINTS
                .with_borrow(|points| points.as_ref().map(|points| points.refused.clone()))
                .unwrap_or_default()
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            POINTS.set(None);
        }
    }

    /// From now on nothing goes wrong; what is called is counted as before.
    pub fn heal() {
        POINTS.with_borrow_mut(|points| {
            if let Some(points) = points {
                points.fault = None;
            }
        });
    }

    /// Whether room for this was refused, in this thread, since a fault was armed.
    pub fn has_refused(what: &str) -> bool {
        POINTS.with_borrow(|points| points.as_ref().is_some_and(|points| points.refused.contains(&what)))
    }

    /// Whether calls are counted on this thread.
    pub fn is_armed() -> bool {
        POINTS.with_borrow(Option::is_some)
    }

    /// Does something that is neither counted nor made to fail: what looks on from outside.
    pub fn unwatched<T>(what: impl FnOnce() -> T) -> T {
        let points = POINTS.take();
        let out = what();
        POINTS.set(points);
        out
    }

    /// A call; whether it is to fail, and how.
    pub fn hit(point: Point) -> Option<Sort> {
        POINTS.with_borrow_mut(|points| points.as_mut()?.count(point))
    }

    pub(super) fn refuses(place: &'static str) -> bool {
        POINTS.with_borrow_mut(|points| {
            let Some(points) = points else { return false };
            points.asked.push(place);
            let refuses = points.count(Point::Room).is_some();
            if refuses {
                points.refused.push(place);
            }
            refuses
        })
    }

    #[cfg(test)]
    mod tests {
        use super::super::has_room;
        use super::*;

        #[test]
        fn the_nth_call_fails_and_where_it_lasts_all_that_follow_until_healed() {
            assert!(has_room("x", true) && !has_room("x", false));
            assert_eq!(hit(Point::Write), None);
            for (text, fails) in
                [("write:2", [false, true, false, false]), ("write:2+", [false, true, true, false])]
            {
                let fault: Fault = text.parse().unwrap();
                assert_eq!(fault.to_string(), text);
                let armed = arm(Some(fault));
                for (n, fails) in fails.into_iter().enumerate() {
                    if n == 3 {
                        heal();
                    }
                    assert_eq!(hit(Point::Write).is_some(), fails, "{text}, {n}");
                    assert_eq!(hit(Point::Sync), None);
                }
                assert_eq!(armed.counts()[&Point::Write], 4);
            }
            let armed = arm("room:2".parse().ok());
            assert!(
                has_room("a", true) && !has_room("b", false) && !has_room("b", true) && has_room("c", true)
            );
            assert_eq!((armed.refused(), armed.failed()), (vec!["b"], 1));
            assert_eq!(unwatched(|| (is_armed(), hit(Point::Room))), (false, None));
            assert_eq!(armed.counts()[&Point::Room], 3, "one was full anyway");
            drop(armed);
            assert!(!is_armed());
        }
    }
}
