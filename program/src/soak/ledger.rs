//! Which packets came, by key: READ and DIRTY, then at most one COMPLETE, then nothing.
//!
//! A call to a port that begins after COMPLETE was noted must not bring another packet of that VMO. COMPLETE
//! must have come in the end, but where the pager or the port was closed, or the key was cancelled. User
//! packets come once, and in the end all have, with the same exceptions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use upager::{Command, PAGE_SIZE, Packet};

/// The keys of user packets have this bit, those of VMOs have not.
pub(crate) const USER: u64 = 1 << 63;

#[derive(Default)]
pub(crate) struct Ledger {
    /// Counts the COMPLETEs that were noted.
    clock: AtomicU64,
    vmos: Mutex<HashMap<u64, Account>>,
    /// By payload: where it was queued.
    user: Mutex<HashMap<u64, Queued>>,
    /// Keys that may have been cancelled.
    cancelled: Mutex<HashSet<u64>>,
    payloads: AtomicU64,
}

/// The packets of one VMO.
pub(crate) struct Account {
    pub(crate) most_pages: u64,
    pub(crate) traps: bool,
    /// Whether its pager, or its port, is closed.
    pub(crate) excuses: [Arc<AtomicBool>; 2],
    completes: u64,
    /// The clock when COMPLETE was noted.
    completed: Option<u64>,
}

struct Queued {
    key: u64,
    closed: Arc<AtomicBool>,
}

impl Account {
    pub(crate) fn new(most_pages: u64, traps: bool, excuses: [Arc<AtomicBool>; 2]) -> Self {
        Self { most_pages, traps, excuses, completes: 0, completed: None }
    }

    fn note(&mut self, packet: &Packet, since: u64, clock: &AtomicU64) -> Result<(), &'static str> {
        if self.completed.is_some_and(|at| at <= since) {
            return Err("came after COMPLETE");
        }
        let (offset, length) = (packet.page_request.offset, packet.page_request.length);
        match packet.command() {
            Some(Command::Complete) => {
                self.completes += 1;
                self.completed = Some(clock.fetch_add(1, SeqCst) + 1); // SeqCst: before and after, between threads
                if self.completes > 1 {
                    return Err("is the second COMPLETE");
                }
                if (offset, length) == (0, 0) { Ok(()) } else { Err("is a COMPLETE with a range") }
            }
            Some(Command::Dirty) if !self.traps => Err("is a DIRTY of a VMO that does not trap"),
            Some(_) => {
                let aligned = offset.is_multiple_of(PAGE_SIZE) && length.is_multiple_of(PAGE_SIZE) && length > 0;
                let inside = offset.checked_add(length).is_some_and(|end| end <= self.most_pages * PAGE_SIZE);
                if aligned && inside { Ok(()) } else { Err("has an impossible range") }
            }
            None => Err("has no command"),
        }
    }
}

impl Ledger {
    /// Opens the account of a key, which none has had.
    pub(crate) fn open(&self, key: u64, account: Account) {
        self.vmos.lock().insert(key, account);
    }

