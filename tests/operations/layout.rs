//! Where the panels of a dashboard stand: left to right in rows of 24 columns.

use serde_json::{Value, json};

pub const COLUMNS: u64 = 24;

/// The next free place.
#[derive(Debug, Default)]
pub struct Layout {
    x: u64,
    y: u64,
    /// Height of the highest panel of the line.
    line: u64,
}

impl Layout {
    /// A place of this size, in the next line when this one is full.
    pub fn place(&mut self, width: u64, height: u64) -> Value {
        if self.x + width > COLUMNS {
            self.break_line();
        }
        let place = json!({"h": height, "w": width, "x": self.x, "y": self.y});
        self.x += width;
        self.line = self.line.max(height);
        place
    }

    pub fn break_line(&mut self) {
        self.y += self.line;
        (self.x, self.line) = (0, 0);
    }
}
