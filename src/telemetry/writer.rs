//! The log's way out: a bounded buffer that a thread of its own prints, so that no request ever waits for stdout.
use super::{line::Guard, metrics};
use std::{
    io::{self, ErrorKind, Write},
    mem,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

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

struct State {
    pending: Vec<u8>,
    /// Lines dropped since the log last said so.
    dropped: u64,
    running: bool,
    writing: bool,
    /// Someone waits in `flush`: no batching.
    hurry: bool,
}

impl Sink {
    pub const fn new() -> Self {
        let state = State { pending: Vec::new(), dropped: 0, running: false, writing: false, hurry: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() }
    }

    /// Starts the thread that writes to stdout: JSON lines past their guard, other text as it is.
    ///
    /// # Errors
    /// When stdout is closed, or no thread can be made.
    pub fn start(&'static self, guard: Option<Guard>) -> io::Result<()> {
        // Around std's own stdout, whose line buffer would cut a batch in two and keep its rest after an error.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        self.start_on(std::fs::File::from(stdout), guard)
    }

    fn start_on(
        &'static self,
        mut out: impl Write + Send + 'static,
        mut guard: Option<Guard>,
    ) -> io::Result<()> {
        self.lock().running = true;
        // A panic costs the lines at hand, not the log.
        let run = move || while catch_unwind(AssertUnwindSafe(|| self.run(&mut out, &mut guard))).is_err() {};
        thread::Builder::new().name("log-writer".to_owned()).spawn(run).map(drop)
    }

    /// Takes one line, whose end `finish` writes, or drops it when the buffer is full.
    pub fn push(&self, line: &[u8], finish: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let before = state.pending.len();
        if before + line.len() > LIMIT {
            state.dropped += 1;
            drop(state);
            return metrics::log_lines_dropped(1);
        }
        state.pending.extend_from_slice(line);
        finish(&mut state.pending);
        let after = state.pending.len();
        drop(state);
        // Only the first line of a batch, and the one that fills it, cost a system call; a quiet service's writer
        // sleeps without a timer.
        if before == 0 || before < FULL && after >= FULL {
            self.filled.notify_one();
        }
    }

    /// Waits until all that was pushed is written, `limit` at most. Answers whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        if !state.running {
            return false;
        }
        state.hurry = true;
        self.filled.notify_one();
        let busy = |state: &mut State| state.writing || !state.pending.is_empty();
        let waited = self.drained.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, out: &mut impl Write, guard: &mut Option<Guard>) {
        let (mut batch, mut unsaid) = (Vec::new(), 0);
        loop {
            unsaid += self.next(&mut batch);
            let lost = print(out, guard, &batch);
            // What this batch needed, the next one needs too; after a burst the memory goes back.
            batch.shrink_to(FULL.max(batch.len()));
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
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        let waited = self.filled.wait_while(self.lock(), |state| state.pending.is_empty());
        let gather = |state: &mut State| !state.hurry && state.pending.len() < FULL;
        let waited =
            self.filled.wait_timeout_while(waited.unwrap_or_else(PoisonError::into_inner), BATCH, gather);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        mem::swap(&mut state.pending, batch);
        state.writing = true;
        mem::take(&mut state.dropped)
    }

    fn done(&self) {
        let mut state = self.lock();
        state.writing = false;
        if state.pending.is_empty() {
            state.hurry = false;
        }
        drop(state);
        self.drained.notify_all();
    }
}

/// Prints whole lines, past `guard` if there is one. Answers how many were lost.
fn print(out: &mut impl Write, guard: &mut Option<Guard>, mut lines: &[u8]) -> u64 {
    let Some(guard) = guard else { return write_all(out, lines) };
    let mut lost = 0;
    while !lines.is_empty() {
        guard.out.clear();
        while !lines.is_empty() && guard.out.len() < FULL {
            let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            let (line, rest) = lines.split_at(end);
            guard.rewrite(line);
            lines = rest;
        }
        lost += write_all(out, &guard.out);
        guard.out.shrink_to(2 * FULL);
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

/// For the `pretty` format, which needs no guard in between.
impl Write for &'static Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line, |_| {});
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, pipe},
        time::Instant,
    };

    impl Sink {
        /// What would be printed.
        pub fn taken(&self, mut guard: Option<Guard>) -> String {
            let mut out = Vec::new();
            assert_eq!(print(&mut out, &mut guard, &mem::take(&mut self.lock().pending)), 0);
            String::from_utf8(out).unwrap()
        }
    }

    fn sink() -> &'static Sink {
        Box::leak(Box::new(Sink::new()))
    }

    #[test]
    fn a_full_buffer_drops_lines_counts_them_and_never_blocks() {
        let (sink, before) = (sink(), metrics::tests::log_lines_dropped_so_far());
        let line = [b'x'; 1 << 10];
        for _ in 0..LIMIT / line.len() + 3 {
            sink.push(&line, |_| {});
        }
        assert_eq!(sink.lock().pending.len(), LIMIT);
        assert_eq!(sink.lock().dropped, 3);
        assert!(metrics::tests::log_lines_dropped_so_far() >= before + 3);
    }

    #[test]
    fn flush_waits_for_the_last_line_and_gives_up_at_its_limit() {
        let (mut reader, writer) = pipe().unwrap();
        let sink = sink();
        sink.start_on(writer, None).unwrap();
        sink.push(b"one\n", |_| {});
        assert!(sink.flush(Duration::from_secs(5)));
        let mut line = [0; 4];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"one\n");

        sink.push(&[b'x'; 1 << 20], |_| {});
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
        sink.start_on(Mine(sender), None).unwrap();
        sink.push(b"mine\n", |_| {});
        assert!(!sink.flush(Duration::from_millis(100)), "nothing says that these were written");
        sink.push(b"next\n", |_| {});
        assert!(sink.flush(Duration::from_secs(5)));
        assert_eq!(written.recv().unwrap(), b"next\n");
    }
}
