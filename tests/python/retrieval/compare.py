"""Compares ways of searching on the labelled set: BM25, dense, both fused, and fused then ranked once more by words.

It stands apart from the program on purpose: the same engine, used from another language, is what the program's own figures
can be checked against. It prints a table, or JSON with `--json`.
"""

import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

import tantivy
from minilm import MiniLm

DATA = Path(__file__).with_name("support.json")
FUSION_K = 60
CANDIDATES = 50
RERANKED = 20


def fused(rankings):
    """Reciprocal rank fusion: what stands high in any ranking stands high."""
    score = defaultdict(float)
    for ranking in rankings:
        for rank, document in enumerate(ranking, 1):
            score[document] += 1 / (FUSION_K + rank)
    return sorted(score, key=lambda document: (-score[document], document))


def trigrams(text):
    return {f" {word} "[n : n + 3] for word in re.findall(r"\w+", text.lower()) for n in range(len(word))}


def reranked(question, ranking, texts):
    """The first ones again, by the share of the question's letter triples that they hold; ties stay as they were."""
    wanted = trigrams(question)
    share = {d: len(wanted & trigrams(texts[d])) / max(len(wanted), 1) for d in ranking[:RERANKED]}
    return sorted(share, key=lambda document: -share[document]) + ranking[RERANKED:]


def recall(ranking, relevant, at):
    return len(set(ranking[:at]) & relevant) / len(relevant)


def ndcg(ranking, relevant, at):
    gain = sum(1 / math.log2(rank + 1) for rank, document in enumerate(ranking[:at], 1) if document in relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), at) + 1))
    return gain / ideal


class Bm25:
    """English stems and BM25, as in the program."""

    def __init__(self, texts):
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw")
        builder.add_text_field("text", tokenizer_name="en_stem")
        self._index = tantivy.Index(builder.build())
        writer = self._index.writer(num_threads=1)
        for document, text in texts.items():
            writer.add_document(tantivy.Document(id=document, text=text))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def __call__(self, question):
        words = " ".join(re.findall(r"\w+", question.lower()))
        searcher = self._index.searcher()
        hits = searcher.search(self._index.parse_query(words, ["text"]), CANDIDATES).hits
        return [searcher.doc(address)["id"][0] for _, address in hits]


class Dense:
    """Cosine over all documents."""

    def __init__(self, texts):
        self._model = MiniLm()
        self._vectors = {document: self._model.embed(text) for document, text in texts.items()}

    def __call__(self, question):
        wanted = self._model.embed(question)
        return sorted(self._vectors, key=lambda document: -float(self._vectors[document] @ wanted))[:CANDIDATES]


def measure(data):
    """Recall@3 and nDCG@10 by way of searching and kind of question."""
    texts = {d["id"]: f"{d['title']}. {d['text']}" for d in data["documents"]}
    bm25, dense = Bm25(texts), Dense(texts)
    figures = defaultdict(lambda: defaultdict(list))
    for question in data["questions"]:
        words, meaning = bm25(question["text"]), dense(question["text"])
        both = fused([words, meaning])
        ways = {"bm25": words, "dense": meaning, "hybrid": both, "hybrid, lexical rerank": reranked(question["text"], both, texts)}
        for way, ranking in ways.items():
            relevant = set(question["relevant"])
            pair = (recall(ranking, relevant, 3), ndcg(ranking, relevant, 10))
            for kind in ("all", question["kind"]):
                figures[way][kind].append(pair)
    mean = lambda pairs: {"recall@3": sum(p[0] for p in pairs) / len(pairs), "ndcg@10": sum(p[1] for p in pairs) / len(pairs)}
    return {way: {kind: mean(pairs) for kind, pairs in kinds.items()} for way, kinds in figures.items()}


def main():
    figures = measure(json.loads(DATA.read_text()))
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures, indent=2))
        return
    kinds = list(next(iter(figures.values())))
    print(f"| recall@3 / nDCG@10 | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for way, of_kind in figures.items():
        cells = (f"{of_kind[kind]['recall@3']:.2f} / {of_kind[kind]['ndcg@10']:.2f}" for kind in kinds)
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
