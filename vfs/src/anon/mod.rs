//! Files that are in no directory: pipes, eventfds, timerfds, signalfds, epoll instances.

mod epoll;
mod eventfd;
mod inotify;
mod pidfd;
mod pipe;
mod pipe_buffer;
mod signalfd;
mod timerfd;

pub use epoll::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, Epoll, Interest};
pub use eventfd::EventFd;
pub use inotify::Inotify;
pub use pidfd::PidFd;
pub use pipe::{Pipe, PipeEnd, pipe};
pub use signalfd::SignalFd;
pub use timerfd::TimerFd;
