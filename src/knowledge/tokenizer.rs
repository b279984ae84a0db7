//! The analyzer: words of a text in every script, and names of things in every spelling that people use.
//!
//! - Words of scripts with spaces are stems, and the beginnings of the longer ones, for endings of languages whose
//!   stems are not known here.
//! - Scripts without spaces (Chinese, Japanese, Thai and their neighbours), and Korean, whose words carry endings:
//!   pairs of neighbouring letters.
//! - Names like `TX-4410`, `get_invoice_total` or `getInvoiceTotal`: their parts, and all parts as one word.
//!
//! Texts and questions are analyzed in the same way, so that they match.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

/// The longest word that is indexed.
const WORD_MAX_BYTES: usize = 64;
/// The letters in the beginning of a longer word, which may have another ending.
const BEGINNING: usize = 5;
/// The marker before a beginning; no word starts with it.
const BEGINS: char = '\u{1}';
/// The longest name of several parts.
const NAME_MAX_CHARS: usize = 40;

/// A word of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub text: String,
    pub kind: WordKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WordKind {
    /// A single letter of a run that its script writes without spaces. Questions are not searched by it.
    Letter,
    Beginning,
    Pair,
    Stem,
    Name,
}

impl WordKind {
    /// Returns the weight of a match, relative to that of a whole word.
    pub fn weight(self) -> f32 {
        match self {
            Self::Letter => 0.0,
            Self::Beginning => 0.35,
            Self::Pair => 0.6,
            Self::Stem => 1.0,
            Self::Name => 1.5,
        }
    }
}

/// The analyzer of texts.
#[derive(Clone)]
pub struct Tokenizer {
    stems: TextAnalyzer,
}

impl Default for Tokenizer {
    fn default() -> Self {
        let words = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(WORD_MAX_BYTES))
            .filter(LowerCaser)
            .filter(AsciiFoldingFilter);
        let stems = match StopWordFilter::new(Language::English) {
            Some(common) => words.filter(common).filter(Stemmer::new(Language::English)).build(),
            None => words.filter(Stemmer::new(Language::English)).build(),
        };
        Self { stems }
    }
}

impl Tokenizer {
    /// Returns the words of a text in their order, with repetitions.
    pub fn of(&self, text: &str) -> Vec<Word> {
        let text: String = text.nfkc().map(plain).filter(|letter| !is_silent(*letter)).collect();
        let mut words = Vec::new();
        let mut stems = self.stems.clone();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let joined = is_unspaced(first);
            let end = rest.find(|letter| is_unspaced(letter) != joined).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            match joined {
                true => pairs(run, &mut words),
                false => {
                    spaced(run, &mut stems, &mut words);
                    names(run, &mut stems, &mut words);
                }
            }
            rest = after;
        }
        words
    }

    /// Returns the distinct words of a text.
    pub fn different(&self, text: &str) -> Vec<Word> {
        let mut different: Vec<Word> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for word in self.of(text) {
            match places.get(&word.text) {
                Some(place) => different[*place].kind = different[*place].kind.max(word.kind),
                None => {
                    places.insert(word.text.clone(), different.len());
                    different.push(word);
                }
            }
        }
        different
    }
}

/// Adds words between spaces.
fn spaced(run: &str, stems: &mut TextAnalyzer, words: &mut Vec<Word>) {
    stems.token_stream(run).process(&mut |token| {
        let stem = bare(&token.text);
        if let Some((end, _)) = stem.char_indices().nth(BEGINNING)
            && stem.chars().all(char::is_alphabetic)
        {
            words.push(Word { text: format!("{BEGINS}{}", &stem[..end]), kind: WordKind::Beginning });
        }
        words.push(Word { text: stem, kind: WordKind::Stem });
    });
}

/// Returns an Arabic word without its article and prefixed particles.
fn bare(word: &str) -> String {
    const WITH_ARTICLE: [&str; 5] = ["وال", "بال", "كال", "فال", "ال"];
    let rest = WITH_ARTICLE.iter().find_map(|article| word.strip_prefix(article)).or_else(|| word.strip_prefix("لل"));
    rest.filter(|rest| rest.chars().count() >= 3).unwrap_or(word).to_string()
}

/// Adds pairs of neighbours, and each letter; a question of one letter searches for a word of one.
fn pairs(run: &str, words: &mut Vec<Word>) {
    let letters: Vec<char> = run.chars().collect();
    let alone = if letters.len() == 1 { WordKind::Pair } else { WordKind::Letter };
    words.extend(letters.iter().map(|letter| Word { text: letter.to_string(), kind: alone }));
    words.extend(letters.windows(2).map(|pair| Word { text: pair.iter().collect(), kind: WordKind::Pair }));
}

/// Adds names of things: runs of letters, digits and joints that hold more than a word.
fn names(run: &str, stems: &mut TextAnalyzer, words: &mut Vec<Word>) {
    for name in run.split(|letter: char| !letter.is_alphanumeric() && !joins(letter)) {
        let name = name.trim_matches(joins);
        let length = name.chars().count();
        if !(2..=NAME_MAX_CHARS).contains(&length) || !is_name(name) {
            continue;
        }
        let whole: String =
            name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let parts: Vec<String> = parts(name).into_iter().filter(|part| *part != whole).collect();
        spaced(&parts.join(" "), stems, words);
        words.push(Word { text: whole, kind: WordKind::Name });
    }
}

fn joins(letter: char) -> bool {
    matches!(letter, '-' | '_' | '.' | '/' | '\u{2010}'..='\u{2013}' | '\u{2212}')
}

