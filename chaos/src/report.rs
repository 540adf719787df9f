//! The proof and the figures of a run, for people.

use std::fmt::Write as _;
use std::fs;

use crate::oracle::Proof;
use crate::oracle::ledger::Kind;

/// Numbers with a thin separator every three digits.
pub fn grouped(number: impl std::fmt::Display) -> String {
    let text = number.to_string();
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or(("", text.as_str()), |digits| ("-", digits));
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    format!("{sign}{out}")
}

/// Outcomes by kind and reason.
pub fn outcomes(proof: &Proof) -> String {
    let mut out = format!("Outcomes of {} source records\n", grouped(proof.sources));
    for kind in [Kind::Settlement, Kind::Exclusion, Kind::DeadLetter] {
        let of_kind = || proof.tally.iter().filter(|((known, _), _)| *known == kind);
        let sum: u64 = of_kind().map(|(_, count)| count).sum();
        let _ = writeln!(out, "  {:<28}{:>12}", format!("{kind}s"), grouped(sum));
        for ((_, reason), count) in of_kind() {
            let _ = writeln!(out, "    {reason:<26}{:>12}", grouped(count));
        }
    }
    out
}

/// The largest statistics.
pub fn largest(proof: &Proof) -> String {
    let mut out = format!(
        "Largest statistics\n  {:<52}{:>9}{:>18}\n",
        "rule key", "count", "total amount"
    );
    for (key, totals) in &proof.largest {
        let _ = writeln!(
            out,
            "  {key:<52}{:>9}{:>18}",
            grouped(totals.count),
            grouped(totals.amount)
        );
    }
    out
}

/// Each promise with what was checked, and the breaches.
pub fn proof(proof: &Proof) -> String {
    let mut out = format!(
        "{:<82}{:>12}  {}\n",
        "Proof, computed from the raw input", "checked", "result"
    );
    for finding in proof.findings.all() {
        let result = match (finding.checked, finding.breaches) {
            (0, 0) => "not checked".to_owned(),
            (_, 0) => "holds".to_owned(),
            (_, breaches) => format!("BROKEN {} times", grouped(breaches)),
        };
        let _ = writeln!(
            out,
            "  {:<80}{:>12}  {result}",
            finding.promise.name(),
            grouped(finding.checked)
        );
        for example in &finding.examples {
            let _ = writeln!(out, "      {example}");
        }
    }
    out
}

/// The machine that figures belong to.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {model}, {memory} of memory, Linux {}",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(-123), "-123");
        assert_eq!(grouped(-1234), "-1 234");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }
}
