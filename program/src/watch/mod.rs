//! Figures of a program that runs, for whoever looks from outside.
//!
//! `upager run`, `serve` and `attach` [post] them at a socket: who connects gets one JSON object, and the end. `upager top`
//! [looks](top) there, again and again, and shows them, live or once, as JSON, or as Prometheus wants them.
//! Latencies are measured only while somebody has looked lately.

pub(crate) mod figures;
pub(crate) mod post;
pub(crate) mod top;
