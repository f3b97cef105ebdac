//! A network of datagrams in memory. Each way between two plugs has dice of its own, so that what becomes of
//! a datagram hangs on the seed, on its way and on how many went before it there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dice::Dice;

/// What the network does to datagrams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Lost, of a thousand.
    pub(super) loss: u64,
    /// Delivered twice, of a thousand.
    pub(super) twice: u64,
    /// How long one is under way, in milliseconds; where it varies, some overtake others.
    pub(super) delay_ms: (u64, u64),
    /// Longer ones are not delivered, in bytes.
    pub(super) mtu: usize,
}

impl Weather {
    pub(super) const FAIR: Self = Self { loss: 0, twice: 0, delay_ms: (1, 1), mtu: 1_472 };
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives then, or then and then.
    Arrives(Vec<u64>),
    Lost,
    Cut,
    TooLong,
    /// Nobody has that address.
    Nowhere,
}

/// One datagram, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) at_ms: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) fate: Fate,
}

impl Datagram {
    /// What its packets are: `I`nitial, `0`-RTT, `H`andshake, `R`etry, or `S`hort, as far as headers tell.
    pub(super) fn sorts(&self) -> String {
        let (mut sorts, mut rest) = (String::new(), &self.bytes[..]);
        while let Some(first) = rest.first() {
            let sort = ['I', '0', 'H', 'R'][usize::from((first >> 4) & 3)];
            let sort = if first & 0x80 == 0 { 'S' } else { sort };
            sorts.push(sort);
            match after(rest, sort) {
                Some(next) => rest = next,
                None => break,
            }
        }
        sorts
    }

    /// Whether there is a packet of this sort in it.
    pub(super) fn has(&self, sort: char) -> bool {
        self.sorts().contains(sort)
    }
}

/// What follows the packet that is at the beginning; none where that goes to the end.
fn after(bytes: &[u8], sort: char) -> Option<&[u8]> {
    fn skip<'a>(bytes: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
        let (skipped, rest) = bytes.split_at_checked(usize::try_from(count).ok()?)?;
        *bytes = rest;
        Some(skipped)
    }
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        let count = 1_u64 << (bytes.first()? >> 6);
        let read = skip(bytes, count)?.iter().fold(0, |read, byte| (read << 8) | u64::from(*byte));
        Some(read & (u64::MAX >> (66 - 8 * count)))
    }
    if sort == 'S' || sort == 'R' {
        return None;
    }
    let mut rest = bytes;
    // The first byte and the version; both names of the connection; what an Initial has besides.
    skip(&mut rest, 5)?;
    for _ in 0..2 {
        let long = u64::from(skip(&mut rest, 1)?[0]);
        skip(&mut rest, long)?;
    }
    if sort == 'I' {
        let token = number(&mut rest)?;
        skip(&mut rest, token)?;
    }
    let long = number(&mut rest)?;
    skip(&mut rest, long)?;
    Some(rest)
}

/// All datagrams of a run, in order.
pub(super) type Record = Vec<Datagram>;

#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<Ether>);

#[derive(Debug)]
struct Ether {
    began: Instant,
    state: Mutex<State>,
    stirred: Notify,
}

#[derive(Debug)]
struct State {
    seed: u64,
    weather: Weather,
    plugs: Vec<Plug>,
    /// Who is where, as others see it.
    places: BTreeMap<SocketAddr, usize>,
    ways: BTreeMap<(SocketAddr, SocketAddr), Dice>,
    /// One-way cuts, by where both ends are plugged in.
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    record: Record,
}

