//! The log's way out: a bounded buffer that a thread of its own writes, so that no request ever waits for stdout.
use super::metrics;
use std::{
    io::{self, ErrorKind, Write},
    mem,
    os::fd::AsFd,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tracing_subscriber::fmt::MakeWriter;

/// What every log line of the process goes through.
pub static LOG: Sink = Sink::new();

/// Bytes that may wait for the writer; a line beyond that is dropped and counted.
const LIMIT: usize = 4 << 20;
/// How long the first line waits for company: one write then carries all of them.
const BATCH: Duration = Duration::from_millis(10);
/// Bytes that the buffer keeps in quiet times.
const KEPT: usize = 64 << 10;

/// Takes whole lines without blocking and writes them in batches.
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

    /// Starts the thread that writes to stdout.
    ///
    /// # Errors
    /// When stdout is closed, or no thread can be made.
    pub fn start(&'static self) -> io::Result<()> {
        // Around std's own stdout, whose line buffer would cut a batch in two and keep its rest after an error.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        self.start_on(std::fs::File::from(stdout))
    }

    fn start_on(&'static self, out: impl Write + Send + 'static) -> io::Result<()> {
        self.lock().running = true;
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || self.run(out)).map(drop)
    }

    /// Takes one line, its newline included, or drops it when the buffer is full.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.pending.len() + line.len() > LIMIT {
            state.dropped += 1;
            drop(state);
            return metrics::log_lines_dropped(1);
        }
        let first = state.pending.is_empty();
        state.pending.extend_from_slice(line);
        drop(state);
        // Only the first line of a batch costs a system call; a quiet service's writer sleeps without a timer.
        if first {
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

    fn run(&self, mut out: impl Write) {
        let (mut batch, mut unsaid) = (Vec::new(), 0);
        loop {
            unsaid += self.next(&mut batch);
            let lost = write_all(&mut out, &batch);
            // What this batch needed, the next one needs too; after a burst the memory goes back.
            batch.shrink_to(KEPT.max(batch.len()));
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
        let waited =
            self.filled.wait_timeout_while(waited.unwrap_or_else(PoisonError::into_inner), BATCH, |state| {
                !state.hurry
            });
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
impl<'a> MakeWriter<'a> for &'static Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &'static Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
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
        /// What waits to be written.
        pub fn taken(&self) -> String {
            String::from_utf8(mem::take(&mut self.lock().pending)).unwrap()
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
            sink.push(&line);
        }
        assert_eq!(sink.lock().pending.len(), LIMIT);
        assert_eq!(sink.lock().dropped, 3);
        assert!(metrics::tests::log_lines_dropped_so_far() >= before + 3);
    }

    #[test]
    fn flush_waits_for_the_last_line_and_gives_up_at_its_limit() {
        let (mut reader, writer) = pipe().unwrap();
        let sink = sink();
        sink.start_on(writer).unwrap();
        sink.push(b"one\n");
        assert!(sink.flush(Duration::from_secs(5)));
        let mut line = [0; 4];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"one\n");

        sink.push(&[b'x'; 1 << 20]);
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
}
