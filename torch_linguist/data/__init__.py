"""Text to documents, token ids and batches."""

from torch_linguist.data.batches import Batch, Batches, ContiguousBatches, VariableBatches, WindowBatches
from torch_linguist.data.cache import default_cache_dir, prepare
from torch_linguist.data.corpora.corpus import Corpus, Document, MetadataValue
from torch_linguist.data.corpora.hub_corpus import HubCorpus
from torch_linguist.data.corpora.in_memory import InMemoryCorpus
from torch_linguist.data.corpora.sotu import SotuCorpus
from torch_linguist.data.corpora.text import TextCorpus
from torch_linguist.data.corpora.wikitext import WikiTextCorpus
from torch_linguist.data.noising import NoisyBatches, check_noise
from torch_linguist.data.stream import TokenizedCorpus, TokenStream
from torch_linguist.data.tokenizers.character import ByteTokenizerTrainer, CharTokenizerTrainer
from torch_linguist.data.tokenizers.subword import BPETokenizerTrainer, UnigramTokenizerTrainer
from torch_linguist.data.tokenizers.tokenizer import Tokenizer
from torch_linguist.data.tokenizers.tokenizer_trainer import TokenizerTrainer
from torch_linguist.data.tokenizers.transforms import TRANSFORMS
from torch_linguist.data.tokenizers.word import WordTokenizerTrainer, word_tokenizer

__all__ = [
    "TRANSFORMS",
    "BPETokenizerTrainer",
    "Batch",
    "Batches",
    "ByteTokenizerTrainer",
    "CharTokenizerTrainer",
    "ContiguousBatches",
    "Corpus",
    "Document",
    "HubCorpus",
    "InMemoryCorpus",
    "MetadataValue",
    "NoisyBatches",
    "SotuCorpus",
    "TextCorpus",
    "TokenStream",
    "TokenizedCorpus",
    "Tokenizer",
    "TokenizerTrainer",
    "UnigramTokenizerTrainer",
    "VariableBatches",
    "WikiTextCorpus",
    "WindowBatches",
    "WordTokenizerTrainer",
    "check_noise",
    "default_cache_dir",
    "prepare",
    "word_tokenizer",
]
