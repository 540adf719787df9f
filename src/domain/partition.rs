//! Which partition owns a rule key: the default partitioner of Kafka's Java client (murmur2), so
//! that any producer that keys by rule key agrees with this service.

/// The partition of `key` among `partitions` partitions.
#[expect(
    clippy::cast_possible_wrap,
    reason = "Java's partitioner reads the hash as a signed integer and clears its sign bit"
)]
pub fn of_key(key: &[u8], partitions: i32) -> i32 {
    debug_assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

/// 32-bit `MurmurHash2` with the seed of Kafka's Java client.
#[expect(
    clippy::cast_possible_truncation,
    reason = "record keys are far below 4 GiB; the hash mixes the low 32 bits of the length"
)]
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (position, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`, from its own unit test.
    #[test]
    fn the_hash_is_the_one_of_kafkas_java_client() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        for key in ["21", "foobar", "abc", ""] {
            let partition = of_key(key.as_bytes(), 4);
            assert!((0..4).contains(&partition));
        }
    }
}
