//! Topics, cases, and what a case returns.

/// The outcome of a case: what went wrong, or nothing.
pub(crate) type CaseResult<T = ()> = Result<T, Failure>;

/// What went wrong, in words.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) String);

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<std::ffi::NulError> for Failure {
    fn from(error: std::ffi::NulError) -> Self {
        Self(error.to_string())
    }
}

/// One behaviour of Linux.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> CaseResult,
}

/// A family of behaviours: one file under `topics/`.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) cases: &'static [Case],
}

/// Declares a file's topic: `topic!(files: [open_excl, read_at_end])`; each name is a `fn() -> CaseResult` of the file.
macro_rules! topic {
    ($topic:ident : [ $($case:ident),* $(,)? ]) => {
        pub(crate) const TOPIC: $crate::case::Topic = $crate::case::Topic {
            name: stringify!($topic),
            cases: &[ $( $crate::case::Case { name: stringify!($case), run: $case } ),* ],
        };
    };
}
pub(crate) use topic;
