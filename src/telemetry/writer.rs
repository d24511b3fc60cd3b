//! The log's way out: a bounded buffer that a thread of its own prints, so that no request ever waits for stdout.
use super::{logs::Printer, metrics};
use std::{
    io::{self, ErrorKind, Write},
    mem,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};
use tracing::Metadata;

/// What every log line of the process goes through.
pub static LOG: Sink = Sink::new();

/// Bytes that may wait for the writer; a line beyond that is dropped and counted.
const LIMIT: usize = 4 << 20;
/// How long the first line waits for company: one write then carries all of them.
const BATCH: Duration = Duration::from_millis(10);
/// So many bytes wait no longer. It is also what the buffers keep in quiet times.
const FULL: usize = 64 << 10;

/// Takes whole lines without blocking and prints them in batches.
pub struct Sink {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

/// A line that waits, without its text.
pub struct Entry {
    /// Where the event is in the code; `None` for a line that is to be printed as it is.
    pub origin: Option<&'static Metadata<'static>>,
    pub time: SystemTime,
    len: usize,
}

/// Lines that wait.
struct Batch {
    entries: Vec<Entry>,
    /// Of all of them.
    text: Vec<u8>,
}

impl Batch {
    const EMPTY: Self = Self { entries: Vec::new(), text: Vec::new() };

    /// What this batch needed, the next one needs too; after a burst the memory goes back.
    fn clear(&mut self) {
        self.entries.shrink_to(self.entries.len().max(FULL / 256));
        self.text.shrink_to(self.text.len().max(FULL));
        self.entries.clear();
        self.text.clear();
    }
}

struct State {
    pending: Batch,
    /// Lines dropped since the log last said so.
    dropped: u64,
    running: bool,
    /// The writer waits to be called.
    asleep: bool,
    writing: bool,
    /// Someone waits in `flush`: no batching.
    hurry: bool,
}

impl Sink {
    pub const fn new() -> Self {
        let (running, asleep, writing, hurry) = (false, false, false, false);
        let state = State { pending: Batch::EMPTY, dropped: 0, running, asleep, writing, hurry };
        Self { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() }
    }

    /// Starts the thread that writes to stdout what `printer` makes of the lines.
    ///
    /// # Errors
    /// When stdout is closed, or no thread can be made.
    pub fn start(&'static self, printer: Printer) -> io::Result<()> {
        // Around std's own stdout, whose line buffer would cut a batch in two and keep its rest after an error.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        self.start_on(std::fs::File::from(stdout), printer)
    }

    fn start_on(&'static self, mut out: impl Write + Send + 'static, mut printer: Printer) -> io::Result<()> {
        self.lock().running = true;
        // A panic costs the lines at hand, not the log.
        let run =
            move || while catch_unwind(AssertUnwindSafe(|| self.run(&mut out, &mut printer))).is_err() {};
        thread::Builder::new().name("log-writer".to_owned()).spawn(run).map(drop)
    }

    /// Takes one line, whose end `finish` writes, or drops it when the buffer is full.
    pub fn push(
        &self,
        origin: Option<&'static Metadata<'static>>,
        line: &[u8],
        finish: impl FnOnce(&mut Vec<u8>),
    ) {
        let time = SystemTime::now();
        let mut state = self.lock();
        let Batch { entries, text } = &mut state.pending;
        let before = text.len();
        if before + line.len() > LIMIT {
            state.dropped += 1;
            drop(state);
            return metrics::log_lines_dropped(1);
        }
        text.extend_from_slice(line);
        finish(text);
        let after = text.len();
        entries.push(Entry { origin, time, len: after - before });
        // Only the first line after a pause, and the one that fills a batch, cost a system call.
        let wake = mem::take(&mut state.asleep) || before < FULL && after >= FULL;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// The text of the lines that wait, which nobody will print then.
    pub fn take(&self) -> Vec<u8> {
        mem::replace(&mut self.lock().pending, Batch::EMPTY).text
    }

    /// Waits until all that was pushed is written, `limit` at most. Answers whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        if !state.running {
            return false;
        }
        state.hurry = true;
        self.filled.notify_one();
        let busy = |state: &mut State| state.writing || !state.pending.text.is_empty();
        let waited = self.drained.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, out: &mut impl Write, printer: &mut Printer) {
        let (mut batch, mut unsaid) = (Batch::EMPTY, 0);
        loop {
            unsaid += self.next(&mut batch);
            let lost = print(out, printer, &batch);
            batch.clear();
            self.done();
            if lost > 0 {
                unsaid += lost;
                metrics::log_lines_dropped(lost);
            } else if unsaid > 0 {
                // Said only once the way out works again, else this line would be lost, counted and said for ever.
                tracing::warn!(dropped = mem::take(&mut unsaid), "log lines dropped");
            }
        }
    }

