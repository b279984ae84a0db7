//! placeholder
use std::path::Path;
pub fn write(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}
