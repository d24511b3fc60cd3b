//! What a process prints, line by line, for whoever waits for a line, or for the end.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::watch,
};

/// One output of the process. The channel tells of every new line; its value is whether the stream has ended.
#[derive(Clone)]
pub struct Stream {
    lines: Arc<Mutex<Vec<String>>>,
    ended: watch::Sender<bool>,
    pub held: watch::Sender<bool>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { lines: Arc::default(), ended: watch::Sender::new(false), held: watch::Sender::new(false) }
    }
}

impl Stream {
    pub async fn fill(self, pipe: impl AsyncRead + Unpin) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        let mut held = self.held.subscribe();
        while held.wait_for(|held| !held).await.is_ok()
            && pipe.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            self.lines.lock().expect("no holder of this lock can panic").push(text);
            self.ended.send_replace(false);
            line.clear();
        }
        self.ended.send_replace(true);
    }

    pub fn lines(&self) -> Vec<String> {
        self.since(0)
    }

    pub fn since(&self, seen: usize) -> Vec<String> {
        self.lines.lock().expect("no holder of this lock can panic")[seen..].to_vec()
    }

    pub fn first(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().expect("no holder of this lock can panic");
        lines[..count.min(lines.len())].to_vec()
    }

    pub fn news(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub async fn ended(&self) {
        self.news().wait_for(|&ended| ended).await.ok();
    }
}