    /// Waits for lines and moves them into `batch`. Answers how many were dropped meanwhile.
    fn next(&self, batch: &mut Batch) -> u64 {
        let mut state = self.lock();
        loop {
            let more = |state: &mut State| !state.hurry && state.pending.text.len() < FULL;
            let waited = self.filled.wait_timeout_while(state, BATCH, more);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.pending.text.is_empty() {
                break;
            }
            // A busy service's writer looks every now and then; a quiet one's sleeps without a timer.
            state.asleep = true;
            let waited = self.filled.wait_while(state, |state| state.pending.text.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut state.pending, batch);
        state.writing = true;
        mem::take(&mut state.dropped)
    }

    fn done(&self) {
        let mut state = self.lock();
        state.writing = false;
        if state.pending.text.is_empty() {
            state.hurry = false;
        }
        drop(state);
        self.drained.notify_all();
    }
}

/// Prints lines. Answers how many were lost.
fn print(out: &mut impl Write, printer: &mut Printer, batch: &Batch) -> u64 {
    let (mut lost, mut text) = (0, &*batch.text);
    // What a panic left behind.
    printer.guard.out.clear();
    for (at, entry) in batch.entries.iter().enumerate() {
        let (line, rest) = text.split_at(entry.len);
        printer.add(entry, line);
        text = rest;
        if printer.guard.out.len() >= FULL || at + 1 == batch.entries.len() {
            lost += write_all(out, &printer.guard.out);
            printer.guard.out.clear();
            printer.guard.out.shrink_to(2 * FULL);
        }
    }
    lost
}

/// Writes what can be written. Answers how many lines were lost to an error, a closed pipe for example.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written @ 1..) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever started this process may have handed it a non-blocking pipe.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BATCH),
            Ok(_) | Err(_) => return bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
    0
}

/// For the `pretty` format, whose lines are printed as they are.
impl Write for &'static Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(None, line, |_| {});
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::lines::settings;
    use std::{
        io::{Read, pipe},
        time::Instant,
    };

    impl Sink {
        /// What would be printed.
        pub fn taken(&self, printer: &mut Printer) -> String {
            let mut out = Vec::new();
            let batch = mem::replace(&mut self.lock().pending, Batch::EMPTY);
            assert_eq!(print(&mut out, printer, &batch), 0);
            String::from_utf8(out).unwrap()
        }
    }

    fn printer() -> Printer {
        Printer::new(&settings())
    }

    fn sink() -> &'static Sink {
        Box::leak(Box::new(Sink::new()))
    }

    #[test]
    fn a_full_buffer_drops_lines_counts_them_and_never_blocks() {
        let (sink, before) = (sink(), metrics::tests::log_lines_dropped_so_far());
        let line = [b'x'; 1 << 10];
        for _ in 0..LIMIT / line.len() + 3 {
            sink.push(None, &line, |_| {});
        }
        assert_eq!(sink.lock().pending.text.len(), LIMIT);
        assert_eq!(sink.lock().dropped, 3);
        assert!(metrics::tests::log_lines_dropped_so_far() >= before + 3);
    }

    #[test]
    fn flush_waits_for_the_last_line_and_gives_up_at_its_limit() {
        let (mut reader, writer) = pipe().unwrap();
        let sink = sink();
        sink.start_on(writer, printer()).unwrap();
        sink.push(None, b"one\n", |_| {});
        assert!(sink.flush(Duration::from_secs(5)));
        let mut line = [0; 4];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"one\n");

        sink.push(None, &[b'x'; 1 << 20], |_| {});
        let start = Instant::now();
        assert!(!sink.flush(Duration::from_millis(50)), "nobody reads the pipe");
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_closed_pipe_costs_lines_and_nothing_else() {
        let (reader, mut writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(write_all(&mut writer, b"one\ntwo\n"), 2);
    }

    #[test]
    fn a_panic_of_the_writer_costs_the_lines_at_hand_only() {
        struct Mine(std::sync::mpsc::Sender<Vec<u8>>);
        impl Write for Mine {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                assert_ne!(bytes, b"mine\n");
                self.0.send(bytes.to_owned()).unwrap();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, written) = std::sync::mpsc::channel();
        let sink = sink();
        sink.start_on(Mine(sender), printer()).unwrap();
        sink.push(None, b"mine\n", |_| {});
        assert!(!sink.flush(Duration::from_millis(100)), "nothing says that these were written");
        sink.push(None, b"next\n", |_| {});
        assert!(sink.flush(Duration::from_secs(5)));
        assert_eq!(written.recv().unwrap(), b"next\n");
    }
}
