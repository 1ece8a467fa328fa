"""What a model wants written before a text, by which it knows queries from documents.

Without it, models that were trained with prefixes find less. The table holds what the pages of the
models on the Hugging Face hub say: intfloat/multilingual-e5-small, intfloat/multilingual-e5-large-
instruct, nomic-ai/nomic-embed-text-v1.5, BAAI/bge-large-en-v1.5, BAAI/bge-large-zh-v1.5,
BAAI/bge-m3, mixedbread-ai/mxbai-embed-large-v1, Snowflake/snowflake-arctic-embed-l,
Snowflake/snowflake-arctic-embed-l-v2.0, google/embeddinggemma-300m, Qwen/Qwen3-Embedding-0.6B and
Alibaba-NLP/gte-Qwen2-1.5B-instruct.
thenlper/gte-base, sentence-transformers/all-MiniLM-L6-v2 and the models that are not named want no
prefixes.
"""

import hashlib
import re

import msgspec

from indexd.embedders.protocol import Kind
from indexd.vectors import PREFIXED, Model

DIGEST = 8
"""Number of hexadecimal digits that tell prefixes apart in the revision of a model."""

NONE = "none"
"""What a setting says where a model is to get no prefix; an empty variable counts as not set."""


class Prefixes(msgspec.Struct, frozen=True):
    """What is written before the text of a query, and before that of a document."""

    query: str = ""
    passage: str = ""

    def before(self, kind: Kind) -> str:
        return self.query if kind == "query" else self.passage

    def mark(self, model: Model) -> Model:
        """The model with these prefixes, which is another one than without them."""
        if not self.query and not self.passage:
            return model
        # JSON keeps apart where the one ends and the other begins.
        written = msgspec.json.encode([self.query, self.passage])
        digest = hashlib.sha256(written).hexdigest()[:DIGEST]
        before = f"{model.revision}-" if model.revision else ""
        return Model(model.name, f"{before}{PREFIXED}{digest}")


_TASK = "Given a web search query, retrieve relevant passages that answer the query"
_SEARCHING = "Represent this sentence for searching relevant passages: "
_SEARCHING_CHINESE = "为这个句子生成表示以用于检索相关文章\uff1a"

BY_NAME: tuple[tuple[str, Prefixes], ...] = (
    (r"(multilingual-)?e5-.*instruct", Prefixes(f"Instruct: {_TASK}\nQuery: ")),
    (r"(multilingual-)?e5-(small|base|large).*", Prefixes("query: ", "passage: ")),
    (r"nomic-embed-text.*", Prefixes("search_query: ", "search_document: ")),
    (r"bge-(small|base|large)(-en.*)?", Prefixes(_SEARCHING)),
    (r"bge-(small|base|large)-zh.*", Prefixes(_SEARCHING_CHINESE)),
    (r"mxbai-embed-.*", Prefixes(_SEARCHING)),
    (r"snowflake-arctic-embed(2.*|-.*v2\.0)", Prefixes("query: ")),
    (r"snowflake-arctic-embed.*", Prefixes(_SEARCHING)),
    (r"embeddinggemma.*", Prefixes("task: search result | query: ", "title: none | text: ")),
    (r"qwen3-embedding.*", Prefixes(f"Instruct: {_TASK}\nQuery:")),
    (r"gte-qwen2.*-instruct", Prefixes(f"Instruct: {_TASK}\nQuery: ")),
)
"""The first pattern that the whole name fits, in small letters, without owner and tag."""


def of(model: str) -> Prefixes:
    """The prefixes of a model by its name, which may be a path, and may have an owner or a tag."""
    name = model.rstrip("/").rsplit("/", 1)[-1].split(":", 1)[0].lower()
    for pattern, prefixes in BY_NAME:
        if re.fullmatch(pattern, name):
            return prefixes
    return Prefixes()


def chosen(model: str, query: str | None, passage: str | None) -> Prefixes:
    """The prefixes of the model, where the settings name no others."""
    usual = of(model)
    return Prefixes(
        usual.query if query is None else _meant(query),
        usual.passage if passage is None else _meant(passage),
    )


def _meant(setting: str) -> str:
    return "" if setting == NONE else setting
