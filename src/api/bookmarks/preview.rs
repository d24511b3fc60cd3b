//! What a bookmarked page says of itself: asked of the upstream once, kept in Redis for an hour.
use super::store::Bookmark;
use crate::{
    backing::{
        outbound::{self, Outbound},
        redis::Redis,
    },
    http::Problem,
    telemetry::request::{Part, Stopwatch},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use utoipa::ToSchema;

const KEPT_SECONDS: u64 = 3600;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    title: String,
    description: Option<String>,
    image_url: Option<String>,
}

type Work = BoxFuture<'static, Result<Preview, Arc<outbound::Error>>>;

/// The calls under way: cold previews of one page share one.
#[derive(Clone, Default)]
pub struct Previews(Arc<Mutex<HashMap<String, WeakShared<Work>>>>);

impl Previews {
    /// # Errors
    /// As the upstream's: 502, 503 or 504. Redis being away costs the cache only.
    pub async fn get(
        &self,
        redis: &Redis,
        upstream: &Outbound,
        bookmark: &Bookmark,
    ) -> Result<Preview, Problem> {
        let key = redis.key(format_args!("preview:{:x}", Sha256::digest(&bookmark.url)));
        let cached: Option<Vec<u8>> =
            redis.run("preview read", redis::cmd("GET").arg(&key)).await.unwrap_or_default();
        if let Some(preview) = cached.and_then(|json| serde_json::from_slice(&json).ok()) {
            return Ok(preview);
        }
        let (call, is_shared) = self.shared(&key, redis, upstream, &bookmark.url);
        // The call counts its time for the request that began it only.
        let _waiting = is_shared.then(|| Stopwatch::start(Part::Outbound));
        Ok(call.await?)
    }

    /// The call under way for `key`, or a new one; and whether another request began it.
    fn shared(&self, key: &str, redis: &Redis, upstream: &Outbound, url: &str) -> (Shared<Work>, bool) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = calls.get(key).and_then(WeakShared::upgrade) {
            return (call, true);
        }
        calls.retain(|_, call| call.upgrade().is_some());
        let call = fetch(key.to_owned(), redis.clone(), upstream.clone(), url.to_owned()).boxed().shared();
        if let Some(weak) = call.downgrade() {
            calls.insert(key.to_owned(), weak);
        }
        (call, false)
    }
}

async fn fetch(
    key: String,
    redis: Redis,
    upstream: Outbound,
    url: String,
) -> Result<Preview, Arc<outbound::Error>> {
    let preview: Preview = upstream.get_json("preview", &[("url", &url)]).await.map_err(Arc::new)?;
    if let Ok(json) = serde_json::to_vec(&preview) {
        // A preview that could not be kept is asked for again.
        let mut keep = redis::cmd("SET");
        keep.arg(&key).arg(json).arg("EX").arg(KEPT_SECONDS);
        redis.run::<()>("preview keep", &keep).await.unwrap_or_default();
    }
    Ok(preview)
}

#[cfg(test)]
mod tests;
