# syntax=docker/dockerfile:1
# The service as one static binary in an image that holds nothing else to run. `make image` checks what is said here.

# Exact tags; a bot can add digests. The first must not be older than `rust-version` in Cargo.toml.
ARG RUST_IMAGE=rust:1.95.0-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian13:nonroot

FROM ${RUST_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# A C compiler for a static binary: cryptography and the allocator are C.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends musl-tools \
 && rm -rf /var/lib/apt/lists/*
# The second tells jemalloc what it does not find out by itself there: that it may ask the unwinder for the stacks of its
# heap profiles. Otherwise it goes by frame pointers, of which there are none, and the first sample ends the process.
ENV TARGET_CC=musl-gcc \
    ac_cv_lib_gcc__Unwind_Backtrace=yes
# Writes into the binary which crates it is made of, where vulnerability scanners look.
RUN cargo install --locked cargo-auditable@0.7.7
RUN rustup target add "$(uname -m)-unknown-linux-musl"
# For each copy of a few bytes, of which a request makes a hundred, musl's memcpy on x86_64 starts an instruction that is
# made for pages. That of LLVM's C library does not, and needs nothing else of it: a seventh of the CPU of a read.
# hadolint ignore=DL3008
RUN [ "$(uname -m)" != x86_64 ] || { \
      apt-get update; \
      apt-get install --yes --no-install-recommends libllvmlibc-19-dev; \
      rm -rf /var/lib/apt/lists/*; \
      objects=$(mktemp --directory); \
      musl=$(rustc --print target-libdir --target x86_64-unknown-linux-musl)/self-contained/libc.a; \
      ar x --output "$objects" /usr/lib/llvm-19/lib/libllvmlibc.a bcmp.cpp.o memcmp.cpp.o memcpy.cpp.o memmove.cpp.o memset.cpp.o; \
      ar d "$musl" bcmp.lo memcmp.lo memcpy.lo memmove.lo memset.lo; \
      ar r "$musl" "$objects"/*.o; \
    }
# By this scripts/pgo makes a server that counts what it does, and scripts/image one that goes by those counts.
ARG RUSTFLAGS=""

# The dependencies, with an empty service: this layer lasts until Cargo.toml or Cargo.lock changes. Mounted, since what is
# copied, or a work directory, bears the time of SOURCE_DATE_EPOCH, which is another one for each commit.
# hadolint ignore=DL3003
RUN --mount=source=Cargo.toml,target=/context/Cargo.toml \
    --mount=source=Cargo.lock,target=/context/Cargo.lock \
    --mount=source=.cargo,target=/context/.cargo \
    --mount=source=drill/Cargo.toml,target=/context/drill/Cargo.toml \
    cp --recursive /context /build \
 && cd /build \
 && mkdir src drill/src benches \
 && touch src/lib.rs drill/src/lib.rs benches/paths.rs \
 && echo 'fn main() {}' >src/main.rs \
 && cargo auditable build --locked --release --bin server --target "$(uname -m)-unknown-linux-musl"

WORKDIR /build
COPY . .
# What `/version` tells. With the time of the commit, in seconds, building it again gives the same binary.
ARG GIT_REVISION=""
ARG GIT_TIME=""
# Cargo goes by the time of files, and those of the empty service are newer.
RUN touch src/lib.rs src/main.rs \
 && cargo auditable build --locked --release --bin server --target "$(uname -m)-unknown-linux-musl"

FROM ${RUNTIME_IMAGE}
ARG GIT_REVISION=""
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.revision=${GIT_REVISION} \
      org.opencontainers.image.base.name=${RUNTIME_IMAGE}
COPY --from=build /build/target/*/release/server /server
# As a number: Kubernetes cannot tell of a name that it is not root's.
USER 65532:65532
EXPOSE 8080 9090
# For Docker alone; Kubernetes has probes of its own.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --start-interval=1s CMD ["/server", "healthcheck"]
ENTRYPOINT ["/server"]
