"""What may come next in an answer that has a form, or whose thought has had its time: `engine.Constraint`s.

    constraints = Constraints(tokenizer, vocab_size)
    constraint = constraints.of(Grammar((Form("regex", "yes|no"),), opening=""))
    constraint.allowed()                        # [vocab_size] bool
    constraint.push(token)

A grammar is followed by llguidance, byte for byte, so the tokens need not be cut where the grammar is.  Where it is
complete only the end of the text is left.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from ..display import printable
from ..engine.request import Constraint
from ..errors import InputError
from ..templates.replies import END
from ..tokenizers import StopFinder, Tokenizer
from .grammars import Budget, Grammar

# Less than a hundred megabytes; enough for an object with a hundred fields that may be left out.
LIMITS = LLParserLimits(max_lexer_states=50_000, step_max_items=15_000, max_grammar_size=100_000, verbose_errors=False)
# Seconds that a grammar may take in advance, and for each token: everybody waits for them.
AHEAD, EACH = 1.0, 2e-3
# Of a library's complaint, the part that is told.
LONGEST_COMPLAINT = 200
MOST_COMPILED = 32


class _Words:
    """A tokenizer as llguidance asks for one."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.eos_token_id = tokenizer.end_of_text
        self.special_token_ids = [tokenizer.end_of_text]
        self.tokens = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


class Constraints:
    """Makes constraints for a tokenizer; may be used by several threads.  To be made it takes a fifth of a second."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._words = LLTokenizer(TokenizerWrapper(_Words(tokenizer, vocab_size)))
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def of(self, grammar: Grammar | None, budget: Budget | None = None) -> Constraint | None:
        """For one answer; None where anything may come.  Raises InputError for a grammar that is none or too large."""
        form = None if grammar is None else Grammatical(self._matcher(grammar), self._vocab_size)
        end = None if budget is None else Budgeted(self._tokenizer, self._vocab_size, budget)
        return Both(form, end) if form and end else form or end

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        with self._lock:
            matcher = self._compiled.pop(grammar, None) or self._compile(grammar)
            self._compiled[grammar] = matcher
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
            return matcher.deep_copy()

    def _compile(self, grammar: Grammar) -> LLMatcher:
        # The answer alone first: whether anything is of its form shows with the first token.
        for part in (replace(grammar, opening=None, stops=()), grammar):
            matcher = LLMatcher(self._words, part.text(), log_level=0, limits=LIMITS)
            if not matcher.is_error():
                matcher.compute_bitmask()
            if matcher.is_error():
                said = printable(matcher.get_error().replace("<non-verbose/>", ""))[:LONGEST_COMPLAINT]
                raise InputError(f"no answer can be given in this form ({said}); correct or simplify it")
        return matcher


class Grammatical:
    """An answer that follows a grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._seconds_left = AHEAD

    def allowed(self) -> Tensor:
        """See `Constraint`.  Raises InputError where the grammar has become too difficult to follow."""
        start = time.thread_time()
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error() or self._seconds_left < 0:
            raise InputError("the form of the answer is too difficult to follow from here on; simplify it")
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little")
        self._seconds_left -= time.thread_time() - start
        return torch.from_numpy(mask.view(np.bool_))

    def push(self, token: int) -> None:
        """See `Constraint`."""
        start = time.thread_time()
        self._matcher.consume_token(token)
        self._seconds_left = min(AHEAD, self._seconds_left + EACH - (time.thread_time() - start))


class Budgeted:
    """A thought that is ended after its budget, unless it ends by itself."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, budget: Budget) -> None:
        self._left = budget.num_tokens
        self._decoder, self._finder = tokenizer.stream(), StopFinder([END])
        self._anything = torch.ones(vocab_size, dtype=torch.bool)
        # As the models learnt it, the last letter of a mark is one token with what follows.
        last = closing_tokens(tokenizer, vocab_size)
        self._end = [*(_only(token, vocab_size) for token in tokenizer.encode(END[:-1])), last]
        self._forced: list[Tensor] = []
        if budget.num_tokens == 0:
            self._forced, self._end = [last, *self._end] if budget.half_open else self._end, []

    def allowed(self) -> Tensor:
        """See `Constraint`."""
        return self._forced[0] if self._forced else self._anything

    def push(self, token: int) -> None:
        """See `Constraint`."""
        if self._forced:
            del self._forced[0]
            return
        self._left -= 1
        self._finder.push(self._decoder.push(token))
        # Within a character there is no place for the end.
        if self._left <= 0 and self._finder.found is None and not self._decoder.is_unfinished:
            self._forced, self._end = self._end, []


class Both:
    """Two constraints at once."""

    def __init__(self, one: Constraint, other: Constraint) -> None:
        self._one, self._other = one, other

    def allowed(self) -> Tensor:
        """See `Constraint`."""
        return self._one.allowed() & self._other.allowed()

    def push(self, token: int) -> None:
        """See `Constraint`."""
        self._one.push(token)
        self._other.push(token)


def _only(token: int, vocab_size: int) -> Tensor:
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[token] = True
    return mask


@lru_cache(maxsize=4)
def closing_tokens(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """Those that are ">" and white space, [vocab_size] bool.  Callers share it: it must not be written to."""
    texts = map(tokenizer.token_bytes, range(vocab_size))
    return torch.tensor([text[:1] == b">" and not text[1:].strip() for text in texts])
