"""Log-probabilities in the two forms that OpenAI has for them."""

import codecs
from collections.abc import Sequence
from typing import Any

from framework.inference.request import Likelihood
from framework.model.tokenizer import Tokenizer

_LEAST = -9999.0  # JSON has no infinity; vLLM writes the same


class TokenNames:
    """Tokens as they are shown to people and programs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._reserved = {token: text for text, token in tokenizer.reserved.items()}

    def bytes_of(self, token: int) -> bytes:
        """What it stands for; of a control symbol its name."""
        return self._tokenizer.piece(token) or self._reserved.get(token, "").encode()

    def text_of(self, token: int) -> str:
        """The same as text; a part of a character by its bytes, so that no two tokens look alike."""
        data = self.bytes_of(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def in_chat(self, tokens: Sequence[int], likelihoods: Sequence[Likelihood]) -> dict[str, Any]:
        """The field `logprobs` of a choice of a chat."""
        return {
            "content": [
                self._entry(token, one.log_probability)
                | {"top_logprobs": [self._entry(*alternative) for alternative in one.alternatives]}
                for token, one in zip(tokens, likelihoods, strict=True)
            ],
            "refusal": None,
        }

    def _entry(self, token: int, log_probability: float) -> dict[str, Any]:
        data = self.bytes_of(token)
        text = data.decode(errors="replace")
        return {"token": text, "logprob": max(log_probability, _LEAST), "bytes": list(data)}


class Offsets:
    """The field `logprobs` of a completion, which tells where in the text each token begins, piece by piece."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def of(self, tokens: Sequence[int], likelihoods: Sequence[Likelihood]) -> dict[str, Any]:
        """The tokens that follow those of the last call."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(self._names.bytes_of(token)))
        return {
            "tokens": [self._names.text_of(token) for token in tokens],
            "token_logprobs": [max(one.log_probability, _LEAST) for one in likelihoods],
            "top_logprobs": [
                {self._names.text_of(token): max(value, _LEAST) for token, value in one.alternatives}
                for one in likelihoods
            ],
            "text_offset": offsets,
        }
