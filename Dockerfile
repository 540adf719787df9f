# Two images from one build: `settle` (default) and `rule-service`, the stand-in that the demonstration asks for rules.
FROM rust:1.90-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --workspace --bins

FROM debian:bookworm-slim AS base
# Made here so that fresh volumes mounted on it belong to the user of the service.
RUN useradd --system --uid 10001 --home-dir /var/lib/settle --create-home settle
USER settle
WORKDIR /var/lib/settle

FROM base AS rule-service
COPY --from=build /build/target/release/chaos /usr/local/bin/chaos
EXPOSE 8090
ENTRYPOINT ["chaos", "rules"]
CMD ["--listen", "0.0.0.0:8090"]

FROM base AS settle
COPY --from=build /build/target/release/settle /usr/local/bin/settle
COPY deploy/settle.toml /etc/settle/settle.toml
EXPOSE 8080
ENTRYPOINT ["settle"]
CMD ["run", "--config", "/etc/settle/settle.toml"]
