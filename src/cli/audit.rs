//! `turnstream audit`: the log for auditors.

use clap::Subcommand;

use super::{
    export::Export,
    report::{self, Report},
    seal::{Keygen, Seal},
    verify::Verify,
};

/// Prove that the log was not changed, and export it as evidence.
#[derive(Subcommand)]
pub enum Audit {
    Verify(Verify),
    Keygen(Keygen),
    Seal(Seal),
    Export(Export),
    Report(Report),
}

/// Runs a command of `turnstream audit`.
pub async fn audit(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Verify(args) => args.run().await,
        Audit::Keygen(args) => args.run(),
        Audit::Seal(args) => args.run(&super::load()?).await,
        Audit::Export(args) => args.run(&super::load()?).await,
        Audit::Report(args) => report::report(args, &super::load()?).await,
    }
}
