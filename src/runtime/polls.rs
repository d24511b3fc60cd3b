//! What each worker of the runtime polls, for other threads to see.
//!
//! Two stores per poll, to a word that only its own thread writes; no clock is read and no lock taken.
use std::{
    fs,
    future::poll_fn,
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Runs a request; each of its polls can be seen.
pub async fn visible<T>(route: Route, request: impl Future<Output = T>) -> T {
    let mut request = pin!(request);
    poll_fn(|context| {
        let _polling = Polling::begin(route);
        request.as_mut().poll(context)
    })
    .await
}

/// A route template, as a number that fits into a worker's word.
#[derive(Clone, Copy)]
pub struct Route(u16);

/// A hash table that only grows, and so needs no lock: there are as many routes as the code has.
static ROUTES: [OnceLock<Box<str>>; 1024] = [const { OnceLock::new() }; 1024];

impl Route {
    pub fn new(template: &str) -> Self {
        let hash = |hash: usize, byte| hash.wrapping_mul(31) ^ usize::from(byte);
        let start = template.bytes().fold(0, hash) % ROUTES.len();
        let mut places = (start..ROUTES.len()).chain(0..start);
        let place = places.find(|place| **ROUTES[*place].get_or_init(|| template.into()) == *template);
        // Were there more routes than places, some would go without a name.
        Self(place.map_or(u16::MAX, |place| place as u16 + 1))
    }

    pub fn name(self) -> &'static str {
        let place = ROUTES.get(usize::from(self.0) - 1);
        place.and_then(OnceLock::get).map_or("<unnamed>", |template| template)
    }
}

/// Which poll a worker is in: another value for each poll.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Poll(u64);

impl Poll {
    /// Whose poll it is; `None` while the worker does something else.
    pub fn route(self) -> Option<Route> {
        let number = self.0 as u16;
        (number > 0).then_some(Route(number))
    }

    fn next(self, route: Route) -> Self {
        Self(self.over().0.wrapping_add(1 << 16) + u64::from(route.0))
    }

    fn over(self) -> Self {
        Self(self.0 >> 16 << 16)
    }
}

/// A thread that polls requests: a worker, or a test's own.
pub struct Poller {
    poll: AtomicU64,
    /// Where Linux tells of this thread.
    stat: Option<String>,
}

/// Those that have not been handed out yet.
static NEW: Mutex<Vec<Arc<Poller>>> = Mutex::new(Vec::new());

thread_local! {
    static POLLER: Arc<Poller> = {
        let task = fs::read_link("/proc/thread-self").ok();
        let stat = task.map(|task| format!("/proc/{}/stat", task.display()));
        let poller = Arc::new(Poller { poll: AtomicU64::default(), stat });
        NEW.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&poller));
        poller
    };
}

impl Poller {
    /// Those that have begun to poll since the last call.
    pub fn take_new() -> Vec<Arc<Self>> {
        mem::take(&mut *NEW.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn poll(&self) -> Poll {
        Poll(self.poll.load(Relaxed))
    }

    fn set(&self, next: impl FnOnce(Poll) -> Poll) {
        self.poll.store(next(self.poll()).0, Relaxed);
    }

    /// Whether it runs or would run if it got a CPU, and the CPU time it has used. Not known outside of Linux.
    pub fn cpu(&self) -> Option<(bool, Duration)> {
        let stat = fs::read_to_string(self.stat.as_ref()?).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let runnable = fields.next()? == "R";
        // User and system time; their unit is a hundredth of a second on every Linux.
        let times = fields.skip(10).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or_default());
        Some((runnable, Duration::from_millis(times.sum::<u64>() * 10)))
    }
}

/// A poll that lasts until this is dropped, be it by a panic.
struct Polling;

impl Polling {
    fn begin(route: Route) -> Self {
        POLLER.with(|poller| poller.set(|poll| poll.next(route)));
        Self
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLER.with(|poller| poller.set(Poll::over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, panic::AssertUnwindSafe, task};

    #[test]
    fn a_route_keeps_its_number_and_its_name() {
        let routes: Vec<_> = (0..300).map(|n| format!("/v1/things/{n}")).collect();
        let numbers: Vec<_> = routes.iter().map(|route| Route::new(route).0).collect();
        for (route, number) in routes.iter().zip(numbers) {
            assert_eq!((Route::new(route).0, Route::new(route).name()), (number, &**route));
        }
    }

    #[test]
    fn a_poll_is_seen_while_it_lasts_and_differs_from_the_one_before() {
        let mine = || POLLER.with(|poller| poller.poll());
        let context = &mut task::Context::from_waker(task::Waker::noop());
        let seen = RefCell::new(Vec::new());
        let mut request = pin!(visible(
            Route::new("/slow"),
            poll_fn(|_| {
                seen.borrow_mut().push(mine());
                task::Poll::<()>::Pending
            })
        ));
        for _ in 0..2 {
            assert!(request.as_mut().poll(context).is_pending());
            assert!(mine().route().is_none());
        }
        let seen = seen.borrow();
        assert_eq!(seen[0].route().map(Route::name), Some("/slow"));
        assert!(seen[0] != seen[1]);

        let panicking = visible(Route::new("/slow"), async { panic!("planned") });
        let mut panicking = pin!(panicking);
        let poll = AssertUnwindSafe(|| panicking.as_mut().poll(context));
        assert!(std::panic::catch_unwind(poll).is_err());
        assert!(mine().route().is_none(), "a panic ends the poll too");
    }

    #[test]
    fn the_system_knows_whether_a_thread_computes_or_sleeps() {
        let poller = POLLER.with(Arc::clone);
        let (runnable, before) = poller.cpu().unwrap();
        assert!(runnable, "it is asking");
        while poller.cpu().unwrap().1 < before + Duration::from_millis(50) {}
        let (tell, told) = std::sync::mpsc::channel();
        let asleep = std::thread::spawn(move || {
            tell.send(POLLER.with(Arc::clone)).unwrap();
            std::thread::park();
        });
        let other = told.recv().unwrap();
        while other.cpu().unwrap().0 {}
        asleep.thread().unpark();
    }
}
