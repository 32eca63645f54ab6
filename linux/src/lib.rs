//! upager for programs on Linux: [where pages come from](source).

#![deny(missing_docs)]

pub mod source;
