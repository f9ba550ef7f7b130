//! Assertions that end a case with a message instead of a panic.

/// `check!(condition)` or `check!(condition, "format", args..)`.
macro_rules! check {
    ($cond:expr $(,)?) => {
        if $cond {
        } else {
            return Err($crate::case::Failure(format!("{}:{}: not true: {}", file!(), line!(), stringify!($cond))));
        }
    };
    ($cond:expr, $($fmt:tt)+) => {
        if $cond {
        } else {
            return Err($crate::case::Failure(format!("{}:{}: {}", file!(), line!(), format!($($fmt)+))));
        }
    };
}

/// `check_eq!(got, expected)`.
macro_rules! check_eq {
    ($got:expr, $want:expr $(,)?) => {
        match (&$got, &$want) {
            (got, want) => {
                if *got != *want {
                    return Err($crate::case::Failure(format!(
                        "{}:{}: {} is {:?}, expected {:?}",
                        file!(),
                        line!(),
                        stringify!($got),
                        got,
                        want
                    )));
                }
            }
        }
    };
}

/// `fail!("format", args..)` ends the case.
macro_rules! fail {
    ($($fmt:tt)+) => {
        return Err($crate::case::Failure(format!("{}:{}: {}", file!(), line!(), format!($($fmt)+))))
    };
}

/// `expect_errno!(sys!(close(-1)), libc::EBADF)`: the call must fail, with exactly this error.
macro_rules! expect_errno {
    ($call:expr, $errno:expr $(,)?) => {{
        let want: i32 = $errno;
        match $call {
            Ok(value) => $crate::check::fail!(
                "{} gave {:?}, expected {}",
                stringify!($call),
                value,
                $crate::sys::errno_name(want)
            ),
            Err(error) => {
                if error.errno != want {
                    $crate::check::fail!(
                        "{} gave {}, expected {}",
                        stringify!($call),
                        $crate::sys::errno_name(error.errno),
                        $crate::sys::errno_name(want)
                    );
                }
            }
        }
    }};
}

pub(crate) use {check, check_eq, expect_errno, fail};
