# syntax=docker/dockerfile:1
# `docker build .` makes the image of `settle`. The stage `demo` has `chaos` as well, with the rule service of compose.yaml.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# librdkafka and OpenSSL are built from source here: the image has the C compiler, make and Perl they need.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bins \
    && install -D -t /out target/release/settle target/release/chaos \
    && strip --strip-debug /out/settle /out/chaos \
    && /out/settle --version

FROM debian:12.11-slim AS base
LABEL org.opencontainers.image.title="settle" \
      org.opencontainers.image.description="Payment settlement on Kafka, exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"
# Certificates for TLS to brokers, database and rule service: always the newest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 settle \
    && useradd --no-log-init --uid 10001 --gid settle --home-dir /var/lib/settle --create-home --shell /usr/sbin/nologin settle
# Only these numbers, so that an orchestrator can tell that it is not root.
USER 10001:10001
# The state: mount a volume here that outlives the container. A new volume takes the directory's owner over.
WORKDIR /var/lib/settle
ENV SETTLE_STATE__DIRECTORY=/var/lib/settle
EXPOSE 8080
# The program asks itself: no other one is needed.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 CMD ["settle", "health"]
ENTRYPOINT ["settle"]
CMD ["run"]

FROM base AS demo
COPY --from=build /out/settle /out/chaos /usr/local/bin/

FROM base
COPY --from=build /out/settle /usr/local/bin/