/// Where somebody is plugged in.
#[derive(Debug)]
struct Plug {
    inner: SocketAddr,
    /// As others see it.
    outer: SocketAddr,
    /// Whoever had it is gone without a word.
    dead: bool,
    come: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at_ms: u64,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Wire {
    /// Begins to carry; must be called inside a runtime.
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            seed,
            weather: Weather::FAIR,
            plugs: Vec::new(),
            places: BTreeMap::new(),
            ways: BTreeMap::new(),
            cuts: BTreeSet::new(),
            flying: BinaryHeap::new(),
            sent: 0,
            record: Vec::new(),
        };
        let ether = Ether { began: Instant::now(), state: Mutex::new(state), stirred: Notify::new() };
        let wire = Self(Arc::new(ether));
        tokio::spawn(wire.clone().carry());
        wire
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap()
    }

    pub(super) fn set(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// What was sent up to now.
    pub(super) fn record(&self) -> Record {
        self.state().record.clone()
    }

    /// A socket there. Whoever was there before is gone.
    pub(super) fn plug(&self, at: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        self.kill(at);
        let mut state = self.state();
        let index = state.plugs.len();
        state.plugs.push(Plug { inner: at, outer: at, dead: false, come: VecDeque::new(), waker: None });
        state.places.insert(at, index);
        Arc::new(Socket { wire: self.clone(), index })
    }

    /// From now on whoever is plugged in there hears and says nothing.
    pub(super) fn kill(&self, at: SocketAddr) {
        let mut state = self.state();
        for plug in state.plugs.iter_mut().filter(|plug| plug.inner == at && !plug.dead) {
            plug.dead = true;
        }
        let State { places, plugs, .. } = &mut *state;
        places.retain(|_, index| !plugs[*index].dead);
    }

    /// Others see whoever is there at another port from now on, and reach it at the old one no more.
    pub(super) fn rebind(&self, at: SocketAddr, port: u16) {
        let mut state = self.state();
        let index = state.plugs.iter().position(|plug| plug.inner == at && !plug.dead).unwrap();
        let old = state.plugs[index].outer;
        let new = SocketAddr::new(old.ip(), port);
        state.plugs[index].outer = new;
        state.places.remove(&old);
        state.places.insert(new, index);
    }

    /// Nothing comes from one to the other any more, or again.
    pub(super) fn cut(&self, from: SocketAddr, to: SocketAddr, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cuts.insert((from, to))
        } else {
            state.cuts.remove(&(from, to))
        };
    }

    /// The same, both ways.
    pub(super) fn part(&self, a: SocketAddr, b: SocketAddr, parted: bool) {
        self.cut(a, b, parted);
        self.cut(b, a, parted);
    }

    fn send(&self, index: usize, to: SocketAddr, bytes: &[u8]) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        if state.plugs[index].dead {
            return;
        }
        let (from, inner, weather) = (state.plugs[index].outer, state.plugs[index].inner, state.weather);
        let target = state.places.get(&to).map(|index| state.plugs[*index].inner);
        let fate = match target {
            None => Fate::Nowhere,
            Some(target) if state.cuts.contains(&(inner, target)) => Fate::Cut,
            Some(_) if bytes.len() > weather.mtu => Fate::TooLong,
            Some(target) => state.fate(at_ms, (inner, target), weather),
        };
        if let Fate::Arrives(times) = &fate {
            for at_ms in times {
                state.sent += 1;
                let number = state.sent;
                state.flying.push(Reverse(Flying { at_ms: *at_ms, number, from, to, bytes: bytes.to_vec() }));
            }
            self.0.stirred.notify_one();
        }
        let sent = Datagram { at_ms, from, to, bytes: bytes.to_vec(), fate };
        if std::env::var_os("AXON_SHOW").is_some() {
            let (sorts, long, fate) = (sent.sorts(), bytes.len(), &sent.fate);
            super::say(&format!("{at_ms:>8} {from} to {to}: {sorts} {long} {fate:?}"));
        }
        state.record.push(sent);
    }

    /// Delivers each datagram when its time has come.
    async fn carry(self) {
        loop {
            let next = self.state().flying.peek().map(|Reverse(flying)| flying.at_ms);
            let stirred = self.0.stirred.notified();
            match next {
                Some(at_ms) if at_ms <= self.now_ms() => self.deliver(),
                Some(at_ms) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(self.0.began + Duration::from_millis(at_ms)) => {}
                    () = stirred => {}
                },
                None => stirred.await,
            }
        }
    }

    fn deliver(&self) {
        let mut state = self.state();
        let Some(Reverse(Flying { from, to, bytes, .. })) = state.flying.pop() else { return };
        // Whoever it was for may be elsewhere by now.
        let Some(index) = state.places.get(&to).copied() else { return };
        let plug = &mut state.plugs[index];
        plug.come.push_back((from, bytes));
        if let Some(waker) = plug.waker.take() {
            drop(state);
            waker.wake();
        }
    }
}

impl State {
    fn fate(&mut self, at_ms: u64, way: (SocketAddr, SocketAddr), weather: Weather) -> Fate {
        let seed = self.seed;
        let number = |addr: SocketAddr| match addr.ip() {
            std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(addr.port()),
            std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let dice = self.ways.entry(way).or_insert_with(|| {
            let mut dice = Dice::new(seed ^ number(way.0).rotate_left(32) ^ number(way.1));
            Dice::new(dice.next())
        });
        if dice.happens(weather.loss) {
            return Fate::Lost;
        }
        let times = if dice.happens(weather.twice) { 2 } else { 1 };
        Fate::Arrives((0..times).map(|_| at_ms + dice.within(weather.delay_ms)).collect())
    }
}

#[derive(Debug)]
struct Socket {
    wire: Wire,
    index: usize,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(size) {
            self.wire.send(self.index, transmit.destination, bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.wire.state();
        let plug = &mut state.plugs[self.index];
        let mut count = 0;
        while count < bufs.len().min(meta.len())
            && let Some((from, bytes)) = plug.come.pop_front()
        {
            bufs[count][..bytes.len()].copy_from_slice(&bytes);
            let mut about = RecvMeta::default();
            (about.addr, about.len, about.stride) = (from, bytes.len(), bytes.len());
            about.dst_ip = Some(plug.inner.ip());
            meta[count] = about;
            count += 1;
        }
        if count == 0 {
            plug.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.wire.state().plugs[self.index].inner)
    }

    /// As the system does it, many packets are sent with one call.
    fn max_transmit_segments(&self) -> usize {
        8
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// There is always room.
#[derive(Debug)]
struct Room;

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
