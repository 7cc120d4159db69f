"""The tokenizers as TorchScript, where neither a tokenizer library nor regular expressions exist.

Strings are bytes in TorchScript. Characters are assembled from UTF-8 first, and their classes are looked up in
ranges of code points.
"""

from torch_linguist.export.scripted.tokenizer import ScriptedTokenizer

__all__ = ["ScriptedTokenizer"]
