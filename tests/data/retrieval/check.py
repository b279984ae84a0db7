"""Checks the labelled retrieval set and prints its counts.

    python check.py
"""

import collections
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
LANGUAGES = {"en", "de", "fr", "es", "zh", "ja", "ko", "th", "ar"}
KINDS = {"words", "paraphrase", "name", "code", "cross"}
# Scripts without spaces between words are measured in characters.
UNSPACED = {"zh", "ja", "th"}


def documents():
    root = HERE / "documents"
    return {str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(root.rglob("*.md"))}


def language_of(document):
    folder = document.split("/")[0]
    return "en" if folder in {"api", "hr"} else folder


def problems(texts, questions):
    answered = {document for question in questions for document, grade in question["relevant"].items() if grade == 2}
    yield from (f"{document}: no question is answered by it" for document in texts if document not in answered)
    for field, values in (("id", [q["id"] for q in questions]),
                          ("question", [q["question"].casefold() for q in questions]),
                          ("text", list(texts.values()))):
        yield from (f"{field} is there twice: {v[:60]}" for v, n in collections.Counter(values).items() if n > 1)
    lines = collections.Counter(line for text in texts.values() for line in text.splitlines() if len(line) > 60)
    yield from (f"a line is there twice: {line[:60]}" for line, n in lines.items() if n > 1)
    for document, text in texts.items():
        unspaced = language_of(document) in UNSPACED
        size = len(re.sub(r"\s", "", text)) if unspaced else len(text.split())
        low, high = (150, 700) if unspaced else (80, 250)
        if not text.startswith("# ") or not low <= size <= high:
            yield f"{document}: size {size}, or no title"
    for q in questions:
        if set(q) != {"id", "language", "kind", "question", "relevant"}:
            yield f"{q.get('id')}: fields"
        if q["language"] not in LANGUAGES or q["kind"] not in KINDS:
            yield f"{q['id']}: language or kind"
        if not any(grade == 2 for grade in q["relevant"].values()) or not set(q["relevant"].values()) <= {1, 2}:
            yield f"{q['id']}: grades"
        yield from (f"{q['id']}: no document {document}" for document in q["relevant"] if document not in texts)
        answers = {language_of(document) for document, grade in q["relevant"].items() if grade == 2}
        if "mixed" not in answers and (q["kind"] == "cross") == (q["language"] in answers):
            yield f"{q['id']}: kind {q['kind']}, asked in {q['language']}, answered in {sorted(answers)}"


def main():
    texts = documents()
    questions = [json.loads(line) for line in (HERE / "questions.jsonl").read_text("utf-8").splitlines()]
    found = list(problems(texts, questions))
    print(f"{len(texts)} documents", dict(collections.Counter(map(language_of, texts))))
    print(f"{len(questions)} questions", dict(collections.Counter(q["language"] for q in questions)))
    print(dict(collections.Counter(q["kind"] for q in questions)))
    for language in sorted(LANGUAGES):
        print(" ", language, dict(collections.Counter(q["kind"] for q in questions if q["language"] == language)))
    print("questions with more than one relevant document:", sum(len(q["relevant"]) > 1 for q in questions))
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
