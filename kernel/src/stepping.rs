//! placeholder
use crate::machine::trap::Saved;
pub(crate) fn on_step(saved: &mut Saved) {
    saved.stop_stepping();
}
