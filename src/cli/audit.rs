//! `turnstream audit`: the log for auditors.

use clap::Subcommand;

use super::{
    export::Export,
    report::{self, Report},
    seal::{Keygen, Seal},
    verify::Verify,
};

/// Prove that nobody changed the log, and take it out as evidence.
#[derive(Subcommand)]
pub enum Audit {
    Verify(Verify),
    Keygen(Keygen),
    Seal(Seal),
    Export(Export),
    Report(Report),
}

/// Does what was asked of the log as a whole.
pub async fn audit(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Verify(args) => args.run().await,
        Audit::Keygen(args) => args.run(),
        Audit::Seal(args) => args.run(&super::load()?).await,
        Audit::Export(args) => args.run(&super::load()?).await,
        Audit::Report(args) => report::report(args, &super::load()?).await,
    }
}
