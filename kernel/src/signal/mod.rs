//! Signals, signal(7).
//!
//! A signal is queued at a task or at a thread group. Who sends it interrupts a thread that does not block it; that
//! thread finds it in [`deliver`] on its way out to the program. Locks of this module are never held together.

mod actions;
mod deliver;
mod frame;
mod info;
mod queue;
mod send;
mod state;
mod stop;

pub use actions::{DefaultAction, STOP_SIGNALS, SigActions, default_action};
pub use deliver::deliver;
pub use frame::sigreturn;
pub use info::{SigFields, SigInfo};
pub use queue::PendingSignals;
pub use send::{
    change_mask, dequeue, force_signal, has_work, is_killed, may_signal, pass_on, pending, send_from_outside,
    send_to_group, send_to_process_group, send_to_task, set_action,
};
pub use state::{GroupSignals, TaskSignals};

pub(crate) use send::{add_first_stop, forget_kill};
pub(crate) use stop::{count_stopped, tell_of_end, tell_of_stop};
