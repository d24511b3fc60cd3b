use super::*;

struct Clock(Instant);

impl Clock {
    fn at(&self, seconds: f64) -> Instant {
        self.0 + Duration::from_secs_f64(seconds)
    }
}

fn breaker() -> (Breaker, Clock) {
    let now = Instant::now();
    (Breaker::new(now), Clock(now))
}

/// Makes one call, which must be let through.
fn call(breaker: &Breaker, now: Instant, failed: bool) {
    let permit = breaker.admit(now).ok().unwrap();
    if failed { permit.failed(now) } else { permit.succeeded(now) }
}

fn refusal(breaker: &Breaker, now: Instant) -> Option<Duration> {
    breaker.admit(now).err()
}

/// Open since second 1.
fn open() -> (Breaker, Clock) {
    let (breaker, clock) = breaker();
    (0..20).for_each(|_| call(&breaker, clock.at(1.0), true));
    (breaker, clock)
}

#[test]
fn it_opens_when_half_of_twenty_calls_have_failed() {
    let (breaker, clock) = breaker();
    for number in 0..20 {
        assert_eq!(refusal(&breaker, clock.at(1.0)), None, "{number}");
        call(&breaker, clock.at(1.0), number % 2 == 0);
    }
    assert_eq!(refusal(&breaker, clock.at(1.0)), Some(OPEN));
    assert_eq!(refusal(&breaker, clock.at(4.0)), Some(Duration::from_secs(2)));
}

#[test]
fn it_stays_closed_with_fewer_calls_or_fewer_failures() {
    let (breaker, clock) = breaker();
    (0..19).for_each(|_| call(&breaker, clock.at(0.5), true));
    assert_eq!(refusal(&breaker, clock.at(0.5)), None);
    let (breaker, clock) = self::breaker();
    (0..1000).for_each(|number| call(&breaker, clock.at(f64::from(number) / 100.0), number % 9 > 4));
    assert_eq!(refusal(&breaker, clock.at(10.0)), None);
}

#[test]
fn failures_are_forgotten_after_ten_seconds() {
    let (breaker, clock) = breaker();
    (0..19).for_each(|_| call(&breaker, clock.at(0.5), true));
    call(&breaker, clock.at(10.5), true);
    assert_eq!(refusal(&breaker, clock.at(10.5)), None);
    (0..18).for_each(|_| call(&breaker, clock.at(19.5), true));
    assert_eq!(refusal(&breaker, clock.at(19.5)), None);
    call(&breaker, clock.at(19.5), true);
    assert!(refusal(&breaker, clock.at(19.5)).is_some());
    let (breaker, clock) = self::breaker();
    (0..19).for_each(|_| call(&breaker, clock.at(1.5), true));
    call(&breaker, clock.at(15.0), true);
    assert_eq!(refusal(&breaker, clock.at(15.0)), None);
}

#[test]
fn after_five_seconds_exactly_one_probe_is_let_through() {
    let (breaker, clock) = open();
    assert!(refusal(&breaker, clock.at(5.9)).is_some());
    let probe = breaker.admit(clock.at(6.0)).ok().unwrap();
    assert_eq!(refusal(&breaker, clock.at(6.0)), Some(PROBE));
    assert_eq!(refusal(&breaker, clock.at(60.0)), Some(PROBE));
    probe.succeeded(clock.at(60.0));
    (0..10).for_each(|_| call(&breaker, clock.at(60.0), false));
}

#[test]
fn a_failed_probe_opens_it_again() {
    let (breaker, clock) = open();
    breaker.admit(clock.at(6.0)).ok().unwrap().failed(clock.at(7.0));
    assert_eq!(refusal(&breaker, clock.at(7.0)), Some(OPEN));
    assert_eq!(refusal(&breaker, clock.at(12.0)), None);
}

#[test]
fn a_successful_probe_forgets_the_failures() {
    let (breaker, clock) = open();
    call(&breaker, clock.at(6.0), false);
    (0..19).for_each(|_| call(&breaker, clock.at(6.0), true));
    assert!(refusal(&breaker, clock.at(6.0)).is_none());
}

#[test]
fn a_cancelled_call_counts_for_nothing() {
    let (breaker, clock) = breaker();
    (0..100).for_each(|_| drop(breaker.admit(clock.at(1.0))));
    assert_eq!(refusal(&breaker, clock.at(1.0)), None);
    (0..10).for_each(|_| call(&breaker, clock.at(1.0), false));
    (0..9).for_each(|_| call(&breaker, clock.at(1.0), true));
    assert_eq!(refusal(&breaker, clock.at(1.0)), None);
}

#[test]
fn a_cancelled_probe_leaves_its_place_to_the_next() {
    let (breaker, clock) = open();
    drop(breaker.admit(clock.at(6.0)));
    let next = breaker.admit(clock.at(6.0));
    assert!(next.is_ok());
    assert!(refusal(&breaker, clock.at(6.0)).is_some());
}

#[test]
fn a_call_from_before_it_opened_changes_nothing() {
    let (breaker, clock) = breaker();
    let (early, late) = (breaker.admit(clock.at(1.0)), breaker.admit(clock.at(1.0)));
    (0..20).for_each(|_| call(&breaker, clock.at(1.0), true));
    early.ok().unwrap().succeeded(clock.at(2.0));
    assert!(refusal(&breaker, clock.at(2.0)).is_some());
    let probe = breaker.admit(clock.at(6.0)).ok().unwrap();
    late.ok().unwrap().succeeded(clock.at(6.0));
    assert!(refusal(&breaker, clock.at(6.0)).is_some(), "only the probe decides");
    probe.succeeded(clock.at(6.0));
    assert_eq!(refusal(&breaker, clock.at(6.0)), None);
}
