//! Has the linker put functions of `src/broker/leaders.rs` and `src/broker/bootstrap.rs` in the place of librdkafka's.

#![expect(
    clippy::disallowed_macros,
    reason = "how a build script speaks to Cargo"
)]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for function in [
        "rd_kafkap_leader_discovery_set_CurrentLeader",
        "rd_kafka_metadata_update_op",
        "rd_kafka_broker_decommission",
        "rd_kafka_parse_Metadata",
        "rd_kafka_parse_Metadata_admin",
    ] {
        println!("cargo::rustc-link-arg=-Wl,--wrap={function}");
    }
}
