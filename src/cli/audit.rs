//! `turnstream audit`: the log for auditors.

use clap::Subcommand;

use super::{
    checkpoint::{CheckpointArgs, Keygen},
    export::Export,
    report::{self, ReportArgs},
    verify::VerifyArgs,
};

/// Prove that the log was not changed, and export it as evidence.
#[derive(Subcommand)]
pub enum Audit {
    Verify(VerifyArgs),
    Keygen(Keygen),
    #[command(alias = "seal")]
    Checkpoint(CheckpointArgs),
    Export(Export),
    Report(ReportArgs),
}

/// Runs a command of `turnstream audit`.
pub async fn audit(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Verify(args) => args.run().await,
        Audit::Keygen(args) => args.run(),
        Audit::Checkpoint(args) => args.run(&super::load()?).await,
        Audit::Export(args) => args.run(&super::load()?).await,
        Audit::Report(args) => report::report(args, &super::load()?).await,
    }
}
