//! What is wrong with a configuration, and where: all of it at once, in the order of the places.

use std::fmt;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the default holds.
    Default,
    /// A line of the file, counted from 1; line 0 is the file as a whole.
    File { file: String, line: usize },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { file, line: 0 } => f.write_str(file),
            Place::File { file, line } => write!(f, "{file}:{line}"),
            Place::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// The configuration key; empty where none is to blame (a file that cannot be read).
    pub key: String,
    pub text: String,
}

impl Problem {
    pub fn new(place: &Place, key: &str, text: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            key: key.to_owned(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Every problem of a configuration; never empty.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// Of what stands on a line that cannot be read, nothing is said but that.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup_by(|problem, first| {
            problem == first || first.key.is_empty() && problem.place == first.place
        });
        Self(problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "error" } else { "errors" };
        write!(
            f,
            "the configuration is not valid, {} {noun}:",
            self.0.len()
        )?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
