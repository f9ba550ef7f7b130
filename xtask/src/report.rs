//! Counts what passed and what failed, and says so as it happens.

/// The results of a stage.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// How many tests passed.
    pub(crate) passed: usize,
    /// One line for each that failed.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Counts one test.
    pub(crate) fn record(&mut self, name: &str, outcome: anyhow::Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("  ok    {name}");
            }
            Err(error) => {
                let text = format!("{error:#}");
                println!("  FAIL  {name}: {}", indent(&text));
                self.failures.push(format!("{name}: {}", text.lines().next().unwrap_or_default()));
            }
        }
    }

    /// Adds another stage's results.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

/// Long output below its first line, cut to what a reader can use.
fn indent(text: &str) -> String {
    let lines: Vec<&str> = text.lines().take(40).collect();
    lines.join("\n        ")
}
