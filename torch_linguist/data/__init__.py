"""Text to documents, token ids and batches."""

from torch_linguist.data.batches import Batch, Batches, ContiguousBatches, WindowBatches
from torch_linguist.data.cache import default_cache_dir, prepare
from torch_linguist.data.character import ByteTokenizerTrainer, CharTokenizerTrainer
from torch_linguist.data.corpus import Corpus, Document, MetadataValue
from torch_linguist.data.hub_corpus import HubCorpus
from torch_linguist.data.memory import MemoryCorpus
from torch_linguist.data.noising import NoisyBatches, check_noise
from torch_linguist.data.sotu import SotuCorpus
from torch_linguist.data.stream import TokenizedCorpus, TokenStream
from torch_linguist.data.subword import BPETokenizerTrainer, UnigramTokenizerTrainer
from torch_linguist.data.text import TextCorpus
from torch_linguist.data.tokenizer import Tokenizer
from torch_linguist.data.training import TokenizerTrainer
from torch_linguist.data.transforms import TRANSFORMS
from torch_linguist.data.wikitext import WikiTextCorpus
from torch_linguist.data.word import WordTokenizerTrainer

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
    "MemoryCorpus",
    "MetadataValue",
    "NoisyBatches",
    "SotuCorpus",
    "TextCorpus",
    "TokenStream",
    "TokenizedCorpus",
    "Tokenizer",
    "TokenizerTrainer",
    "UnigramTokenizerTrainer",
    "WikiTextCorpus",
    "WindowBatches",
    "WordTokenizerTrainer",
    "check_noise",
    "default_cache_dir",
    "prepare",
]