/// Returns whether a run is more than a word, and no number: digits and letters mixed, capitals inside, or underscores.
fn is_name(name: &str) -> bool {
    let has = |is: fn(char) -> bool| name.chars().any(is);
    let letters = has(char::is_alphabetic);
    let inner_capital = name.chars().zip(name.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    letters && (has(char::is_numeric) || inner_capital || name.contains('_'))
}

/// Splits a name where letters become digits, and where a capital follows a small letter; returns the parts in lower
/// case.
fn parts(name: &str) -> Vec<String> {
    let (mut parts, mut part, mut before) = (Vec::new(), String::new(), None::<char>);
    for letter in name.chars() {
        let turns = before.is_some_and(|before| {
            !letter.is_alphanumeric()
                || before.is_numeric() != letter.is_numeric()
                || (before.is_lowercase() && letter.is_uppercase())
        });
        if turns && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        if letter.is_alphanumeric() {
            part.extend(letter.to_lowercase());
        }
        before = Some(letter);
    }
    parts.push(part);
    // A part between two joints is a word by itself.
    let plain: Vec<&str> = name.split(joins).collect();
    parts.retain(|part| !part.is_empty() && !plain.iter().any(|word| word.to_lowercase() == *part));
    parts
}

/// Returns an Arabic letter in its plain form, or a digit in ASCII.
fn plain(letter: char) -> char {
    match letter {
        '\u{0622}' | '\u{0623}' | '\u{0625}' => '\u{0627}',
        '\u{0629}' => '\u{0647}',
        '\u{0649}' => '\u{064a}',
        '\u{0660}'..='\u{0669}' => char::from_u32(letter as u32 - 0x0660 + u32::from('0')).unwrap_or(letter),
        _ => letter,
    }
}

/// Returns whether a mark is optional in writing: soft hyphens and joiners, the vowels of Arabic and Hebrew, the tones
/// of Thai.
fn is_silent(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
        | '\u{0591}'..='\u{05c7}' | '\u{0640}' | '\u{064b}'..='\u{0652}' | '\u{0670}' | '\u{0e47}'..='\u{0e4e}')
}

/// Returns whether a letter's script has no spaces between words, or is Korean, where spaces don't part words from
/// endings.
fn is_unspaced(letter: char) -> bool {
    matches!(letter,
        '\u{0e00}'..='\u{0eff}'     // Thai, Lao
        | '\u{1000}'..='\u{109f}'   // Burmese
        | '\u{1780}'..='\u{17ff}'   // Khmer
        | '\u{1100}'..='\u{11ff}'   // Korean, in parts
        | '\u{3040}'..='\u{30ff}'   // Japanese syllables
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3005}' | '\u{3007}'
        | '\u{3400}'..='\u{4dbf}'   // Chinese characters
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ac00}'..='\u{d7af}'   // Korean
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a text has any of a question's words.
    fn finds(question: &str, text: &str) -> bool {
        let words = Tokenizer::default();
        let of_text = words.different(text);
        words.different(question).iter().any(|word| of_text.iter().any(|known| known.text == word.text))
    }

    #[test]
    fn every_script_is_found() {
        for (question, text) in [
            ("退货", "您可以在收货后三十天内退货。"),
            ("返品できますか", "商品の返品は三十日以内です"),
            ("반품", "반품은 수령 후 30일 이내에 가능합니다"),
            ("คืนสินค้า", "ท่านสามารถคืนสินค้าได้ภายใน 30 วัน"),
            ("كتاب", "الكِتاب على الطاولة"),
            ("возврата", "Возвраты принимаются"),
            ("Rückgaben", "die Rückgabe"),
            ("remboursements", "le remboursement"),
            ("税", "消費税の計算"),
            ("5G网", "支持5G网络"),
            ("Mu\u{308}ller", "Herr Müller"),
            ("ﾃﾞｰﾀ", "データの保存"),
            ("か\u{3099}くせい", "がくせいの名前"),
        ] {
            assert!(finds(question, text), "{question} in {text}");
        }
        assert!(!finds("退款", "收货"));
    }

    #[test]
    fn names_are_found_in_every_spelling() {
        for (question, text) in [
            ("tx4410", "the TX-4410 pump"),
            ("TX 4410", "the TX-4410 pump"),
            ("ＴＸ－４４１０", "the TX-4410 pump"),
            ("E1207", "error E‑1207 means"),
            ("getInvoiceTotal", "call get_invoice_total(id)"),
            ("invoice", "call getInvoiceTotal(id)"),
            ("Wrobel", "Łukasz Wróbel"),
            ("4410", "TX4410"),
        ] {
            assert!(finds(question, text), "{question} in {text}");
        }
        let words = Tokenizer::default();
        let whole = |text: &str| {
            words.different(text).into_iter().any(|word| word.text == "tx4410" && word.kind == WordKind::Name)
        };
        assert!(whole("TX-4410") && whole("tx4410") && whole("the TX_4410, say"));
        assert!(!finds("1207", "E-2207 and 1208"));
        // Numbers and ordinary words are no names.
        assert_eq!(words.different("3.5").len(), 2);
        assert!(words.different("well-known").iter().all(|word| word.kind != WordKind::Name));
    }

    #[test]
    fn any_text_is_tokenised() {
        let words = Tokenizer::default();
        for text in ["", " ", "\u{0}", "-", "___", "é̈", "ก", "็็็", "あ", &"ab".repeat(9_000), &"界".repeat(9_000)]
        {
            words.of(text);
        }
    }
}