    /// Asked for before a call to a port, for [`note`](Self::note).
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(SeqCst) // SeqCst: as in `Account::note`
    }

    /// Notes packets that a call to a port brought, which began at `since`. Says what is wrong.
    pub(crate) fn note(&self, packets: &[Packet], since: u64) -> Vec<String> {
        let (mut wrong, mut completed) = (Vec::new(), HashSet::new());
        for packet in packets {
            let noted = match packet.user_payload() {
                Some(payload) => self.note_user(packet.key, &payload),
                None if completed.contains(&packet.key) => Err("came after COMPLETE"),
                None => match self.vmos.lock().get_mut(&packet.key) {
                    Some(account) => account.note(packet, since, &self.clock),
                    None => Err("is of no VMO"),
                },
            };
            if packet.command() == Some(Command::Complete) {
                completed.insert(packet.key);
            }
            if let Err(what) = noted {
                wrong.push(format!("a packet {what}: {packet:?}"));
            }
        }
        wrong
    }

    fn note_user(&self, key: u64, payload: &[u8; 32]) -> Result<(), &'static str> {
        let Some((number, rest)) = payload.split_first_chunk() else { return Err("has no payload") };
        let queued = self.user.lock().remove(&u64::from_ne_bytes(*number));
        match queued {
            Some(queued) if queued.key == key && rest.iter().all(|byte| *byte == 0xee) => Ok(()),
            Some(_) => Err("is not as it was queued"),
            None => Err("came twice, or was never queued"),
        }
    }

    /// A user packet that is about to be queued, and its number.
    pub(crate) fn user_packet(&self, key: u64, closed: Arc<AtomicBool>) -> (Packet, u64) {
        let number = self.payloads.fetch_add(1, SeqCst); // SeqCst: any order would do
        let mut payload = [0xee; 32];
        payload[..8].copy_from_slice(&number.to_ne_bytes());
        self.user.lock().insert(number, Queued { key, closed });
        (Packet::user(key, payload), number)
    }

    /// The packet could not be queued.
    pub(crate) fn take_back(&self, number: u64) {
        self.user.lock().remove(&number);
    }

    /// What is queued under this key, or will be, need not come.
    pub(crate) fn cancel(&self, key: u64) {
        self.cancelled.lock().insert(key);
    }

    /// When every VMO has been dropped and every port emptied: what has not come.
    pub(crate) fn missing(&self) -> Vec<String> {
        let cancelled = self.cancelled.lock();
        let is_up = |flag: &Arc<AtomicBool>| flag.load(SeqCst); // SeqCst: as all flags of the program
        let vmos = self.vmos.lock();
        let vmos = vmos.iter().filter(|(key, account)| {
            account.completes == 0 && !cancelled.contains(key) && !account.excuses.iter().any(is_up)
        });
        let user = self.user.lock();
        let user = user.values().filter(|queued| !cancelled.contains(&queued.key) && !is_up(&queued.closed));
        vmos.map(|(key, _)| format!("the COMPLETE of key {key} never came"))
            .chain(user.map(|queued| format!("a user packet of key {:#x} never came", queued.key)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        ledger.open(1, Account::new(4, false, Default::default()));
        ledger
    }

    const READ: Packet = Packet::page_request(1, Command::Read, 0, 4096);
    const COMPLETE: Packet = Packet::page_request(1, Command::Complete, 0, 0);

    #[test]
    fn nothing_follows_complete() {
        let ledger = ledger();
        let before = ledger.now();
        assert_eq!(ledger.missing(), ["the COMPLETE of key 1 never came"]);
        assert_eq!(ledger.note(&[READ, COMPLETE], before), [""; 0]);
        assert_eq!(ledger.note(&[READ], ledger.now()).len(), 1);
        let ledger = self::ledger();
        assert_eq!(ledger.note(&[COMPLETE, READ], 0).len(), 1, "in one call");
        assert_eq!(ledger.note(&[READ], 0), [""; 0], "another taker's, that began before");
        assert_eq!(ledger.note(&[COMPLETE], before).len(), 1, "twice");
        assert_eq!(ledger.missing(), [""; 0]);
    }

    #[test]
    fn packets_that_cannot_be_are_found() {
        let ledger = ledger();
        let request = |key, command, offset, length| Packet::page_request(key, command, offset, length);
        for packet in [
            request(2, Command::Read, 0, 4096),
            request(1, Command::Dirty, 0, 4096),
            request(1, Command::Read, 0, 0),
            request(1, Command::Read, 1, 4096),
            request(1, Command::Read, 4096, 4 * 4096),
            request(1, Command::Complete, 0, 4096),
        ] {
            assert_eq!(ledger.note(&[packet], 0).len(), 1, "{packet:?}");
        }
    }

    #[test]
    fn user_packets_come_once() {
        let ledger = ledger();
        ledger.cancel(1);
        let (packet, _) = ledger.user_packet(USER, Arc::default());
        assert_eq!(ledger.missing().len(), 1);
        assert_eq!(ledger.note(&[packet], 0), [""; 0]);
        assert_eq!(ledger.note(&[packet], 0).len(), 1);
        let (_, number) = ledger.user_packet(USER, Arc::default());
        ledger.take_back(number);
        ledger.user_packet(USER | 1, Arc::default());
        ledger.cancel(USER | 1);
        assert_eq!(ledger.missing(), [""; 0]);
    }
}
