//! The table of a build without the feature `parquet`: there is none.

use std::{convert::Infallible, marker::PhantomData};

use super::lines::Shown;

/// A table can't be made.
#[derive(Debug, thiserror::Error)]
#[error("this build writes no Parquet: it is without the feature `parquet`")]
pub struct Absent;

/// Has no value, so nothing is ever written to it.
pub struct Table<W> {
    none: Infallible,
    writer: PhantomData<W>,
}

impl<W> Table<W> {
    pub fn new(_to: W) -> Result<Self, Absent> {
        Err(Absent)
    }

    pub fn push(&mut self, _shown: &Shown) -> Result<(), Absent> {
        match self.none {}
    }

    pub fn finish(self) -> Result<W, Absent> {
        match self.none {}
    }
}
