//! Where a rule key must live: murmur2 as Kafka's Java client computes it, written here a second
//! time so that a mistake of the service's own does not prove itself right.

/// `murmur2(key) & 0x7fffffff mod count`.
pub fn home(key: &str, count: i32) -> i32 {
    let positive = murmur2(key.as_bytes()) & 0x7fff_ffff;
    i32::try_from(i64::from(positive) % i64::from(count)).expect("less than the count")
}

fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).expect("keys are short");
    let mut state = 0x9747_b28c ^ length;
    let mut rest = bytes;
    while let [a, b, c, d, after @ ..] = rest {
        let mut word = u32::from_le_bytes([*a, *b, *c, *d]).wrapping_mul(MIX);
        word = (word ^ (word >> 24)).wrapping_mul(MIX);
        state = state.wrapping_mul(MIX) ^ word;
        rest = after;
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        state = (state ^ u32::from_le_bytes(last)).wrapping_mul(MIX);
    }
    state = (state ^ (state >> 13)).wrapping_mul(MIX);
    state ^ (state >> 15)
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    /// Values of Kafka's own unit test of `Utils.murmur2`.
    #[test]
    fn the_hash_is_the_one_of_kafkas_java_client() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }
}
