//! Skills: instructions in files that a client may name for a turn.
//!
//! `{folder}/{name}.md`, or `{folder}/{name}/SKILL.md`. Irregular skills count as missing: no folder, an odd name, a link that
//! leads out of the folder, a file that is too large or no text. Front matter is for people and is left out.

use std::path::{Path, PathBuf};

use crate::{domain::event::Skill, limits};

/// The folder of skills, if there is one.
#[derive(Clone, Default)]
pub struct SkillFolder(pub Option<PathBuf>);

impl SkillFolder {
    pub async fn find(&self, name: &str) -> Option<Skill> {
        let folder = self.0.as_ref().filter(|_| is_name(name))?;
        let folder = tokio::fs::canonicalize(folder).await.ok()?;
        for file in [folder.join(format!("{name}.md")), folder.join(name).join("SKILL.md")] {
            if let Some(text) = read(&folder, &file).await {
                return Some(Skill { name: name.to_string(), body: body(&text).to_string() });
            }
        }
        None
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

async fn read(folder: &Path, file: &Path) -> Option<String> {
    let file = tokio::fs::canonicalize(file).await.ok().filter(|file| file.starts_with(folder))?;
    let size = tokio::fs::metadata(&file).await.ok().filter(|metadata| metadata.is_file())?.len();
    if size > limits::SKILL_MAX_BYTES as u64 {
        tracing::warn!(file = %file.display(), size, "a skill file is too large and is ignored");
        return None;
    }
    tokio::fs::read_to_string(&file).await.ok().filter(|text| !body(text).is_empty())
}

/// Returns the text without front matter.
fn body(text: &str) -> &str {
    let rest = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    rest.map_or(text, |(_, body)| body).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_regular_files_inside_the_folder_are_skills() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("skills"), folder.path().join("secret.md"));
        std::fs::create_dir_all(inside.join("refunds")).unwrap();
        std::fs::write(&outside, "secret").unwrap();
        std::fs::write(inside.join("tone.md"), "---\nname: tone\n---\nBe brief.\n").unwrap();
        std::fs::write(inside.join("refunds/SKILL.md"), "Refund within 17 days.").unwrap();
        std::fs::write(inside.join("large.md"), "x".repeat(limits::SKILL_MAX_BYTES + 1)).unwrap();
        std::fs::write(inside.join("empty.md"), "---\nname: empty\n---\n").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link.md")).unwrap();
        let skills = SkillFolder(Some(inside));
        let found = |name: &'static str| {
            let skills = skills.clone();
            async move { skills.find(name).await.map(|skill| skill.body) }
        };
        assert_eq!(found("tone").await.as_deref(), Some("Be brief."));
        assert_eq!(found("refunds").await.as_deref(), Some("Refund within 17 days."));
        for name in ["link", "large", "empty", "nothing", "../secret", "", "tone.md"] {
            assert_eq!(found(name).await, None, "{name}");
        }
        assert_eq!(SkillFolder::default().find("tone").await, None);
    }
}
